"""Runs of the command line that begin in an instant: forked from a process that has imported everything, each one a process that can be killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.cli.shell import SAMPLES

PARENT = """
import json, os, sys
import onnx, onnxruntime, netsens, netsens.cli.grad, netsens.pipeline.question, netsens.pipeline.rows, netsens.report.running
from netsens.cli.main import run

if __name__ == "__main__":
    for line in sys.stdin:
        arguments, cwd, err = json.loads(line)
        child = os.fork()
        if not child:
            os.chdir(cwd)
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(0, 1)
            os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os._exit(run(arguments))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """`start` begins a run; one at a time."""

    def __init__(self, folder: Path) -> None:
        (folder / "parent.py").write_text(PARENT)
        environment = {**os.environ, "PYTHONPATH": str(SAMPLES.parent)}
        self._parent = subprocess.Popen(
            [sys.executable, folder / "parent.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._parent.communicate()

    def start(self, arguments: list[str], cwd: Path, err: Path) -> Run:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps([arguments, str(cwd), str(err)]) + "\n")
        self._parent.stdin.flush()
        return Run(int(self._parent.stdout.readline()), self._parent)


class Run:
    """One of them."""

    def __init__(self, pid: int, parent: subprocess.Popen[str]) -> None:
        self.pid, self._parent = pid, parent
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status; None while it lives."""
        return self._status if self._status is not None or not select.select([self._parent.stdout], [], [], 0)[0] else self.wait()

    def wait(self) -> int:
        if self._status is None:
            assert self._parent.stdout is not None
            self._status = int(self._parent.stdout.readline())
        return self._status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
