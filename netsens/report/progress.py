"""How far a long run has come, on standard error: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Progress:
    """`with Progress(total, "grad") as progress: progress.advance()`. Nothing is shown at first, or when quiet.

    `total` None: the end is not known. On a terminal a bar; elsewhere a line every `interval` seconds.
    """

    def __init__(
        self,
        total: int | None,
        description: str,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        delay: float = 1.0,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.description = description
        self.done = 0
        self.failed = 0
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._delay = delay
        self._interval = interval
        self._clock = clock
        self._started = self._last_line = clock()
        self._lock = threading.Lock()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        self._started = self._last_line = self._clock()
        if not self._quiet and self._stream.isatty():
            # a timer, since one long piece of work may never call `advance` before it is done
            self._timer = threading.Timer(self._delay, self._show_bar)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            self._quiet = True  # a timer that fires just now draws nothing any more
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """So many more are done; `failed`: they did not succeed."""
        with self._lock:
            self.done += count
            self.failed += count if failed else 0
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=self.done, failures=self._failures())
            elif not self._quiet and not self._stream.isatty():
                now = self._clock()
                if now - self._last_line >= self._interval:
                    self._last_line = now
                    print(self.line(), file=self._stream, flush=True)

    def reach(self, done: int, total: int) -> None:
        """As many are done of so many; for work that counts for itself."""
        with self._lock:
            self.total = total
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, total=total)
        self.advance(done - self.done)

    def line(self) -> str:
        """`grad: 120 of 1000, 12/s, 1 min 13 s left, 2 failed`."""
        elapsed = max(self._clock() - self._started, 1e-9)
        rate = self.done / elapsed
        parts = [f"{self.done} of {self.total}" if self.total is not None else f"{self.done} done", f"{rate:.3g}/s"]
        if self.total is not None and 0 < self.done < self.total:
            parts.append(f"{format_seconds((self.total - self.done) / rate)} left")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return f"{self.description}: {', '.join(parts)}"

    def _failures(self) -> str:
        return f"[red]{self.failed} failed[/red]" if self.failed else ""

    def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        with self._lock:
            if self._quiet:
                return
            counted = self.total is None or self.total > 1
            self._bar = Bar(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                *([BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()] if counted else []),
                TimeElapsedColumn(),
                TextColumn("{task.fields[failures]}"),
                console=Console(file=self._stream),
                transient=True,
                # what is printed meanwhile goes above the bar, but never from a file or a pipe to the terminal
                redirect_stdout=sys.stdout.isatty(),
            )
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.done, failures=self._failures())
            self._bar.start()


def format_seconds(seconds: float) -> str:
    """`8 s`, `1 min 13 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
