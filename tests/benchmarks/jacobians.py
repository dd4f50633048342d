"""Times whole Jacobians side by side, in turns within one run: netsens, `torch.func.jacrev` and `jacfwd`, a loop of `autograd.grad`, and where they are
installed jitted `jax.jacfwd` and `jacrev`, and asdex.

    python -m tests.benchmarks.jacobians [--only 'relu1*'] [--threads 2] [--seconds 10] [--slowest 20] [--json FILE]

Each row's numbers are compared before they are timed. A turn is as many calls in a row as fit into a twentieth of a second, so that each finds its own
memory warm; a figure is the least of all turns, since others on the machine only ever add. The first table has milliseconds of a call with
everything built and the best of the others over netsens; the second what comes before the first call: of netsens structure, plan and sessions, of
JAX tracing and compiling, of asdex detection and colouring too. What takes longer than `--slowest` seconds runs once, or is estimated from a part (~). JAX
takes all cores; give it as many as the others with `taskset`."""

from __future__ import annotations

import argparse
import fnmatch
import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn

import netsens
from netsens.report.render import render

SAMPLES = Path(__file__).parents[2] / "sample_models"


@dataclass
class Row:
    """One Jacobian: as netsens is asked for it, and as a function of PyTorch. `by` is the argument of `function` that it is taken by."""

    name: str
    model: netsens.Model
    x: np.ndarray
    ask: dict[str, Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    by: int = 0
    per_sample: bool = False
    twin: str = ""  # of `tests.benchmarks.twins`
    module: nn.Module | None = None
    fixed: dict[str, torch.Tensor] | None = None


def exported(module: nn.Module, x: torch.Tensor) -> netsens.Model:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N"}, "y": {0: "N"}})
    return netsens.load(file.getvalue(), threads=torch.get_num_threads())


def digits(by_image: bool) -> Row:
    model = netsens.load(SAMPLES / "digits_cnn.onnx", threads=torch.get_num_threads())
    x = np.load(SAMPLES / "digits.npy")
    names = ["conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"]
    values = {n: torch.from_numpy(np.array(model.graph.constants[n])) for n in [*names, "bn1.running_mean", "bn1.running_var"]}
    fixed = {n: values.pop(n) for n in ("bn1.running_mean", "bn1.running_var")}

    def relu1(image: torch.Tensor, p: dict[str, torch.Tensor]) -> torch.Tensor:
        c = nn.functional.conv2d(image, p["conv1.weight"], p["conv1.bias"], padding=1)
        normed = nn.functional.batch_norm(c, fixed["bn1.running_mean"], fixed["bn1.running_var"], p["bn1.weight"], p["bn1.bias"])
        return torch.relu(normed)

    arguments = (torch.from_numpy(x), values)
    if by_image:
        return Row("relu1 by image", model, x, {"of": "relu1"}, relu1, arguments, twin="relu1", fixed=fixed)
    return Row("relu1 by parameters", model, x, {"of": "relu1", "wrt": names}, relu1, arguments, by=1, twin="relu1", fixed=fixed)


def mlp() -> Row:
    module = nn.Sequential(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 10)).eval()
    x = torch.randn(4096, 64)
    return Row("MLP by sample x 4,096", exported(module, x[:2]), x.numpy(), {"per_sample": True}, module, (x,), per_sample=True, twin="dense", module=module)


def autoencoder() -> Row:
    widths = [784, 256, 16, 256, 784]
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.Tanh()]
    module = nn.Sequential(*layers[:-1]).eval()
    x = torch.randn(1, 784)
    return Row("autoencoder", exported(module, x), x.numpy(), {}, module, (x,), twin="dense", module=module)


def series() -> Row:
    module = nn.Sequential(
        nn.Conv1d(1, 16, 5, padding=2), nn.Tanh(), nn.Conv1d(16, 16, 5, padding=4, dilation=2), nn.Tanh(), nn.Conv1d(16, 1, 5, padding=2)
    ).eval()  # fmt: skip
    x = torch.randn(1, 1, 1024)
    return Row("1-D convolutions", exported(module, x), x.numpy(), {}, module, (x,), twin="series", module=module)


class UNet(nn.Module):
    """Two levels, 64x64 to 64x64."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.middle = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down(x)
        return self.last(torch.cat([a, self.up(self.middle(self.pool(a)))], 1))


def unet() -> Row:
    module = UNet().eval()
    x = torch.randn(1, 1, 64, 64)
    return Row("U-Net by image", exported(module, x), x.numpy(), {}, module, (x,), twin="unet", module=module)


class Encoder(nn.Module):
    """Two layers of attention over embeddings, and logits of the mean."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(2)])
        self.out = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.norm = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, s, d = x.shape
        for qkv, out, norm in zip(self.qkv, self.out, self.norm, strict=True):
            q, k, v = (t.reshape(n, s, self.heads, d // self.heads).transpose(1, 2) for t in qkv(norm(x)).chunk(3, -1))
            a = torch.softmax(q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5, -1) @ v
            x = x + out(a.transpose(1, 2).reshape(n, s, d))
        return self.head(x.mean(1))


def encoder() -> Row:
    module = Encoder().eval()
    x = torch.randn(1, 64, 32)
    return Row("encoder by tokens", exported(module, x), x.numpy(), {}, module, (x,), twin="encoder", module=module)


ROWS: dict[str, Callable[[], Row]] = {
    "relu1-parameters": lambda: digits(False), "relu1-image": lambda: digits(True), "mlp": mlp, "autoencoder": autoencoder, "series": series, "unet": unet,
    "encoder": encoder,
}  # fmt: skip


def loop(row: Row) -> tuple[Callable[[int], Any], int]:
    """A loop of `autograd.grad` over outputs, as one would write it: the first n of them; and how many there are."""
    arguments = list(row.arguments)
    leaf = arguments[row.by]
    leaves = {k: v.clone().requires_grad_() for k, v in leaf.items()} if isinstance(leaf, dict) else leaf.clone().requires_grad_()
    arguments[row.by] = leaves
    wanted = list(leaves.values()) if isinstance(leaves, dict) else [leaves]
    with torch.no_grad():
        count = row.function(*arguments).numel() // (len(row.x) if row.per_sample else 1)

    def run(n: int) -> Any:
        y = row.function(*arguments)
        flat = y.sum(0) if row.per_sample else y.reshape(-1)
        return [torch.autograd.grad(flat[k], wanted, retain_graph=True) for k in range(n)]

    return run, count


def others(row: Row) -> dict[str, Callable[[], Any]]:
    torch_function = row.function
    if row.per_sample:
        (x,) = row.arguments
        return {name: (lambda f=f: torch.func.vmap(f(torch_function))(x)) for name, f in (("jacrev", torch.func.jacrev), ("jacfwd", torch.func.jacfwd))}
    return {
        name: (lambda f=f: f(torch_function, argnums=row.by)(*row.arguments)) for name, f in (("jacrev", torch.func.jacrev), ("jacfwd", torch.func.jacfwd))
    }  # fmt: skip


def jax_runs(row: Row) -> dict[str, Callable[[], Callable[[], Any]]]:
    """What builds each of JAX's ways; nothing where JAX isn't installed."""
    try:
        from tests.benchmarks import twins
    except ImportError:
        return {}
    function = getattr(twins, row.twin)(row.fixed if row.fixed is not None else row.module)
    return twins.runs(function, row.arguments, row.by, row.per_sample)


def difference(ours: dict[str, np.ndarray], theirs: Any) -> float:
    """The largest relative difference."""
    pairs = [(ours[k], v) for k, v in theirs.items()] if isinstance(theirs, dict) else [(next(iter(ours.values())), theirs)]
    worst = 0.0
    for a, b in pairs:
        exact = (b.detach().numpy() if isinstance(b, torch.Tensor) else b).reshape(a.shape)
        worst = max(worst, float(np.abs(a - exact).max() / max(1.0, np.abs(exact).max())))
    return worst


def measure(row: Row, seconds: float, slowest: float) -> dict[str, Any]:
    """Times of a call, and of what comes before the first."""
    start = time.perf_counter()
    ours = row.model.jacobian(row.x, **row.ask)
    setup = {"netsens": time.perf_counter() - start}
    plan = row.model.jacobian_plan(row.x, **{k: v for k, v in row.ask.items() if k in ("of", "wrt")})
    runs: dict[str, Callable[[], Any]] = {"netsens": lambda: row.model.jacobian(row.x, **row.ask)}
    times: dict[str, list[float]] = {}
    estimated: dict[str, float] = {}
    worst = 0.0
    built: dict[str, Callable[[], Callable[[], Any]]] = {name: (lambda run=run: run) for name, run in others(row).items()} | jax_runs(row)
    for name, build in built.items():
        try:
            start = time.perf_counter()
            run = build()
            before = time.perf_counter() - start
            start = time.perf_counter()
            found = run()
            taken = time.perf_counter() - start
        except (RuntimeError, MemoryError, NotImplementedError) as error:
            print(f"{row.name}: {name} can't: {str(error).splitlines()[0][:100]}", file=sys.stderr)
            continue
        if before > 0.01:
            setup[name] = before
        worst = max(worst, difference(ours, found))
        if taken > slowest:
            times[name] = [taken]
        else:
            runs[name] = run
    one, count = loop(row)
    start = time.perf_counter()
    one(min(count, 8))
    eight = time.perf_counter() - start
    if eight / min(count, 8) * count > slowest / 4:
        some = min(count, 64)
        start = time.perf_counter()
        one(some)
        estimated["loop"] = (time.perf_counter() - start) / some * count
    else:
        runs["loop"] = lambda: one(count)
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end or rounds < 3:
        rounds += 1
        for name, run in runs.items():
            times.setdefault(name, []).append(least(run))
    best_of = {name: min(t) for name, t in times.items()} | estimated
    own = best_of["netsens"]
    best = min((k for k in best_of if k != "netsens"), key=best_of.__getitem__)
    return {
        "name": row.name, "mode": plan.mode, "passes": plan.passes, "milliseconds": {k: v * 1e3 for k, v in best_of.items()},
        "estimated": sorted(estimated), "set-up": {k: v * 1e3 for k, v in setup.items()}, "best": best, "ratio": best_of[best] / own,
        "loop ratio": best_of["loop"] / own, "difference": worst,
    }  # fmt: skip


def least(run: Callable[[], Any]) -> float:
    """The shortest of some calls in a row."""
    found, end = [], time.perf_counter() + TURN
    while not found or (time.perf_counter() < end and len(found) < 50):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


TURN = 0.05  # seconds
NAMES = ("netsens", "jacrev", "jacfwd", "loop", "jax jacrev", "jax jacfwd", "asdex")
SET_UP = ("netsens", "jax jacrev", "jax jacfwd", "asdex")


def tables(rows: list[dict[str, Any]], stream: TextIO) -> None:
    """Calls, and what comes before them."""

    def shown(row: dict[str, Any], kind: str, name: str) -> str:
        value = row[kind].get(name)
        return "-" if value is None else f"{'~' if name in row['estimated'] and kind == 'milliseconds' else ''}{three(value)}"

    print("Milliseconds of a call\n", file=stream)
    calls = [
        {"name": r["name"], **{n: shown(r, "milliseconds", n) for n in NAMES}, "x": f"{r['ratio']:.3g}", "x loop": f"{r['loop ratio']:,.3g}"} for r in rows
    ]
    render(calls, "table", stream, width=100)
    print("\nMilliseconds before the first call, and how it goes\n", file=stream)
    before = [
        {"name": r["name"], **{n: shown(r, "set-up", n) for n in SET_UP}, "mode": r["mode"], "passes": r["passes"], "difference": f"{r['difference']:.0e}"}
        for r in rows
    ]
    render(before, "table", stream, width=100)


def three(value: float) -> str:
    """Three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--slowest", type=float, default=20.0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    rows = []
    for name, make in ROWS.items():
        if fnmatch.fnmatch(name, arguments.only):
            torch.manual_seed(0)
            rows.append(measure(make(), arguments.seconds, arguments.slowest))
            print(f"{name}: done", file=sys.stderr, flush=True)
    tables(rows, sys.stdout)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
