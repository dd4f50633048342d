"""Operators that move elements and leave their values alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from netsens.graph.emit import Builder, Value
from netsens.rules.convolution import channel_parts
from netsens.rules.placement import added_along, flipped, interleaved, lengths, padded, picked_back, positions, product
from netsens.rules.words import NodeView, expand, jvp, linear, transpose

linear("Transpose", lambda op, n, g: op.Transpose(g, perm=inverse(n["perm"] or list(range(n.x.rank))[::-1])))
linear("Reshape Squeeze Unsqueeze Flatten", lambda op, n, g: op.reshape_like(g, n.x))
linear("Expand", lambda op, n, g: op.unbroadcast(g, n.x))
linear("Trilu", lambda op, n, g: op.Trilu(g, n.input(1), upper=n["upper"]))
linear("ReverseSequence", lambda op, n, g: op.ReverseSequence(g, n.input(1), batch_axis=n["batch_axis"], time_axis=n["time_axis"]))
linear("SpaceToDepth", lambda op, n, g: op.DepthToSpace(g, blocksize=n["blocksize"], mode=n["mode"]))  # from opset 27 on it has a mode
expand("CenterCropPad")


def inverse(perm: list[int]) -> list[int]:
    """The permutation that undoes `perm`."""
    return sorted(range(len(perm)), key=perm.__getitem__)


def _space(op: Builder, n: NodeView, g: Value) -> Value:
    size = int(n["blocksize"])
    if n["mode"] != "CRD":
        return op.SpaceToDepth(g, blocksize=size)
    # [N, C, H b, W b] -> [N, C, H, b, W, b] -> [N, C, b, b, H, W] -> [N, C b b, H, W]
    x = n.x
    batch, height, width = (op.dim(x, k) for k in (0, 2, 3))
    apart = op.Reshape(g, op.vector([batch, op.dim(x, 1) / (size * size), height, size, width, size]))
    return op.reshape_like(op.Transpose(apart, perm=[0, 1, 3, 5, 2, 4]), x)


linear("DepthToSpace", _space)


def _tiles(op: Builder, n: NodeView, g: Value) -> Value:
    """The sum over the copies: [.., r d, ..] -> [.., r, d, ..] -> [.., d, ..]"""
    x, repeats = n.x, n.inputs[1]
    assert repeats is not None
    if x.rank == 0:
        return g
    dims = op.shape(x)
    pairs = op.Reshape(op.Concat(op.Unsqueeze(repeats, [1]), op.Unsqueeze(dims, [1]), axis=1), [-1])
    apart = op.retyped(op.Reshape(g, pairs, allowzero=1), (None,) * (2 * x.rank)) if pairs.constant is None else op.Reshape(g, pairs, allowzero=1)
    return op.retyped(op.ReduceSum(apart, list(range(0, 2 * x.rank, 2)), keepdims=0), x.type.shape)


linear("Tile", _tiles)


# Joining and splitting -----------------------------------------------------------------------------------------------------


def _parts(op: Builder, n: NodeView, g: Value) -> list[Value | None]:
    """One Split, or a Slice where one operand alone is asked for."""
    axis = int(n["axis"]) % n.x.rank
    lengths = [op.dim(x, axis) for x in n.inputs if x is not None]
    chosen = [k for k, w in enumerate(n.wanted) if w]
    result: list[Value | None] = [None] * len(n.inputs)
    if len(n.inputs) == 1:
        return [g]
    if len(chosen) == 1:
        k = chosen[0]
        begin = _total(op, lengths[:k])
        parts = {k: op.Slice(g, begin, begin + lengths[k], [axis])}
    elif (pieces := channel_parts(op, g, axis, [x.type.shape for x in n.inputs if x is not None])) is not None:
        parts = {k: pieces[k] for k in chosen}
    else:
        split = op.Split(g, op.vector(list(lengths)), axis=axis, outputs=len(n.inputs))
        parts = {k: split[k] for k in chosen}
    for k, part in parts.items():
        x = n.inputs[k]
        assert x is not None
        result[k] = op.retyped(part, x.type.shape)
    return result


def _total(op: Builder, lengths: Sequence[Value]) -> Value:
    total = op.constant(np.zeros(1, np.int64))
    for length in lengths:
        total = total + length
    return total


linear("Concat", _parts, operands=None)


def _joined(op: Builder, n: NodeView, *gs: Value | None) -> Value:
    axis = int(n["axis"]) % n.x.rank
    blocks: list[Value] = []
    for k, g in enumerate(gs):
        blocks.append(g if g is not None else _unnamed(op, n, k, axis, next(v for v in gs if v is not None)))
    return op.retyped(blocks[0] if len(blocks) == 1 else op.Concat(*blocks, axis=axis), n.x.type.shape)


def _unnamed(op: Builder, n: NodeView, k: int, axis: int, like: Value) -> Value:
    """Zeros for a part that the node doesn't give out."""
    x, split = n.x, n.input(1)
    if split is not None:
        length = op.Slice(split, [k], [k + 1])
    else:
        count = len(n.outputs)
        whole = op.dim(x, axis)
        each = (whole + (count - 1)) / count
        length = each if k < count - 1 else whole - each * (count - 1)
    dims = [op.dim(x, a) if a != axis else length for a in range(x.rank)]
    return op.Expand(op.constant(0, like), op.vector(list(dims)))


linear("Split", _joined)


# Slices --------------------------------------------------------------------------------------------------------------------


def _unsliced(op: Builder, n: NodeView, g: Value) -> Value:
    x, y = n.x, n.y
    starts, ends, axes, steps = n.inputs[1], n.inputs[2], n.input(3), n.input(4)
    assert starts is not None
    assert ends is not None
    count = starts.shape[0]
    chosen = _ints(axes) if axes is not None else list(range(count)) if isinstance(count, int) else None
    strides = _ints(steps) if steps is not None else [1] * len(chosen or ())
    if chosen is None or strides is None:
        return _unsliced_anyhow(op, n, g)
    chosen = [a % x.rank for a in chosen]
    first, last = _ints(starts), _ints(ends)
    dims, whole = lengths(op, y), g
    pads: dict[int, tuple[Value, Value]] = {}
    crop: list[int] = []
    for k, (axis, step) in enumerate(zip(chosen, strides, strict=True)):
        size, length = x.shape[axis], op.dim(x, axis)
        if first is not None and last is not None and isinstance(size, int):
            low, high = first[k] if step > 0 else max(first[k], -size), last[k]
            places = np.asarray(range(size)[slice(low, None if step < 0 and high < -size else high, step)], np.int64)
            if abs(step) == 1 and len(places):
                if step < 0:
                    g = flipped(op, g, axis)
                begin = op.constant(places[:1] if step > 0 else places[-1:])
                pads[axis] = (begin, length - begin - dims[axis])
                continue
            placed = picked_back(op, g, places, axis, dims, size)
            assert placed is not None
            g, dims[axis] = placed, length
        elif step > 0:
            begin = _begin(op, op.Slice(starts, [k], [k + 1]), length)
            if step > 1:
                g = interleaved(op, g, dims, axis, step)
                dims[axis] = dims[axis] * step
                crop.append(axis)  # the last element's zeros may reach beyond the end
            after = length - begin - dims[axis]
            pads[axis] = (begin, after if step == 1 else op.Max(after, op.constant(np.zeros(1, np.int64))))
        else:
            return _unsliced_anyhow(op, n, whole)
    g = padded(op, g, dims, pads)
    for axis in crop:
        g = op.Slice(g, [0], op.dim(x, axis), [axis])
    return op.retyped(g, x.type.shape)


def _begin(op: Builder, start: Value, length: Value) -> Value:
    """Where a slice with a positive step begins, as a vector of length 1."""
    start = op.Cast(start, to=length.dtype)
    if start.constant is not None and not start.constant.any():
        return start
    zero = op.constant(np.zeros(1, np.int64))
    return op.Min(op.Max(op.Where(start < zero, start + length, start), zero), length)


def _unsliced_anyhow(op: Builder, n: NodeView, g: Value) -> Value:
    """By the numbers of the elements, sliced as they were: for axes or steps that are known only at run time."""
    numbers, back = _numbered(op, n.x)
    return back(op.emit("Slice", [numbers, *n.inputs[1:]], {}), g, True)


def _numbered(op: Builder, x: Value) -> tuple[Value, Callable[[Value, Value, bool], Value]]:
    """The numbers of the elements in the shape of `x`; and what adds elements to where such numbers say."""
    count = product(op, lengths(op, x))
    numbers = op.Reshape(positions(op, count), op.shape(x), allowzero=1)

    def back(places: Value, g: Value, once: bool) -> Value:
        flat = added_along(op, op.Reshape(g, [-1]), op.Reshape(places, [-1]), 0, [count], once=once)
        return op.retyped(op.Reshape(flat, op.shape(x), allowzero=1), x.type.shape)

    return numbers, back


def _ints(value: Value | None) -> list[int] | None:
    constant = None if value is None else value.constant
    return None if constant is None else [int(v) for v in constant.reshape(-1)]


linear("Slice", _unsliced)


# Padding -------------------------------------------------------------------------------------------------------------------


@jvp("Pad")
def padding(op: Builder, n: NodeView, t: Value | None, pads: None = None, fill: Value | None = None, axes: None = None) -> Value | None:
    parts: list[Value] = []
    if t is not None:
        zero = None if n.input(2) is None else op.constant(0, t)
        parts.append(op.retyped(op.Pad(t, n.inputs[1], zero, n.input(3), mode=n["mode"]), n.y.type.shape))
    if fill is not None and _by_constant(n):
        parts.append(fill * _margin(op, n))
    return None if not parts else op.Add(*parts) if len(parts) == 2 else parts[0]


@transpose("Pad")
def _unpadded(op: Builder, n: NodeView, g: Value) -> list[Value | None]:
    """The middle; what lies around it belongs to the constant, or to the elements that were copied there."""
    fill = n.input(2)
    to_fill = fill is not None and n.wanted[2] and _by_constant(n)
    around = op.reshape_like(op.ReduceSum(g * _margin(op, n), keepdims=0), fill) if to_fill and fill is not None else None
    return [_unpadded_data(op, n, g) if n.wanted[0] else None, None, around]


def _by_constant(n: NodeView) -> bool:
    return n["mode"] in (None, "constant")


def _margin(op: Builder, n: NodeView) -> Value:
    """1 where the constant is."""
    return op.retyped(op.Pad(op.zeros_like(n.x), n.inputs[1], op.constant(1, n.x), n.input(3)), n.y.type.shape)


def _unpadded_data(op: Builder, n: NodeView, g: Value) -> Value:
    x, pads = n.x, n.inputs[1]
    assert pads is not None
    axes = _axes(n)
    if axes is None:
        if not _by_constant(n):
            return _by_number(op, n, g)
        # The pads of all axes, where the axes are known only at run time.
        pads = _pads_everywhere(op, n, pads)
        axes = list(range(x.rank))
    if _by_constant(n):
        return _middle(op, n, g, pads, axes)
    count = len(axes)
    for k, axis in enumerate(axes):
        g = _gathered_padding(op, n, g, axis, op.Slice(pads, [k], [k + 1]), op.Slice(pads, [count + k], [count + k + 1]), done=axes[:k])
    return op.retyped(g, x.type.shape)


def _axes(n: NodeView) -> list[int] | None:
    given = n.input(3)
    if given is None:
        return list(range(n.x.rank))
    listed = _ints(given)
    return None if listed is None else [a % n.x.rank for a in listed]


def _pads_everywhere(op: Builder, n: NodeView, pads: Value) -> Value:
    axes = n.inputs[3]
    assert axes is not None
    rank = n.x.rank
    wide = op.Cast(axes, to=pads.dtype)
    wide = op.Where(wide < 0, wide + rank, wide)
    none = op.constant(np.zeros(rank, np.int64))
    half = op.dim(axes, 0)
    sides = [op.ScatterElements(none, wide, op.Slice(pads, a, b), axis=0) for a, b in ((op.constant(np.zeros(1, np.int64)), half), (half, half * 2))]
    return op.Concat(*sides, axis=0)


def _middle(op: Builder, n: NodeView, g: Value, pads: Value, axes: Sequence[int]) -> Value:
    """Cut off what was added, and put zeros where the node cut off (a negative pad does)."""
    x, y, count = n.x, n.y, len(axes)
    zero = op.constant(np.zeros(1, np.int64))
    starts, ends, cut = [], [], []
    back: dict[int, tuple[Value, Value]] = {}
    dims = lengths(op, x)
    for k, axis in enumerate(axes):
        before, after = op.Slice(pads, [k], [k + 1]), op.Slice(pads, [count + k], [count + k + 1])
        added = op.Max(before, zero), op.Max(after, zero)
        removed = op.Max(-before, zero), op.Max(-after, zero)
        back[axis] = removed
        dims[axis] = dims[axis] - removed[0] - removed[1]
        if any(a.constant is None or a.constant.any() for a in added):
            starts.append(added[0])
            ends.append(op.dim(y, axis) - added[1])
            cut.append(axis)
    if cut:
        g = op.Slice(g, op.vector(list(starts)), op.vector(list(ends)), cut)
    return op.retyped(padded(op, g, dims, back), x.type.shape)


def _gathered_padding(op: Builder, n: NodeView, g: Value, axis: int, before: Value, after: Value, done: Sequence[int]) -> Value:
    """One axis of reflect, edge or wrap undone: each element gets the sum of its copies."""
    x, y = n.x, n.y
    length = op.dim(x, axis)
    if before.constant is not None and after.constant is not None and not before.constant.any() and not after.constant.any():
        return g
    dims = [op.dim(x if a in done else y, a) for a in range(x.rank)]
    size, widths = x.shape[axis], (_ints(before), _ints(after))
    if isinstance(size, int) and widths[0] is not None and widths[1] is not None:
        begin, end = widths[0][0], widths[1][0]
        kept = np.arange(size)[max(-begin, 0) : size - max(-end, 0)]
        copies = np.pad(kept, (max(begin, 0), max(end, 0)), mode=n["mode"])
        placed = picked_back(op, g, copies, axis, dims, size)
        if placed is not None:
            return placed
        indices = op.constant(copies)
    else:
        indices = op.Pad(positions(op, length), op.vector([before, after]), None, None, mode=n["mode"])
    # What is done so far has the lengths of x on some axes and those of y on the others.
    return added_along(op, g, indices, axis, [*dims[:axis], length, *dims[axis + 1 :]])


def _by_number(op: Builder, n: NodeView, g: Value) -> Value:
    """By the numbers of the elements, padded as they were."""
    numbers, back = _numbered(op, n.x)
    return back(op.Pad(numbers, n.inputs[1], None, n.inputs[3], mode=n["mode"]), g, False)
