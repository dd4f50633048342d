"""Times gradients side by side: onnxruntime's forward pass, netsens's gradient, and what else gives it, each in a process of its own that takes its turn.

    python -m tests.benchmarks [--only 'resnet*' vit] [--batch 1 16] [--by input params] [--full] [--json NEW.json] [--compare OLD.json]
        [--against torch compile] [--training PYTHON] [--onnxsim PYTHON] [--threads 2] [--seconds 5]

Times are medians (with --least, the least), and ratios are of those; set-up (loading, building, opening, the first run) and the peak memory of the whole process stand apart.
--training and --onnxsim name Pythons with onnxruntime-training 1.19.2 and with onnxsim. Small sizes without --full, so that a run takes a minute."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from netsens.report.render import render
from tests.benchmarks.contender import Case
from tests.models.architectures import ARCHITECTURES
from tests.models.export import export, seeded

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parents[1] / "sample_models"
Row = dict[str, Any]
STATISTIC = "median"  # or "least": what a busy machine disturbs least


class Contender:
    """A process that runs one thing when told to."""

    def __init__(self, name: str, python: str, case: Case) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.peak = 0
        self._process = subprocess.Popen([python, str(HERE / "contender.py"), name, json.dumps(case)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        answer = self._answer()
        self.setup = answer.get("ready")
        self.failed = answer.get("failed", "")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):  # a library may print a line of its own
                found: dict[str, Any] = json.loads(line)
                return found
        return {"failed": "it ended"}

    def turn(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.failed = answer.get("failed", "")
        if not self.failed:
            self.seconds.append(answer["seconds"])
            self.peak = answer["peak"]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def contenders(pythons: dict[str, str], case: Case) -> Iterator[list[Contender]]:
    with ExitStack() as stack:
        found = []
        for name, python in pythons.items():
            found.append(Contender(name, python, case))
            stack.callback(found[-1].end)
        yield found


def measure(title: str, case: Case, pythons: dict[str, str], seconds: float, least: int = 5) -> Row:
    """One row: who was how fast, in turns until `seconds` a contender have passed."""
    with contenders(pythons, case) as everyone:
        racing = [c for c in everyone if not c.failed]
        end = time.perf_counter() + seconds * len(racing)
        while racing and (time.perf_counter() < end or len(racing[0].seconds) < least):
            for contender in racing:
                contender.turn()
                time.sleep(0.005)  # for threads that spin a while after their work
            racing = [c for c in racing if not c.failed]
    row: Row = {"model": title, "batch": case["batch"], "by": case["by"]}
    for c in everyone:
        if c.seconds and not c.failed:
            row[c.name] = {
                "median_ms": 1e3 * statistics.median(c.seconds),
                "least_ms": 1e3 * min(c.seconds),
                "runs": len(c.seconds),
                "setup_s": c.setup,
                "peak_mb": c.peak / 1e6,
            }
        else:
            row[c.name] = {"failed": c.failed}
    return row


def cases(only: Sequence[str], full: bool, batches: Sequence[int], by: Sequence[str], threads: int, training: bool, folder: Path) -> Iterator[tuple[str, Case]]:
    common = {"full": full, "threads": threads}
    for architecture in ARCHITECTURES:
        if any(fnmatch.fnmatch(architecture.name, o) for o in only):
            torch.manual_seed(0)
            module = seeded(architecture.full() if full else architecture.small())
            path = export(module, architecture.example(2, full), folder / f"{architecture.name}.onnx", dynamo=False)
            folded = (
                path if not training else export(module, architecture.example(2, full), folder / f"{architecture.name}.folded.onnx", dynamo=False, folded=True)
            )
            del module
            for batch in batches:
                x = folder / f"{architecture.name}.{batch}.npy"
                np.save(x, architecture.example(batch, full).numpy())
                for one in by:
                    yield (
                        architecture.name,
                        {**common, "model": str(path), "folded": str(folded), "x": str(x), "architecture": architecture.name, "batch": batch, "by": one},
                    )
            path.unlink()
            folded.unlink(missing_ok=True)
    for path in sorted(SAMPLES.glob("*.onnx")):
        if any(fnmatch.fnmatch(path.stem, o) for o in only):
            for batch in batches:
                x = folder / f"{path.stem}.{batch}.npy"
                np.save(x, sample_input(path, batch))
                for one in by:
                    yield path.stem, {**common, "model": str(path), "folded": str(path), "x": str(x), "architecture": None, "batch": batch, "by": one}


def sample_input(path: Path, batch: int) -> Any:
    given = onnx.load(str(path)).graph.input[0].type.tensor_type
    shape = [d.dim_value or (batch if k == 0 else 16) for k, d in enumerate(given.shape.dim)]
    random = np.random.default_rng(0)
    return random.standard_normal(shape).astype(np.float32) if given.elem_type == 1 else random.integers(0, 8, shape)


def ratio(row: Row, over: str, under: str) -> float | None:
    a, b = (row.get(n, {}).get(f"{STATISTIC}_ms") for n in (over, under))
    return a / b if a and b else None


def shown(row: Row, names: Sequence[str]) -> Row:
    """A row as people read it."""
    found: Row = {k: row[k] for k in ("model", "batch", "by")}
    for name in names:
        one = row.get(name, {})
        found[f"{name} ms"] = f"{one[f'{STATISTIC}_ms']:.1f}" if "median_ms" in one else "-"
    for label, over, under in (("grad / forward", "netsens", "forward"), *((f"{n} / netsens", n, "netsens") for n in names[2:])):
        value = ratio(row, over, under)
        found[label] = "-" if value is None else f"{value:.2f}"
    for key, unit in (("setup_s", "s"), ("peak_mb", "MB")):
        one = row.get("netsens", {})
        found[f"{key.split('_')[0]} {unit}"] = f"{one[key]:.3g}" if key in one else "-"
    return found


def means(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """The geometric means, for each question."""
    for by, batch in sorted({(r["by"], r["batch"]) for r in rows}):
        mine = [r for r in rows if (r["by"], r["batch"]) == (by, batch)]
        said = []
        for label, over, under in (("of the forward pass", "netsens", "forward"), *((f"{n} / netsens", n, "netsens") for n in names[2:])):
            values = [v for r in mine if (v := ratio(r, over, under))]
            if values:
                said.append(f"{label} {math.exp(statistics.fmean(map(math.log, values))):.2f} (of {len(values)}, {min(values):.2f} to {max(values):.2f})")
        yield f"by {by}, batch {batch}: " + "; ".join(said)


def compared(rows: Sequence[Row], old: Sequence[Row]) -> list[Row]:
    """How the cost of a gradient in forward passes has changed since another run."""
    before = {(r["model"], r["batch"], r["by"]): ratio(r, "netsens", "forward") for r in old}
    found = []
    for row in rows:
        was, now = before.get((row["model"], row["batch"], row["by"])), ratio(row, "netsens", "forward")
        if was and now:
            found.append(
                {"model": row["model"], "batch": row["batch"], "by": row["by"], "was": f"{was:.2f}", "now": f"{now:.2f}", "change": f"{now / was - 1:+.0%}"}
            )
    return found


def processor() -> str:
    try:
        return next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"])
    parser.add_argument("--full", action="store_true", help="models at the sizes that people use")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--by", nargs="+", choices=["input", "params"], default=["input", "params"])
    parser.add_argument("--against", nargs="*", choices=["torch", "compile"], default=["torch"])
    parser.add_argument("--training", metavar="PYTHON")
    parser.add_argument("--onnxsim", metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contender")
    parser.add_argument("--least", action="store_true", help="compare the least times, not the medians: on a machine that others use too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--compare", type=Path, metavar="OLD.json")
    a = parser.parse_args()
    global STATISTIC
    STATISTIC = "least" if a.least else "median"
    pythons = dict.fromkeys(["forward", "netsens", *a.against], sys.executable)
    pythons |= {name: python for name, python in (("ort-training", a.training), ("graph_grad", a.onnxsim)) if python}
    about = {"date": date.today().isoformat(), "machine": processor(), "cores": os.cpu_count(), "threads": a.threads, "full": a.full,
             "statistic": STATISTIC, "onnxruntime": onnxruntime.__version__, "torch": torch.__version__}  # fmt: skip
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for title, case in cases(a.only, a.full, a.batch, a.by, a.threads, bool(a.training), Path(folder)):
            rows.append(measure(title, case, pythons, a.seconds))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if a.json:
                a.json.write_text(json.dumps({**about, "rows": rows}, indent=1))
    render([shown(row, list(pythons)) for row in rows], "markdown", sys.stdout)
    for line in means(rows, list(pythons)):
        print(line)
    if a.compare:
        render(compared(rows, json.loads(a.compare.read_text())["rows"]), "markdown", sys.stdout)


if __name__ == "__main__":
    main()
