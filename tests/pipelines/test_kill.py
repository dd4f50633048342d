"""Nothing is lost: a run that is killed again and again, interrupted, starved of its inputs or of room ends with the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cli.shell import SAMPLES, is_clear
from tests.cli.shell import netsens as run
from tests.pipelines.forks import Forks, Run

DIGITS = SAMPLES / "digits_cnn.onnx"
KILLS = 20


def make_inputs(folder: Path, count: int) -> None:
    """Digits, now and then two at once, and one file that is no array."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for k in range(count):
        np.save(folder / f"x{k:04d}.npy", generator.random((2 if k % 17 == 3 else 1, 1, 28, 28), np.float32))
    if count > 7:
        (folder / "x0007.npy").write_bytes(b"not an array")


def command(folder: str, *more: str) -> list[str]:
    return ["grad", str(DIGITS), "--input", "data/*.npy", "--of", "logits", "-o", folder, "--summary", "none", "-q", *more]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as found:
        yield found


class Start:
    """Begins runs in the folder of a test; what one says on standard error is in `err`."""

    def __init__(self, forks: Forks, cwd: Path) -> None:
        self.forks, self.cwd = forks, cwd

    def __call__(self, folder: str, *more: str) -> Run:
        return self.forks.start(command(folder, *more), self.cwd, self.cwd / "err")


@pytest.fixture
def start(forks: Forks, tmp_path: Path) -> Start:
    return Start(forks, tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def lines(folder: Path) -> int:
    manifest = folder / "manifest.jsonl"
    return manifest.read_bytes().count(b"\n") if manifest.exists() else 0


def same(a: Path, b: Path) -> None:
    left, right = content(a), content(b)
    assert sorted(left) == sorted(right)
    assert [name for name in left if left[name] != right[name]] == []


def test_killed_twenty_times(start: Start, tmp_path: Path) -> None:
    """A named pipe without a writer stands for the last input until the end, so that no run is done before it is killed, however slow this machine is."""
    make_inputs(tmp_path / "data", 400)
    assert start("whole/").wait() == 3
    last = tmp_path / "data" / "x0399.npy"
    last.rename(tmp_path / "last.npy")
    os.mkfifo(last)
    chance = random.Random(7)
    for attempt in range(KILLS):
        before = lines(tmp_path / "out")
        wanted = before + (chance.randrange(0, 20) if before < 340 else 0)
        process = start("out/", "--resume", *(["--jobs", "2"] if attempt % 10 == 9 else []))
        if attempt % 4 == 2:  # wherever it is by then
            time.sleep(chance.random() * 0.5)
        else:
            until = time.monotonic() + 30
            while lines(tmp_path / "out") <= wanted and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.01)
        assert process.poll() is None
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert lines(tmp_path / "out") > 0
    last.unlink()
    (tmp_path / "last.npy").rename(last)
    assert start("out/", "--resume").wait() == 3
    same(tmp_path / "whole", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [row["input"] for row in rows] == [f"data/x{k:04d}.npy" for k in range(400)]
    assert [row["input"] for row in rows if row["status"] != "done"] == ["data/x0007.npy"]


def test_an_interrupted_run_says_so_and_leaves_whole_results(start: Start, tmp_path: Path) -> None:
    make_inputs(tmp_path / "data", 600)
    process = start("out/")
    while lines(tmp_path / "out") < 40:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    err = (tmp_path / "err").read_bytes()
    assert b"interrupted" in err
    assert b"Traceback" not in err
    assert not list((tmp_path / "out").glob(".*"))
    for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["seconds"] >= 0
        if row["status"] == "done":
            assert (tmp_path / "out" / row["output"]).stat().st_size == row["bytes"]
    assert start("out/", "--resume").wait() == 3
    assert start("whole/").wait() == 3
    same(tmp_path / "whole", tmp_path / "out")


def test_what_is_done_is_told_while_a_slow_input_is_waited_for(start: Start, tmp_path: Path) -> None:
    make_inputs(tmp_path / "data", 9)
    slow = tmp_path / "data" / "x0008.npy"
    content = slow.read_bytes()
    slow.unlink()
    os.mkfifo(slow)
    process = start("out/", "--batch-size", "1")
    while lines(tmp_path / "out") < 8:
        time.sleep(0.002)
    slow.write_bytes(content)
    assert process.wait() == 3
    assert lines(tmp_path / "out") == 9


def test_a_run_that_waits_for_an_input_can_be_interrupted(start: Start, tmp_path: Path) -> None:
    make_inputs(tmp_path / "data", 3)
    os.mkfifo(tmp_path / "data" / "x0003.npy")
    process = start("out/", "--batch-size", "1")
    while lines(tmp_path / "out") < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert b"interrupted" in (tmp_path / "err").read_bytes()


def test_an_input_that_was_away(start: Start, tmp_path: Path) -> None:
    make_inputs(tmp_path / "data", 80)
    assert start("whole/").wait() == 3
    (tmp_path / "list.txt").write_text("".join(f"data/x{k:04d}.npy\n" for k in range(80)))
    for k in (0, 40, 50):
        (tmp_path / "data" / f"x{k:04d}.npy").rename(tmp_path / f"x{k:04d}.npy")
    listed = ("grad", DIGITS, "--inputs-from", "list.txt", "--of", "logits", "-o", "out/", "--resume")
    done = run(*listed, cwd=tmp_path)
    assert done.code == 3
    assert "x0040.npy" in done.err
    for k in (0, 40, 50):
        (tmp_path / f"x{k:04d}.npy").rename(tmp_path / "data" / f"x{k:04d}.npy")
    assert run(*listed, cwd=tmp_path).code == 3
    same(tmp_path / "whole", tmp_path / "out")


def test_a_disk_without_room(start: Start, tmp_path: Path) -> None:
    make_inputs(tmp_path / "data", 80)
    assert start("whole/").wait() == 3

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the manifest meets it first

    environment = {**os.environ, "PYTHONPATH": str(SAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "netsens", *command("out/")], cwd=tmp_path, env=environment, capture_output=True, preexec_fn=little_room, check=False
    )
    assert done.returncode == 2
    assert is_clear(done.stderr.decode(), "--resume")
    assert 0 < lines(tmp_path / "out") < 80
    assert start("out/", "--resume").wait() == 3
    same(tmp_path / "whole", tmp_path / "out")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_standard_output(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "netsens", "grad", str(DIGITS), "--input", str(SAMPLES / "digits.npy"), "-o", "-"], cwd=tmp_path,
                              env={**os.environ, "PYTHONPATH": str(SAMPLES.parent)}, stdout=full, stderr=subprocess.PIPE, check=False)  # fmt: skip
    assert done.returncode == 2
    assert is_clear(done.stderr.decode(), "standard output")


def test_two_runs_into_one_folder(start: Start, tmp_path: Path) -> None:
    make_inputs(tmp_path / "data", 600)
    first = start("out/")
    while lines(tmp_path / "out") < 5:
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = run(*command("out/"), cwd=tmp_path)
        assert second.code == 2
        assert is_clear(second.err, "another run", str(first.pid))
    finally:
        os.kill(first.pid, signal.SIGCONT)
        first.kill()
        first.wait()
    assert (tmp_path / "out" / ".netsens.lock").exists()
    assert start("out/", "--resume").wait() == 3
    assert not (tmp_path / "out" / ".netsens.lock").exists()


def test_resume_takes_only_what_is_valid(tmp_path: Path) -> None:
    make_inputs(tmp_path / "data", 5)
    call = ("grad", DIGITS, "--input", "data/*.npy", "--of", "logits", "-o", "out/")
    assert run(*call, cwd=tmp_path).code == 0
    before = content(tmp_path / "out")
    (tmp_path / "out" / "x0001.npz").write_bytes(b"spoiled")
    (tmp_path / "out" / "x0002.npz").unlink()
    done = run(*call, "--resume", cwd=tmp_path)
    assert "5 of 5 inputs are done, 3 of them before" in done.err
    assert content(tmp_path / "out") == before
    np.save(tmp_path / "data" / "x0004.npy", np.zeros((1, 1, 28, 28), np.float32))
    later = time.time() + 5
    os.utime(tmp_path / "data" / "x0004.npy", (later, later))
    assert "4 of them before" in run(*call, "--resume", cwd=tmp_path).err
    # another question is not answered by these results
    assert "of them before" not in run(*call, "--target", "3", "--resume", cwd=tmp_path).err
