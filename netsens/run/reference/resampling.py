"""Resize, GridSample, AffineGrid and MaxRoiPool for ONNX's reference evaluator, in the precision of their input and as onnxruntime reads the
specification: a length is a whole number, an axis of scale 1 stays as it is, and a Resize to the same shape is the identity."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from netsens.graph.graph import Array


def _source(mode: str, at: Array, scale: float, get: int, have: int, roi: Sequence[float]) -> Array:
    """Where each element of an axis of length `get` lies on the axis of length `have` that it comes from."""
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        return at * (have - 1) / (get - 1) if get > 1 else at * 0
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if mode == "tf_crop_and_resize":
        start, end = roi
        return start * (have - 1) + at * (end - start) * (have - 1) / (get - 1) if get > 1 else at * 0 + 0.5 * (start + end) * (have - 1)
    if mode == "pytorch_half_pixel" and get == 1:
        return at * 0
    offset = have / 2 * (1 - get / (scale * have)) if mode == "half_pixel_symmetric" else 0
    return offset + (at + 0.5) / scale - 0.5


def _rounded(x: Array, mode: str) -> Array:
    if mode == "floor":
        return np.floor(x)
    if mode == "ceil":
        return np.ceil(x)
    return np.ceil(x - 0.5) if mode == "round_prefer_floor" else np.floor(x + 0.5)


def cubic(x: Array, a: float) -> Array:
    """Keys' kernel."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    return np.where(x <= 1, near, np.where(x < 2, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a, 0))


def resize_matrix(have: int, get: int, scale: float, roi: Sequence[float], a: dict[str, Any]) -> tuple[Array, Array]:
    """How an axis is resized, [get, have]; and which of its elements lie outside of what is cropped."""
    mode = a["coordinate_transformation_mode"]
    x = np.asarray(_source(mode, np.arange(get), scale, get, have, roi), float)
    outside = ((x < 0) | (x > have - 1)) & (mode == "tf_crop_and_resize")
    matrix = np.zeros((get, have))
    if a["mode"] == "nearest":
        matrix[np.arange(get), np.clip(_rounded(x, a["nearest_mode"]), 0, have - 1).astype(int)] = 1
        return matrix, outside
    linear = a["mode"] == "linear"
    wide = 1 / min(scale, 1.0) if a["antialias"] else 1.0
    reach = int(np.ceil((1 if linear else 2) * wide)) + 1
    if linear and not a["antialias"]:
        x = np.clip(x, 0, have - 1)
    for o in range(get):
        taps = np.arange(int(np.floor(x[o])) - reach, int(np.floor(x[o])) + reach + 1)
        distance = (taps - x[o]) / wide
        weights = np.maximum(1 - np.abs(distance), 0) if linear else cubic(distance, a["cubic_coeff_a"])
        if a["exclude_outside"]:
            weights = weights * ((taps >= 0) & (taps < have))
        if a["exclude_outside"] or a["antialias"]:
            weights = weights / weights.sum()
        np.add.at(matrix[o], np.clip(taps, 0, have - 1), weights)
    return matrix, outside


class Resize(OpRun):
    def _run(
        self, x: Array, roi: Any = None, scales: Any = None, sizes: Any = None, antialias: int = 0, axes: Any = None,
        coordinate_transformation_mode: str = "half_pixel", cubic_coeff_a: float = -0.75, exclude_outside: int = 0, extrapolation_value: float = 0.0,
        keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest", nearest_mode: str = "round_prefer_floor",
    ) -> tuple[Array]:  # fmt: skip
        a = {
            "antialias": antialias, "coordinate_transformation_mode": coordinate_transformation_mode, "cubic_coeff_a": cubic_coeff_a,
            "exclude_outside": exclude_outside, "mode": mode, "nearest_mode": nearest_mode,
        }  # fmt: skip
        chosen = [c % x.ndim for c in axes] if axes else list(range(x.ndim))
        have = [x.shape[c] for c in chosen]
        if scales is not None and len(scales):
            factors = [float(s) for s in scales]
            get = [int(np.floor(np.float32(f) * np.float32(h))) for f, h in zip(factors, have, strict=True)]
        else:
            get = [int(s) for s in sizes]
            factors = [g / h for g, h in zip(get, have, strict=True)]
            if keep_aspect_ratio_policy != "stretch":
                factor = min(factors) if keep_aspect_ratio_policy == "not_larger" else max(factors)
                factors, get = [factor] * len(have), [int(np.floor(factor * h + 0.5)) for h in have]
        if get == have:
            return (x,)
        y, hidden = x, np.zeros(1, bool)
        for k, axis in enumerate(chosen):
            region = (float(roi[k]), float(roi[len(chosen) + k])) if roi is not None and len(roi) else (0.0, 1.0)
            if factors[k] == 1 or (antialias and get[k] == have[k]):
                continue
            matrix, outside = resize_matrix(have[k], get[k], factors[k], region, a)
            y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
            hidden = hidden | outside.reshape(-1, *[1] * (x.ndim - 1 - axis))
        return (np.where(hidden, extrapolation_value, y).astype(x.dtype),)


def _reflected(x: Array, low: float, high: float) -> Array:
    span = high - low
    if span <= 0:
        return np.full_like(x, low)
    turns, rest = np.divmod(np.abs(x - low), span)
    return np.where(turns % 2 == 0, low + rest, high - rest)


class GridSample(OpRun):
    def _run(self, x: Array, grid: Array, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros") -> tuple[Array]:
        sizes = x.shape[2:]
        taps: list[list[tuple[Array, Array]]] = []  # an axis: where, and how much of it
        for k, size in enumerate(sizes):
            low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
            u = low + (grid[..., len(sizes) - 1 - k] + 1) / 2 * (high - low)
            if mode == "nearest":
                u = np.rint(u)
            if mode != "cubic" and padding_mode == "border":
                u = np.clip(u, 0, size - 1)
            elif mode != "cubic" and padding_mode == "reflection":
                u = _reflected(u, low, high)
            first = np.floor(u)
            offsets = {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}[mode]
            row = []
            for offset in offsets:
                at, distance = first + offset, u - first - offset
                weight = np.ones_like(u) if mode == "nearest" else 1 - np.abs(distance) if mode == "linear" else cubic(distance, -0.75)
                if padding_mode == "zeros":
                    weight = weight * ((at >= 0) & (at < size))
                elif padding_mode == "reflection":
                    at = _reflected(at, low, high)
                row.append((np.clip(np.trunc(at), 0, size - 1).astype(int), weight))
            taps.append(row)
        y = np.zeros((x.shape[0], x.shape[1], *grid.shape[1:-1]), x.dtype)
        for chosen in product(*taps):
            for n in range(x.shape[0]):
                weight = np.prod([w[n] for _, w in chosen], axis=0)
                y[n] += x[n][(slice(None), *(at[n] for at, _ in chosen))] * weight
        return (y,)


class AffineGrid(OpRun):
    def _run(self, theta: Array, size: Array, align_corners: int = 0) -> tuple[Array]:
        sizes = [int(s) for s in size[2:]]
        lines = [np.linspace(-1, 1, s) if align_corners else (2 * np.arange(s) + 1) / s - 1 for s in sizes]
        places = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(sizes)], -1)
        return (np.einsum("...k,ndk->n...d", places, theta).astype(theta.dtype),)


class MaxRoiPool(OpRun):
    def _run(self, x: Array, rois: Array, pooled_shape: Any = None, spatial_scale: float = 1.0) -> tuple[Array]:
        y = np.zeros((len(rois), x.shape[1], *pooled_shape), x.dtype)
        for r, roi in enumerate(rois):
            edges = np.sign(roi[1:]) * np.floor(np.abs(roi[1:] * spatial_scale) + 0.5)
            bounds = []
            for low, high, count, length in zip(edges[1::-1], edges[:1:-1], pooled_shape, x.shape[2:], strict=True):
                size = max(high - low + 1, 1) / count
                bins = np.arange(count)
                bounds.append(np.clip(np.stack([np.floor(bins * size) + low, np.ceil((bins + 1) * size) + low]), 0, length).astype(int).T)
            for (i, (top, bottom)), (j, (left, right)) in product(enumerate(bounds[0]), enumerate(bounds[1])):
                if bottom > top and right > left:
                    y[r, :, i, j] = x[int(roi[0]), :, top:bottom, left:right].max((1, 2))
        return (y,)


OPERATORS = [Resize, GridSample, AffineGrid, MaxRoiPool]
