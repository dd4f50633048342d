"""Times whole processes: `netsens grad` on small models, from the cache and the first time, beside importing NumPy and onnxruntime; `--help` beside click.

    python -m tests.benchmarks.startup [--rounds 20] [--json NEW.json]

Where the Python that runs this has a `netsens` installed beside it, that is what starts; else `python -m netsens` from this folder. Everything takes its turn in
each round, and a ratio is the median of the ratios within rounds, so that a machine which others use too disturbs it little."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from netsens.report.render import render
from tests.cli.shell import SAMPLES

INPUTS = {"digits_cnn": "digits.npy", "pendulum_lstm": "series.npy", "diabetes_mlp": "diabetes.csv", "sentiment_attention": "tokens.npy"}


def seconds(command: list[str], folder: Path, cache: Path) -> float:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "NETSENS_MODEL")}
    environment = {**kept, "NETSENS_CACHE": str(cache), "PYTHONPATH": os.pathsep.join([*filter(None, [kept.get("PYTHONPATH")]), str(SAMPLES.parent)])}
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.startup", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    script = Path(sys.executable).with_name("netsens")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "netsens"]
    imports, click = "import numpy, onnxruntime", "import click"
    # what runs, and beside what
    commands: dict[str, tuple[list[str], str]] = {text: ([sys.executable, "-c", text], text) for text in (imports, click)}
    commands["netsens --help"] = ([*program, "--help"], click)
    for model, x in INPUTS.items():
        command = [*program, "grad", str(SAMPLES / f"{model}.onnx"), "--input", str(SAMPLES / x)]
        commands[f"{model}, cached"] = (command, imports)
        commands[f"{model}, first time"] = (command, imports)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(asked.rounds + 1):  # the first fills the cache, and Python's own
            for name, (command, _) in commands.items():
                cache = folder / (f"cache{number}" if name.endswith("first time") else "cache")
                found = seconds(command, folder, cache)
                if number:
                    taken[name].append(found)
    rows = [
        {
            "name": name, "least ms": 1e3 * min(taken[name]), "median ms": 1e3 * statistics.median(taken[name]), "beside": beside,
            "times": statistics.median(a / b for a, b in zip(taken[name], taken[beside], strict=True)),
        }
        for name, (_, beside) in commands.items()
    ]  # fmt: skip
    render(rows, "markdown", sys.stdout)
    if asked.json:
        asked.json.write_text(
            json.dumps({"date": date.today().isoformat(), "cores": os.cpu_count(), "program": program, "rounds": asked.rounds, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
