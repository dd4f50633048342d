"""Delimited text with or without a header (.csv, .tsv), and its columns as the arrays that a model expects."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsens.errors import InputError, NetsensWarning
from netsens.report.dtypes import Array, kind_of
from netsens.report.specs import InputSpec, format_shape, quoted

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """Rows of text cells. `columns` is the header, or None; `lines` says where in the file each row stood."""

    columns: tuple[str, ...] | None
    rows: list[list[str]]
    lines: list[int]
    source: str

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.columns) if self.columns is not None else len(self.rows[0])

    def column_name(self, index: int) -> str:
        """`'age'`, or `2` (counted from one) where there is no header: for messages."""
        return repr(self.columns[index]) if self.columns is not None else str(index + 1)

    def numbers(self, indices: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """The columns as an array [rows, len(indices)], in int64, float64, bool or text: what `dtype` is made from."""
        parse, wide = _PARSERS[kind_of(dtype)]
        values: Array = np.empty((len(self.rows), len(indices)), dtype=wide)
        for place, index in enumerate(indices):
            for row, cells in enumerate(self.rows):
                try:
                    values[row, place] = parse(cells[index].strip())
                except (ValueError, OverflowError) as error:
                    raise InputError(self._bad_cell(row, index, dtype)) from error
        return values

    def _bad_cell(self, row: int, index: int, dtype: np.dtype[Any]) -> str:
        cell = self.rows[row][index].strip()
        where = f"{self.source!r}, line {self.lines[row]}, column {self.column_name(index)}"
        if not cell:
            return f"{where}: the cell is empty; fill it, or write nan for a missing number"
        wanted = {"integer": "a whole number", "boolean": "true or false"}.get(kind_of(dtype), "a number")
        return f"{where}: {cell!r} is not {wanted}, which the model's {dtype.name} needs"


def read_table(text: str, source: str, *, delimiter: str | None = None) -> Table:
    """Parses delimited text; the delimiter is the one that the first line has most. Errors name line and column."""
    first_line = text.lstrip("\r\n").split("\n", 1)[0]
    if not first_line.strip():
        raise InputError(f"{source!r} holds no table: it is empty")
    delimiter = delimiter or max(DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for cells in reader:
            if not cells or (len(cells) == 1 and not cells[0].strip() and rows and len(rows[0]) > 1):
                continue  # a blank line
            if rows and len(cells) != len(rows[0]):
                raise InputError(f"{source!r}, line {reader.line_num}: {len(cells)} cells where the first line has {len(rows[0])}")
            rows.append(cells)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{source!r}, line {reader.line_num}: {error}") from error
    columns = _header(rows, source)
    table = Table(columns, rows[1:] if columns else rows, lines[1:] if columns else lines, source)
    if not table.rows:
        raise InputError(f"{source!r} holds a header and no rows")
    return table


def assign_columns(table: Table, specs: Sequence[InputSpec], *, whole: bool) -> tuple[dict[str, Array], dict[str, list[str]]]:
    """({input: array}, {input: its features' names}): what the table gives to these inputs.

    `whole`: the one spec takes the whole table; else each spec takes the column of its name.
    """
    if whole:
        return _whole_table(table, specs[0])
    columns = table.columns or ()
    arrays = {spec.name: _fit_rows(table.numbers([columns.index(spec.name)], spec.dtype), spec, table) for spec in specs if spec.name in columns}
    unused = [column for column in columns if column not in arrays]
    if arrays and unused:
        warnings.warn(NetsensWarning(f"columns of {table.source!r} that are no input are left out: {quoted(unused)}"), stacklevel=2)
    return arrays, {}


def _whole_table(table: Table, spec: InputSpec) -> tuple[dict[str, Array], dict[str, list[str]]]:
    indices = list(range(table.width))
    wanted = _row_width(spec)
    if wanted is not None and wanted != len(indices):
        if wanted == 1 and table.columns and spec.name in table.columns:
            indices = [table.columns.index(spec.name)]
        elif table.columns and not table.columns[0].strip() and wanted == len(indices) - 1:
            # pandas writes its index as a first column without a name
            warnings.warn(NetsensWarning(f"the first column of {table.source!r} has no name and is left out as an index"), stacklevel=2)
            indices = indices[1:]
        else:
            raise InputError(
                f"{table.source!r} has {len(indices)} columns, but input {spec.name!r} "
                f"({format_shape(spec.shape)}) takes {wanted} a row; keep those it was trained on, in order"
            )
    array = _fit_rows(table.numbers(indices, spec.dtype), spec, table)
    features = {spec.name: [table.columns[index] for index in indices]} if table.columns and array.ndim == 2 else {}
    return {spec.name: array}, features


def _row_width(spec: InputSpec) -> int | None:
    """How many numbers of the input one row holds; None where the model leaves it open."""
    if spec.shape is None:
        return None
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    return math.prod(sizes) if len(sizes) == len(spec.shape[1:]) else None


def _fit_rows(values: Array, spec: InputSpec, table: Table) -> Array:
    if spec.shape is None or len(spec.shape) == 2:
        return values
    if len(spec.shape) == 0 and values.size == 1:
        return values.reshape(())
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
    if len(spec.shape) and len(sizes) == len(spec.shape[1:]):
        return values.reshape(len(values), *sizes)  # [N, C*H*W] -> [N, C, H, W]
    raise InputError(
        f"rows of {table.source!r} cannot be laid out as input {spec.name!r}, whose shape {format_shape(spec.shape)} leaves sizes open; give it as .npy"
    )


def _header(rows: list[list[str]], source: str) -> tuple[str, ...] | None:
    first = [cell.strip() for cell in rows[0]]
    if not all(_is_number(cell) for cell in first):
        names = tuple(first)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(f"{source!r} has several columns named {quoted(repeated)}; rename them")
        return names
    if len(rows) > 1 and len(first) > 2 and first == [str(index) for index in range(len(first))]:
        warnings.warn(NetsensWarning(f"the first line of {source!r}, 0 to {first[-1]}, is taken for a header, not for data"), stacklevel=2)
        return tuple(first)
    return None


def _is_number(cell: str) -> bool:
    try:
        _parse_float(cell)
    except ValueError:
        return False
    return True


def _parse_float(cell: str) -> float:
    if "_" in cell:  # Python reads 1_000 as a number; no spreadsheet does
        raise ValueError(cell)
    return float(cell)


def _parse_integer(cell: str) -> int:
    if "_" in cell:
        raise ValueError(cell)
    return int(cell)


def _parse_boolean(cell: str) -> bool:
    if cell.lower() not in _BOOLEANS:
        raise ValueError(cell)
    return _BOOLEANS[cell.lower()]


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_PARSERS: dict[str, tuple[Callable[[str], Any], type]] = {
    "float": (_parse_float, np.float64),
    "integer": (_parse_integer, np.int64),
    "boolean": (_parse_boolean, np.bool_),
    "text": (str, object),
    "complex": (_parse_float, np.float64),
    "other": (_parse_float, np.float64),
}
