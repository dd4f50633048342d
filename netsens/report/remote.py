"""Paths with `://` (s3://, gs://, memory://): read, listed and written through fsspec, an extra."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from netsens.errors import InputError, OutputError
from netsens.report.extras import require


def is_remote(path: str) -> bool:
    """Whether a path is fsspec's to open."""
    return "://" in path


def filesystem(path: str) -> tuple[Any, str]:
    """fsspec's file system for a path, and the path within it."""
    try:
        return require("fsspec.core").url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise InputError(f"{path!r} cannot be opened: {error}") from error


def read_remote(path: str) -> bytes:
    """The whole content of a remote file."""
    system, inner = filesystem(path)
    try:
        return bytes(system.cat_file(inner))
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path!r}") from error
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{path!r} cannot be read: {error}") from error


def remote_files(path: str, endings: Container[str]) -> tuple[str, ...]:
    """The files that a remote path, folder or glob names, in order."""
    system, inner = filesystem(path)
    if any(c in inner for c in "*?["):
        found = [f for f in system.glob(inner) if not system.isdir(f)]
    elif system.isdir(inner):
        found = [f for f in system.ls(inner, detail=False) if _ending(f) in endings]
    else:
        return (path,)
    if not found:
        raise InputError(f"no file matches {path!r}")
    return tuple(sorted(system.unstrip_protocol(f) for f in found))


def write_remote(path: str, content: bytes) -> None:
    """Writes a remote file whole: an object store shows it when it is complete."""
    system, inner = filesystem(path)
    try:
        system.makedirs(system._parent(inner), exist_ok=True)
        system.pipe_file(inner, content)
    except Exception as error:
        raise OutputError(f"cannot write {path!r}: {error}") from error


def _ending(path: str) -> str:
    name = path.rpartition("/")[2]
    return "." + name.rpartition(".")[2].lower() if "." in name else ""
