"""Softmax and its logarithm. (Hardmax is flat.)"""

from __future__ import annotations

from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, jvp, vjp


def _total(op: Builder, n: NodeView, value: Value) -> Value:
    """The sum along the node's axis."""
    return op.ReduceSum(value, [int(n["axis"])], keepdims=1)


@jvp("Softmax")
@vjp("Softmax")
def softmax(op: Builder, n: NodeView, t: Value) -> Value:
    """The Jacobian diag(y) - y y' is symmetric, so this serves both ways. The second total is zero but for rounding: where one y is nearly
    1, the first difference cancels, and this takes out what it left (in float32 that is otherwise all there is)."""
    rest = t - _total(op, n, t * n.y)
    return n.y * (rest - _total(op, n, rest * n.y))


@jvp("LogSoftmax")
def log_softmax(op: Builder, n: NodeView, t: Value) -> Value:
    return t - _total(op, n, t * op.Exp(n.y))


@vjp("LogSoftmax")
def log_softmax_reverse(op: Builder, n: NodeView, g: Value) -> Value:
    y = op.Exp(n.y)
    rest = g - y * _total(op, n, g)
    return rest - y * _total(op, n, rest)
