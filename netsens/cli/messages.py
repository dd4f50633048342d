"""What goes to standard error: notes, warnings, errors, each on a line of its own."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


@dataclass(frozen=True, slots=True)
class Messages:
    """How much standard error says: `quiet` leaves errors alone, `verbose` adds detail and tracebacks."""

    quiet: bool = False
    verbose: bool = False
    progress: bool = True

    def note(self, text: str) -> None:
        if not self.quiet:
            say(f"netsens: {text}")

    def detail(self, text: str) -> None:
        if self.verbose:
            say(f"netsens: {text}")

    @contextmanager
    def warnings_as_notes(self) -> Iterator[None]:
        """Within, netsens's warnings are notes, each said once; those of libraries are shown with --verbose alone."""
        from netsens.errors import NetsensWarning

        said: set[str] = set()

        def show(message: Warning | str, category: type[Warning], *args: object, **kwargs: object) -> None:
            text = str(message)
            if issubclass(category, NetsensWarning) and text not in said:
                said.add(text)
                self.note(f"warning: {text}" if not text.startswith("note: ") else text[6:])
            elif not issubclass(category, NetsensWarning):
                self.detail(f"{category.__name__}: {text}")

        with warnings.catch_warnings():
            warnings.simplefilter("always", NetsensWarning)
            warnings.showwarning = show
            yield


def say(line: str) -> None:
    """One line on standard error; a closed standard error is nobody's loss."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (BrokenPipeError, ValueError):
        pass
