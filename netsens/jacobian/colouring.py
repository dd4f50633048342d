"""Colouring: which columns of a Jacobian may travel in one pass, because no row of it holds two of them (Curtis, Powell and Reid, 1974).

The structure is a product of small factors, so the colouring is one too: a column's colour is the tuple of its colours in each factor, and the
number of colours is the product of theirs. Rows are the columns of the transposed relation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from netsens.modes.pattern import LIMIT, Pattern, Relation, TooLarge, pattern

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Some axes of the coloured tensor, and a colour for each position along them."""

    axes: tuple[int, ...]
    colours: Ints
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Colouring:
    """Colours of the positions of a tensor of this shape. A position's colour is a number whose digits are its places along the `free` axes, then its
    colours in each group, the last one fastest."""

    shape: tuple[int, ...]
    free: tuple[int, ...]
    groups: tuple[Group, ...]

    @property
    def grouped(self) -> int:
        """How many colours the groups make together."""
        return prod(g.count for g in self.groups)

    @property
    def count(self) -> int:
        return prod(self.shape[a] for a in self.free) * self.grouped if prod(self.shape) else 0

    def seeds(self, start: int, stop: int, dtype: Any) -> np.ndarray[Any, Any]:
        """The sums of unit tensors of the colours `start` to `stop`, [stop - start, *shape]."""
        shape = self.shape
        numbers = np.arange(start, stop)
        grouped, sizes = numbers % self.grouped, [shape[a] for a in self.free]
        places = np.unravel_index(numbers // self.grouped, sizes) if sizes else ()
        result = np.ones((stop - start, *([1] * len(shape))), dtype)
        for a, place in zip(self.free, places, strict=True):
            hit = (place[:, None] == np.arange(shape[a])).astype(dtype)
            result = result * hit.reshape([-1, *(shape[a] if b == a else 1 for b in range(len(shape)))])
        for group, digit in zip(self.groups, self.digits(grouped), strict=True):
            hit = (digit[:, None] == group.colours).astype(dtype)  # [K, positions along the group's axes]
            result = result * hit.reshape([-1, *(shape[b] if b in group.axes else 1 for b in range(len(shape)))])
        return np.ascontiguousarray(np.broadcast_to(result, (stop - start, *shape)))

    def digits(self, grouped: Ints) -> list[Ints]:
        """The colour in each group, of these numbers."""
        return list(np.unravel_index(grouped, [g.count for g in self.groups])) if self.groups else []


def colour(relations: Sequence[Relation]) -> Colouring:
    """Colours for the positions of the operand (`in_`) that all the relations share, such that two of one colour never meet in a row of any. The axes
    that no relation restricts are free."""
    shape = relations[0].in_
    groups: list[Group] = []
    for axes in _coarsest([[f.ins for f in r.factors if f.ins] for r in relations]):
        stacked = _stacked(relations, axes)
        colours = np.arange(prod(shape[a] for a in axes)) if stacked is None else colour_columns(stacked)
        groups.append(Group(axes, colours, int(colours.max(initial=0)) + 1))
    taken = {a for g in groups for a in g.axes}
    return Colouring(shape, tuple(a for a in range(len(shape)) if a not in taken), tuple(groups))


def _coarsest(parts: Sequence[Sequence[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """The finest grouping of axes that every relation's factors fit into."""
    groups: list[set[int]] = []
    for part in parts:
        for axes in part:
            joined = set(axes)
            for g in [g for g in groups if g & joined]:
                joined |= g
                groups.remove(g)
            groups.append(joined)
    return sorted(tuple(sorted(g)) for g in groups)


def _stacked(relations: Sequence[Relation], axes: tuple[int, ...]) -> Pattern | None:
    """The matrices of all relations over these operand axes, one under the other; None where one of them doesn't restrict these axes."""
    shape = relations[0].in_
    dims = [shape[a] for a in axes]
    rows, columns, total = [], [], 0
    for relation in relations:
        own = [f for f in relation.factors if f.ins and f.ins[0] in axes]
        if not own:
            return None
        # Entries of the relation's factors side by side, then every place along the axes that it leaves unrestricted.
        row: Ints = np.zeros(1, np.int64)
        places: dict[int, Ints] = {}
        height = 1
        for f in own:
            if row.size * f.matrix.count > LIMIT:
                return None
            r, c = f.matrix.pairs()
            digits = np.unravel_index(c, [shape[a] for a in f.ins])
            row = (row[:, None] * f.matrix.rows + r).ravel()
            places = {a: np.repeat(p, r.size) for a, p in places.items()}
            places |= {a: np.tile(d, row.size // max(r.size, 1)) for a, d in zip(f.ins, digits, strict=True)}
            height *= f.matrix.rows
        for a in axes:
            if a not in places:
                if row.size * shape[a] > LIMIT:
                    return None
                size = row.size
                row = np.repeat(row, shape[a])
                places = {b: np.repeat(p, shape[a]) for b, p in places.items()}
                places[a] = np.tile(np.arange(shape[a]), size)
        rows.append(row + total)
        columns.append(np.ravel_multi_index([places[a] for a in axes], dims))
        total += height
    try:
        return pattern(total, prod(dims), np.concatenate(rows), np.concatenate(columns))
    except TooLarge:
        return None


def colour_columns(matrix: Pattern) -> Ints:
    """A colour for each column, such that two columns of one colour share no row: greedy, in the given order and largest first, whichever
    needs fewer."""
    if matrix.is_identity:
        return np.zeros(matrix.columns, np.int64)
    rows, columns = matrix.pairs()
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(matrix.columns + 1))
    by_column = rows[order]
    least = int(np.bincount(rows, minlength=1).max()) if rows.size else 1
    natural = _greedy(by_column, starts, range(matrix.columns), matrix.rows)
    if int(natural.max(initial=0)) + 1 <= least:
        return natural
    largest = _greedy(by_column, starts, np.argsort(-(starts[1:] - starts[:-1]), kind="stable").tolist(), matrix.rows)
    return largest if largest.max(initial=0) < natural.max(initial=0) else natural


def _greedy(by_column: Ints, starts: Ints, order: Any, rows: int) -> Ints:
    used = [0] * rows  # the colours met in each row, as bits
    colours = np.zeros(len(starts) - 1, np.int64)
    listed, begin = by_column.tolist(), starts.tolist()
    for column in order:
        own = listed[begin[column] : begin[column + 1]]
        met = 0
        for row in own:
            met |= used[row]
        lowest = ~met & (met + 1)
        colours[column] = lowest.bit_length() - 1
        for row in own:
            used[row] |= lowest
    return colours
