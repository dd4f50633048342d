"""Times gradients side by side, interleaved in one run: onnxruntime's forward pass, netsens's gradient, PyTorch's autograd.

    python -m tests.benchmarks.gradients [--only 'resnet*'] [--full] [--batch 1 16] [--by input params] [--threads 2] [--json FILE]

Ratios are of medians; set-up (loading, building, opening sessions) is shown apart. Small sizes by default, so that a run takes a minute."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import netsens
from netsens.report.render import render
from tests.models.architectures import ARCHITECTURES, Architecture
from tests.models.export import export, seeded


def interleaved(runs: dict[str, Callable[[], Any]], seconds: float, least: int = 5) -> dict[str, float]:
    """The median time of each, taken in turn until `seconds` have passed."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def measure(architecture: Architecture, batch: int, by: str, full: bool, threads: int, seconds: float, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    module = seeded(architecture.full() if full else architecture.small())
    x = architecture.example(batch, full)
    path = export(module, architecture.example(2, full), folder / f"{architecture.name}.onnx", dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    start = time.perf_counter()
    plain = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    opened = time.perf_counter() - start
    feeds = {"x": x.numpy()}
    wrt = "inputs" if by == "input" else "params"
    start = time.perf_counter()
    model = netsens.load(path, threads=threads)
    plan = model.plan(wrt=wrt, method="autodiff")
    session = model.session(id(plan), plan.graph)
    built = time.perf_counter() - start
    for parameter in module.parameters():
        parameter.requires_grad_(by == "params")

    def backward() -> None:
        at = x.clone().requires_grad_() if by == "input" and x.is_floating_point() else x
        if by == "input" and not x.is_floating_point():
            module.tokens.weight.requires_grad_()  # type: ignore[union-attr]
        for parameter in module.parameters():
            parameter.grad = None
        module(at).sum().backward()

    times = interleaved({"forward": lambda: plain.run(None, feeds), "netsens": lambda: session.run(feeds), "torch": backward}, seconds)
    return {
        "model": architecture.name, "batch": batch, "by": by,
        "forward_ms": 1e3 * times["forward"], "netsens_ms": 1e3 * times["netsens"], "torch_ms": 1e3 * times["torch"],
        "netsens/forward": times["netsens"] / times["forward"], "torch/netsens": times["torch"] / times["netsens"],
        "open_s": opened, "setup_s": built, "nodes": len(plan.graph.nodes),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="*")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--by", nargs="+", choices=["input", "params"], default=["input", "params"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            if not fnmatch.fnmatch(architecture.name, a.only):
                continue
            for batch in a.batch:
                for by in a.by:
                    rows.append(measure(architecture, batch, by, a.full, a.threads, a.seconds, Path(folder)))
                    print(json.dumps(rows[-1]), flush=True)
    import sys

    render(rows, "markdown", sys.stdout)
    for by in a.by:
        mine = [r for r in rows if r["by"] == by]
        if mine:
            slower, faster = (math.exp(np.mean([math.log(r[k]) for r in mine])) for k in ("netsens/forward", "torch/netsens"))
            print(f"by {by}: gradient {slower:.2f} x forward, PyTorch {faster:.2f} x netsens (geometric means of {len(mine)})")
    if a.json:
        a.json.write_text(json.dumps({"date": date.today().isoformat(), "machine": platform.processor() or platform.machine(),
                                      "threads": a.threads, "onnxruntime": onnxruntime.__version__, "torch": torch.__version__, "rows": rows}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
