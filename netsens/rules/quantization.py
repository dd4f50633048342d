"""Quantised operators. Their integers stand for real numbers: as the user chooses, rounding is passed straight through (with zero where it
saturates, and with the exact derivative of the scales), or nothing passes: a function that rounds is piecewise constant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsens.graph.dtypes import numpy_dtype
from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, expansion, jvp, quantizes


def _number(op: Builder, q: Value, like: Value) -> Value:
    """Integers (or their tangent) as floats of the dtype of `like`."""
    return op.Cast(q, to=like.dtype)


def _along(op: Builder, n: NodeView, part: Value, x: Value) -> Value:
    """A scale or zero point in a form that broadcasts against `x`: per tensor, per axis, or per block."""
    if part.rank == 0 or (part.rank == 1 and part.shape[0] == 1):
        return part
    axis = int(n["axis"] if n["axis"] is not None else 1) % x.rank
    if part.rank == 1:
        return op.Reshape(part, [-1 if k == axis else 1 for k in range(x.rank)])
    # [.., blocks, ..] -> [.., blocks * block_size, ..], cut to the length of x
    block = int(n["block_size"])
    wide = op.Expand(op.Unsqueeze(part, [axis + 1]), op.vector([1] * (axis + 1) + [block] + [1] * (x.rank - axis - 1)))
    flat = op.Reshape(wide, op.vector([0] * axis + [-1] + [op.dim(part, k) for k in range(axis + 1, x.rank)]))
    return op.Slice(flat, [0], op.dim(x, axis), [axis])


def _zero_point(op: Builder, n: NodeView, x: Value, like: Value) -> Value | None:
    zero = n.input(2)
    return None if zero is None else _along(op, n, _number(op, zero, like), x)


def _inside(op: Builder, n: NodeView) -> tuple[Value, Value, Value]:
    """Of a QuantizeLinear: the scale as it broadcasts, x over it, and where that doesn't saturate (1 or 0)."""
    x, given, q = n.x, n.inputs[1], n.y
    assert given is not None
    scale = _along(op, n, given if given.dtype == x.dtype else op.Cast(given, to=x.dtype), x)
    ratio = op.Div(x, scale)
    zero = _zero_point(op, n, x, x)
    shifted = ratio if zero is None else op.Add(ratio, zero)
    kind = numpy_dtype(q.dtype)
    if kind.kind not in "iu":
        return scale, ratio, op.full_like(x, 1)
    limits = np.iinfo(kind)
    inside = op.And(op.GreaterOrEqual(shifted, float(limits.min) - 0.5), op.LessOrEqual(shifted, float(limits.max) + 0.5))
    return scale, ratio, op.Cast(inside, to=x.dtype)


@jvp("QuantizeLinear")
def quantize_forward(op: Builder, n: NodeView, t: Value | None, ts: Value | None = None, *_: Value | None) -> Value | None:
    if not op.graph.straight_through:
        return None
    scale, ratio, inside = _inside(op, n)
    total: Value | None = None
    if t is not None:
        total = op.Mul(t, op.Div(inside, scale))
    if ts is not None:
        term = op.expand_like(op.Mul(_along(op, n, ts, n.x), op.Neg(op.Div(op.Mul(ratio, inside), scale))), n.x)
        total = term if total is None else op.Add(total, term)
    return None if total is None else op.Cast(total, to=op.derivative_dtype(n.y))


@jvp("DequantizeLinear")
def dequantize_forward(op: Builder, n: NodeView, t: Value | None, ts: Value | None = None, *_: Value | None) -> Value | None:
    q, given, y = n.x, n.inputs[1], n.y
    assert given is not None
    total: Value | None = None
    if t is not None:
        total = op.Mul(_number(op, t, y), _along(op, n, op.Cast(given, to=y.dtype), q))
    if ts is not None:
        number = _number(op, q, y)
        zero = _zero_point(op, n, q, y)
        term = op.expand_like(op.Mul(_along(op, n, ts, q), number if zero is None else op.Sub(number, zero)), y)
        total = term if total is None else op.Add(total, term)
    return total


@jvp("DynamicQuantizeLinear")
def dynamic_forward(op: Builder, n: NodeView, t: Value | None) -> Sequence[Value | None]:
    # scale = (max(x, 0) - min(x, 0)) / 255: the scale moves with the largest and the smallest element.
    if t is None or not op.graph.straight_through:
        return [None, None, None]
    x, scale = n.x, n.outputs[1]
    assert scale is not None
    largest, smallest = op.ReduceMax(x, keepdims=0), op.ReduceMin(x, keepdims=0)
    top = op.Cast(op.And(op.Equal(x, largest), op.Greater(largest, 0.0)), to=x.dtype)
    bottom = op.Cast(op.And(op.Equal(x, smallest), op.Less(smallest, 0.0)), to=x.dtype)
    share_top = op.Div(top, op.Max(op.ReduceSum(top, keepdims=0), 1.0))
    share_bottom = op.Div(bottom, op.Max(op.ReduceSum(bottom, keepdims=0), 1.0))
    moved = op.ReduceSum(op.Mul(t, op.Div(op.Sub(share_top, share_bottom), 255.0)), keepdims=0)
    ratio = op.Div(x, scale)
    rounded = op.Sub(op.Mul(t, op.Reciprocal(scale)), op.Mul(moved, op.Div(ratio, scale)))
    return [rounded, moved, None]


def _less_zero(op: Builder, q: Value, zero: Value | None, dtype: int, axis: int | None = None) -> Value:
    """Integers as floats, their zero point taken off (along `axis` where it is a vector)."""
    number = op.Cast(q, to=dtype)
    if zero is None:
        return number
    z = op.Cast(zero, to=dtype)
    if z.rank == 1 and z.shape[0] != 1 and axis is not None:
        z = op.Reshape(z, [-1 if k == axis % q.rank else 1 for k in range(q.rank)])
    return op.Sub(number, z)


@expansion("MatMulInteger")
def matmul_integer(op: Builder, n: NodeView) -> Value:
    a, b = n.inputs[0], n.inputs[1]
    assert a is not None
    assert b is not None
    return op.MatMul(_less_zero(op, a, n.input(2), 1, -2), _less_zero(op, b, n.input(3), 1, -1))


@expansion("ConvInteger")
def conv_integer(op: Builder, n: NodeView) -> Value:
    x, w = n.inputs[0], n.inputs[1]
    assert x is not None
    assert w is not None
    return op.emit("Conv", [_less_zero(op, x, n.input(2), 1), _less_zero(op, w, n.input(3), 1, 0)], dict(n.node.attributes))


def _dequantized(op: Builder, q: Value, scale: Value, zero: Value | None, axis: int = 1) -> Value:
    return op.DequantizeLinear(q, scale, zero, axis=axis)


@expansion("QLinearMatMul")
def qlinear_matmul(op: Builder, n: NodeView) -> Value:
    a, sa, za, b, sb, zb, sy, zy = n.inputs
    assert a is not None
    assert sa is not None
    assert b is not None
    assert sb is not None
    product = op.MatMul(_dequantized(op, a, sa, za, -2), _dequantized(op, b, sb, zb, -1))
    return op.QuantizeLinear(product, sy, zy)


@expansion("QLinearConv")
def qlinear_conv(op: Builder, n: NodeView) -> Value:
    x, sx, zx, w, sw, zw, sy, zy = n.inputs[:8]
    assert x is not None
    assert sx is not None
    assert w is not None
    assert sw is not None
    bias = n.input(8)
    # The bias is stored in units of the product of both scales.
    real = None if bias is None else op.Mul(op.Cast(bias, to=sx.dtype), op.Mul(sx, sw))
    y = op.emit("Conv", [_dequantized(op, x, sx, zx), _dequantized(op, w, sw, zw, 0), real], dict(n.node.attributes))
    return op.QuantizeLinear(y, sy, zy)


quantizes("QuantizeLinear DynamicQuantizeLinear MatMulInteger ConvInteger QLinearMatMul QLinearConv")
