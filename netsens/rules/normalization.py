"""Normalisation over the last axes, with a mean or by the root mean square; instance and group normalisation are the same in another shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsens.graph.dtypes import DOUBLE, FLOAT, HALVES
from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, expansion, jvp, vjp

_ONES = 65536  # the longest vector of ones that is stored rather than broadcast


# Layer normalisation: over the last axes -----------------------------------------------------------------------------------


def standardised(op: Builder, x: Value, axis: int, epsilon: float) -> tuple[Value, Value]:
    """x less its mean over the axes from `axis` on, times one over its standard deviation there; and that factor."""
    axis %= x.rank
    if x.dtype == DOUBLE:  # onnxruntime's kernel gives its factor in float32 at most
        axes = list(range(axis, x.rank))
        centred = x - op.ReduceMean(x, axes)
        inverse = 1 / op.Sqrt(op.ReduceMean(centred * centred, axes) + epsilon)
        return centred * inverse, inverse
    lengths = x.shape[axis:]
    sizes = [d for d in lengths if isinstance(d, int)]
    if len(sizes) == len(lengths):
        ones = op.constant(np.ones(sizes if int(np.prod(sizes)) <= _ONES else 1), x)
    else:
        # One that broadcasts over axes of unknown length onnxruntime fuses with a sum before it, and then rejects it.
        ones = op.Expand(op.constant(1.0, x), op.vector([op.dim(x, a) for a in range(axis, x.rank)]))
    xhat, _, inverse = op.LayerNormalization(x, ones, axis=axis, epsilon=epsilon, outputs=3)
    return xhat, op.Cast(inverse, to=x.dtype)


def project(op: Builder, g: Value, xhat: Value, inverse: Value, axes: Sequence[int]) -> Value:
    """The derivative of a standardisation, which is its own transpose: g without its mean and without its part along xhat."""
    return (g - op.ReduceMean(g, list(axes)) - xhat * op.ReduceMean(g * xhat, list(axes))) * inverse


def _layer(op: Builder, n: NodeView) -> tuple[Value, Value, list[int]]:
    axis = int(n["axis"]) % n.x.rank
    return *standardised(op, n.x, axis, float(n["epsilon"])), list(range(axis, n.x.rank))


@jvp("LayerNormalization")
def layer_normalization(op: Builder, n: NodeView, x: Value | None = None, scale: Value | None = None, bias: Value | None = None) -> list[Value | None]:
    xhat, inverse, axes = _layer(op, n)
    parts: list[Value] = []
    mean = deviation = None
    if x is not None:
        parts.append(project(op, x, xhat, inverse, axes) * n.inputs[1])
        if len(n.outputs) > 1 and n.outputs[1] is not None:
            mean = op.Cast(op.ReduceMean(x, axes), to=n.outputs[1].dtype)
        if len(n.outputs) > 2 and n.outputs[2] is not None:
            deviation = op.Cast(-op.ReduceMean(x * xhat, axes) * (inverse * inverse), to=n.outputs[2].dtype)
    if scale is not None:
        parts.append(scale * xhat)
    if bias is not None:
        parts.append(op.expand_like(bias, n.x))
    return [total_of(parts), mean, deviation]


@vjp("LayerNormalization")
def layer_normalization_reverse(op: Builder, n: NodeView, g: Value | None, mean: Value | None = None, deviation: Value | None = None) -> list[Value | None]:
    xhat, inverse, axes = _layer(op, n)
    scale, bias = n.inputs[1], n.input(2)
    parts: list[Value] = []
    if n.wanted[0]:
        if g is not None:
            parts.append(project(op, g * scale, xhat, inverse, axes))
        if mean is not None:
            parts.append(op.Cast(mean, to=n.x.dtype) / op.count(n.x, axes, n.x))
        if deviation is not None:
            parts.append(xhat * (op.Cast(deviation, to=n.x.dtype) * (-inverse * inverse / op.count(n.x, axes, n.x))))
    gx = total_of(parts)
    gscale = op.unbroadcast(g * xhat, scale) if n.wanted[1] and g is not None and scale is not None else None
    gbias = op.unbroadcast(g, bias) if bias is not None and n.wanted[2] and g is not None else None
    return [op.expand_like(gx, n.x) if gx is not None else None, gscale, gbias]


def total_of(parts: Sequence[Value]) -> Value | None:
    total: Value | None = None
    for part in parts:
        total = part if total is None else total + part
    return total


# Root mean square normalisation: layer normalisation without the mean --------------------------------------------------------


def _root_mean_square(op: Builder, n: NodeView) -> tuple[Value, Value, list[int]]:
    axis = -1 if n["axis"] is None else int(n["axis"])
    epsilon = 1e-5 if n["epsilon"] is None else float(n["epsilon"])
    axes = list(range(axis % n.x.rank, n.x.rank))
    x = op.Cast(n.x, to=FLOAT) if n.x.dtype in HALVES else n.x  # in half precision the squares overflow, so the standard widens them
    inverse = op.Cast(1 / op.Sqrt(op.ReduceMean(x * x, axes) + epsilon), to=n.x.dtype)
    return n.x * inverse, inverse, axes


@jvp("RMSNormalization SimplifiedLayerNormalization")
def root_mean_square(op: Builder, n: NodeView, x: Value | None = None, scale: Value | None = None) -> list[Value | None]:
    xhat, inverse, axes = _root_mean_square(op, n)
    parts: list[Value] = []
    deviation = None
    if x is not None:
        parts.append((x - xhat * op.ReduceMean(x * xhat, axes)) * inverse * n.inputs[1])
        if len(n.outputs) > 1 and n.outputs[1] is not None:
            deviation = op.Cast(-op.ReduceMean(x * xhat, axes) * (inverse * inverse), to=n.outputs[1].dtype)
    if scale is not None:
        parts.append(scale * xhat)
    return [total_of(parts), deviation]


@vjp("RMSNormalization SimplifiedLayerNormalization")
def root_mean_square_reverse(op: Builder, n: NodeView, g: Value | None, deviation: Value | None = None) -> list[Value | None]:
    xhat, inverse, axes = _root_mean_square(op, n)
    scale = n.inputs[1]
    parts: list[Value] = []
    if n.wanted[0] and g is not None:
        h = g * scale
        parts.append((h - xhat * op.ReduceMean(h * xhat, axes)) * inverse)
    if n.wanted[0] and deviation is not None:
        parts.append(xhat * (op.Cast(deviation, to=n.x.dtype) * (-inverse * inverse / op.count(n.x, axes, n.x))))
    return [total_of(parts), op.unbroadcast(g * xhat, scale) if n.wanted[1] and g is not None and scale is not None else None]


def per_channel(op: Builder, n: NodeView, parameter: Value | None) -> Value:
    """[C] -> [C, 1, ..., 1], which broadcasts against [N, C, D1, ...]."""
    assert parameter is not None
    return parameter if n.x.rank <= 2 else op.Reshape(parameter, [-1] + [1] * (n.x.rank - 2))


# Those that are a layer normalisation of another shape ---------------------------------------------------------------------------


@expansion("InstanceNormalization")
def instance_normalization(op: Builder, n: NodeView) -> Value:
    rows = op.Reshape(n.x, [0, 0, -1])  # [N, C, D1, ...] -> [N, C, D1*...]
    xhat = op.reshape_like(standardised(op, rows, 2, float(n["epsilon"]))[0], n.x)
    return xhat * per_channel(op, n, n.inputs[1]) + per_channel(op, n, n.inputs[2])


@expansion("GroupNormalization")
def group_normalization(op: Builder, n: NodeView) -> Value:
    rows = op.Reshape(n.x, [0, int(n["num_groups"]), -1])  # [N, C, D1, ...] -> [N, G, C/G*D1*...]
    xhat = op.reshape_like(standardised(op, rows, 2, float(n["epsilon"]))[0], n.x)
    return xhat * per_channel(op, n, n.inputs[1]) + per_channel(op, n, n.inputs[2])


@expansion("MeanVarianceNormalization")
def mean_variance_normalization(op: Builder, n: NodeView) -> Value:
    axes = [a % n.x.rank for a in n["axes"]]
    centred = n.x - op.ReduceMean(n.x, axes)
    # A norm, and no root of a variance: its derivative at zero is zero and not infinite.
    deviation = op.ReduceL2(centred, axes) / op.Sqrt(op.count(n.x, axes, n.x))
    return centred / (deviation + 1e-9)
