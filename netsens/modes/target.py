"""Chooses components of a layer (`--target`): parses what a user writes and appends the nodes that select them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from netsens.errors import UsageError
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Dim, shape_text

Target = Any  # None, "argmax", an int, a list of ints, or a tuple of ints and slices

_ITEM = re.compile(r"^(-?\d+)?(:)?(-?\d+)?(?::(-?\d+)?)?$")


def parse_target(text: str | int | Sequence[Any] | slice | None) -> Target:
    """`3`, `0,2`, `[:,3]`, `argmax`, or the same as Python objects."""
    if isinstance(text, (bool, np.bool_)):
        raise _no_target(text)
    if text is None or isinstance(text, (int, slice)):
        return (text,) if isinstance(text, slice) else text
    if isinstance(text, np.integer):
        return int(text)
    if isinstance(text, tuple):
        return text
    if not isinstance(text, str):
        if isinstance(text, Iterable):
            chosen = list(text)
            if all(isinstance(v, (int, np.integer)) and not isinstance(v, (bool, np.bool_)) for v in chosen):
                return [int(v) for v in chosen]
        raise _no_target(text)
    written = text.strip()
    if written == "argmax":
        return written
    try:
        if written.startswith("[") and written.endswith("]"):
            return tuple(_item(part.strip()) for part in written[1:-1].split(","))
        if "," in written:
            return [int(v) for v in written.split(",") if v.strip()]
        if ":" in written:
            return (_item(written),)
        return int(written)
    except ValueError:
        raise _no_target(text) from None


def keeps_rows(target: Target, rank: int) -> bool:
    """Whether a parsed target chooses the same of every row of a layer with `rank` axes."""
    if target is None:
        return True
    if isinstance(target, tuple):
        return bool(target) and ((target[0] is Ellipsis and len(target) <= rank) or (isinstance(target[0], slice) and target[0] == slice(None)))
    return rank >= 2


def _no_target(given: object) -> UsageError:
    return UsageError(f"The target '{given}' is not an index (3), several (0,2), a slice as NumPy writes it ([:,3]), or argmax.")


def _item(text: str) -> int | slice | Any:
    if text == "...":
        return Ellipsis
    match = _ITEM.match(text)
    if match is None or not text:
        raise ValueError(text)
    if ":" not in text:
        return int(text)
    return slice(*(int(p) if p else None for p in text.split(":")))


def select(op: Builder, y: Value, target: Target) -> Value:
    """The chosen components of `y`. An index, or several, counts along axis 1 (axis 0 is the batch) or along the only axis; a tuple
    is taken as NumPy takes it; `argmax` is each sample's own largest component."""
    if target is None:
        return y
    if isinstance(target, str):
        return _largest(op, y)
    if isinstance(target, (int, list)):
        if y.rank == 0:
            raise UsageError("The layer is a single number: it has no components, so --target has nothing to choose.")
        axis = min(1, y.rank - 1)
        indices = [target] if isinstance(target, int) else list(target)
        _check(y.shape, axis, indices)
        return op.Gather(y, op.constant(np.asarray(indices, np.int64)), axis=axis)
    return _sliced(op, y, target)


def _largest(op: Builder, y: Value) -> Value:
    if y.rank == 0:
        return y
    rows = op.Reshape(y, op.vector([op.dim(y, 0), -1])) if y.rank > 1 else op.Reshape(y, [1, -1])
    return op.GatherElements(rows, op.ArgMax(rows, axis=1, keepdims=1), axis=1)


def check_target(shape: Sequence[int], target: Target) -> None:
    """Raises `UsageError` where a layer of this shape, which a run has shown, lacks a component that a target asks for."""
    if isinstance(target, (int, list)):
        _check(shape, min(1, len(shape) - 1), [target] if isinstance(target, int) else target)
    elif isinstance(target, tuple):
        for axis, item in enumerate(_written_out(target, len(shape))):
            if isinstance(item, (int, list, np.ndarray)):
                _check(shape, axis, [item] if isinstance(item, int) else list(item))


def _check(shape: Sequence[Dim], axis: int, indices: Sequence[int]) -> None:
    size = shape[axis]
    for index in indices:
        if isinstance(size, int) and not -size <= index < size:
            raise UsageError(f"The target {index} is outside the layer, which has {size} components along axis {axis} (its shape is {shape_text(shape)}).")


def _written_out(items: Sequence[Any], rank: int) -> list[Any]:
    """The items, an ellipsis as the axes that it stands for."""
    written = list(items)
    if Ellipsis in written:
        at = written.index(Ellipsis)
        written[at : at + 1] = [slice(None)] * (rank - len(written) + 1)
    return written


def _sliced(op: Builder, y: Value, items: Sequence[Any]) -> Value:
    written = _written_out(items, y.rank)
    if len(written) > y.rank:
        raise UsageError(f"The target has {len(written)} axes and the layer {y.rank} (its shape is {shape_text(y.shape)}).")
    result = y
    for axis, item in enumerate(written):
        if isinstance(item, int):
            _check(y.shape, axis, [item])
            result = op.Gather(result, op.constant(np.asarray([item], np.int64)), axis=axis)
        elif isinstance(item, (list, np.ndarray)):
            _check(y.shape, axis, list(item))
            result = op.Gather(result, op.constant(np.asarray(item, np.int64)), axis=axis)
        elif item != slice(None):
            step = item.step or 1
            low, high = (0, 2**62) if step > 0 else (2**62, -(2**62))
            start, stop = (low if item.start is None else item.start), (high if item.stop is None else item.stop)
            result = op.Slice(result, [start], [stop], [axis], [step])
    return result
