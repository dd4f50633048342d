"""Batch normalisation: each channel by its own statistics, given or of the batch."""

from __future__ import annotations

from collections.abc import Sequence

from netsens.graph.emit import Builder, Value
from netsens.rules.convolution import along_output, over_places
from netsens.rules.normalization import per_channel, project, total_of
from netsens.rules.words import NodeView, jvp, vjp


def _but_channels(n: NodeView) -> list[int]:
    return [k for k in range(n.x.rank) if k != 1]


def _spread(op: Builder, n: NodeView) -> Value:
    """One over the standard deviation, per channel, of the statistics given."""
    variance = n.inputs[4]
    assert variance is not None
    return 1 / op.Sqrt(variance + float(n["epsilon"]))


@jvp("BatchNormalization")
def batch_normalization(op: Builder, n: NodeView, *tangents: Value | None) -> list[Value | None]:
    if n["training_mode"]:
        return _batch_in_training(op, n, tangents)
    x, scale, bias, mean, variance = tangents
    inverse = _spread(op, n)
    factor = n.inputs[1] * inverse
    parts = [x * per_channel(op, n, factor)] if x is not None else []
    slope = None if scale is None else scale * inverse
    if variance is not None:
        bent = variance * (-0.5 * factor * inverse * inverse)
        slope = bent if slope is None else slope + bent
    if slope is not None:
        parts.append((n.x - per_channel(op, n, n.inputs[3])) * per_channel(op, n, slope))
    shift = bias
    if mean is not None:
        shift = -(mean * factor) if shift is None else shift - mean * factor
    if shift is not None:
        parts.append(per_channel(op, n, shift))
    total = total_of(parts)
    return [None if total is None else op.expand_like(total, n.y)]


@vjp("BatchNormalization")
def batch_normalization_reverse(op: Builder, n: NodeView, g: Value | None, *running: Value | None) -> list[Value | None]:
    if n["training_mode"]:
        return _batch_in_training_reverse(op, n, g, *running)
    assert g is not None
    inverse = _spread(op, n)
    factor = n.inputs[1] * inverse
    result: list[Value | None] = [g * per_channel(op, n, factor) if n.wanted[0] else None, None, None, None, None]
    if n.wanted[2] or n.wanted[3]:
        total = _summed(op, n, g)
        result[2:4] = total, -(total * factor)
    if n.wanted[1] or n.wanted[4]:
        mean = n.inputs[3]
        behind = along_output(op, n.x, g)
        along = _summed(op, n, g * (n.x - per_channel(op, n, mean))) if behind is None else behind - mean * _summed(op, n, g)
        result[1] = along * inverse
        result[4] = along * (-0.5 * factor * inverse * inverse)
    return result


def _summed(op: Builder, n: NodeView, g: Value) -> Value:
    return over_places(op, g) if n.x.rank > 1 else op.ReduceSum(g, [0])


def _of_the_batch(op: Builder, n: NodeView) -> tuple[Value, Value, list[int]]:
    axes = _but_channels(n)
    centred = n.x - op.ReduceMean(n.x, axes)
    inverse = 1 / op.Sqrt(op.ReduceMean(centred * centred, axes) + float(n["epsilon"]))
    return centred, inverse, axes


def _batch_in_training(op: Builder, n: NodeView, tangents: Sequence[Value | None]) -> list[Value | None]:
    x, scale, bias, mean, variance = tangents
    centred, inverse, axes = _of_the_batch(op, n)
    xhat, keep = centred * inverse, float(n["momentum"])
    parts: list[Value] = []
    if x is not None:
        parts.append(project(op, x, xhat, inverse, axes) * per_channel(op, n, n.inputs[1]))
    if scale is not None:
        parts.append(xhat * per_channel(op, n, scale))
    if bias is not None:
        parts.append(op.expand_like(per_channel(op, n, bias), n.x))
    means = [] if mean is None else [mean * keep]
    variances = [] if variance is None else [variance * keep]
    if x is not None:
        means.append(op.ReduceMean(x, axes, keepdims=0) * (1 - keep))
        variances.append(op.ReduceMean(x * centred, axes, keepdims=0) * (2 * (1 - keep)))
    return [total_of(parts), total_of(means), total_of(variances)][: len(n.outputs)]


def _batch_in_training_reverse(op: Builder, n: NodeView, g: Value | None, mean: Value | None = None, variance: Value | None = None) -> list[Value | None]:
    centred, inverse, axes = _of_the_batch(op, n)
    xhat, keep = centred * inverse, float(n["momentum"])
    parts: list[Value] = []
    if n.wanted[0]:
        share = (1 - keep) / op.count(n.x, axes, n.x)
        if g is not None:
            parts.append(project(op, g * per_channel(op, n, n.inputs[1]), xhat, inverse, axes))
        if mean is not None:
            parts.append(op.expand_like(per_channel(op, n, mean * share), n.x))
        if variance is not None:
            parts.append(centred * per_channel(op, n, variance * (2 * share)))
    return [
        total_of(parts),
        op.ReduceSum(g * xhat, axes, keepdims=0) if n.wanted[1] and g is not None else None,
        op.ReduceSum(g, axes, keepdims=0) if n.wanted[2] and g is not None else None,
        mean * keep if n.wanted[3] and mean is not None else None,
        variance * keep if n.wanted[4] and variance is not None else None,
    ]
