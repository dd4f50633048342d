"""The structure of convolutions and poolings: windows along spatial axes, groups of channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsens.modes.pattern import LIMIT, Pattern, TooLarge, pattern
from netsens.modes.structures.view import Link, Shape, StructureView, rule


def _window(n: int, d: int, kernel: int, stride: int, dilation: int, begin: int) -> Pattern:
    """Output position o sees input positions o * stride - begin + dilation * tap."""
    rows = np.repeat(np.arange(n), kernel)
    source = rows * stride - begin + dilation * np.tile(np.arange(kernel), n)
    inside = (source >= 0) & (source < d)
    return pattern(n, d, rows[inside], source[inside])


def _geometry(s: StructureView, kernel: Sequence[int], small: Sequence[int], large: Sequence[int]) -> tuple[list[int], list[int], list[int]] | None:
    """Strides, dilations and beginning pads of a window over `large` that yields `small`; None where `auto_pad` leaves the pads to a formula that is not
    certain here."""
    rank = len(kernel)
    strides = list(s["strides"] or [1] * rank)
    dilations = list(s["dilations"] or [1] * rank)
    auto = str(s["auto_pad"] or "NOTSET")
    if auto == "VALID":
        return strides, dilations, [0] * rank
    if auto == "NOTSET":
        return strides, dilations, list(s["pads"] or [0] * (2 * rank))[:rank]
    begins = []
    for a in range(rank):
        total = max((small[a] - 1) * strides[a] + dilations[a] * (kernel[a] - 1) + 1 - large[a], 0)
        begins.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
    return strides, dilations, begins


def _channels(out: int, in_: int, group: int) -> Pattern | None:
    """Output channels to the input channels of their group."""
    m, c = out // group, in_ // group
    rows = np.repeat(np.arange(out), c)
    return pattern(out, in_, rows, rows // m * c + np.tile(np.arange(c), out))


@rule("Conv")
def _conv(s: StructureView, k: int, j: int) -> list[Link]:
    x, w, y = s.shapes[0], s.shapes[1], s.results[0]
    if k:
        return [(1, 0, None)]
    links: list[Link] = [(0, 0, None)]
    group = int(s["group"])
    if group > 1:
        links.append((1, 1, _channels(y[1], x[1], group)))
    geometry = _geometry(s, w[2:], y[2:], x[2:])
    if geometry is not None:
        links += _windows(w[2:], y[2:], x[2:], *geometry)
    return links


def _windows(kernel: Sequence[int], n: Shape, d: Shape, strides: list[int], dilations: list[int], begins: list[int]) -> list[Link]:
    links: list[Link] = []
    for a in range(len(kernel)):
        if n[a] * kernel[a] <= 4 * LIMIT:
            try:
                links.append((a + 2, a + 2, _window(n[a], d[a], kernel[a], strides[a], dilations[a], begins[a])))
            except TooLarge:
                continue
    return links


@rule("ConvTranspose")
def _conv_transpose(s: StructureView, k: int, j: int) -> list[Link]:
    x, w, y = s.shapes[0], s.shapes[1], s.results[0]
    group = int(s["group"])
    if k == 2:
        return [(1, 0, None)]
    if k == 1:
        return [(1, 1, pattern(y[1], w[1], np.arange(y[1]), np.arange(y[1]) % w[1]))]
    links: list[Link] = [(0, 0, None)]
    if group > 1:
        links.append((1, 1, _channels(y[1], x[1], group)))
    rank = len(w) - 2
    if str(s["auto_pad"] or "NOTSET") not in ("NOTSET", "VALID") or s["output_shape"]:
        return links  # the pads follow from the output's shape by a rule that runtimes read differently
    strides, dilations = list(s["strides"] or [1] * rank), list(s["dilations"] or [1] * rank)
    begins = list(s["pads"] or [0] * (2 * rank))[:rank]
    for a in range(rank):
        links.append((a + 2, a + 2, _window(x[a + 2], y[a + 2], w[a + 2], strides[a], dilations[a], begins[a]).transposed()))
    return links


@rule("MaxPool AveragePool LpPool")
def _pool(s: StructureView, k: int, j: int) -> list[Link]:
    x, y = s.shapes[0], s.results[0]
    kernel = list(s["kernel_shape"])
    geometry = _geometry(s, kernel, y[2:], x[2:])
    links: list[Link] = [(0, 0, None), (1, 1, None)]
    return links if geometry is None else links + _windows(kernel, y[2:], x[2:], *geometry)


@rule("GlobalAveragePool GlobalMaxPool GlobalLpPool")
def _global_pool(s: StructureView, k: int, j: int) -> list[Link]:
    return [(0, 0, None), (1, 1, None)]


@rule("Col2Im RoiAlign MaxRoiPool")
def _first_axis(s: StructureView, k: int, j: int) -> list[Link]:
    return [(0, 0, None)] if k == 0 and s.node.op == "Col2Im" else []


@rule("GridSample")
def _grid_sample(s: StructureView, k: int, j: int) -> list[Link]:
    if k == 0:
        return [(0, 0, None), (1, 1, None)]
    rank = len(s.results[0]) - 2
    return [(0, 0, None), *((a + 2, a + 1, None) for a in range(rank))]
