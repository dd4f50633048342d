"""`.npy` arrays, as files and streams have them. Of many small files the header's text would cost more than the numbers, so each text is parsed once."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from netsens.report.dtypes import Array

MAGIC = b"\x93NUMPY"
_START = len(MAGIC) + 4  # the magic bytes, two of the version, two of the header's length
_LARGE = 1 << 20


def read_npy(stream: BinaryIO) -> Array:
    """The next array of a stream, which is only read, never sought in. Raises what `numpy.lib.format.read_array` raises of a damaged one."""
    start = stream.read(_START)
    if start[: len(MAGIC) + 2] != MAGIC + b"\x01\x00" or len(start) < _START:
        return _by_numpy(start, stream)
    header = stream.read(int.from_bytes(start[-2:], "little"))
    try:
        shape, fortran, dtype = _parsed(start + header)
    except Exception:
        return _by_numpy(start + header, stream)  # NumPy has the sentence for it
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or fortran or not 0 < size <= _LARGE:
        return _by_numpy(start + header, stream)
    content = bytearray(size)
    view, filled = memoryview(content), 0
    while filled < size and (part := stream.read(size - filled)):  # a pipe may give fewer bytes than asked for
        view[filled : filled + len(part)] = part
        filled += len(part)
    if filled < size:
        raise ValueError(f"EOF: {size} bytes of numbers were expected, and there are {filled}")
    return np.frombuffer(content, dtype).reshape(shape)


def _by_numpy(head: bytes, stream: BinaryIO) -> Array:
    array: Array = np.lib.format.read_array(Resumed(head, stream), allow_pickle=False)
    return array


def npy_header(array: Array) -> bytes:
    """What stands before an array's numbers."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    return stream.getvalue()


@lru_cache(maxsize=256)
def _parsed(head: bytes) -> tuple[tuple[int, ...], bool, Any]:
    stream = io.BytesIO(head)
    np.lib.format.read_magic(stream)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, bool(fortran), dtype


class Resumed:
    """A stream with the bytes that were read ahead put back in front; it only reads, so NumPy never seeks on a pipe."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            taken, self._head = self._head, b""
            return taken + self._rest.read()
        taken, self._head = self._head[:size], self._head[size:]
        return taken
