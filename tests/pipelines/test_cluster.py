"""The same batch on a Dask cluster of worker processes, one of which is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import netsens
from netsens.errors import RunError
from netsens.pipeline.cluster import _Sent
from netsens.pipeline.question import GradientQuestion
from netsens.pipeline.work import Entry, Outcome, Result, Unit, Work
from netsens.report.inputs import Sample
from tests.cli.shell import SAMPLES, is_clear, shell
from tests.cli.shell import netsens as run
from tests.pipelines.test_kill import content, make_inputs, same

pytest.importorskip("distributed")
DIGITS = SAMPLES / "digits_cnn.onnx"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SAMPLES.parent)}
CLUSTER = """
import distributed, sys
if __name__ == "__main__":
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, *(worker.pid for worker in cluster.workers.values()), flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """A scheduler's address and the process numbers of its two workers."""
    (tmp_path / "cluster.py").write_text(CLUSTER)
    with (
        (tmp_path / "cluster.err").open("wb") as err,
        subprocess.Popen([sys.executable, "cluster.py"], cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err) as process,
    ):
        assert process.stdout is not None
        address, *workers = process.stdout.readline().decode().split()
        yield address, [int(w) for w in workers]
        process.communicate()


def test_a_worker_killed_in_the_middle(cluster: tuple[str, list[int]], tmp_path: Path) -> None:
    address, workers = cluster
    make_inputs(tmp_path / "data", 400)
    call = ["grad", str(DIGITS), "--input", f"{tmp_path}/data/*.npy", "--of", "logits", "--batch-size", "4", "--summary", "none"]
    assert run(*call, "-o", "whole/", cwd=tmp_path).code == 3
    with (tmp_path / "err").open("wb") as err:
        out = f"{tmp_path}/out/"
        process = subprocess.Popen([sys.executable, "-m", "netsens", *call, "-o", out, "--dask", address], cwd=tmp_path, env=ENVIRONMENT, stderr=err)
    manifest = tmp_path / "out" / "manifest.jsonl"
    while process.poll() is None and not (manifest.exists() and manifest.read_bytes().count(b"\n") > 20):
        time.sleep(0.002)
    assert process.poll() is None
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait(120) == 3, (tmp_path / "err").read_text()
    same(tmp_path / "whole", tmp_path / "out")


class Lost:
    """A future whose result is gone for good, or there."""

    def __init__(self, gone: bool, result: Result) -> None:
        self.gone, self.found = gone, result

    def result(self) -> Result:
        if self.gone:
            raise RuntimeError("the key is forgotten")
        return self.found


class Forgetful:
    """A client of a cluster that loses `times` results, and the work with them."""

    def __init__(self, times: int) -> None:
        self.times, self.scattered, self.status = times, 0, "cancelled"

    def scatter(self, work: Work, **options: bool) -> Forgetful:
        self.scattered += 1
        return self

    def submit(self, function: object, work: object, unit: Unit, **options: object) -> Lost:
        self.times -= 1
        return Lost(self.times >= 0, Result([Outcome(entry) for entry in unit.entries]))


def test_a_result_that_went_with_its_worker_is_asked_for_again() -> None:
    unit = Unit((Entry(0, 0, "x", "x.npy"),))
    work = Work(GradientQuestion(netsens.load(DIGITS), ["inputs"]), read_nothing)
    client = Forgetful(2)
    sent = _Sent(client, work)
    assert sent.result(unit, sent.submit(unit)).outcomes[0].entry.source == "x.npy"
    assert client.scattered == 3
    sent = _Sent(Forgetful(9), work)
    with pytest.raises(RunError, match=r"gave up on 'x\.npy'"):
        sent.result(unit, sent.submit(unit))


def read_nothing(name: str, path: str) -> Sample:
    raise AssertionError(path)


def test_a_list_of_jacobians(cluster: tuple[str, list[int]], tmp_path: Path) -> None:
    """From a folder that is not the workers', by paths relative to it, with a model that the cache knows."""
    address, _ = cluster
    here = tmp_path / "mine"
    here.mkdir()
    (here / "model.onnx").write_bytes(DIGITS.read_bytes())
    for k in range(4):
        np.save(here / f"x{k}.npy", np.random.default_rng(k).random((1, 1, 28, 28), np.float32))
    (here / "list.txt").write_text("".join(f"x{k}.npy\n" for k in range(4)) + "gone.npy\n")
    call = "netsens jacobian model.onnx --layer relu1 --wrt params --inputs-from list.txt"
    done = shell(f"{call} -o out/ --dask {address}", here)
    assert done.code == 3, done.err
    assert is_clear(done.err, "no such file: 'gone.npy'")
    assert len(done.text.splitlines()) == 4 * 6  # a row a parameter
    assert shell(f"{call} -o here/", here).code == 3
    left, right = content(here / "out"), content(here / "here")
    assert sorted(left) == sorted(right)
    for name in left:
        if name.endswith(".npz"):
            with np.load(here / "out" / name) as a, np.load(here / "here" / name) as b:
                assert a["conv1.weight"].shape == (1, 8, 28, 28, 8, 1, 3, 3)
                for key in b.files:
                    np.testing.assert_allclose(a[key], b[key], rtol=1e-5, atol=1e-5)
    # a gradient, whose graph the cache has by the second time
    kept = {"NETSENS_CACHE": str(tmp_path / "cache")}
    for k in range(2):
        done = run("grad", "model.onnx", "--inputs-from", "list.txt", "--of", "logits", "-o", f"g{k}/", "--dask", address, cwd=here, environment=kept)
        assert done.code == 3, done.err
    same(here / "g0", here / "g1")
    done = run("grad", "model.onnx", "--input", "x0.npy", "--batch-size", "1", "--of", "logits", "-o", "g.npy", "--dask", address, cwd=here)
    assert done.code == 0, done.err


def test_no_scheduler_there(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{SAMPLES}/digits.npy\n")
    done = run("grad", DIGITS, "--inputs-from", "list.txt", "-o", "out/", "--dask", "tcp://127.0.0.1:1", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "tcp://127.0.0.1:1")


def test_remote_paths(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    make_inputs(tmp_path / "data", 5)
    call = ("grad", DIGITS, "--input", f"file://{tmp_path}/data/*.npy", "--of", "logits", "-o", f"file://{tmp_path}/out/")
    done = run(*call, cwd=tmp_path)
    assert done.code == 0, done.err
    assert run("grad", DIGITS, "--input", "data/*.npy", "--of", "logits", "-o", "here/", cwd=tmp_path).code == 0
    left, right = content(tmp_path / "out"), content(tmp_path / "here")
    assert {k: v for k, v in left.items() if k.endswith("npz")} == {k: v for k, v in right.items() if k.endswith("npz")}
    rows = [json.loads(line) for line in left["manifest.jsonl"].splitlines()]
    assert [row["status"] for row in rows] == ["done"] * 5
    again = run(*call, "--resume", cwd=tmp_path)
    assert "5 of them before" in again.err
    done = run("grad", DIGITS, "--input", f"file://{tmp_path}/nowhere.npy", "-o", "g.npy", cwd=tmp_path)
    assert is_clear(done.err, "nowhere.npy")
