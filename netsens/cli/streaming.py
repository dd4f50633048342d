"""Where a matrix that doesn't fit into memory is written piece by piece."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NoReturn

from netsens.cli.messages import Terminated


def streamed_to(to: str, name: str, size: str, sparse: bool) -> str:
    """The file or folder that takes it; `name` is the input's, `size` how a sentence says what it takes. From now on a process that is asked to end
    (SIGTERM, as schedulers do) removes the half-written file on its way out."""
    from netsens.errors import UsageError
    from netsens.jacobian.stream import files_at
    from netsens.report.outputs import STANDARD_OUTPUT, is_folder
    from netsens.report.remote import is_remote

    if to == STANDARD_OUTPUT or is_remote(to) or (files_at(to) is None and not is_folder(to)):
        place = "standard output" if to == STANDARD_OUTPUT else f"'{to}'"
        raise UsageError(
            f"{size}, which doesn't fit into half of the memory allowed, and {place} can't be written piece by piece; "
            "name an .npz or .npy file or a folder, raise --memory-limit, or narrow it."
        )
    signal.signal(signal.SIGTERM, _terminated)
    if is_folder(to):
        return str(Path(to) / (f"{name}.npz" if sparse else name)) + ("" if sparse else "/")
    return to


def _terminated(number: int, frame: object) -> NoReturn:
    raise Terminated
