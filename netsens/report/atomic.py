"""Files that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from netsens.errors import OutputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path to write to, and renames it to `path` when the block ends well; when it does not, nothing is left.

    A link keeps pointing where it points. What is no plain file (`/dev/stdout`, a named pipe) is written directly.
    `OutputError` for whatever the system refuses.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            yield target
            return
        if target.is_dir():
            raise OutputError(f"{str(path)!r} is a folder; name a file in it, or end it with / to have one file an input")
        temporary = target.with_name(f".{target.name[:200]}.{os.urandom(6).hex()}.part")
        try:
            # made here with the usual permissions, so that every writer finds it there
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _permissions(target)))
            yield temporary
            os.replace(temporary, target)
        except BaseException:  # Ctrl-C too leaves nothing half written
            temporary.unlink(missing_ok=True)
            raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Writes bytes, or what a function writes to the open binary file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        if callable(content):
            content(stream)
        else:
            stream.write(content)


def write_new(path: str, content: bytes) -> None:
    """Writes bytes to a plain file of a folder that exists, whole or not at all, in as few calls of the system as that takes: for many small files."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name[:200]}.{os.urandom(6).hex()}.part")
    try:
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(file, view) :]
            finally:
                os.close(file)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The sentence for a path that the system refuses to write."""
    parent = Path(path).parent
    if isinstance(error, FileNotFoundError) and not parent.exists():
        return OutputError(f"cannot write {str(path)!r}: there is no folder {str(parent)!r}; make it first")
    return OutputError(f"cannot write {str(path)!r}: {error.strerror or error}")


def _permissions(target: Path) -> int:
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        return 0o666  # less the user's umask
