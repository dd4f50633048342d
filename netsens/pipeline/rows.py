"""One big array, some rows at a time: blocks of an .npy file as samples, and results that grow row by row. Neither side needs to fit in memory."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from netsens.errors import InputError, OutputError, UsageError
from netsens.graph.graph import Array
from netsens.report.atomic import replacing, unwritable
from netsens.report.contents import ArrayContent
from netsens.report.inputs import RowReader, Sample
from netsens.report.json_lines import json_line


@dataclass(frozen=True, slots=True)
class Blocks:
    """The rows of an .npy file (or of arrays already in memory), `count` at a time."""

    reader: RowReader
    path: str
    shape: tuple[int, ...]
    dtype: Any
    offset: int
    fortran: bool
    count: int
    arrays: Sample | None = None

    @property
    def total(self) -> int:
        return self.shape[0]

    def ranges(self) -> Iterator[tuple[int, int]]:
        return ((start, min(start + self.count, self.total)) for start in range(0, self.total, self.count))

    def __call__(self, name: str, source: str) -> Sample:
        """The rows that `source`, "start:stop", names."""
        start, stop = map(int, source.split(":"))
        if self.arrays is not None:
            return replace(self.arrays, arrays={k: a[start:stop] for k, a in self.arrays.arrays.items()})
        return self.reader.sample(ArrayContent((("", self._rows(start, stop)),), self.path), f"{self.path}, rows {start} to {stop - 1}")

    def _rows(self, start: int, stop: int) -> Array:
        if self.fortran:
            return np.array(np.load(self.path, mmap_mode="r")[start:stop])
        # Read, not mapped: the pages of a map count as this process's memory.
        width = math.prod(self.shape[1:])
        found = np.fromfile(self.path, self.dtype, (stop - start) * width, offset=self.offset + start * width * self.dtype.itemsize)
        if found.size != (stop - start) * width:
            raise InputError(f"'{self.path}' is shorter than its header says; make it anew")
        return found.reshape(stop - start, *self.shape[1:])


def blocks_of(reader: RowReader, path: str, count: int) -> Blocks | None:
    """The blocks of an .npy file; None for other files."""
    if not path.lower().endswith(".npy"):
        return None
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except (OSError, ValueError):
        return None  # the reader of whole files has the sentence for it
    if dtype.hasobject or not shape or shape[0] == 0:
        return None
    return Blocks(reader, path, tuple(shape), dtype, offset, bool(fortran), count)


def blocks_in_memory(reader: RowReader, path: str, sample: Sample, count: int) -> Blocks:
    """The rows of arrays that were read whole."""
    lengths = {len(a) if a.ndim else 0 for a in sample.arrays.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(f"--batch-size takes some rows of '{path}' at a time, and its arrays don't share a first axis; leave it out.")
    (total,) = lengths
    return Blocks(reader, path, (total,), None, 0, False, count, sample)


class GrowingNpy:
    """An .npy array written row by row to a stream; the number of rows is known beforehand."""

    def __init__(self, stream: IO[bytes], rows: int) -> None:
        self.stream, self.rows, self.done = stream, rows, 0

    def add(self, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
        (array,) = arrays.values()
        if not self.done:
            header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": (self.rows, *array.shape[1:])}
            np.lib.format.write_array_header_1_0(self.stream, header)
        self.stream.write(np.ascontiguousarray(array).data)
        self.stream.flush()
        self.done += len(array)


class GrowingLines:
    """Lines of JSON, one a row."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def add(self, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
        for k in range(len(next(iter(arrays.values())))):
            self.stream.write(json_line({name: array[k] for name, array in arrays.items()}))
        self.stream.flush()


class GrowingCsv:
    """A table with a row for each row of the array."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.begun = stream, False

    def add(self, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
        from netsens.report.outputs import as_table

        columns, rows = as_table(arrays, features, ".csv")
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if not self.begun:
            writer.writerow(columns)
            self.begun = True
        writer.writerows(rows)
        self.stream.write(text.getvalue().encode())
        self.stream.flush()


Growing = GrowingNpy | GrowingLines | GrowingCsv


def growing(stream: IO[bytes], suffix: str, rows: int) -> Growing:
    """What writes results of this format row by row."""
    if suffix == ".npy":
        return GrowingNpy(stream, rows)
    return GrowingCsv(stream) if suffix == ".csv" else GrowingLines(stream)


GROWS = (".npy", ".csv", ".jsonl")


@contextmanager
def growing_file(path: str, rows: int) -> Iterator[Growing]:
    """A file that grows under another name, and takes its place when it is whole."""
    with replacing(path) as temporary:
        try:
            with temporary.open("wb") as file:
                yield growing(file, Path(path).suffix.lower(), rows)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritable(path, error) from error


def check_one_array(names: Sequence[str], suffix: str) -> None:
    """Raises where an .npy would have to hold several arrays."""
    if suffix == ".npy" and len(names) > 1:
        raise OutputError(f"an .npy file holds one array and there are {len(names)}; choose one with --wrt, or write .csv or .jsonl instead")
