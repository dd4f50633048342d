"""What a structure rule is and what it is written in: the view of a node, links between axes of an output and axes of an operand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from netsens.graph.emit import Builder
from netsens.graph.graph import Array, Node
from netsens.modes.pattern import LIMIT, Factor, Pattern, Relation, identity, pattern
from netsens.rules.words import attribute_default

Shape = tuple[int, ...]
Link = tuple[int | tuple[int, ...], int | tuple[int, ...], Pattern | None]  # output axes, operand axes, None for the identity


@dataclass(frozen=True, slots=True)
class StructureView:
    """A node as a structure rule sees it: the shapes of its operands and results, its attributes, and constants among its operands."""

    op: Builder
    node: Node
    shapes: tuple[Shape, ...]
    results: tuple[Shape, ...]

    def __getitem__(self, key: str) -> Any:
        if key in self.node.attributes:
            return self.node.attributes[key]
        opset = self.op.graph.domains.get(self.node.domain, 1) if self.node.domain else self.op.graph.opset
        return attribute_default(self.node.op, self.node.domain, opset, key)

    def constant(self, position: int) -> Array | None:
        if position >= len(self.node.inputs) or not self.node.inputs[position]:
            return None
        return self.op.constant_of(self.op.value(self.node.inputs[position]))

    def ints(self, position: int) -> list[int] | None:
        found = self.constant(position)
        return None if found is None else [int(v) for v in found.reshape(-1)]

    def has(self, position: int) -> bool:
        return position < len(self.node.inputs) and bool(self.node.inputs[position])


Rule = Callable[[StructureView, int, int], "Sequence[Link] | Relation"]
Declared = TypeVar("Declared", bound=Rule)
RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Declared], Declared]:
    """Declares operators' structure: `rule(s, k, j)` gives the links between axes of output j and axes of operand k."""

    def register(function: Declared) -> Declared:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return register


def relation_of(out: Shape, in_: Shape, links: Iterable[Link]) -> Relation:
    """The relation that the links make; axes without one are unrestricted."""
    factors = []
    for outs, ins, matrix in links:
        o = outs if isinstance(outs, tuple) else (outs,)
        i = ins if isinstance(ins, tuple) else (ins,)
        rows, columns = prod(out[a] for a in o), prod(in_[a] for a in i)
        if rows == columns == 1:
            continue
        if matrix is None:
            if rows > LIMIT:
                continue
            matrix = identity(rows)
        if matrix.count < rows * columns:
            factors.append(Factor(o, i, matrix))
    return Relation(out, in_, tuple(factors))


def picked(rows: int, columns: int, source: Any) -> Pattern:
    """Output position r takes input position source[r]; -1 takes none."""
    source = np.asarray(source, np.int64)
    taken = (source >= 0) & (source < columns)
    return pattern(rows, columns, np.flatnonzero(taken), source[taken])


def others(s: StructureView, k: int, j: int, but: Iterable[int]) -> list[Link]:
    """Links between axes of one number and one length, but for these."""
    gone = set(but)
    return [(a, a, None) for a, d in enumerate(s.shapes[k]) if a not in gone and a < len(s.results[j]) and s.results[j][a] == d and d != 1]
