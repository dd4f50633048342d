"""The parts of README.md that are generated: the help texts, the tables of operators and of kinks, and a run of the benchmark.

python -m tests.readme --write     brings README.md up to date; a test says when that is due."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
MEASURED = Path(__file__).with_name("benchmarks") / "measured.json"
_SECTION = re.compile(r"(<!-- generated: (?P<what>[a-z ]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def help_text(command: str) -> str:
    """`netsens COMMAND --help` at 100 columns, as a block of text."""
    from click.testing import CliRunner

    from netsens.cli.main import netsens

    arguments = [command, "--help"] if command else ["--help"]
    done = CliRunner().invoke(netsens, arguments, prog_name="netsens", terminal_width=100)
    assert done.exit_code == 0, done.output
    return f"```text\n{done.output.rstrip()}\n```\n"


def operators() -> str:
    """How many operators have which status, and which they are."""
    from netsens.analyse.operators import operator_table

    rows = operator_table()
    lines = ["| domain | status | count | operators |", "| --- | --- | --- | --- |"]
    for domain in dict.fromkeys(row.domain for row in rows):
        for status in ("exact", "expanded", "flat", "refused"):
            names = [row.op for row in rows if row.domain == domain and row.status == status]
            if names:
                lines.append(f"| {domain or 'ai.onnx'} | {status} | {len(names)} | {' '.join(names)} |")
    return "\n".join(lines) + "\n"


def kinks() -> str:
    """Where operators have no derivative, and what is taken for it."""
    from netsens.analyse.kinks import markdown

    return markdown()


def speed() -> str:
    """The kept run of the benchmark."""
    from tests.benchmarks.results import readme

    return readme(json.loads(MEASURED.read_text()))


PARTS: dict[str, Callable[[], str]] = {"operators": operators, "kinks": kinks, "speed": speed}


def part(what: str) -> str:
    return help_text(what.removeprefix("help").strip()) if what.startswith("help") else PARTS[what]()


def generated(text: str) -> str:
    """README's text with every generated part as it should be."""
    return _SECTION.sub(lambda match: f"{match[1]}{part(match['what'])}{match[4]}", text)


if __name__ == "__main__":
    fresh = generated(README.read_text())
    if "--write" in sys.argv:
        README.write_text(fresh)
    elif fresh != README.read_text():
        sys.exit("README.md is out of date; run python -m tests.readme --write")
