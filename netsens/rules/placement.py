"""Puts the elements that an operator picked back where they came from, zeros elsewhere and sums where one was picked twice: the transposes of
slices and gathers, chosen for what is fast in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

import numpy as np

from netsens.graph.dtypes import FLOAT, HALVES
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Array, Dim

# Pad writes row by row. Measured in onnxruntime 1.31 against Concat with blocks of zeros (one thread, ms): rows of 7 elements 0.43 against 0.14,
# rows of 30 0.13 against 0.10 and 1.1 against 1.6, rows of 512 and more 0.6 against 0.9. ScatterND took 1.7 where Pad took 0.6.
_SHORT_ROW = 24
_MOST_RUNS = 8
_LAST = -(2**62)


def padded(op: Builder, g: Value, dims: Sequence[Value], pads: Mapping[int, tuple[Value, Value]]) -> Value:
    """`g`, of the lengths `dims`, with zeros before and after along some axes: `pads` holds vectors of length 1."""
    wanted = {axis: ends for axis, ends in sorted(pads.items()) if any(e.constant is None or e.constant.any() for e in ends)}
    if not wanted:
        return g
    inner = [_number(d) for d in dims[max(wanted) :]]
    row = prod(d for d in inner if d is not None)
    if row >= _SHORT_ROW or None in inner or any(e.constant is None for ends in wanted.values() for e in ends):
        befores, afters = [b for b, _ in wanted.values()], [a for _, a in wanted.values()]
        return op.Pad(g, op.vector([*befores, *afters]), None, list(wanted))
    sizes = list(dims)
    for axis, (before, after) in wanted.items():
        blocks = [_zeros(op, g, [*sizes[:axis], e, *sizes[axis + 1 :]]) if _number(e) else None for e in (before, after)]
        g = op.Concat(*(b for b in (blocks[0], g, blocks[1]) if b is not None), axis=axis)
        sizes[axis] = sizes[axis] + before + after
    return g


def interleaved(op: Builder, g: Value, dims: Sequence[Value], axis: int, step: int) -> Value:
    """`g`, of the lengths `dims`, with step - 1 zeros after each element along an axis. (Concat: Pad took six times as long.)"""
    # [.., n, ..] -> [.., n, 1, ..] -> [.., n, step, ..] -> [.., n * step, ..]
    apart = op.Unsqueeze(g, [axis + 1])
    zeros = _zeros(op, g, [*dims[: axis + 1], op.constant(np.asarray([step - 1])), *dims[axis + 1 :]])
    joined = op.Concat(apart, zeros, axis=axis + 1)
    return op.Reshape(joined, op.vector([*dims[:axis], dims[axis] * step, *dims[axis + 1 :]]), allowzero=1)


def flipped(op: Builder, g: Value, axis: int) -> Value:
    return op.Slice(g, [-1], [_LAST], [axis], [-1])


def picked_back(op: Builder, g: Value, indices: Array, axis: int, dims: Sequence[Value], size: int) -> Value | None:
    """The transpose of picking constant `indices` (a vector, none negative) along an axis of length `size`. `dims` are the lengths of `g`, which has
    one element along the axis for each index. None where scattering is as good."""
    count = len(indices)
    if count == 0:
        return _zeros(op, g, [*dims[:axis], op.constant(np.asarray([size])), *dims[axis + 1 :]])
    steps = np.diff(indices)
    if count == 1 or ((steps == steps[0]).all() and steps[0] != 0):
        step = int(steps[0]) if count > 1 else 1
        return _regular(op, g, axis, dims, (int(indices.min()), abs(step), size), backwards=step < 0)
    runs = _runs(indices)
    if len(runs) <= _MOST_RUNS:
        return _joined(op, g, runs, axis, dims, size)
    if len(np.unique(indices)) < count:
        return None
    # Each place takes the one element that was picked from it, or a zero that stands behind them all.
    source = np.full(size, count)
    source[indices] = np.arange(count)
    if count < size:
        g = op.Concat(g, _zeros(op, g, [*dims[:axis], op.constant(np.asarray([1])), *dims[axis + 1 :]]), axis=axis)
    return op.Gather(g, source, axis=axis)


def _regular(op: Builder, g: Value, axis: int, dims: Sequence[Value], to: tuple[int, int, int], backwards: bool) -> Value:
    """`g` placed at begin, begin + step, ... of an axis of length size, with `to` = (begin, step, size)."""
    begin, step, size = to
    count = _number(dims[axis])
    assert count is not None
    if backwards:
        g = flipped(op, g, axis)
    sizes = list(dims)
    span = count
    if step > 1 and count > 1:
        g = interleaved(op, g, sizes, axis, step)
        span = (count - 1) * step + 1
        # The last element's zeros may reach beyond the end.
        keep = min(count * step, size - begin)
        if keep < count * step:
            g = op.Slice(g, [0], [keep], [axis])
        span = keep
        sizes[axis] = op.constant(np.asarray([span]))
    after = size - begin - span
    return padded(op, g, sizes, {axis: (op.constant(np.asarray([begin])), op.constant(np.asarray([after])))})


Run = tuple[int, int, int, int]  # where it begins in g, how many, its lowest place, and whether it goes up (1), down (-1) or stays (0)


def _runs(indices: Array) -> list[Run]:
    """Stretches of indices that go up by one, go down by one, or stay."""
    runs: list[Run] = []
    start = 0
    while start < len(indices):
        end = start + 1
        direction = 1
        if end < len(indices) and abs(int(indices[end]) - int(indices[start])) <= 1:
            direction = int(indices[end]) - int(indices[start])
            while end < len(indices) and int(indices[end]) - int(indices[end - 1]) == direction:
                end += 1
        runs.append((start, end - start, int(indices[start:end].min()), direction))
        start = end
    return runs


def _joined(op: Builder, g: Value, runs: Sequence[Run], axis: int, dims: Sequence[Value], size: int) -> Value:
    """The axis cut where a run begins or ends; each segment is the sum of the runs that cover it."""
    ends = {0, size}
    for _, count, low, direction in runs:
        ends |= {low, low + (count if direction else 1)}
    cuts = sorted(ends)
    segments: list[Value | int] = []  # a number is a stretch of so many zeros
    for low, high in pairwise(cuts):
        total: Value | None = None
        for start, count, first, direction in runs:
            if not first <= low < first + (count if direction else 1):
                continue
            if direction == 0:
                part = op.ReduceSum(_part(op, g, axis, start, start + count), [axis], keepdims=1)
            elif direction == 1:
                part = _part(op, g, axis, start + low - first, start + high - first)
            else:
                last = start + count + first
                part = flipped(op, _part(op, g, axis, last - high, last - low), axis)
            total = part if total is None else total + part
        if total is not None:
            segments.append(total)
        elif segments and isinstance(segments[-1], int):
            segments[-1] += high - low
        else:
            segments.append(high - low)
    blocks = [_zeros(op, g, [*dims[:axis], op.constant(np.asarray([s])), *dims[axis + 1 :]]) if isinstance(s, int) else s for s in segments]
    return blocks[0] if len(blocks) == 1 else op.Concat(*blocks, axis=axis)


def _part(op: Builder, g: Value, axis: int, begin: int, end: int) -> Value:
    return g if begin == 0 and g.shape[axis] == end else op.Slice(g, [begin], [end], [axis])


def added_along(op: Builder, g: Value, indices: Value, axis: int, dims: Sequence[Value], *, once: bool = False) -> Value:
    """The transpose of picking `indices` along an axis of a tensor of the lengths `dims`: `g` has the axes of the indices in place of that axis.
    `once` says that no index comes twice. ScatterElements even where rows are whole: onnxruntime's ScatterND adds from several threads at
    once and loses summands where an index comes twice."""
    lead, trail = product(op, dims[:axis]), product(op, dims[axis + 1 :])
    count = product(op, lengths(op, indices))
    flat = op.Reshape(indices, [-1])
    if axis == 0:
        rows = op.Reshape(g, op.vector([count, trail]), allowzero=1)
        zeros = _zeros(op, g, [dims[0], trail])
        if once:
            spread = op.ScatterND(zeros, op.Unsqueeze(flat, [1]), rows)
        else:
            spread = added_at(op, zeros, op.Expand(op.Unsqueeze(flat, [1]), op.vector([count, trail])), rows, 0)
    else:
        # [.., M, ..] -> [P, M, R]
        rows = op.Reshape(g, op.vector([lead, count, trail]), allowzero=1)
        places = op.Expand(op.Unsqueeze(flat, [0, 2]), op.vector([lead, count, trail]))
        zeros = _zeros(op, g, [lead, dims[axis], trail])
        spread = op.ScatterElements(zeros, places, rows, axis=1) if once else added_at(op, zeros, places, rows, 1)
    return op.Reshape(spread, op.vector(list(dims)), allowzero=1)


def added_at(op: Builder, zeros: Value, places: Value, values: Value, axis: int) -> Value:
    """Values added where they belong, in float32 if they are halves: onnxruntime's CPU kernel adds no halves, and many of them would lose digits."""
    dtype = zeros.dtype
    if dtype not in HALVES:
        return op.ScatterElements(zeros, places, values, axis=axis, reduction="add")
    return op.Cast(op.ScatterElements(op.Cast(zeros, to=FLOAT), places, op.Cast(values, to=FLOAT), axis=axis, reduction="add"), to=dtype)


def lengths(op: Builder, value: Value) -> list[Value]:
    """The dimensions of a value, each as a vector of length 1."""
    return [op.dim(value, a) for a in range(value.rank)]


def product(op: Builder, dims: Sequence[Value]) -> Value:
    """The product of vectors of length 1."""
    numbers = [_number(d) for d in dims]
    if None not in numbers:
        return op.constant(np.asarray([prod(n for n in numbers if n is not None)], np.int64))
    return dims[0] if len(dims) == 1 else op.ReduceProd(op.vector(list(dims)), keepdims=1)


def positions(op: Builder, count: Value) -> Value:
    """0, 1, ... as many as the vector `count` of length 1 says."""
    number = _number(count)
    if number is not None:
        return op.constant(np.arange(number))
    return op.Range(op.constant(np.asarray(0)), op.Squeeze(count, [0]), op.constant(np.asarray(1)))


def _zeros(op: Builder, like: Value, dims: Sequence[Value]) -> Value:
    shape: tuple[Dim, ...] = tuple(_number(d) for d in dims)
    return op.retyped(op.Expand(op.constant(0, like), op.vector(list(dims))), shape if None not in shape else None)


def _number(length: Value) -> int | None:
    constant = length.constant
    return None if constant is None else int(constant.reshape(-1)[0])
