"""Runs the command line as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "sample_models"


@dataclass(frozen=True)
class Result:
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


def netsens(*arguments: str | Path, cwd: Path, stdin: bytes = b"", environment: dict[str, str] | None = None) -> Result:
    """One command line; standard output as bytes, standard error as text."""
    done = subprocess.run(
        [sys.executable, "-m", "netsens", *map(str, arguments)], cwd=cwd, input=stdin, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(SAMPLES.parent), **(environment or {})},
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr.decode())


def shell(line: str, cwd: Path) -> Result:
    """A line of shell, in which `netsens` is this checkout's."""
    command = f'netsens() {{ {sys.executable} -m netsens "$@"; }}; set -o pipefail; {line}'
    done = subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(SAMPLES.parent)})
    return Result(done.returncode, done.stdout, done.stderr.decode())


def is_clear(err: str, *words: Sequence[str] | str) -> bool:
    """Whether an error is one or two lines without a traceback, and holds the words."""
    lines = [line for line in err.strip().splitlines() if "error:" in line]
    return "Traceback" not in err and 1 <= len(lines) <= 2 and all(str(w) in err for w in words)
