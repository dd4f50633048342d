"""Sums, means, norms, products and extremes along axes, and the cumulative sum and product.

The axes may be known only at run time: so a rule works with axes of length 1 throughout (`whole`, `kept`), and drops them
last (`settled`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, jvp, linear

Along = Callable[[Value], Value]  # a sum or a product along the node's own axes


def whole(op: Builder, n: NodeView, value: Value, operator: str = "ReduceSum") -> Value:
    """`value`, of the shape of the node's input, reduced along the node's axes, which stay with length 1."""
    return op.emit(operator, [value, n.input(1)], {"keepdims": 1, "noop_with_empty_axes": n["noop_with_empty_axes"] or None})


def kept(op: Builder, n: NodeView, value: Value) -> Value:
    """`value`, of the shape of the node's output, with the node's axes put back with length 1."""
    axes = n.input(1)
    if n["keepdims"] or axes is None or (axes.constant is not None and axes.constant.size == 0):
        return value  # a number, where the axes are absent and all are meant
    result = op.Unsqueeze(value, axes)
    return result if result.type.shape is not None else op.retyped(result, (None,) * n.x.rank)


def settled(op: Builder, n: NodeView, value: Value) -> Value:
    """What `whole` gave, in the shape of the node's output."""
    return value if n["keepdims"] else op.reshape_like(value, n.y)


def _count(op: Builder, n: NodeView, like: Value) -> Value:
    """How many elements each result is made of."""
    axes = n.input(1)
    given = None if axes is None else axes.constant
    if axes is not None and given is None:
        ratio = op.ReduceProd(op.shape(n.x), keepdims=0) / op.ReduceProd(op.shape(n.y), keepdims=0)
        return op.Cast(ratio, to=like.dtype)
    chosen = [] if given is None else [int(a) for a in given]
    if not chosen and not n["noop_with_empty_axes"]:
        chosen = list(range(n.x.rank))
    return op.count(n.x, chosen, like)


linear("ReduceSum", lambda op, n, g: op.expand_like(kept(op, n, g), n.x))
linear("ReduceMean", lambda op, n, g: op.expand_like(kept(op, n, g) / _count(op, n, g), n.x))
linear("CumSum", lambda op, n, g: op.CumSum(g, n.inputs[1], exclusive=n["exclusive"], reverse=1 - n["reverse"]))


# Norms and logarithms of sums ----------------------------------------------------------------------------------------------


@jvp("ReduceL1")
def norm_1(op: Builder, n: NodeView, t: Value, axes: None = None) -> Value:
    return settled(op, n, whole(op, n, t * op.Sign(n.x)))


@jvp("ReduceL2")
def norm_2(op: Builder, n: NodeView, t: Value, axes: None = None) -> Value:
    """0 where the norm is 0."""
    norm = kept(op, n, n.y)
    return settled(op, n, whole(op, n, t * n.x) / op.Where(op.Equal(norm, 0.0), 1.0, norm))


@jvp("ReduceSumSquare")
def sum_of_squares(op: Builder, n: NodeView, t: Value, axes: None = None) -> Value:
    return settled(op, n, whole(op, n, t * n.x) * 2.0)


@jvp("ReduceLogSum")
def logarithm_of_sum(op: Builder, n: NodeView, t: Value, axes: None = None) -> Value:
    return settled(op, n, whole(op, n, t) / op.Exp(kept(op, n, n.y)))


@jvp("ReduceLogSumExp")
def logarithm_of_exponentials(op: Builder, n: NodeView, t: Value, axes: None = None) -> Value:
    """A softmax, which cannot overflow: no exponent is above 0. Where all inputs are minus infinity it is 0."""
    y = kept(op, n, n.y)
    return settled(op, n, whole(op, n, t * op.Exp(n.x - op.Where(op.Equal(y, -np.inf), 0.0, y))))


# Extremes ------------------------------------------------------------------------------------------------------------------


@jvp("ReduceMax ReduceMin")
def extreme(op: Builder, n: NodeView, t: Value, axes: None = None) -> Value:
    """Ties are split evenly."""
    mask = op.Cast(op.Equal(n.x, kept(op, n, n.y)), to=n.x.dtype)
    return settled(op, n, whole(op, n, t * mask) / whole(op, n, mask))


# Products ------------------------------------------------------------------------------------------------------------------


@jvp("ReduceProd")
def product(op: Builder, n: NodeView, t: Value, axes: None = None) -> Value:
    return settled(op, n, _product(op, n.x, t, lambda v: whole(op, n, v), lambda v: whole(op, n, v, "ReduceProd")))


@jvp("CumProd")
def cumulative_product(op: Builder, n: NodeView, t: Value, axis: None = None) -> Value:
    attributes = {"exclusive": n["exclusive"], "reverse": n["reverse"]}
    return _product(op, n.x, t, lambda v: op.CumSum(v, n.inputs[1], **attributes), lambda v: op.CumProd(v, n.inputs[1], **attributes))


def _product(op: Builder, x: Value, t: Value, total: Along, product_of: Along) -> Value:
    """The tangent of a product along axes, zeros among the factors allowed.

    The product is P Q, with P that of the factors other than 0 and Q that of the zeros, written as a polynomial in them: 1, z1, or
    z1 z2 = ((z1 + z2)^2 - z1^2 - z2^2) / 2. With three zeros or more, the first two derivatives are 0; so no second derivative is lost."""
    is_zero = op.Equal(x, 0.0)
    zeros = total(op.Cast(is_zero, to=x.dtype))
    factors, z = op.Where(is_zero, 1.0, x), op.Where(is_zero, x, 0.0)
    p, s, q = product_of(factors), total(z), total(z * z)
    tz = op.Where(is_zero, t, 0.0)
    tp = p * total(op.Where(is_zero, 0.0, t) / factors)
    ts = total(tz)

    def by_count(none: Value | float, one: Value, two: Value) -> Value:
        rest = op.Where(op.Equal(zeros, 1.0), one, op.Where(op.Equal(zeros, 2.0), two, 0.0))
        return op.Where(op.Equal(zeros, 0.0), none, rest)

    return tp * by_count(1.0, s, 0.5 * (s * s - q)) + p * by_count(0.0, ts, s * ts - total(z * tz))
