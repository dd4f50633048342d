"""Fourier transforms: of a whole axis, and of short windows of it. A complex number is a last axis of two, its real part and its imaginary part,
and the transpose of a transform is then its conjugate transpose."""

from __future__ import annotations

import numpy as np

from netsens.graph.dtypes import DOUBLE, INT64
from netsens.graph.emit import Builder, Value
from netsens.rules.attention import indices
from netsens.rules.placement import added_at
from netsens.rules.words import NodeView, bilinear, flat, linear

flat("MelWeightMatrix", why="it depends on whole numbers and on band edges alone")


def _scalar(op: Builder, vector: Value) -> Value:
    return op.Squeeze(vector, [0])


def _real(op: Builder, x: Value) -> Value:
    """The real part, its axis kept."""
    return op.Slice(x, [0], [1], [-1])


def _as_fed(op: Builder, pulled: Value, x: Value) -> Value:
    """The complex cotangent of x: its real part alone where x is real, which may be known at run time only."""
    parts = x.shape[-1]
    if isinstance(parts, int):
        return pulled if parts == 2 else _real(op, pulled)
    return op.Slice(pulled, [0], op.dim(x, -1), [-1])


def _fitted(op: Builder, x: Value, axis: Value, length: Value, size: Value) -> Value:
    """x, which is `length` long along the axis, cut or filled with zeros to `size`."""
    if length.constant is not None and size.constant is not None:
        have, want = int(length.constant[0]), int(size.constant[0])
        if have > want:
            return op.Slice(x, [0], [want], axis)
        return x if have == want else op.Pad(x, [0, want - have], op.constant(0, x), axis)
    nothing = op.constant(np.zeros(1, np.int64))
    return op.Pad(op.Slice(x, nothing, size, axis), op.vector([0, op.Max(size - length, nothing)]), op.constant(0, x), axis)


def _fourier(op: Builder, n: NodeView, g: Value) -> Value:
    """The cotangent of the input of a DFT.

    Forward, y = F x: it is conj(F)' g, the inverse transform without its 1/N. Inverse: the transform with a 1/N. One-sided and forward: the
    frequencies left out count as zeros. One-sided and inverse: each frequency but the first, and the middle one, stands for two."""
    x, given, place = n.x, n.input(1), n.input(2)
    inverse, onesided = bool(n["inverse"]), bool(n["onesided"])
    if place is None or place.constant is not None:
        at = (-2 if place is None or place.constant is None else int(place.constant.reshape(-1)[0])) % x.rank
        axis = op.constant(np.asarray([at], np.int64))
        size = op.dim(x, at)
    else:  # the axis is known at run time only
        axis = op.Reshape(op.Cast(place, to=INT64), [1])
        axis = op.Where(op.Less(axis, op.constant(np.zeros(1, np.int64))), axis + x.rank, axis)
        size = op.Gather(op.shape(x), axis, axis=0)
    if given is not None:
        length = op.Reshape(op.Cast(given, to=INT64), [1])
    else:
        length = (size - 1) * 2 if inverse and onesided else size
    count, scalar, where = op.Cast(_scalar(op, length), to=x.dtype), _scalar(op, length), _scalar(op, axis)
    kept = length
    if not inverse:
        pulled = op.DFT(g, scalar, where, inverse=1) * count
    elif not onesided:
        pulled = op.DFT(g, scalar, where) / count
    else:
        kept = op.Div(length, op.constant(np.asarray([2], np.int64))) + 1
        frequency = indices(op, kept)
        single = op.Or(op.Equal(frequency, op.constant(np.asarray(0, np.int64))), op.Equal(frequency * 2, length))
        weight = op.Where(single, op.constant(1, x), op.constant(2, x)) / count
        ones, along = op.constant(np.ones(x.rank, np.int64)), op.constant(np.arange(x.rank))
        shape = op.Where(op.Equal(along, axis), op.constant(np.asarray(-1, np.int64)), ones)
        pulled = op.DFT(g, scalar, where, onesided=1) * op.Reshape(weight, shape)
    pulled = _as_fed(op, pulled, x)
    if kept.name != size.name:
        pulled = _fitted(op, pulled, axis, kept, size)
    return op.retyped(pulled, x.type.shape)


linear("DFT", _fourier)


# Short windows -----------------------------------------------------------------------------------------------------------------


def _frame_length(op: Builder, n: NodeView) -> Value:
    """How long a frame is, as a vector of one."""
    given, window = n.input(3), n.input(2)
    if given is not None:
        return op.Reshape(op.Cast(given, to=INT64), [1])
    assert window is not None
    return op.dim(window, 0)


def _step(op: Builder, n: NodeView) -> Value:
    step = n.inputs[1]
    assert step is not None
    return op.Reshape(op.Cast(step, to=INT64), [1])


def _frames(op: Builder, n: NodeView) -> Value:
    """How many frames fit into the signal, as a vector of one."""
    return op.Div(op.dim(n.x, 1) - _frame_length(op, n), _step(op, n)) + 1


def _places(op: Builder, n: NodeView) -> Value:
    """Where in the signal each number of each frame comes from: [F, W]."""
    starts = op.Unsqueeze(indices(op, _frames(op, n)) * _step(op, n), [1])
    return starts + op.Unsqueeze(indices(op, _frame_length(op, n)), [0])


def _pulled_frames(op: Builder, n: NodeView, g: Value) -> Value:
    """The cotangent of the windowed frames: [B, F, bins, 2] -> [B, F, W, 1 or 2]."""
    length = _frame_length(op, n)
    g = op.retyped(g, (None,) * 4) if g.type.shape is None else g
    pulled = op.DFT(g, _scalar(op, length), op.constant(np.asarray(2, np.int64)), inverse=1) * op.Cast(_scalar(op, length), to=g.dtype)
    return _as_fed(op, pulled, n.x) if n.x.rank == 3 else _real(op, pulled)


def _signal_cotangent(op: Builder, n: NodeView, g: Value) -> Value:
    """Frames added up where they overlap."""
    frames = _pulled_frames(op, n, g)
    window, step, length = n.input(2), _step(op, n), _frame_length(op, n)
    if window is not None:
        frames = frames * op.Unsqueeze(window, [1])
    # [B, F, W, C] -> [B, C*W, F] -> [B, C, L] -> [B, L, C]
    if step.constant is not None and n.x.dtype != DOUBLE:  # onnxruntime's Col2Im knows float32 alone
        stacked = op.Reshape(op.Transpose(frames, perm=[0, 3, 2, 1]), op.vector([op.dim(n.x, 0), -1, _frames(op, n)]))
        added = op.Col2Im(stacked, op.dim(n.x, 1), length, strides=[int(step.constant[0])])
        return op.reshape_like(op.Transpose(added, perm=[0, 2, 1]), n.x)
    parts = op.dim(n.x, 2) if n.x.rank == 3 else op.constant(np.ones(1, np.int64))
    rows = op.Reshape(frames, op.vector([op.dim(n.x, 0), -1, parts]))
    nothing = op.Expand(op.constant(0, n.x), op.vector([op.dim(n.x, 0), op.dim(n.x, 1), parts]))
    flat_places = op.Reshape(_places(op, n), [1, -1, 1])
    places = op.Expand(flat_places, op.vector([op.dim(n.x, 0), 1, parts]))
    return op.reshape_like(added_at(op, nothing, places, rows, 1), n.x)


def _window_cotangent(op: Builder, n: NodeView, g: Value) -> Value:
    frames = op.Gather(n.x, _places(op, n), axis=1)  # [B, L(, C)] -> [B, F, W(, C)]
    if n.x.rank == 2:
        frames = op.Unsqueeze(frames, [3])
    window = n.input(2)
    assert window is not None
    return op.retyped(op.ReduceSum(_pulled_frames(op, n, g) * frames, [0, 1, 3], keepdims=0), window.type.shape)


bilinear("STFT", _signal_cotangent, lambda op, n, g: None, _window_cotangent)
