"""Padding, gathering and scattering for ONNX's reference evaluator, whose own refuse negative pads and indices that cover a part of an axis, and
give Unique's elements in another order than their indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from netsens.graph.graph import Array


class Pad(OpRun):
    """A negative pad cuts off, before the others are added."""

    def _run(self, x: Array, pads: Any, value: Any = None, axes: Any = None, mode: str = "constant") -> tuple[Array]:
        widths = [(0, 0)] * x.ndim
        kept = [slice(None)] * x.ndim
        for k, axis in enumerate(range(x.ndim) if axes is None else [int(a) for a in axes]):
            before, after = int(pads[k]), int(pads[len(pads) // 2 + k])
            widths[axis] = (max(before, 0), max(after, 0))
            kept[axis] = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
        given = {"constant_values": 0 if value is None else np.asarray(value).reshape(())} if mode == "constant" else {}
        return (np.pad(x[tuple(kept)], widths, mode, **given).astype(x.dtype),)  # type: ignore[call-overload]


def _places(x: Array, indices: Array, axis: int) -> tuple[Array, ...]:
    """Where each index of GatherElements or ScatterElements points."""
    places: list[Array] = list(np.indices(indices.shape))
    places[axis] = indices
    return tuple(places)


class GatherElements(OpRun):
    def _run(self, x: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        return (x[_places(x, indices, axis)],)


_AT: dict[str, np.ufunc] = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


class ScatterElements(OpRun):
    def _run(self, x: Array, indices: Array, updates: Array, axis: int = 0, reduction: str | None = None) -> tuple[Array]:
        y, places = x.copy(), _places(x, indices, axis)
        if reduction in _AT:
            _AT[reduction].at(y, places, updates)
        else:
            y[places] = updates
        return (y,)


class Unique(OpRun):
    def _run(self, x: Array, axis: int | None = None, sorted: int = 1) -> tuple[Array, ...]:
        _, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
        inverse = inverse.reshape(-1)
        if not sorted:
            order = np.argsort(first)
            first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
        y = np.take(x.reshape(-1) if axis is None else x, first, 0 if axis is None else axis)
        return (y, *(v.astype(np.int64) for v in (first, inverse, counts)))[: len(self.onnx_node.output)]


OPERATORS = [Pad, GatherElements, ScatterElements, Unique]
