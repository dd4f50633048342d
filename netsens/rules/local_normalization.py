"""Normalisation by a norm, and by the response of neighbouring channels."""

from __future__ import annotations

import numpy as np

from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, jvp, vjp

# By a norm ---------------------------------------------------------------------------------------------------------------------


def _norm(op: Builder, n: NodeView) -> tuple[Value, list[int], bool]:
    """One over the norm, or 0 where that is 0."""
    axis = [int(n["axis"]) % n.x.rank]
    absolute = int(n["p"]) == 1
    norm = op.ReduceL1(n.x, axis) if absolute else op.ReduceL2(n.x, axis)
    nothing = op.Cast(op.Equal(norm, op.constant(0, norm)), to=norm.dtype)
    return (1 - nothing) / (norm + nothing), axis, absolute


@jvp("LpNormalization")
def lp_normalization(op: Builder, n: NodeView, x: Value) -> Value:
    inverse, axis, absolute = _norm(op, n)
    change = op.ReduceSum(x * (op.Sign(n.x) if absolute else n.y), axis)
    return (x - n.y * change) * inverse


@vjp("LpNormalization")
def lp_normalization_reverse(op: Builder, n: NodeView, g: Value) -> Value:
    inverse, axis, absolute = _norm(op, n)
    return (g - (op.Sign(n.x) if absolute else n.y) * op.ReduceSum(g * n.y, axis)) * inverse


# Local response ------------------------------------------------------------------------------------------------------------------


def _neighbours(op: Builder, n: NodeView) -> tuple[Value, float]:
    """Which channels j count for channel i, as a matrix [C, C] of zeros and ones; and what each of their squares counts."""
    size = int(n["size"])
    before, after = (size - 1) // 2, size // 2
    channels = n.x.shape[1]
    if isinstance(channels, int):
        offset = np.arange(channels) - np.arange(channels)[:, None]
        band = op.constant((offset >= -before) & (offset <= after), n.x)
    else:
        count = op.Squeeze(op.dim(n.x, 1), [0])
        index = op.Range(op.constant(np.asarray(0, np.int64)), count, op.constant(np.asarray(1, np.int64)))
        apart = op.Unsqueeze(index, [0]) - op.Unsqueeze(index, [1])
        band = op.Cast(op.And(apart >= -before, apart <= after), to=n.x.dtype)
    return band, float(n["alpha"]) / size


def _summed(op: Builder, band: Value, x: Value) -> Value:
    """`band` applied along axis 1: [N, C, D1, ...] -> [N, C, D1*...], a product with [C, C], and back."""
    return op.reshape_like(op.MatMul(band, op.Reshape(x, [0, 0, -1])), x)


@jvp("LRN")
def local_response(op: Builder, n: NodeView, x: Value) -> Value:
    band, share = _neighbours(op, n)
    squares = float(n["bias"]) + share * _summed(op, band, n.x * n.x)
    change = _summed(op, band, x * n.x)
    return x * op.Pow(squares, -float(n["beta"])) - change * (2 * share * float(n["beta"]) * n.y / squares)


@vjp("LRN")
def local_response_reverse(op: Builder, n: NodeView, g: Value) -> Value:
    band, share = _neighbours(op, n)
    squares = float(n["bias"]) + share * _summed(op, band, n.x * n.x)
    change = _summed(op, op.Transpose(band, perm=[1, 0]), g * n.y / squares)
    return g * op.Pow(squares, -float(n["beta"])) - n.x * change * (2 * share * float(n["beta"]))
