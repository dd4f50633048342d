"""Contenders, each in a process of its own, that take turns; and what comes of it: how fast each was, what it took to set up, its memory, and whether its
gradient is netsens's."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.digest import apart, read

SCRIPT = Path(__file__).with_name("contender.py")
TOLERANCE = 1e-2  # of a gradient in float32, where it differs least
ROOM = 0.3  # of the machine's memory, left free before one more contender is set up
Row = dict[str, Any]
Digests = list[dict[str, np.ndarray]]  # of the gradient at each of the inputs that it is compared at


class Contender:
    """A process that runs one thing when told to."""

    def __init__(self, name: str, python: str, case: Mapping[str, Any]) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.peak = 0
        self.difference: float | None = None
        hand = Path(case["hand"])
        hand.unlink(missing_ok=True)
        threads = str(case["threads"])
        # XLA asks NPROC for its threads. Nothing compiled is kept, so that set-up is what it is the first time.
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "NPROC": threads, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
        self._process = subprocess.Popen([python, str(SCRIPT), name, json.dumps(case)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, text=True, env=environment)  # fmt: skip
        answer = self._answer()
        self.setup = answer.get("ready")
        self.model = answer.get("model")
        self.failed, self.why = answer.get("failed", ""), answer.get("why", "")
        self.digests: Digests = read(hand) if hand.exists() and not self.failed else []

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):  # a library may print a line of its own
                found: dict[str, Any] = json.loads(line)
                return found
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return {"failed": "killed", "why": "the process was killed, as where the machine's memory runs out"}
        return {"failed": "crashed", "why": f"the process ended with status {status}"}

    def turn(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says so
        answer = self._answer()
        self.failed, self.why = answer.get("failed", ""), answer.get("why", "")
        if not self.failed:
            self.seconds.append(answer["seconds"])
            self.peak = answer["peak"]

    def judge(self, ours: Digests, theirs: Digests) -> None:
        self.difference = apart(ours, theirs)
        if not self.difference < TOLERANCE:
            self.failed, self.why = "disagrees", f"its gradient differs by {self.difference:.2g}"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def row(self) -> Row:
        if self.failed or not self.seconds:
            return {"failed": self.failed, "why": self.why}
        found = {"median_ms": 1e3 * statistics.median(self.seconds), "least_ms": 1e3 * min(self.seconds), "turns": len(self.seconds),
                 "setup_s": self.setup, "peak_mb": self.peak / 1e6}  # fmt: skip
        return found if self.difference is None else {**found, "difference": self.difference}


def room() -> bool:
    """Whether memory is left for one more contender; where the system doesn't tell, it is taken to be."""
    try:
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(told["MemAvailable"].split()[0]) > ROOM * int(told["MemTotal"].split()[0])
    except (OSError, KeyError):
        return True


def take_turns(racing: Sequence[Contender], seconds: float, least: int) -> None:
    """Until `seconds` a contender have passed, and each has had `least` turns."""
    end = time.perf_counter() + seconds * len(racing)
    turns = 0
    while racing and (turns < least or time.perf_counter() < end):
        for contender in racing:
            contender.turn()
            time.sleep(0.005)  # for threads that spin a while after their work
        racing = [c for c in racing if not c.failed]
        turns += 1


def reference(python: str, case: Mapping[str, Any], theirs: Digests) -> Digests:
    """netsens's gradient of another model, by the same tensors."""
    wrt = list(theirs[0]) if case["by"] == "params" else None
    ours = Contender("netsens", python, {**case, "wrt": wrt})
    ours.end()
    return ours.digests or [{} for _ in theirs]


def measure(title: str, case: Mapping[str, Any], pythons: Mapping[str, str], seconds: float, least: int = 5) -> Row:
    """One row: `forward` and `netsens` race with all the others, as many at once as there is memory for."""
    case = {**case, "hand": str(Path(case["folder"]) / "gradient.npz")}
    everyone = {name: Contender(name, pythons[name], case) for name in ("forward", "netsens")}
    always = list(everyone.values())
    ours = everyone["netsens"].digests
    waiting = [name for name in pythons if name not in everyone]
    try:
        while True:
            heat: list[Contender] = []
            while waiting and (not heat or room()):
                name = waiting.pop(0)
                everyone[name] = one = Contender(name, pythons[name], case)
                if one.digests and ours:
                    one.judge(ours if one.model is None else reference(pythons["netsens"], {**case, "model": one.model}, one.digests), one.digests)
                if one.failed:
                    one.end()
                else:
                    heat.append(one)
            take_turns([c for c in (*always, *heat) if not c.failed], seconds, least)
            for one in heat:
                one.end()
            if not waiting:
                break
    finally:
        for one in everyone.values():
            one.end()
    return {"model": title, "batch": case["batch"], "by": case["by"]} | {name: everyone[name].row() for name in pythons}
