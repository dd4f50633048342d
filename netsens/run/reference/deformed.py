"""DeformConv for ONNX's reference evaluator, whose own reads the image in float32: written with NumPy from the specification."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from netsens.graph.graph import Array


class DeformConv(OpRun):
    def _run(
        self, x: Array, w: Array, offset: Array, b: Array | None = None, mask: Array | None = None, dilations: Any = None, group: int | None = None,
        kernel_shape: Any = None, offset_group: int | None = None, pads: Any = None, strides: Any = None,
    ) -> tuple[Array]:  # fmt: skip
        count, channels, height, width = x.shape
        kernel, (rows, columns) = kernel_shape or w.shape[2:], offset.shape[2:]
        dilations, pads, strides, groups, parts = dilations or [1, 1], pads or [0] * 4, strides or [1, 1], group or 1, offset_group or 1
        shifts = offset.reshape(count, parts, *kernel, 2, rows, columns)
        shares = np.ones((count, parts, *kernel, rows, columns), x.dtype) if mask is None else mask.reshape(count, parts, *kernel, rows, columns)
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))  # beside the image lie zeros
        seen = np.zeros((count, channels, *kernel, rows, columns), x.dtype)
        for n, c, i, j in product(range(count), range(channels), *map(range, kernel)):
            part = c // (channels // parts)
            v = shifts[n, part, i, j, 0] + np.arange(rows)[:, None] * strides[0] - pads[0] + i * dilations[0]
            h = shifts[n, part, i, j, 1] + np.arange(columns)[None, :] * strides[1] - pads[1] + j * dilations[1]
            above, left = np.floor(v).astype(int), np.floor(h).astype(int)
            for down, right in product((0, 1), (0, 1)):
                weight = (1 - abs(v - above - down)) * (1 - abs(h - left - right))
                at = (np.clip(above + down + 1, 0, height + 1), np.clip(left + right + 1, 0, width + 1))
                seen[n, c, i, j] += weight * padded[n, c][at] * shares[n, part, i, j]
        # [N, g, C, kh, kw, OH, OW] with [g, M, C, kh, kw]
        grouped = seen.reshape(count, groups, channels // groups, *kernel, rows, columns)
        filters = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        y = np.einsum("ngcijhw,gmcij->ngmhw", grouped, filters).reshape(count, w.shape[0], rows, columns)
        return (np.asarray(y if b is None else y + b.reshape(1, -1, 1, 1), x.dtype),)
