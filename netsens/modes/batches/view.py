"""What a batching rule is and what it is written in: the view of a node, and operands with or without a leading axis of directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Node, Shape, TensorType
from netsens.graph.shapes import known
from netsens.rules.words import attribute_default


@dataclass(frozen=True, slots=True)
class BatchView:
    """A linear node as a batching rule sees it. `xs` are its operands in the new graph, those in `moving` with the leading axis; `types` and
    `results` are what its inputs and outputs were without it. `count` is K as a vector of length 1."""

    op: Builder
    node: Node
    xs: tuple[Value | None, ...]
    moving: tuple[bool, ...]
    types: tuple[TensorType, ...]
    results: tuple[TensorType, ...]
    count: Value

    def __getitem__(self, key: str) -> Any:
        if key in self.node.attributes:
            return self.node.attributes[key]
        opset = self.op.graph.domains.get(self.node.domain, 1) if self.node.domain else self.op.graph.opset
        return attribute_default(self.node.op, self.node.domain, opset, key)

    @property
    def t(self) -> Value:
        """The first operand, where it carries the directions: [K, ...] where the node expects [...]."""
        assert self.xs[0] is not None
        return self.xs[0]

    def x(self, position: int) -> Value | None:
        return self.xs[position] if position < len(self.xs) else None

    def ints(self, position: int) -> list[int] | None:
        """A constant operand as integers; None where it isn't constant or isn't there."""
        value = self.x(position)
        constant = None if value is None else value.constant
        return None if constant is None else [int(v) for v in constant.reshape(-1)]

    def rank(self, position: int = 0) -> int:
        shape = self.types[position].shape
        if shape is None:
            raise Unknown
        return len(shape)

    def shape(self, position: int = 0) -> tuple[int, ...]:
        return numbers(self.types[position].shape)

    def result_shape(self, position: int = 0) -> tuple[int, ...]:
        return numbers(self.results[position].shape)

    def same(self, *operands: Any, **attributes: Any) -> Any:
        """The node's operator over these operands, its attributes unless given anew."""
        return self.op.emit(self.node.op, operands, {**self.node.attributes, **attributes}, len(self.node.outputs), self.node.domain)


class Unknown(Exception):
    """A rule needs a shape or a constant that isn't known; the node goes through Scan instead."""


Rule = Callable[[BatchView], Any]
RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Rule], Rule]:
    """Declares how operators take a leading axis."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return register


def numbers(shape: Shape | None) -> tuple[int, ...]:
    """A shape that is known."""
    if shape is None or not known(shape):
        raise Unknown
    return tuple(int(d) for d in shape if isinstance(d, int))


def ahead(b: BatchView, shape: Sequence[int]) -> Value | list[int]:
    """The vector [K, *shape]."""
    return [-1, *shape] if all(shape) else b.op.vector([b.count, *shape])


def reshaped(b: BatchView, t: Value, shape: Sequence[int]) -> Value:
    """`t` as [K, *shape]."""
    return b.op.retyped(b.op.Reshape(t, ahead(b, shape), allowzero=None if all(shape) else 1), (t.shape[0], *shape))


def lifted(b: BatchView, position: int, rank: int) -> Value:
    """A moving operand [K, *x] with ones after K, so that x has `rank` axes; one that stands still is left alone."""
    x = b.xs[position]
    assert x is not None
    missing = rank - b.rank(position)
    if not b.moving[position] or missing <= 0:
        return x
    return b.op.Unsqueeze(x, list(range(1, missing + 1)))


def repeated(op: Builder, x: Value, count: Value) -> Value:
    """A value without directions, given K times."""
    rank = x.rank
    return op.Expand(op.Unsqueeze(x, [0]), op.vector([count, *([1] * rank)]))


def all_moving(b: BatchView, position: int) -> Value:
    """An operand [K, *x]; one that stands still is repeated."""
    x = b.xs[position]
    assert x is not None
    return x if b.moving[position] else repeated(b.op, x, b.count)


def moved_axis(axis: int, rank: int) -> int:
    """An axis of the node as an axis of [K, ...]."""
    return int(axis) % rank + 1


def require(*conditions: bool) -> None:
    """Leaves the node to a Scan where a condition isn't met."""
    if not all(conditions):
        raise Unknown
