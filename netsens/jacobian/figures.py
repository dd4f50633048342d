"""Figures of a Jacobian that need no more of it at a time than one chunk of passes: norms, shares, largest entries, singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from netsens.graph.graph import Array
from netsens.jacobian.decompress import Decompressor
from netsens.jacobian.extras import scipy_module
from netsens.jacobian.linearize import Linearization
from netsens.jacobian.passes import Decompressors, Passes, Progress, passes
from netsens.jacobian.plan import Plan
from netsens.jacobian.planning import make_plan
from netsens.jacobian.recovery import Recovery
from netsens.jacobian.stream import released

LARGEST = 5  # entries that are named


@dataclass(slots=True)
class Figures:
    """Of the Jacobian by one tensor. Norms are of the rows (each element of `of`) and columns (each element of the tensor), in float64;
    `largest` are entries of greatest magnitude as (row index, column index, value). NaN is left out and counted."""

    name: str
    out: tuple[int, ...]
    in_: tuple[int, ...]
    structural: int  # entries that the structure leaves
    total: float = 0.0
    absolute: float = 0.0
    squares: float = 0.0
    smallest: float = math.inf
    greatest: float = -math.inf
    count: int = 0  # entries that are numbers other than zero
    nan: int = 0
    row_squares: Array = field(default_factory=lambda: np.zeros(0))
    column_squares: Array = field(default_factory=lambda: np.zeros(0))
    largest: list[tuple[int, int, float]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return prod(self.out) * prod(self.in_)

    @property
    def frobenius(self) -> float:
        return math.sqrt(self.squares)

    @property
    def row_norms(self) -> Array:
        """[*of]"""
        return np.sqrt(self.row_squares).reshape(self.out)

    @property
    def column_norms(self) -> Array:
        """[*wrt]"""
        return np.sqrt(self.column_squares).reshape(self.in_)

    @property
    def places(self) -> list[tuple[float, list[int], list[int]]]:
        """The largest entries: value, index in `of`, index in the tensor."""
        return [(v, [int(k) for k in np.unravel_index(r, self.out)], [int(k) for k in np.unravel_index(c, self.in_)]) for r, c, v in self.largest]

    def row(self) -> dict[str, Any]:
        """The figures under the names of a summary's row."""
        n = self.size - self.nan
        low, high = self.smallest, self.greatest
        if self.count < n:
            low, high = min(low, 0.0), max(high, 0.0)
        mean = self.total / n if n else math.nan
        place = {}
        if self.largest:
            value, out, in_ = self.places[0]
            place = {"largest": value, "at": [*out, *in_]}
        return {
            "name": self.name, "shape": [*self.out, *self.in_], "mean": mean, "std": math.sqrt(max(self.squares / n - mean * mean, 0.0)) if n else math.nan,
            "min": low if n else math.nan, "max": high if n else math.nan, "l1": self.absolute, "l2": self.frobenius,
            "zeros": (n - self.count) / self.size if self.size else math.nan,
            "row_norm_max": float(self.row_norms.max(initial=0)), "column_norm_max": float(self.column_norms.max(initial=0)), **place,
            **({"nan": self.nan} if self.nan else {}),
        }  # fmt: skip

    def add(self, rows: Array, columns: Array, values: Array) -> None:
        """Entries, each once."""
        wide = self._numbers(values.astype(np.float64))
        squares = wide * wide
        self._count(wide, squares)
        self.row_squares += np.bincount(rows, squares, len(self.row_squares))
        self.column_squares += np.bincount(columns, squares, len(self.column_squares))
        for k in _greatest(wide):
            self._enter(int(rows[k]), int(columns[k]), float(wide[k]))

    def add_whole(self, block: Array, start: int, columns: bool) -> None:
        """Whole columns (or rows) number `start` and following, [n, rest]."""
        wide = self._numbers(block.reshape(len(block), -1).astype(np.float64))
        squares = wide * wide
        self._count(wide.ravel(), squares.ravel())
        along, across = (self.column_squares, self.row_squares) if columns else (self.row_squares, self.column_squares)
        along[start : start + len(wide)] += squares.sum(1)
        across += squares.sum(0)
        for k in _greatest(wide.ravel()):
            n, other = divmod(int(k), wide.shape[1])
            r, c = (other, start + n) if columns else (start + n, other)
            self._enter(r, c, float(wide[n, other]))

    def _numbers(self, wide: Array) -> Array:
        """With zeros in the place of NaN, which is counted."""
        missing = np.isnan(wide)
        if missing.any():
            self.nan += int(np.count_nonzero(missing))
            wide[missing] = 0
        return wide

    def _count(self, wide: Array, squares: Array) -> None:
        if wide.size:
            self.total += float(wide.sum())
            self.absolute += float(np.abs(wide).sum())
            self.squares += float(squares.sum())
            self.smallest, self.greatest = min(self.smallest, float(wide.min())), max(self.greatest, float(wide.max()))
            self.count += int(np.count_nonzero(wide))

    def _enter(self, r: int, c: int, value: float) -> None:
        if value:
            self.largest = sorted([*self.largest, (r, c, value)], key=lambda e: -abs(e[2]))[:LARGEST]


def _greatest(values: Array) -> Array:
    magnitude = np.abs(values)
    return np.argpartition(magnitude, -LARGEST)[-LARGEST:] if magnitude.size > LARGEST else np.arange(magnitude.size)


def figures(linearization: Linearization, plan: Plan, progress: Progress | None = None) -> dict[str, Figures]:
    """The figures by each tensor, while the passes stream by; the matrix is never held."""
    lin = linearization.linearizer
    out = lin.shape(plan.of)
    found = {}
    for w in plan.wrt:
        in_ = lin.shape(w)
        structural = plan.relations[w].count if w in plan.relations else 0
        found[w] = Figures(w, out, in_, structural, row_squares=np.zeros(prod(out)), column_squares=np.zeros(prod(in_)))
    if plan.waist is not None:  # a product of two Jacobians would be there all at once
        plan = make_plan(lin, plan.of, memory_limit=plan.memory, through_waist=False)
    decompressors = Decompressors(plan)
    for p in passes(linearization, plan, progress):
        _take(found[p.wrt], p, decompressors.of(p))
    return found


def _take(figures: Figures, p: Passes, d: Decompressor | Recovery) -> None:
    if d.dense:
        figures.add_whole(p.values, p.start, p.forward)
        return
    one, other, values = d.entries(p.values, p.start)
    figures.add(*((one, other) if p.forward else (other, one)), values)


def of_array(name: str, array: Array, out: tuple[int, ...], in_: tuple[int, ...]) -> Figures:
    """The figures of a Jacobian that is there already, [*of, *wrt]."""
    found = Figures(name, out, in_, array.size, row_squares=np.zeros(prod(out)), column_squares=np.zeros(prod(in_)))
    matrix = array.reshape(prod(out), prod(in_))
    step = max(1, (1 << 20) // max(prod(in_), 1))
    for start in range(0, prod(out), step):
        found.add_whole(matrix[start : start + step], start, False)
        released(matrix)
    return found


def singular_values(linearization: Linearization, count: int) -> Array:
    """The largest singular values of the whole Jacobian (all tensors side by side), by matrix-free iteration (SciPy's `svds`)."""
    linalg = scipy_module("scipy.sparse.linalg", "finding singular values")
    small = min(linearization.shape)
    operator = linearization.as_linear_operator()
    if count >= small:
        dense = operator @ np.eye(operator.shape[1], dtype=operator.dtype)
        return np.asarray(np.linalg.svd(dense, compute_uv=False)[:count])
    found = linalg.svds(operator, k=count, return_singular_vectors=False, random_state=0)
    return np.sort(found)[::-1]


def of_sparse(name: str, matrix: Any, out: tuple[int, ...], in_: tuple[int, ...], start: int = 0) -> Figures:
    """The figures of a sparse Jacobian, CSR [elements of `of`, elements of `wrt`], a block of rows at a time; `start` is the tensor's first column where
    the matrix has others beside it."""
    width = prod(in_)
    found = Figures(name, out, in_, 0, row_squares=np.zeros(prod(out)), column_squares=np.zeros(width))
    pointers = np.asarray(matrix.indptr, np.int64)
    row = 0
    while row < prod(out):
        last = max(row + 1, int(np.searchsorted(pointers, pointers[row] + (1 << 20), side="right")) - 1)
        part = slice(int(pointers[row]), int(pointers[last]))
        rows = np.repeat(np.arange(row, last), np.diff(pointers[row : last + 1]))
        columns, values = np.asarray(matrix.indices[part], np.int64) - start, np.asarray(matrix.data[part])
        own = (columns >= 0) & (columns < width)
        found.add(rows[own], columns[own], values[own])
        found.structural += int(own.sum())
        row = last
        for part_of in (matrix.indices, matrix.data):
            released(part_of)
    return found
