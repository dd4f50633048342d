"""Computes a node over small constants while the graph is built, so that shape arithmetic and scalars leave no nodes behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netsens.graph.graph import Array

Fold = Callable[..., Any]


def _slice(x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    index: list[slice] = [slice(None)] * x.ndim
    for k in range(len(starts)):
        axis = int(axes[k]) if axes is not None else k
        step = int(steps[k]) if steps is not None else 1
        end: int | None = int(ends[k])
        if step < 0 and end is not None and end < -x.shape[axis]:
            end = None
        index[axis] = slice(int(starts[k]), end, step)
    return x[tuple(index)]


def _reshape(x: Array, shape: Array, allowzero: int = 0) -> Array:
    return x.reshape([x.shape[k] if d == 0 and not allowzero else int(d) for k, d in enumerate(shape)])


def _unsqueeze(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(int(a) for a in axes))


def _squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(int(a) for a in axes))


def _pad(x: Array, pads: Array, value: Array | None = None, axes: Array | None = None, mode: str = "constant") -> Array | None:
    if mode != "constant" or axes is not None or (pads < 0).any():
        return None
    return np.pad(x, np.reshape(pads, (2, x.ndim)).T, constant_values=0 if value is None else value.reshape(-1)[0])


def _divide(a: Array, b: Array) -> Array | None:
    if a.dtype.kind in "iu":
        if (np.asarray(b) == 0).any():
            return None
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)), a.dtype)
    return np.asarray(a / b) if (np.asarray(b) != 0).all() else None


def _reduce(function: Callable[..., Any]) -> Fold:
    def reduce(x: Array, axes: Array | None = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        if axes is None or axes.size == 0:
            return x if noop_with_empty_axes else function(x, axis=None, keepdims=bool(keepdims))
        return function(x, axis=tuple(int(a) for a in axes), keepdims=bool(keepdims))

    return reduce


FOLDS: dict[str, Fold] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divide,
    "Neg": lambda a: -a,
    "Sqrt": lambda a: np.sqrt(a) if (a >= 0).all() else None,
    "Reciprocal": lambda a: 1 / a if (a != 0).all() else None,
    "Max": lambda *a: a[0] if len(a) == 1 else np.maximum.reduce(np.broadcast_arrays(*a)),
    "Min": lambda *a: a[0] if len(a) == 1 else np.minimum.reduce(np.broadcast_arrays(*a)),
    "Equal": lambda a, b: a == b,
    "Less": lambda a, b: a < b,
    "Greater": lambda a, b: a > b,
    "And": lambda a, b: a & b,
    "Or": lambda a, b: a | b,
    "Not": lambda a: ~a,
    "Where": lambda c, a, b: np.where(c, a, b),
    "Concat": lambda *a, axis: np.concatenate(a, axis),
    "Gather": lambda x, i, axis=0: np.take(x, i, axis),
    "Pad": _pad,
    "Slice": _slice,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": lambda x, perm=None: np.transpose(x, perm),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "Shape": lambda x, start=0, end=None: np.asarray(x.shape[start:end], np.int64),
    "Compress": lambda x, c, axis=None: np.compress(c, x, axis),
}


def fold(op: str, arrays: Sequence[Array], attributes: dict[str, Any]) -> Array | None:
    """The node's result, or None where it is not folded here."""
    function = FOLDS.get(op)
    if function is None or any(a.dtype == object for a in arrays):
        return None
    result = function(*arrays, **attributes)
    if result is None:
        return None
    array = np.asarray(result)
    keeps = op not in ("Shape", "Equal", "Less", "Greater", "And", "Or", "Not", "Where")
    return array.astype(arrays[0].dtype, copy=False) if keeps else array
