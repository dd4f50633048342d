"""Windows that slide over spatial axes, as convolutions, pools and Col2Im have them: where they lie, what they see, and the sum back over
them. Values are [N, C, *spatial]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView

# Positions of a window above which fewer nodes are worth a copy more: with hundreds a position each, onnxruntime takes long to open the graph. Up to 7x7
# with stride 2 (3 channels of 224x224: 2.7 ms to 4.2) `taps` avoids slices with steps.
MANY_POSITIONS, MANY_IN_PHASES = 25, 64

Place = int | Value  # a length, or an int64 vector of length 1 that holds it


@dataclass(frozen=True, slots=True)
class Windows:
    """The geometry, a number an axis. `ends` is the padding that the node asks for; with `ceil` a last window may reach beyond it."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    ceil: bool = False

    @property
    def extents(self) -> tuple[int, ...]:
        """How far a window reaches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def pads(self) -> list[int]:
        return [*self.begins, *self.ends]

    @property
    def count(self) -> int:
        """How many positions a window has."""
        return prod(self.kernel)

    @property
    def axes(self) -> list[int]:
        """The axes along which windows have several positions, or lie in steps."""
        return [k for k, (length, stride) in enumerate(zip(self.kernel, self.strides, strict=True)) if length > 1 or stride > 1]

    @property
    def apart(self) -> bool:
        """Whether no two windows overlap."""
        return all(e <= s for e, s in zip(self.extents, self.strides, strict=True))

    def positions(self) -> list[tuple[int, ...]]:
        """The offsets of a window's positions from its start, row by row."""
        return [tuple(i * d for i, d in zip(p, self.dilations, strict=True)) for p in product(*map(range, self.kernel))]

    def reach(self, axis: int, out: int) -> int:
        """The length that `out` windows cover along a spatial axis, padding included."""
        return (out - 1) * self.strides[axis] + self.extents[axis]

    def attributes(self, kernel: bool = True) -> dict[str, list[int]]:
        """As a node's attributes."""
        shape = {"kernel_shape": list(self.kernel)} if kernel else {}
        return {**shape, "strides": list(self.strides), "dilations": list(self.dilations), "pads": self.pads}


@dataclass(frozen=True, slots=True)
class Layout:
    """A node's windows over `x`. Where padding is known only when the model runs, `x` is `padded` already, and `cropped` takes a value of the
    shape of this `x` back to the shape of the node's."""

    x: Value
    windows: Windows
    cropped: Callable[[Value], Value] = lambda g: g
    padded: bool = False


def layout(op: Builder, n: NodeView, kernel: Sequence[int], fill: float = 0.0) -> Layout:
    """Where the windows of a convolution or a pool lie, its attributes read as the specification reads them."""
    x, rank = n.x, len(kernel)
    kernel = tuple(int(k) for k in kernel)
    windows = Windows(
        kernel, tuple(n["strides"] or [1] * rank), tuple(n["dilations"] or [1] * rank), (0,) * rank, (0,) * rank, bool(n["ceil_mode"])
    )  # fmt: skip
    mode = n["auto_pad"] or "NOTSET"
    if mode in ("NOTSET", ""):
        pads = n["pads"] or [0] * 2 * rank
        return Layout(x, replace(windows, begins=tuple(pads[:rank]), ends=tuple(pads[rank:])))
    if mode == "VALID":
        return Layout(x, windows)
    if n.node.op != "Conv" and any(d > 1 or s - e > 1 for d, s, e in zip(windows.dilations, windows.strides, windows.extents, strict=True)):
        raise UnsupportedError(
            f"{n.node.label} has auto_pad {mode} with dilations, or strides longer than its windows; there onnxruntime pads otherwise than the standard says. "
            "Give it explicit pads."
        )
    windows = replace(windows, ceil=False)
    lower = mode == "SAME_LOWER"
    totals: list[int] = []
    for dim, stride, extent in zip(x.shape[2:], windows.strides, windows.extents, strict=True):
        if isinstance(dim, int):
            totals.append(max((-(-dim // stride) - 1) * stride + extent - dim, 0))
        elif stride == 1:
            totals.append(extent - 1)
        else:
            return _padded_at_run_time(op, x, windows, lower, fill)
    firsts = tuple((t + 1) // 2 if lower else t // 2 for t in totals)
    return Layout(x, replace(windows, begins=firsts, ends=tuple(t - f for t, f in zip(totals, firsts, strict=True))))


def _padded_at_run_time(op: Builder, x: Value, windows: Windows, lower: bool, fill: float) -> Layout:
    """auto_pad SAME with a stride: the padding follows from the size modulo the stride. Of a tangent only the shape is used."""
    axes = list(range(2, x.rank))
    sizes = op.vector([op.dim(x, a) for a in axes])
    strides, extents = op.constant(np.asarray(windows.strides)), op.constant(np.asarray(windows.extents))
    out = (sizes + (strides - 1)) / strides
    total = op.Max((out - 1) * strides + extents - sizes, 0)
    begins = (total + 1) / 2 if lower else total / 2
    padded = op.Pad(op.stand_in(x), op.Concat(begins, total - begins, axis=0), op.constant(fill, x), axes)
    return Layout(padded, windows, lambda g: op.retyped(op.Slice(g, begins, begins + sizes, axes), x.shape), True)


def kernel_of(n: NodeView, weight: Value) -> tuple[int, ...]:
    """The kernel's shape, as the node or its weight says."""
    kernel = tuple(k for k in n["kernel_shape"] or weight.shape[2:] if isinstance(k, int))
    if len(kernel) < weight.rank - 2:
        raise UnsupportedError(f"{n.node.label} has no kernel_shape and a weight '{weight.name}' of unknown shape; give the weight's input a shape.")
    return kernel


def places(op: Builder, value: Value) -> list[Place]:
    """The spatial lengths of a value."""
    return [d if isinstance(d, int) else op.dim(value, axis) for axis, d in enumerate(value.shape) if axis >= 2]


def taps(op: Builder, x: Value, windows: Windows, outs: Sequence[Place], fill: float = 0.0) -> list[Value]:
    """For each position of the window what all windows see there, [N, C, *outs]."""
    ends = _ends(x, windows, outs)
    return _phases(op, x, windows, outs, ends, fill) or _strided(op, x, windows, outs, ends, fill)


def taps_last(op: Builder, x: Value, windows: Windows, outs: Sequence[Place]) -> list[Value]:
    """The same with the channels last, [N, *outs, C]."""
    ends, spatial = _ends(x, windows, outs), x.rank - 2
    # [N, C, *places] -> [N, *places, C]
    x = op.Transpose(x, perm=[0, *range(2, x.rank), 1])
    if any(windows.begins) or any(ends):
        x = op.Pad(x, [0, *windows.begins, 0, 0, *ends, 0])
    return _slices(op, x, windows, outs, list(range(1, 1 + spatial)))


def _ends(x: Value, windows: Windows, outs: Sequence[Place]) -> list[int]:
    """How far the windows reach beyond each axis of x."""
    ends: list[int] = []
    for axis, (size, out, pad) in enumerate(zip(x.shape[2:], outs, windows.ends, strict=True)):
        if isinstance(size, int) and isinstance(out, int):
            ends.append(max(windows.reach(axis, out) - size - windows.begins[axis], 0))
        else:
            ends.append(pad + (windows.strides[axis] - 1 if windows.ceil else 0))
    return ends


def _padded(op: Builder, x: Value, begins: Sequence[int], ends: Sequence[int], fill: float) -> Value:
    if not any(begins) and not any(ends):
        return x
    return op.Pad(x, [0, 0, *begins, 0, 0, *ends], None if fill == 0 else op.constant(fill, x))


def _strided(op: Builder, x: Value, windows: Windows, outs: Sequence[Place], ends: Sequence[int], fill: float) -> list[Value]:
    known = [out for out in outs if isinstance(out, int)]
    if set(windows.strides) != {1} and len(known) == len(outs) and all(isinstance(d, int) for d in x.shape[2:]):
        return [_seen(op, x, windows, known, offsets, fill) for offsets in windows.positions()]
    x = _padded(op, x, windows.begins, ends, fill)
    return _slices(op, x, windows, outs, list(range(2, x.rank)))


def _seen(op: Builder, x: Value, windows: Windows, outs: Sequence[int], offsets: Sequence[int], fill: float) -> Value:
    """What windows of known number see at one position: cut first and filled then, which is less to copy where strides are long."""
    starts, stops, before, behind = [], [], [], []
    for size, out, begin, stride, offset in zip(x.shape[2:], outs, windows.begins, windows.strides, offsets, strict=True):
        assert isinstance(size, int)
        first = offset - begin
        missing = min(max(-(first // stride), 0), out)
        count = min(max((size - 1 - first) // stride + 1, missing), out)
        starts.append(min(first + missing * stride, size))
        stops.append(min(first + (count - 1) * stride + 1, size) if count > missing else starts[-1])
        before.append(missing)
        behind.append(out - count)
    seen = op.Slice(x, starts, stops, list(range(2, x.rank)), list(windows.strides))
    return op.retyped(_padded(op, seen, before, behind, fill), (*x.shape[:2], *outs))


def _slices(op: Builder, x: Value, windows: Windows, outs: Sequence[Place], axes: Sequence[int]) -> list[Value]:
    """What the windows see of x, padded already, along its spatial `axes`."""
    known = [out if isinstance(out, int) else None for out in outs]
    if windows.count == 1 and set(windows.strides) == {1} and not any(windows.pads):
        return [x]
    spans = [(out - 1) * stride + 1 for out, stride in zip(outs, windows.strides, strict=True)]
    steps = list(windows.strides) if set(windows.strides) != {1} else None
    shape = list(x.shape)
    shape[axes[0] : axes[-1] + 1] = known
    result = []
    for offsets in windows.positions():
        stops = op.vector([s + o for s, o in zip(spans, offsets, strict=True)])
        t = op.Slice(x, list(offsets), stops, list(axes), steps)
        result.append(op.retyped(t, tuple(shape)) if None not in known else t)
    return result


def _phases(op: Builder, x: Value, windows: Windows, outs: Sequence[Place], ends: Sequence[int], fill: float) -> list[Value] | None:
    """The same for square strides in two dimensions: one SpaceToDepth, then slices without steps, which onnxruntime makes four times as fast."""
    channels, stride = x.shape[1], windows.strides[0]
    if len(outs) != 2 or stride == 1 or windows.strides[1] != stride or windows.count < stride or not isinstance(channels, int):
        return None
    last = []
    for size, out, begin, end, extent in zip(x.shape[2:], outs, windows.begins, ends, windows.extents, strict=True):
        if not isinstance(size, int) or not isinstance(out, int):
            return None
        blocks = max(-(-(size + begin + end) // stride), (extent - 1) // stride + out)
        last.append(blocks * stride - size - begin)
    blocks_of = op.SpaceToDepth(_padded(op, x, windows.begins, last, fill), blocksize=stride)  # [N, stride * stride * C, ..]
    result = []
    for a, b in windows.positions():
        phase = (a % stride * stride + b % stride) * channels
        first = [phase, a // stride, b // stride]
        spans = [channels, *(int(o) for o in outs if isinstance(o, int))]
        result.append(op.Slice(blocks_of, first, [f + s for f, s in zip(first, spans, strict=True)], [1, 2, 3]))
    return result


def stacked(op: Builder, parts: Sequence[Value]) -> Value:
    """One value a position of the window, [N, C, *out] each, as columns [N, C * positions, prod(out)], in Col2Im's order."""
    x = parts[0]
    if len(parts) == 1:
        return op.Reshape(x, [0, 0, -1])
    # [N, C, *out] -> [N, C, 1, prod(out)] -> [N, C, positions, prod(out)]
    joined = op.Concat(*(op.Reshape(p, [0, 0, 1, -1]) for p in parts), axis=2)
    return op.Reshape(joined, op.vector([0, _times(op, x, len(parts)), -1]))


def columns(op: Builder, x: Value, windows: Windows, outs: Sequence[Place]) -> Value:
    """What all windows see, as `stacked(taps(x))` has it, [N, C * positions, prod(out)]; by fewer nodes where a window has many positions."""
    ends = _ends(x, windows, outs)
    if windows.count > 1 and windows.kernel == windows.strides and set(windows.dilations) == {1} and not any(windows.begins) and not any(ends):
        return _tiles(op, x, windows, outs)
    in_phases = len(outs) == 2 and set(windows.strides) != {1} and windows.count <= MANY_IN_PHASES
    if windows.count <= MANY_POSITIONS or in_phases:
        return stacked(op, taps(op, x, windows, outs))
    return _by_axes(op, _padded(op, x, windows.begins, ends, 0), windows, outs)


def _tiles(op: Builder, x: Value, windows: Windows, outs: Sequence[Place]) -> Value:
    """Windows that lie side by side: the image in blocks, turned."""
    reached = [out * k for out, k in zip(outs, windows.kernel, strict=True)]
    rank = len(reached)
    if not all(isinstance(have, int) and have == want for have, want in zip(x.shape[2:], reached, strict=True)):
        x = op.Slice(x, [0] * rank, op.vector(reached), list(range(2, 2 + rank)))
    # [N, C, out * kernel, ..] -> [N, C, out, kernel, ..] -> [N, C, *kernel, *out] -> [N, C * positions, prod(out)]
    blocks = op.Reshape(x, op.vector([0, 0, *(length for pair in zip(outs, windows.kernel, strict=True) for length in pair)]))
    turned = op.Transpose(blocks, perm=[0, 1, *range(3, 3 + 2 * rank, 2), *range(2, 2 + 2 * rank, 2)])
    return op.Reshape(turned, op.vector([0, _times(op, x, windows.count), -1]))


def _by_axes(op: Builder, x: Value, windows: Windows, outs: Sequence[Place]) -> Value:
    """One axis after the other: the positions along it become channels. As many slices as the window is long, wide and deep, and not as it is large."""
    lengths: list[Place] = [*places(op, x)]
    for k, (length, out) in enumerate(zip(windows.kernel, outs, strict=True)):
        stride, dilation = windows.strides[k], windows.dilations[k]
        span = (out - 1) * stride + 1
        parts = [op.Slice(x, [i * dilation], op.vector([span + i * dilation]), [k + 2], [stride] if stride > 1 else None) for i in range(length)]
        lengths[k] = out
        if length > 1:
            # [N, C, *here] -> [N, C, 1, prod(here)] -> [N, C, length, prod(here)] -> [N, C * length, *here]
            joined = op.Concat(*(op.Reshape(p, [0, 0, 1, -1]) for p in parts), axis=2)
            x = op.Reshape(joined, op.vector([0, _times(op, x, length), *lengths]))
        else:
            x = parts[0]
    return op.Reshape(x, [0, 0, -1])


def _times(op: Builder, x: Value, count: int) -> Place:
    """So many times the channels of x."""
    channels = x.shape[1]
    return channels * count if isinstance(channels, int) else op.dim(x, 1) * count


def summed_back(op: Builder, parts: Sequence[Value], windows: Windows, like: Value, outs: Sequence[Place]) -> Value:
    """The transpose of `taps`: what each position of each window holds, [N, C, *outs] each, summed where it came from, in the shape of `like`. Windows over axes other
    than two are of one axis alone if they are dilated: onnxruntime 1.31's Col2Im then mixes up the channels unless images have two axes."""
    lengths = places(op, like)
    ends: list[int] = []
    for axis, (size, out, pad) in enumerate(zip(lengths, outs, windows.ends, strict=True)):
        if isinstance(size, int) and isinstance(out, int):
            ends.append(max(windows.reach(axis, out) - size - windows.begins[axis], 0))
        elif not windows.ceil:
            ends.append(pad)
    if len(ends) == len(lengths):
        # What lies beyond the last window stays zero: Col2Im rounds down, as the windows did.
        return op.retyped(_summed(op, parts, replace(windows, ends=tuple(ends)), lengths, outs), like.shape)
    # An image as long as the windows reach and a stride less one more, so that it covers `like` whatever its size.
    reach = [(out - 1) * s + (e + s - 1) for out, s, e in zip(outs, windows.strides, windows.extents, strict=True)]
    none = (0,) * len(lengths)
    whole = _summed(op, parts, replace(windows, begins=none, ends=none), reach, outs)
    begins = op.constant(np.asarray(windows.begins))
    return op.retyped(op.Slice(whole, begins, begins + op.vector(lengths), list(range(2, like.rank))), like.shape)


def _summed(op: Builder, parts: Sequence[Value], windows: Windows, lengths: Sequence[Place], outs: Sequence[Place]) -> Value:
    """The sum in an image of these lengths, which the windows' padding fits."""
    if len(lengths) == 2 or set(windows.dilations) == {1}:
        return op.Col2Im(stacked(op, parts), op.vector(lengths), list(windows.kernel), **windows.attributes(kernel=False))
    # Along that axis: [N, C * before, length, behind], where before and behind are as in the parts.
    (axis,) = windows.axes or [0]
    behind: Place = prod(outs[axis + 1 :])
    folded = [op.Reshape(part, op.vector([0, -1, outs[axis], behind])) for part in parts]
    flat = Windows(
        (windows.kernel[axis], 1), (windows.strides[axis], 1), (windows.dilations[axis], 1), (windows.begins[axis], 0), (windows.ends[axis], 0)
    )  # fmt: skip
    image = op.Col2Im(stacked(op, folded), op.vector([lengths[axis], behind]), list(flat.kernel), **flat.attributes(kernel=False))
    return op.Reshape(image, op.vector([0, _times(op, parts[0], 1), *lengths]))
