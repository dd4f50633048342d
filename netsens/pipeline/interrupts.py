"""Ctrl-C while other threads work. Python raises it wherever this thread is, even where it holds a lock of a future, which then nobody gives back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

Answer = TypeVar("Answer")
SECONDS = 0.1  # after which a wait looks whether it was interrupted


class Interrupts:
    """`with Interrupts() as interrupts:` holds Ctrl-C back, but for what runs in `interrupts.allowed()`; waits and `check` raise it. A second one is
    raised at once, wherever that is."""

    def __init__(self) -> None:
        self._asked = self._open = self._held = False

    def __enter__(self) -> Self:
        ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, self._interrupted)
            self._held = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if kind is None:
            self.check()

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        again, self._asked = self._asked, True
        if self._open or again:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raises the interruption that came meanwhile."""
        if self._asked:
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """What may be interrupted anywhere, since it holds nothing that others wait for."""
        self._open = True
        try:
            self.check()
            yield
        finally:
            self._open = False

    def first_done(self, *futures: Future[Any]) -> None:
        """Waits until one of them is done."""
        while not any(f.done() for f in futures):
            self.check()
            wait(futures, SECONDS, FIRST_COMPLETED)
        self.check()

    def result(self, future: Future[Answer]) -> Answer:
        self.first_done(future)
        return future.result()
