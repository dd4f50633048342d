"""Decompression entry by entry, where each has a place of its own in the passes: what two-sided and symmetric colourings need."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from netsens.graph.graph import Array
from netsens.modes.pattern import Relation

Ints = np.ndarray[Any, np.dtype[np.int64]]


class Recovery:
    """Entries (`row`, `column`) of a Jacobian; each is read in pass `number` at position `source`. `turned`: the passes are over rows."""

    dense = False

    def __init__(self, relation: Relation, turned: bool, row: Ints, column: Ints, number: Ints, source: Ints) -> None:
        assert relation.out is not None
        self.out, self.in_, self.turned = relation.out, relation.in_, turned
        order = np.argsort(number, kind="stable")
        self.row, self.column, self.number, self.source = row[order], column[order], number[order], source[order]

    def write(self, jacobian: Array, passes: Array, start: int) -> None:
        """The passes number `start` and following, [n, *source tensor], into the Jacobian [*out, *in], or [*out, *in[1:]] where samples don't meet."""
        part, values = self._values(passes, start)
        width = prod(self.in_)
        if jacobian.size < prod(self.out) * width:
            width = prod(self.in_[1:])
        flat = jacobian.reshape(-1)
        assert np.shares_memory(flat, jacobian)
        flat[self.row[part] * width + self.column[part] % width] = values

    def entries(self, passes: Array, start: int) -> tuple[Ints, Ints, Array]:
        """Positions in the passes' tensor, positions in the coloured tensor, and values of the entries in these passes."""
        part, values = self._values(passes, start)
        row, column = self.row[part], self.column[part]
        return (column, row, values) if self.turned else (row, column, values)

    def _values(self, passes: Array, start: int) -> tuple[slice, Array]:
        flat = passes.reshape(len(passes), -1)
        part = slice(*np.searchsorted(self.number, [start, start + len(passes)]))
        return part, flat[self.number[part] - start, self.source[part]]
