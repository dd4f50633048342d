"""JSON lines: each line a sample, or a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from netsens.errors import InputError
from netsens.report.contents import ArrayContent, Content, TableContent
from netsens.report.dtypes import Array

JSON_LINES = ".jsonl"


def holds_lines(first: bytes) -> bool:
    """Whether a first line is JSON by itself, so that its file holds lines."""
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


def read_lines(first: bytes, stream: BinaryIO, source: str, nested: Callable[[object, str], Array]) -> Iterator[Content | InputError]:
    """Each line as it arrives: a nested list, an object of them by the inputs' names, or an object of numbers by the features' names. A line that
    is neither is an `InputError` in its place. `nested` makes an array of a nested list."""
    number = 0
    while True:
        line = first or stream.readline()
        first = b""
        if not line:
            return
        number += 1
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            yield _content(line, where, number, nested)
        except InputError as error:
            yield error


def _content(line: bytes, where: str, number: int, nested: Callable[[object, str], Array]) -> Content:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where!r} is not JSON ({error})") from error
    except RecursionError as error:
        raise InputError(f"{where!r} is nested too deep for an array") from error
    if not isinstance(value, dict):
        return ArrayContent((("", nested(value, repr(where))),), where, textual=True, single=True)
    if value and not any(isinstance(part, (list, dict)) for part in value.values()):
        from netsens.report.tables import Table

        # Numbers by names are a row of a table; for a model whose inputs are single numbers the columns find them by the same names.
        for name, part in value.items():
            if part is None:
                raise InputError(f"{where!r}: {name!r} is null; write a number")
        return TableContent(Table(tuple(value), [[str(part) for part in value.values()]], [number], where), json=True)
    return ArrayContent(tuple((name, nested(part, f"{where!r}, {name!r}")) for name, part in value.items()), where, textual=True, single=True)


def json_line(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as one line of JSON, {name: nested list}; numbers in their own shortest spelling, null for NaN and infinity."""
    return json.dumps({name: _spelled(array) for name, array in arrays.items()}, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _spelled(array: Array) -> Any:
    if array.dtype.kind != "f":
        return array.tolist()
    # float32's 0.1 is 0.1 and not 0.10000000149011612: it passes through its own decimal spelling
    wide = array.astype(np.float64) if array.dtype.itemsize >= 8 else array.astype(str).astype(np.float64).reshape(array.shape)
    if np.isfinite(wide).all():
        return wide.tolist()
    spelled = wide.astype(object)
    spelled[~np.isfinite(wide)] = None
    return spelled.tolist()
