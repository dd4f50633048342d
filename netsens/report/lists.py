"""Lists of files: read from a file or standard input, and the names of their results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from netsens.errors import InputError, UsageError
from netsens.report.remote import is_remote


def read_list(source: str, stdin: BinaryIO | None) -> tuple[str, ...]:
    """The paths of a list, one a line, from a file or (`-`) standard input. Empty lines count for nothing, and a path named twice counts once."""
    if source == "-":
        if stdin is None:
            raise UsageError("--inputs-from -: there is no standard input to read")
        lines = stdin.read()
    else:
        try:
            lines = Path(source).read_bytes()
        except OSError as error:
            raise InputError(f"the list {source!r} cannot be read: {error.strerror or error}") from error
    apart = b"\0" if b"\0" in lines else b"\n"  # `find -print0`
    paths = (os.fsdecode(line.rstrip(b"\r")) for line in lines.split(apart))
    found = tuple(dict.fromkeys(path for path in paths if path.strip()))
    if not found:
        raise InputError(f"the list {'on standard input' if source == '-' else repr(source)} names no file")
    return found


class FileNames:
    """The files of a batch, each with a name for its results: its stem; with folders, then with its ending, where stems alone would collide. Names
    are made when they are asked for, so that a million files take no more than their paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self._root = _root(self.paths)
        self._spelling = next((k for k in range(2) if self._unique(k)), 2)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, str]:
        path = self.paths[index]
        return self._name(path, self._spelling), path

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (self[index] for index in range(len(self.paths)))

    def numbers(self) -> Callable[[str], int | None]:
        """What tells a file's index by its path."""
        return {path: number for number, path in enumerate(self.paths)}.get

    def _unique(self, spelling: int) -> bool:
        return len({self._name(path, spelling).casefold() for path in self.paths}) == len(self.paths)

    def _name(self, path: str, spelling: int) -> str:
        base = os.path.basename(path.rstrip("/"))
        stem = os.path.splitext(base)[0]
        if spelling == 0:
            return stem
        relative = path[len(self._root) :].lstrip("/") if is_remote(path) else Path(os.path.relpath(path, self._root or ".")).as_posix()
        return relative if spelling == 2 else relative[: len(relative) - len(base)] + stem


class StreamNames:
    """The samples of a stream, which are known as they come: a name for each one's results, and where it came from."""

    def __init__(self, stem: str, source: str) -> None:
        self.stem, self.source = stem, source

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> tuple[str, str]:
        return (self.stem, self.source) if index == 0 else (f"{self.stem}-{index + 1}", f"{self.source}, number {index + 1}")

    def numbers(self) -> Callable[[str], int | None]:
        """What tells a sample's index by where it came from."""

        def number(source: str) -> int | None:
            if source == self.source:
                return 0
            place, _, last = source.rpartition(", number ")
            return int(last) - 1 if place == self.source and last.isdecimal() and int(last) > 1 else None

        return number


def _root(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    if any(is_remote(path) for path in paths):
        folders = [path.rpartition("/")[0].split("/") for path in paths]
        shared = next((k for k, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), min(map(len, folders)))
        return "/".join(folders[0][:shared])
    first = os.path.isabs(paths[0])
    if all(os.path.isabs(path) == first for path in paths):
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
