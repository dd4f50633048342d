"""README.md is true: its generated parts are current, and its commands run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.shell import shell
from tests.readme import README, generated

ROOT = README.parent
BLOCKS = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
COMMANDS = [line[2:] for block in BLOCKS for line in block.splitlines() if line.startswith("$ netsens")]
PYTHON = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_generated_parts_are_current() -> None:
    assert generated(README.read_text()) == README.read_text(), "run python -m tests.readme --write"


def workplace(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path) -> None:
    done = shell(command, workplace(tmp_path))
    assert done.code == 0, done.err
    assert "finite differences" not in done.err


@pytest.mark.parametrize("code", PYTHON)
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace(tmp_path))
    exec(compile(code, "README.md", "exec"), {})
