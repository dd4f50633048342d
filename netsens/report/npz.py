"""`.npz` archives written: arrays stored as they are, with no clock beside them, so that the same results are the same bytes. `zipfile` would write these very
bytes, but with what it brings along it takes longer to import than a small model to run."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import IO

from netsens.report.dtypes import Array
from netsens.report.npy import npy_header

_LARGE = 0x7FFFFFFF  # sizes and places above this stand in fields of 64 bits
_ELSEWHERE = 0xFFFFFFFF  # ... and this in the usual field
_VERSION = 45  # of the format, the first with 64 bits
_UNIX = 3
_UTF8 = 0x800
_DATE = 1 << 5 | 1  # 1 January 1980, where the format's calendar begins
_MODE = 0o600 << 16


def write_npz(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Arrays in C order as members `NAME.npy` of an archive. The stream is only written to, from front to back. (`numpy.savez` takes names as keyword
    arguments, so that a tensor called "file" would break it.)"""
    at = 0
    directory = []
    for name, array in arrays.items():
        head = npy_header(array)
        numbers = array.data.cast("B") if array.size else memoryview(b"")
        size = len(head) + len(numbers)
        path = f"{name}.npy".encode()
        flags = 0 if path.isascii() else _UTF8
        known = (flags, 0, 0, _DATE, zlib.crc32(numbers, zlib.crc32(head)))
        wide = struct.pack("<HHQQ", 1, 16, size, size)
        local = struct.pack("<4sHHHHHLLLHH", b"PK\3\4", _VERSION, *known, _ELSEWHERE, _ELSEWHERE, len(path), len(wide)) + path + wide
        for part in (local, head, numbers):
            stream.write(part)
        directory.append(_listed(path, known, size, at))
        at += len(local) + size
    listed = b"".join(directory)
    stream.write(listed + _end(len(directory), len(listed), at))


def _listed(path: bytes, known: tuple[int, ...], size: int, at: int) -> bytes:
    """A member's line in the directory at the archive's end."""
    wide = [*([size, size] if size > _LARGE else []), *([at] if at > _LARGE else [])]
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    sizes = (_ELSEWHERE if size > _LARGE else size,) * 2
    place = _ELSEWHERE if at > _LARGE else at
    fixed = struct.pack("<4sBBHHHHHLLLHHHHHLL", b"PK\1\2", _VERSION, _UNIX, _VERSION, *known, *sizes, len(path), len(extra), 0, 0, 0, _MODE, place)
    return fixed + path + extra


def _end(count: int, size: int, at: int) -> bytes:
    """What closes the archive: how many members its directory lists, and where that is."""
    wide = b""
    if count > 0xFFFF or size > _LARGE or at > _LARGE:
        wide = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, _VERSION, _VERSION, 0, 0, count, count, size, at)
        wide += struct.pack("<4sLQL", b"PK\6\7", 0, at + size, 1)
        count, size, at = min(count, 0xFFFF), min(size, _ELSEWHERE), min(at, _ELSEWHERE)
    return wide + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, size, at, 0)
