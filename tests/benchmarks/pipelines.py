"""Batch runs beside a Python loop that calls onnxruntime on batches which are ready in memory: throughput, and how memory grows with the inputs.

    python -m tests.benchmarks.pipelines [--count 10000] [--batch 32] [--jobs 1 2] [--rounds 3] [--model sample_models/digits_cnn.onnx] [--folder /dev/shm]

`loop` runs netsens's own gradient graph in a plain onnxruntime session. `loop + files` also reads each input with numpy.load and writes each result with
numpy.savez, which is what a script would do. Everything takes its turn in each round, and the least of all rounds counts. Start-up is left out: it is the
time of a run on two inputs."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

import netsens
from netsens.graph.save import model_proto
from netsens.jacobian.gradient_model import gradient_graph
from tests.cli.shell import SAMPLES

RUN = "import resource, sys; from netsens.cli.main import run; c = run(sys.argv[1:]); print(c, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def timed(arguments: list[str], cwd: Path) -> tuple[float, float]:
    """Seconds, and the peak of memory in MiB."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=cwd, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SAMPLES.parent)}
    )
    seconds = time.perf_counter() - begun
    status, peak = map(int, done.stdout.split()[-2:])
    assert status == 0, done.stderr
    return seconds, peak / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=SAMPLES / "digits_cnn.onnx")
    parser.add_argument("--folder", help="where the files are: a disk may take longer for a small file than the model for its numbers")
    asked = parser.parse_args()
    import onnxruntime

    model = netsens.load(asked.model)
    (name,) = model.inputs
    shape = [d for d in (model.inputs[name].shape or ())[1:] if isinstance(d, int)]
    x = np.random.default_rng(0).random((asked.count, *shape), np.float32)
    session = onnxruntime.InferenceSession(model_proto(gradient_graph(model.plan()))[0].SerializeToString())
    output = f"gradient/{name}"
    batches = [x[k : k + asked.batch] for k in range(0, asked.count, asked.batch)]
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        cwd = Path(folder)
        for part in ("data", "few"):
            (cwd / part).mkdir()
        for k, row in enumerate(x):
            np.save(cwd / "data" / f"x{k:06d}.npy", row[None])
        for k in range(2):
            np.save(cwd / "few" / f"x{k}.npy", x[k : k + 1])
        np.save(cwd / "big.npy", x)
        np.save(cwd / "two.npy", x[: 2 * asked.batch])

        def loop() -> tuple[float, float]:
            begun = time.perf_counter()
            for batch in batches:
                session.run([output], {name: batch})
            return time.perf_counter() - begun, 0.0

        def loop_on_files() -> tuple[float, float]:
            (cwd / "out").mkdir()
            begun = time.perf_counter()
            for k in range(0, asked.count, asked.batch):
                rows = [np.load(cwd / "data" / f"x{i:06d}.npy") for i in range(k, min(k + asked.batch, asked.count))]
                (g,) = session.run([output], {name: np.concatenate(rows)})
                for i, row in enumerate(g):
                    np.savez(cwd / "out" / f"x{k + i:06d}.npz", **{name: row[None]})
            seconds = time.perf_counter() - begun
            shutil.rmtree(cwd / "out")
            return seconds, 0.0

        common = ["grad", str(asked.model), "--summary", "none", "-q", "--batch-size", str(asked.batch)]

        def rows() -> tuple[float, float]:
            start, _ = timed([*common, "--input", "two.npy", "-o", "g2.npy"], cwd)
            seconds, peak = timed([*common, "--input", "big.npy", "-o", "g.npy"], cwd)
            return seconds - start, peak

        def files(jobs: int) -> tuple[float, float]:
            start, _ = timed([*common, "--input", "few/*.npy", "-o", "few.out/", "--jobs", str(jobs)], cwd)
            seconds, peak = timed([*common, "--input", "data/*.npy", "-o", "out/", "--jobs", str(jobs)], cwd)
            shutil.rmtree(cwd / "out")
            return seconds - start, peak

        ways = {"loop on ready batches": loop, "loop + numpy.load and numpy.savez": loop_on_files, "netsens, rows of one .npy": rows}
        ways |= {f"netsens, a file an input, --jobs {jobs}": partial(files, jobs) for jobs in asked.jobs}
        session.run([output], {name: batches[0]})
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(asked.rounds):
            for way, measure in ways.items():
                found[way].append(measure())
    print(f"{asked.model.name}, {asked.count} inputs, batches of {asked.batch}, {os.cpu_count()} cores, least of {asked.rounds} rounds")
    least = min(found["loop on ready batches"])[0]
    for way, measured in found.items():
        seconds, peak = min(measured)
        print(f"{way:36} {seconds:8.2f} s  {seconds / least:5.2f}" + (f"   peak {peak:.0f} MiB" if peak else ""))


if __name__ == "__main__":
    main()
