"""Progress on standard error: silent at first, a plain line now and then, a bar on a terminal."""

from __future__ import annotations

import io
import time

import pytest

from netsens.report.progress import Progress, format_seconds


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_come_now_and_then() -> None:
    now = [0.0]
    stream = io.StringIO()
    with Progress(100, "grad", stream=stream, interval=10, clock=lambda: now[0]) as progress:
        for _ in range(30):
            now[0] += 1
            progress.advance()
        progress.advance(failed=True)
    assert stream.getvalue().splitlines() == [
        "grad: 10 of 100, 1/s, 1 min 30 s left",
        "grad: 20 of 100, 1/s, 1 min 20 s left",
        "grad: 30 of 100, 1/s, 1 min 10 s left",
    ]
    assert progress.line().endswith("1 failed")


def test_quiet_and_short_work_say_nothing() -> None:
    for stream, quiet in ((io.StringIO(), False), (Terminal(), False), (Terminal(), True)):
        with Progress(3, "grad", stream=stream, quiet=quiet) as progress:
            for _ in range(3):
                progress.advance()
        assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_after_a_while() -> None:
    stream = Terminal()
    with Progress(None, "grad", stream=stream, delay=0.01) as progress:
        for _ in range(100):
            time.sleep(0.01)
            progress.advance(failed=True)
            if stream.getvalue():
                break
    assert stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(8.4, "8 s"), (73, "1 min 13 s"), (7500, "2 h 5 min")])
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
