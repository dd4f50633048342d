"""Many directions through what treats each sample by itself: convolutions, pools, resampling. The directions are folded into the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsens.graph.emit import Value
from netsens.graph.shapes import known
from netsens.modes.batches.view import BatchView, require, reshaped, rule


def _folded(b: BatchView) -> Value:
    """[K, N, ...] -> [K*N, ...]"""
    shape = b.shape()
    require(len(shape) > 1, all(shape))
    return b.op.retyped(b.op.Reshape(b.t, [-1, *shape[1:]]), (None, *shape[1:]))


def _unfolded(b: BatchView, y: Value) -> Value:
    """[K*N, ...] -> [K, N, ...]"""
    shape = b.result_shape()
    require(all(shape))
    return b.op.retyped(b.op.Reshape(y, [-1, *shape]), (b.t.shape[0], *shape))


@rule("Conv ConvTranspose")
def _conv(b: BatchView) -> Any:
    require(b.x(2) is None, not (b.moving[0] and b.moving[1]))
    if b.moving[0]:
        return _unfolded(b, b.same(_folded(b), b.x(1)))
    # The directions of a filter become output channels, group by group.
    op, filters = b.op, b.xs[1]
    assert filters is not None
    shape, group = b.shape(1), int(b["group"])
    result = b.result_shape()
    require(all(shape), all(result))
    r = len(shape)
    if b.node.op == "Conv":
        # [K, g*M, C, ..] -> [K, g, M, C, ..] -> [g, K, M, C, ..] -> [g*K*M, C, ..]
        split = reshaped(b, filters, [group, shape[0] // group, *shape[1:]])
        joined = op.Reshape(op.Transpose(split, perm=[1, 0, *range(2, r + 2)]), [-1, *shape[1:]])
    else:
        # [K, g*C, M, ..] -> [g*C, K, M, ..] -> [g*C, K*M, ..]
        joined = op.Reshape(op.Transpose(filters, perm=[1, 0, *range(2, r + 1)]), [shape[0], -1, *shape[2:]])
    y = op.emit(b.node.op, [b.xs[0], joined], dict(b.node.attributes))
    # [N, g*K*M, ..] -> [N, g, K, M, ..] -> [K, N, g, M, ..] -> [K, N, g*M, ..]
    apart = op.Reshape(y, [result[0], group, -1, result[1] // group, *result[2:]])
    return reshaped(b, op.Transpose(apart, perm=[2, 0, 1, 3, *range(4, r + 2)]), result)


@rule("AveragePool GlobalAveragePool DepthToSpace SpaceToDepth Col2Im")
def _sample_by_sample(b: BatchView) -> Any:
    require(b.moving[0], not any(b.moving[1:]))
    return _unfolded(b, b.same(_folded(b), *b.xs[1:]))


@rule("Resize")
def _resize(b: BatchView) -> Any:
    require(b.moving[0], not any(b.moving[1:]), b["axes"] is None)
    scales, sizes = b.ints(2) if b.x(2) is not None else None, b.ints(3) if b.x(3) is not None else None
    values = b.x(2).constant if b.x(2) is not None else None  # type: ignore[union-attr]
    rank = b.rank()
    require(b.shape()[0] == b.result_shape()[0])
    if b.x(3) is not None:
        require(sizes is not None, b["coordinate_transformation_mode"] != "tf_crop_and_resize")
        return _unfolded(b, b.same(_folded(b), b.x(1), None, (sizes or [])[1:], axes=list(range(1, rank))))
    require(scales is not None, values is not None and values.size == rank and values[0] == 1, b.x(1) is None)
    return _unfolded(b, b.same(_folded(b), b.x(1), b.x(2)))


@rule("MaxUnpool")
def _max_unpool(b: BatchView) -> Any:
    require(b.moving[0], not b.moving[1], known(b.results[0].shape))
    # The indices count over the whole result, directions included: [N, C, ..] -> [K, N, C, ..] + K * size -> [K*N, C, ..]
    op, shape, result = b.op, b.shape(), b.result_shape()
    size = int(np.prod(result))
    steps = op.Range(np.asarray(0, np.int64), op.Squeeze(b.count, [0]), np.asarray(1, np.int64)) * size
    indices = op.Unsqueeze(b.x(1), [0]) + op.Unsqueeze(steps, list(range(1, len(shape) + 1)))
    sizes = None if b.x(2) is None else op.vector([b.count * result[0], *result[1:]])
    return _unfolded(b, b.same(_folded(b), op.Reshape(indices, [-1, *shape[1:]]), sizes))
