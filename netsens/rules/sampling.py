"""Operators that read an image between its pixels: GridSample, RoiAlign, DeformConv; the grids that AffineGrid makes; and MaxRoiPool.

Each is expanded to rows gathered from the image laid out as [pixels, channels], times weights that follow from where it is read. Which pixels
those are is a whole number, so what the result owes to a position comes from the weights alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import INT64
from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, expansion, linear

LOWEST = {10: -65504.0}  # what no pixel is less than, by dtype; -3e38 elsewhere. An infinity would make a NaN of a zero weight


@dataclass(frozen=True, slots=True)
class Tap:
    """A pixel's place along one axis (int64), and its weight (None: one)."""

    at: Value
    weight: Value | None


def _rows(op: Builder, x: Value) -> Value:
    """[N, C, *spatial] -> [N * pixels, C]"""
    last_channels = op.Transpose(x, perm=[0, *range(2, x.rank), 1])
    return op.Reshape(last_channels, op.vector([-1, op.dim(x, 1)]))


def _lengths(op: Builder, x: Value) -> list[Value]:
    """The spatial lengths, as int64 scalars."""
    return [op.Squeeze(op.dim(x, a), [0]) for a in range(2, x.rank)]


def _clamped(op: Builder, at: Value, length: Value) -> Value:
    return op.Max(op.Min(at, length - 1), 0)


def _read(op: Builder, rows: Value, base: Value, axes: Sequence[Sequence[Tap]], lengths: Sequence[Value]) -> tuple[Value, Value | None]:
    """What the rows hold at all combinations of taps, [.., taps, C], and the weights, [.., taps, 1]. `base` is the number of the image's first row."""
    places: list[Value] = []
    weights: list[Value] = []
    for chosen in product(*axes):
        place: Value | None = None
        weight: Value | None = None
        for tap, length in zip(chosen, lengths, strict=True):
            place = tap.at if place is None else place * length + tap.at
            if tap.weight is not None:
                weight = tap.weight if weight is None else weight * tap.weight
        assert place is not None
        places.append(op.Unsqueeze(place + base, [-1]))
        if weight is not None:
            weights.append(op.Unsqueeze(weight, [-1]))
    read = op.Gather(rows, op.Concat(*places, axis=-1) if len(places) > 1 else places[0], axis=0)
    if not weights:
        return read, None
    return read, op.Unsqueeze(op.Concat(*weights, axis=-1) if len(weights) > 1 else weights[0], [-1])


def _first_rows(op: Builder, count: Value, lengths: Sequence[Value], rank: int) -> Value:
    """The number of each image's first row, [count, 1, ..] of `rank` axes."""
    pixels = lengths[0]
    for length in lengths[1:]:
        pixels = pixels * length
    numbers = op.Range(op.constant(np.asarray(0, np.int64)), op.Squeeze(count, [0]), op.constant(np.asarray(1, np.int64)))
    return op.Unsqueeze(numbers * pixels, list(range(1, rank)))


# GridSample -------------------------------------------------------------------------------------------------------------------


def _keys(op: Builder, distance: Value, near: bool, a: float = -0.75) -> Value:
    """Keys' cubic kernel: within one pixel, or within two."""
    d = distance
    if near:
        return ((a + 2) * d - (a + 3)) * d * d + 1.0
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


def _mirrored(op: Builder, u: Value, low: float, high: Value) -> Value:
    """Reflected between two walls, any number of times."""
    wide = op.Max(high - low, 0.5)  # an image of one pixel may have both walls at the same place, and what lies off them is clamped
    away = op.Abs(u - low)
    turns = op.Floor(away / wide)
    rest = away - turns * wide
    even = op.Equal(turns - 2.0 * op.Floor(turns * 0.5), 0.0)
    return op.Where(even, rest + low, high - rest)


def _grid_taps(op: Builder, u: Value, length: Value, mode: str, padding: str, corners: bool) -> list[Tap]:
    """Which pixels a coordinate along one axis reads, and how much of each."""
    size = op.Cast(length, to=u.dtype)
    low = 0.0 if corners else -0.5
    high = size - (1.0 if corners else 0.5)
    if mode == "nearest":
        u = op.Round(u)
    if mode != "cubic" and padding == "border":
        u = op.Where(u > 0.0, op.Where(u < size - 1.0, u, size - 1.0), 0.0)
    elif mode != "cubic" and padding == "reflection":
        u = _mirrored(op, u, low, high)
    first = op.Floor(u)
    past = u - first
    match mode:
        case "nearest":
            parts: list[tuple[int, Value | None]] = [(0, None)]
        case "cubic":
            parts = [(-1, _keys(op, past + 1.0, False)), (0, _keys(op, past, True)), (1, _keys(op, 1.0 - past, True)), (2, _keys(op, 2.0 - past, False))]
        case _:
            parts = [(0, 1.0 - past), (1, past)]
    taps = []
    for offset, weight in parts:
        at = first + float(offset)
        if padding == "zeros":
            inside = op.Cast(op.And(op.GreaterOrEqual(at, 0.0), op.Less(at, size)), to=u.dtype)
            weight = inside if weight is None else weight * inside
        elif padding == "reflection":
            at = _mirrored(op, at, low, high)
        taps.append(Tap(_clamped(op, op.Cast(at, to=INT64), length), weight))
    return taps


@expansion("GridSample")
def grid_sample(op: Builder, n: NodeView) -> Value:
    x, grid = n.x, n.inputs[1]
    assert grid is not None
    lengths, corners = _lengths(op, x), bool(n["align_corners"])
    axes = []
    for k, length in enumerate(lengths):
        # [N, *out]: a grid names its axes last one first, and runs from -1 to 1 over pixels' corners or centres.
        v = op.Gather(grid, op.constant(np.asarray(len(lengths) - 1 - k, np.int64)), axis=-1)
        size = op.Cast(length, to=v.dtype)
        u = (v + 1.0) * (0.5 * (size - 1.0)) if corners else ((v + 1.0) * size - 1.0) * 0.5
        axes.append(_grid_taps(op, u, length, n["mode"], n["padding_mode"], corners))
    base = _first_rows(op, op.dim(x, 0), lengths, x.rank - 1)
    read, weights = _read(op, _rows(op, x), base, axes, lengths)
    # [N, *out, taps, C] -> [N, *out, C] -> [N, C, *out]
    total = op.ReduceSum(read if weights is None else read * weights, [-2], keepdims=0)
    return op.retyped(op.Transpose(total, perm=[0, x.rank - 1, *range(1, x.rank - 1)]), n.y.shape)


def _affine_back(op: Builder, n: NodeView, g: Value) -> Value:
    """The grid of the identity, from the operator itself, holds the coordinates that theta multiplies."""
    size = n.inputs[1]
    d = n.x.shape[1]
    if not isinstance(d, int):
        raise UnsupportedError(f"{n.node.label} has a theta of unknown shape; give its input a shape.")
    identity = op.constant(np.eye(d, d + 1)[None], g)
    plane = op.AffineGrid(identity, op.Concat([1, 1], op.Slice(size, [2], [2 + d]), axis=0), align_corners=n["align_corners"])
    # [N, *out, d] -> [N, d, out]; times [out, d], and times ones
    rows = op.Transpose(op.Reshape(g, [0, -1, d]), perm=[0, 2, 1])
    by_place = op.MatMul(rows, op.Reshape(plane, [-1, d]))
    return op.retyped(op.Concat(by_place, op.ReduceSum(rows, [2]), axis=2), n.x.shape)


linear("AffineGrid", _affine_back)


# Regions of interest ------------------------------------------------------------------------------------------------------------


def _region_taps(op: Builder, v: Value, length: Value) -> list[Tap]:
    """Between which pixels a region's sample lies; samples more than a pixel outside read nothing."""
    size = op.Cast(length, to=v.dtype)
    inside = op.Cast(op.And(op.GreaterOrEqual(v, -1.0), op.LessOrEqual(v, size)), to=v.dtype)
    v = op.Where(v > 0.0, v, 0.0)
    low = op.Min(op.Floor(v), size - 1.0)
    past = op.Where(op.GreaterOrEqual(low, size - 1.0), 0.0, v - low)
    at = op.Cast(low, to=INT64)
    return [Tap(_clamped(op, at, length), (1.0 - past) * inside), Tap(_clamped(op, at + 1, length), past * inside)]


def _samples(op: Builder, start: Value, extent: Value, count: int, ratio: int) -> tuple[Value, Value, Value]:
    """Where each bin of a region samples along one axis, [R, count, samples]; which of those there are; and how many a bin has, [R, 1, 1]."""
    dtype = start.dtype
    start, extent = op.Unsqueeze(start, [1, 2]), op.Unsqueeze(extent, [1, 2])
    size = extent / float(count)
    zero, one = op.constant(np.asarray(0, np.int64)), op.constant(np.asarray(1, np.int64))
    bins = op.constant(np.arange(count).reshape(1, -1, 1), start)
    if ratio > 0:
        number = op.constant(np.full((1, 1, 1), ratio), start)
        steps = op.constant(np.arange(ratio).reshape(1, 1, -1), start)
    else:
        number = op.Ceil(size)
        most = op.ReduceMax(op.Concat(op.Cast(op.Reshape(number, [-1]), to=INT64), [1], axis=0), keepdims=0)
        steps = op.Unsqueeze(op.Cast(op.Range(zero, most, one), to=dtype), [0, 1])
    at = start + bins * size + (steps + 0.5) * (size / op.Max(number, 1.0))
    return at, op.Less(steps, number), number


@expansion("RoiAlign")
def roi_align(op: Builder, n: NodeView) -> Value:
    x, rois, images = n.x, n.inputs[1], n.inputs[2]
    lengths, half = _lengths(op, x), n["coordinate_transformation_mode"] == "half_pixel"
    edges = [op.Gather(rois, op.constant(np.asarray(k, np.int64)), axis=1) * float(n["spatial_scale"]) - (0.5 if half else 0.0) for k in range(4)]
    spans = []
    for k, count in ((1, n["output_height"]), (0, n["output_width"])):
        extent = edges[k + 2] - edges[k]
        spans.append(_samples(op, edges[k], extent if half else op.Where(extent > 1.0, extent, 1.0), int(count), int(n["sampling_ratio"])))
    (ys, y_there, y_count), (xs, x_there, x_count) = spans
    # [R, PH, SH] and [R, PW, SW] -> [R, PH, 1, SH, 1] and [R, 1, PW, 1, SW]
    down, across = [2, 4], [1, 3]
    shape = [op.Unsqueeze(ys, down), op.Unsqueeze(xs, across)]
    axes = [_region_taps(op, v, length) for v, length in zip(shape, lengths, strict=True)]
    base = op.Unsqueeze(op.Cast(images, to=INT64) * (lengths[0] * lengths[1]), [1, 2, 3, 4])
    read, weights = _read(op, _rows(op, x), base, axes, lengths)
    assert weights is not None
    there = op.Unsqueeze(op.And(op.Unsqueeze(y_there, down), op.Unsqueeze(x_there, across)), [5, 6])  # [R, 1, 1, SH, SW, 1, 1]
    if n["mode"] == "avg":
        total = op.ReduceSum(read * (weights * op.Cast(there, to=x.dtype)), [3, 4, 5], keepdims=0)
        result = total / op.Unsqueeze(op.Max(y_count * x_count, 1.0), [3])
    else:
        # As onnxruntime has it, the largest of the four weighted pixels of all samples; 0 for a region without any.
        found = op.ReduceMax(op.Where(there, read * weights, LOWEST.get(x.dtype, -3e38)), [3, 4, 5], keepdims=0)
        result = op.Where(op.Unsqueeze(op.Equal(y_count * x_count, 0.0), [3]), 0.0, found)
    return op.retyped(op.Transpose(result, perm=[0, 3, 1, 2]), n.y.shape)


def _bins(op: Builder, start: Value, end: Value, count: int, length: Value) -> Value:
    """Which pixels of an axis belong to which bin of a region whose edges are whole pixels, [R, count, length]."""
    size = op.Max(end - start + 1.0, 1.0) / float(count)
    bins = op.constant(np.arange(count).reshape(1, -1, 1), start)
    start, size = op.Unsqueeze(start, [1, 2]), op.Unsqueeze(size, [1, 2])
    zero, one = op.constant(np.asarray(0, np.int64)), op.constant(np.asarray(1, np.int64))
    pixels = op.Unsqueeze(op.Cast(op.Range(zero, length, one), to=start.dtype), [0, 1])
    return op.And(op.GreaterOrEqual(pixels, op.Floor(bins * size) + start), op.Less(pixels, op.Ceil((bins + 1.0) * size) + start))


@expansion("MaxRoiPool")
def max_roi_pool(op: Builder, n: NodeView) -> Value:
    """The maximum of each row of a bin, then of those; by index, so that of equal pixels the first one counts. A region's edges are rounded, so
    nothing passes to them."""
    x, rois = n.x, n.inputs[1]
    lengths = _lengths(op, x)
    columns = [op.Gather(rois, op.constant(np.asarray(k, np.int64)), axis=1) for k in range(5)]
    edges = [_half_away(op, c * float(n["spatial_scale"])) for c in columns[1:]]
    high, wide = (int(p) for p in n["pooled_shape"])
    rows, cols = _bins(op, edges[1], edges[3], high, lengths[0]), _bins(op, edges[0], edges[2], wide, lengths[1])
    # [R, C, H, W] -> [R, C, H, PW, W] -> [R, C, H, PW] -> [R, C, PW, H] -> [R, C, PW, PH, H] -> [R, C, PW, PH]
    images = op.Gather(x, op.Cast(columns[0], to=INT64), axis=0)
    by_column = _largest(op, op.Unsqueeze(images, [3]), op.Unsqueeze(cols, [1, 2]))
    by_row = _largest(op, op.Unsqueeze(op.Transpose(by_column, perm=[0, 1, 3, 2]), [3]), op.Unsqueeze(rows, [1, 2]))
    pooled = op.Transpose(by_row, perm=[0, 1, 3, 2])
    return op.retyped(op.Where(op.LessOrEqual(pooled, LOWEST.get(x.dtype, -3e38)), 0.0, pooled), n.y.shape)


def _largest(op: Builder, x: Value, there: Value) -> Value:
    """The first maximum along the last axis among the elements that are there; LOWEST where none is."""
    held = op.Where(there, x, LOWEST.get(x.dtype, -3e38))
    return op.Squeeze(op.GatherElements(held, op.ArgMax(held, axis=-1), axis=-1), [-1])


def _half_away(op: Builder, x: Value) -> Value:
    """Rounded as C's round does it."""
    return op.Sign(x) * op.Floor(op.Abs(x) + 0.5)


# DeformConv ---------------------------------------------------------------------------------------------------------------------


@expansion("DeformConv")
def deform_conv(op: Builder, n: NodeView) -> Value:
    """A convolution whose every tap reads beside its place."""
    x, weight, offsets, bias, mask = n.x, n.inputs[1], n.inputs[2], n.input(3), n.input(4)
    assert weight is not None
    assert offsets is not None
    kernel = n["kernel_shape"] or list(weight.shape[2:])
    if x.rank != 4 or not all(isinstance(k, int) for k in kernel):
        raise UnsupportedError(f"{n.node.label} is differentiated over two spatial axes with a kernel of known shape alone; give its weight a shape.")
    positions, group, groups = kernel[0] * kernel[1], int(n["group"]), int(n["offset_group"])
    strides, dilations, pads = n["strides"] or [1, 1], n["dilations"] or [1, 1], n["pads"] or [0] * 4
    lengths, out = _lengths(op, x), [op.dim(offsets, 2), op.dim(offsets, 3)]
    # [N, g, positions, 2, OH, OW]
    shifts = op.Reshape(offsets, op.vector([op.dim(x, 0), groups, positions, 2, *out]))
    axes = []
    zero, one = op.constant(np.asarray(0, np.int64)), op.constant(np.asarray(1, np.int64))
    for k, length in enumerate(lengths):
        steps = op.Cast(op.Range(zero, op.Squeeze(out[k], [0]), one), to=x.dtype) * float(strides[k])
        own = np.indices(kernel)[k].reshape(-1, 1, 1) * dilations[k] - pads[k]
        place = op.constant(own, x) + op.Unsqueeze(steps, [0, 1 + (k == 0)])
        u = op.Gather(shifts, op.constant(np.asarray(k, np.int64)), axis=3) + place
        axes.append(_grid_taps(op, u, length, "linear", "zeros", True))
    channels = op.dim(x, 1) / groups
    # [N, g * C, H, W] -> [N * g, C, H, W] -> [N * g * pixels, C]
    parts = op.Reshape(x, op.vector([-1, channels, op.dim(x, 2), op.dim(x, 3)]))
    count = op.dim(x, 0) * groups
    base = op.Reshape(_first_rows(op, count, lengths, 1), op.vector([op.dim(x, 0), groups, 1, 1, 1]))
    read, weights = _read(op, _rows(op, parts), base, axes, lengths)
    assert weights is not None
    seen = op.ReduceSum(read * weights, [-2], keepdims=0)  # [N, g, positions, OH, OW, C]
    if mask is not None:
        seen = seen * op.Unsqueeze(op.Reshape(mask, op.vector([op.dim(x, 0), groups, positions, *out])), [-1])
    # -> [N, g, C, positions, OH, OW] -> [N, group, C * positions, out]
    columns = op.Reshape(op.Transpose(seen, perm=[0, 1, 5, 2, 3, 4]), op.vector([op.dim(x, 0), group, op.dim(x, 1) / group * positions, -1]))
    filters = op.Reshape(weight, op.vector([group, op.dim(weight, 0) / group, -1]))
    y = op.Reshape(op.MatMul(filters, columns), op.vector([op.dim(x, 0), op.dim(weight, 0), *out]))
    return op.retyped(y if bias is None else y + op.Reshape(bias, [1, -1, 1, 1]), n.y.shape)
