"""Where operators have no derivative, what is taken for it there (as PyTorch does, where PyTorch has the operator), and how many elements of a run lie on
such a place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import netsens.rules  # noqa: F401  # declares every operator
from netsens.errors import NetsensError
from netsens.graph.dtypes import INT64
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Array, Graph, pruned
from netsens.modes.activity import active_values, carries
from netsens.rules.windows import layout, places, taps
from netsens.rules.words import NodeView, view
from netsens.run.runtime import RunOptions
from netsens.run.session import Session

At = Callable[[Builder, NodeView], Value]


@dataclass(frozen=True, slots=True)
class Kink:
    """`operators` bend `where`, and there the derivative is taken to be `convention`. `at(op, n)` says element by element whether a node lies there."""

    operators: str
    where: str
    convention: str
    at: At


def _zero(op: Builder, n: NodeView) -> Value:
    return op.Equal(n.x, op.constant(0, n.x))


def _attribute(key: str, default: float, size: bool = False) -> At:
    """Where x, or its size, is the number that an attribute gives."""
    return lambda op, n: op.Equal(op.Abs(n.x) if size else n.x, op.constant(float(default if n[key] is None else n[key]), n.x))


def _bounds(op: Builder, n: NodeView) -> Value:
    low, high = n.input(1), n.input(2)
    hits = [op.Equal(n.x, bound) for bound in (low, high) if bound is not None]
    return op.Or(*hits) if len(hits) == 2 else hits[0] if hits else op.Less(n.x, n.x)


def _hard_sigmoid(op: Builder, n: NodeView) -> Value:
    alpha, beta = (0.2 if n["alpha"] is None else float(n["alpha"])), (0.5 if n["beta"] is None else float(n["beta"]))
    line = n.x * alpha + beta
    return op.Or(op.Equal(line, op.constant(0, line)), op.Equal(line, op.constant(1, line)))


def _tied_operands(op: Builder, n: NodeView) -> Value:
    """Where more than one operand is the result."""
    same = [op.Cast(op.Equal(x, n.y), to=INT64) for x in n.inputs if x is not None]
    return op.Greater(op.Sum(*same) if len(same) > 2 else same[0] + same[1], 1) if len(same) > 1 else op.Less(n.y, n.y)


def _tied_elements(op: Builder, n: NodeView) -> Value:
    """Which results of a reduction are taken by more than one element."""
    axes, keep = n.input(1), n["keepdims"] is None or n["keepdims"]
    largest = n.y if keep else op.emit(n.node.op, [n.x, axes], {**n.node.attributes, "keepdims": 1})
    same = op.ReduceSum(op.Cast(op.Equal(n.x, largest), to=INT64), axes, keepdims=1, noop_with_empty_axes=n["noop_with_empty_axes"])
    return op.Greater(same, 1)


def _tied_windows(op: Builder, n: NodeView) -> Value:
    spread = layout(op, n, n["kernel_shape"], -float("inf"))
    same = [op.Cast(op.Equal(seen, n.y), to=INT64) for seen in taps(op, spread.x, spread.windows, places(op, n.y), -float("inf"))]
    total = same[0]
    for more in same[1:]:
        total = total + more
    return op.Greater(total, 1)


def _tied_image(op: Builder, n: NodeView) -> Value:
    same = op.Cast(op.Equal(n.x, n.y), to=INT64)
    return op.Greater(op.ReduceSum(same, list(range(2, n.x.rank)), keepdims=1), 1)


def _result_zero(op: Builder, n: NodeView) -> Value:
    return op.Equal(n.y, op.constant(0, n.y))


def _whole(op: Builder, n: NodeView) -> Value:
    return op.Equal(n.x, op.Floor(n.x))


def _halfway(op: Builder, n: NodeView) -> Value:
    return op.Equal(op.Abs(n.x - n.y), op.constant(0.5, n.x))


TABLE = [
    Kink("Relu", "x = 0", "0", _zero),
    Kink("LeakyRelu", "x = 0", "alpha, as for x < 0", _zero),
    Kink("PRelu", "x = 0", "the slope, as for x < 0", _zero),
    Kink("Elu Celu Selu", "x = 0", "as for x < 0", _zero),
    Kink("ThresholdedRelu", "x = alpha", "0", _attribute("alpha", 1.0)),
    Kink("Shrink", "abs(x) = lambd", "0", _attribute("lambd", 0.5, size=True)),
    Kink("HardSigmoid", "where it is just 0 or 1", "0", _hard_sigmoid),
    Kink("HardSwish", "x = -3 or x = 3", "0 at -3, 1 at 3", lambda op, n: op.Equal(op.Abs(n.x), op.constant(3, n.x))),
    Kink("Abs", "x = 0", "0", _zero),
    Kink("Sqrt", "x = 0", "infinity, and 0 where the cotangent is 0", _zero),
    Kink("Pow", "x = 0", "as the formula says; 0 by the exponent; nothing for an exponent of 0", _zero),
    Kink("Clip", "x at a bound", "1; 0 right behind a convolution or normalisation (ReLU6)", _bounds),
    Kink("Max Min", "equal operands", "shared evenly", _tied_operands),
    Kink("ReduceMax ReduceMin", "equal elements", "shared evenly", _tied_elements),
    Kink("MaxPool", "equal elements of a window", "all to the first", _tied_windows),
    Kink("GlobalMaxPool", "equal elements of a channel", "all to the first", _tied_image),
    Kink("ReduceL1", "x = 0", "0", _zero),
    Kink("ReduceL2", "all elements 0", "0", _result_zero),
    Kink("Mod", "y = 0 (a jump)", "1, and the negative whole quotient by the divisor", _result_zero),
    Kink("Floor Ceil", "whole x (a jump)", "0", _whole),
    Kink("Round", "x halfway between whole numbers (a jump)", "0", _halfway),
]  # fmt: skip
_BY_OPERATOR = {name: kink for kink in TABLE for name in kink.operators.split()}


def markdown() -> str:
    """The table, for a README."""
    lines = ["| operator | where | derivative there |", "| --- | --- | --- |"]
    lines += [f"| {' '.join(f'`{o}`' for o in kink.operators.split())} | {kink.where} | {kink.convention} |" for kink in TABLE]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class OnKinks:
    """A node of which some elements lie at a kink: how many, of how many results."""

    label: str
    where: str
    count: int
    of: int

    @property
    def sentence(self) -> str:
        return f"{self.count} of {self.of} elements of {self.label} lie at a kink ({self.where})."


def on_kinks(graph: Graph, feeds: Mapping[str, Array], *, of: str, wrt: list[str], options: RunOptions = RunOptions()) -> list[OnKinks]:  # noqa: B008  # frozen
    """The nodes between `wrt` and `of` that lie at a kink at these inputs, in the model's order. Those inside subgraphs are not looked at."""
    active = active_values(graph, wrt)
    part = pruned(graph, [of])
    op = Builder(part.copy())
    found: list[tuple[Any, Kink, str, str]] = []
    for node in part.nodes:
        kink = _BY_OPERATOR.get(node.op) if not node.domain else None
        if kink is None or not node.inputs or not any(i in active for i in node.inputs):
            continue
        n = view(op, node, [True] * len(node.inputs))
        if not all(x is None or carries(x.type) for x in n.inputs[:1]) or n.x.type.shape is None:
            continue
        try:
            hits = op.Cast(kink.at(op, n), to=INT64)
            count, total = op.ReduceSum(hits, keepdims=0), op.Size(hits)
        except NetsensError:  # of a rank that is not known, say
            continue
        found.append((node, kink, count.name, total.name))
    if not found:
        return []
    names = list(dict.fromkeys(name for row in found for name in row[2:]))
    computed = dict(zip(names, Session(pruned(op.graph, names), options).run(feeds), strict=True))
    rows = [OnKinks(node.label, kink.where, int(computed[count]), int(computed[total])) for node, kink, count, total in found]
    return [row for row in rows if row.count]
