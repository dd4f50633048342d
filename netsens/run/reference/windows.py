"""Convolutions and pools for ONNX's reference evaluator, whose own are wrong for some paddings, strides and ranks: written with NumPy from the
specification, and as onnxruntime rounds where that is silent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from netsens.graph.graph import Array

Ints = Sequence[int]


def _axes(
    sizes: Ints, kernel: Ints, strides: Ints | None, dilations: Ints | None, pads: Ints | None, auto_pad: str | None, ceil: int = 0
) -> tuple[list[Array], list[int], list[int]]:
    """For every spatial axis which position each window sees, [out, kernel], negative or beyond the end in the padding; and both paddings."""
    rank = len(kernel)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    begins, ends = ([0] * rank, [0] * rank) if not pads or (auto_pad or "NOTSET") != "NOTSET" else (list(pads[:rank]), list(pads[rank:]))
    seen = []
    for k, (size, length, stride, dilation) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        extent = (length - 1) * dilation + 1
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            begins[k] = total // 2 if auto_pad == "SAME_UPPER" else (total + 1) // 2
            ends[k] = total - begins[k]
        room = size + begins[k] + ends[k] - extent
        out = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (out - 1) * stride >= size + begins[k]:
            out -= 1
        seen.append(np.arange(out)[:, None] * stride + np.arange(length) * dilation - begins[k])
    return seen, begins, ends


def _windows(x: Array, seen: Sequence[Array], fill: float) -> Array:
    """[N, C, *out, *kernel]"""
    rank = len(seen)
    before = [max(-int(s.min(initial=0)), 0) for s in seen]
    after = [max(int(s.max(initial=0)) - n + 1, 0) for s, n in zip(seen, x.shape[2:], strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)], constant_values=fill)
    for k, s in enumerate(seen):
        x = np.take(x, s + before[k], 2 + 2 * k)
    return x.transpose(0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 2 + 2 * rank, 2))


class Conv(OpRun):
    def _run(
        self, x: Array, w: Array, b: Array | None = None, auto_pad: str | None = None, dilations: Any = None, group: int = 1, kernel_shape: Any = None,
        pads: Any = None, strides: Any = None,
    ) -> tuple[Array]:  # fmt: skip
        seen, _, _ = _axes(x.shape[2:], w.shape[2:], strides, dilations, pads, auto_pad)
        columns = _windows(x, seen, 0)
        outs = columns.shape[2 : x.ndim]
        # [N, g, C, out, kernel], [g, M, C, kernel]
        columns = columns.reshape(x.shape[0], group, w.shape[1], int(np.prod(outs)), -1)
        y = np.einsum("ngcok,gmck->ngmo", columns, w.reshape(group, -1, w.shape[1], columns.shape[-1]), optimize=True)
        y = y.reshape(x.shape[0], w.shape[0], *outs)
        return ((y if b is None else y + b.reshape(-1, *[1] * len(outs))).astype(x.dtype),)


class ConvTranspose(OpRun):
    def _run(
        self, x: Array, w: Array, b: Array | None = None, auto_pad: str | None = None, dilations: Any = None, group: int = 1, kernel_shape: Any = None,
        output_padding: Any = None, output_shape: Any = None, pads: Any = None, strides: Any = None,
    ) -> tuple[Array]:  # fmt: skip
        rank, sizes, kernel = x.ndim - 2, x.shape[2:], w.shape[2:]
        strides, dilations, extra = strides or [1] * rank, dilations or [1] * rank, output_padding or [0] * rank
        reach = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(sizes, strides, kernel, dilations, strict=True)]
        same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
        wanted = list(output_shape[-rank:]) if output_shape else [n * s for n, s in zip(sizes, strides, strict=True)]
        begins, outs = [], []
        for k in range(rank):
            if output_shape or same:
                total = max(reach[k] + extra[k] - wanted[k], 0)
                begins.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
                outs.append(wanted[k] if output_shape else reach[k] + extra[k] - total)
            else:
                both = (pads[k], pads[rank + k]) if pads and (auto_pad or "NOTSET") == "NOTSET" else (0, 0)
                begins.append(both[0])
                outs.append(reach[k] + extra[k] - sum(both))
        outputs = w.shape[1] * group
        whole = np.zeros((x.shape[0], outputs, *(max(r, b + o) for r, b, o in zip(reach, begins, outs, strict=True))), x.dtype)
        parts = x.reshape(x.shape[0], group, -1, *sizes)
        filters = w.reshape(group, -1, *w.shape[1:])
        for place in product(*map(range, kernel)):
            here: Any = (..., *(slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(place, dilations, sizes, strides, strict=True)))
            tap: Any = (..., *place)
            add = np.einsum("ngc...,gcm->ngm...", parts, filters[tap])
            whole[here] += add.reshape(x.shape[0], outputs, *sizes)
        y = whole[(slice(None), slice(None), *(slice(b, b + o) for b, o in zip(begins, outs, strict=True)))]
        return ((y if b is None else y + b.reshape(-1, *[1] * rank)).astype(x.dtype),)


class Col2Im(OpRun):
    def _run(self, x: Array, image_shape: Array, block_shape: Array, dilations: Any = None, pads: Any = None, strides: Any = None) -> tuple[Array]:
        sizes, kernel = [int(v) for v in image_shape], [int(v) for v in block_shape]
        seen, _, _ = _axes(sizes, kernel, strides, dilations, pads, None)
        outs = [len(s) for s in seen]
        columns = x.reshape(x.shape[0], -1, *kernel, *outs)
        before = [max(-int(s.min()), 0) for s in seen]
        whole = np.zeros((*columns.shape[:2], *(max(int(s.max()) + 1, n) + b for s, n, b in zip(seen, sizes, before, strict=True))), x.dtype)
        for place in product(*map(range, kernel)):
            at: Any = np.ix_(*(s[:, p] + b for s, p, b in zip(seen, place, before, strict=True)))
            cell: Any = (slice(None), slice(None), *place)
            whole[(slice(None), slice(None), *at)] += columns[cell]
        return (whole[(slice(None), slice(None), *(slice(b, b + n) for b, n in zip(before, sizes, strict=True)))],)


class MaxPool(OpRun):
    def _run(
        self, x: Array, auto_pad: str | None = None, ceil_mode: int = 0, dilations: Any = None, kernel_shape: Any = None, pads: Any = None,
        storage_order: int = 0, strides: Any = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        seen, _, _ = _axes(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        windows = _windows(x, seen, lowest)
        outs = windows.shape[2 : x.ndim]
        flat = windows.reshape(*x.shape[:2], *outs, -1)
        first = flat.argmax(-1)
        y = np.take_along_axis(flat, first[..., None], -1)[..., 0]
        if len(self.onnx_node.output) == 1:
            return (y,)
        # The position in the whole input of each maximum, row by row or column by column.
        places = np.unravel_index(first, tuple(kernel_shape))
        at = []
        for k, s in enumerate(seen):
            starts = s[:, 0].reshape(-1, *[1] * (len(seen) - 1 - k))
            at.append(starts + places[k] * (dilations[k] if dilations else 1))
        sizes = x.shape[2:]
        order = range(len(sizes)) if not storage_order else range(len(sizes))[::-1]
        index: Array = np.zeros_like(first)
        for k in order:
            index = index * sizes[k] + at[k]
        images = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * len(sizes))
        return y, (index + images * int(np.prod(sizes))).astype(np.int64)


class AveragePool(OpRun):
    def _run(
        self, x: Array, auto_pad: str | None = None, ceil_mode: int = 0, count_include_pad: int = 0, dilations: Any = None, kernel_shape: Any = None,
        pads: Any = None, strides: Any = None,
    ) -> tuple[Array]:  # fmt: skip
        seen, begins, ends = _axes(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
        total = _windows(x, seen, 0).sum(tuple(range(x.ndim, 2 * x.ndim - 2)))
        for k, s in enumerate(seen):
            low, high = (-begins[k], x.shape[2 + k] + ends[k]) if count_include_pad else (0, x.shape[2 + k])
            count = ((s >= low) & (s < high)).sum(1)
            total = total / count.reshape(-1, *[1] * (len(seen) - 1 - k))
        return (total.astype(x.dtype),)


class LpPool(OpRun):
    def _run(
        self, x: Array, auto_pad: str | None = None, ceil_mode: int = 0, dilations: Any = None, kernel_shape: Any = None, p: int = 2, pads: Any = None,
        strides: Any = None,
    ) -> tuple[Array]:  # fmt: skip
        seen, _, _ = _axes(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
        return (((np.abs(_windows(x, seen, 0)) ** p).sum(tuple(range(x.ndim, 2 * x.ndim - 2))) ** (1 / p)).astype(x.dtype),)


class GlobalLpPool(OpRun):
    def _run(self, x: Array, p: int = 2) -> tuple[Array]:
        return (((np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)).astype(x.dtype),)


class GlobalMaxPool(OpRun):
    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(tuple(range(2, x.ndim)), keepdims=True),)


class MaxUnpool(OpRun):
    def _run(self, x: Array, indices: Array, shape: Any = None, kernel_shape: Any = None, pads: Any = None, strides: Any = None) -> tuple[Array]:
        rank = len(kernel_shape)
        pads, strides = pads or [0] * 2 * rank, strides or [1] * rank
        sizes = [(n - 1) * s + k - pads[a] - pads[rank + a] for a, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel_shape, strict=True))]
        y = np.zeros((*x.shape[:2], *sizes) if shape is None else tuple(int(d) for d in shape), x.dtype)
        y.reshape(-1)[indices.reshape(-1)] = x.reshape(-1)  # of two that meet the later stays
        return (y,)


OPERATORS = [Conv, ConvTranspose, Col2Im, MaxPool, AveragePool, LpPool, GlobalLpPool, GlobalMaxPool, MaxUnpool]
