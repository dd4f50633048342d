"""Times gradients side by side: onnxruntime's forward pass, netsens's gradient, and what else gives it, each in a process of its own that takes its turn.

    python -m tests.benchmarks [--only 'resnet*' vit] [--batch 1 16] [--by input params] [--full] [--json NEW.json [--add]] [--compare OLD.json]
        [--against torch compile] [--jax PYTHON] [--training PYTHON] [--onnxsim PYTHON] [--threads 2] [--seconds 5]
    python -m tests.benchmarks --show RUN.json [--compare OLD.json]

Times are medians (with --least, the least), and ratios are of those; set-up (loading, building, opening, the first run; not imports) and the peak memory of the
whole process stand apart. Every contender hands over its gradient first, and who disagrees with netsens isn't timed. --jax, --training and --onnxsim name
Pythons with JAX, with onnxruntime-training 1.19.2 and with onnxsim. Small sizes without --full, so that a run takes minutes."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from tests.benchmarks.contenders.case import Case, wanted
from tests.benchmarks.race import measure
from tests.benchmarks.results import compared, refusals, report
from tests.models.architectures import ARCHITECTURES, Architecture
from tests.models.export import export, seeded

Question = tuple[str, int, str]  # model, batch, by
SAMPLES = Path(__file__).parents[2] / "sample_models"
OTHERS = {"jax": "jax", "ort-training": "onnxruntime-training", "graph_grad": "onnxsim"}  # run by Pythons of their own, and the package that each wants there


def cases(asked: Sequence[Question], full: bool, pythons: Sequence[str], folder: Path) -> Iterator[tuple[str, Case]]:
    """What is asked, of each model in turn; each exported once, in place of the one before."""

    def each(name: str, inputs: Callable[[int], Any], about: Callable[[], Case]) -> Iterator[tuple[str, Case]]:
        mine = [(batch, by) for model, batch, by in asked if model == name]
        found = about() if mine else {}
        for batch, by in mine:
            np.save(folder / "x.npy", inputs(batch))
            of_input = wanted({"by": "input"}, onnx.load(found["model"]))[0]
            yield name, {**found, "input": of_input, "x": str(folder / "x.npy"), "full": full, "batch": batch, "by": by, "folder": str(folder)}

    for a in ARCHITECTURES:
        yield from each(a.name, lambda batch, a=a: a.example(batch, full).numpy(), lambda a=a: exported(a, full, pythons, folder))
    for path in samples():
        as_it_is = {"model": str(path), "folded": str(path), "weights": None, "wrt": None, "architecture": None}
        yield from each(path.stem, lambda batch, path=path: sample_input(path, batch), lambda about=as_it_is: about)


def samples() -> list[Path]:
    return sorted(SAMPLES.glob("*.onnx"))


def exported(architecture: Architecture, full: bool, pythons: Sequence[str], folder: Path) -> Case:
    """The model as ONNX with its parameters as they are; and what some contenders want besides: folded, or its weights alone."""
    torch.manual_seed(0)
    module = seeded(architecture.full() if full else architecture.small())
    example = architecture.example(2, full)
    model, folded, weights = (folder / name for name in ("model.onnx", "folded.onnx", "weights.npz"))
    export(module, example, model, dynamo=False)
    if "ort-training" in pythons:
        export(module, example, folded, dynamo=False, folded=True)
    if "jax" in pythons:
        np.savez(weights, **{name: value.detach().numpy() for name, value in module.state_dict().items()})
    return {"model": str(model), "folded": str(folded), "weights": str(weights), "wrt": [name for name, _ in module.named_parameters()],
            "architecture": architecture.name}  # fmt: skip


def sample_input(path: Path, batch: int) -> Any:
    given = onnx.load(str(path)).graph.input[0].type.tensor_type
    shape = [d.dim_value or (batch if k == 0 else 16) for k, d in enumerate(given.shape.dim)]
    random = np.random.default_rng(0)
    return random.standard_normal(shape).astype(np.float32) if given.elem_type == 1 else random.integers(0, 8, shape)


def processor() -> str:
    try:
        return next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def version(python: str, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def race(a: argparse.Namespace) -> dict[str, Any]:
    """The run, written to its file row by row."""
    pythons = dict.fromkeys(["forward", "netsens", *a.against], sys.executable)
    pythons |= {name: python for name, python in zip(OTHERS, (a.jax, a.training, a.onnxsim), strict=True) if python}
    old = json.loads(a.json.read_text()) if a.add and a.json.exists() else {"contenders": [], "rows": [], "versions": {}}
    rows: list[dict[str, Any]] = old["rows"]
    there = {(row["model"], row["batch"], row["by"]) for row in rows}
    names = [*(architecture.name for architecture in ARCHITECTURES), *(path.stem for path in samples())]
    asked = [(name, batch, by) for name in names if any(fnmatch.fnmatch(name, o) for o in a.only) for batch in a.batch for by in a.by]
    run = {"date": date.today().isoformat(), "machine": processor(), "cores": os.cpu_count(), "threads": a.threads, "full": a.full,
           "statistic": "least" if a.least else "median", "contenders": list(dict.fromkeys([*old["contenders"], *pythons])), "rows": rows,
           "versions": {**old["versions"], "onnxruntime": onnxruntime.__version__, "torch": torch.__version__}
                       | {OTHERS[n]: version(p, OTHERS[n]) for n, p in pythons.items() if n in OTHERS}}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for title, case in cases([question for question in asked if question not in there], a.full, list(pythons), Path(folder)):
            rows.append(measure(title, {**case, "threads": a.threads}, pythons, a.seconds))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if a.json:
                a.json.write_text(json.dumps(run, indent=1) + "\n")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"])
    parser.add_argument("--full", action="store_true", help="models at the sizes that people use")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--by", nargs="+", choices=["input", "params"], default=["input", "params"])
    parser.add_argument("--against", nargs="*", choices=["torch", "compile"], default=["torch"])
    parser.add_argument("--jax", metavar="PYTHON")
    parser.add_argument("--training", metavar="PYTHON")
    parser.add_argument("--onnxsim", metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contender")
    parser.add_argument("--least", action="store_true", help="compare the least times, not the medians: on a machine that others use too")
    parser.add_argument("--json", type=Path, metavar="NEW.json")
    parser.add_argument("--add", action="store_true", help="to NEW.json what it hasn't yet: a long run in parts")
    parser.add_argument("--compare", type=Path, metavar="OLD.json")
    parser.add_argument("--show", type=Path, metavar="RUN.json", help="a run that was, instead of a new one")
    a = parser.parse_args()
    if a.add and not a.json:
        parser.error("--add wants --json, the file to add to")
    run = json.loads(a.show.read_text()) if a.show else race(a)
    print(report(run))
    for line in refusals(run):
        print(f"- {line}")
    if a.compare:
        print(f"\n{compared(run, json.loads(a.compare.read_text()))}")


if __name__ == "__main__":
    main()
