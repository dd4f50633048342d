"""Jacobians and Hessians as pictures: a panel for each pair of tensors, side by side as in the whole matrix, with the tensors' names and the places along
their first axis marked at the margins. Narrow tensors are drawn wider than to scale, so that a bias can be seen beside a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.report.drawing import COLOURS, DOTS_PER_INCH, INK, MISSING, non_finite_note, range_note, short, symmetric_limit
from netsens.report.dtypes import Array
from netsens.report.matrix import block_extremes, entries
from netsens.report.render import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tensor = tuple[str, tuple[int, ...]]  # name and shape
MOST_PANELS = 16  # a side; what has the least in it is left out, and the title says so
WIDTH, LEAST, MOST = 7.4, 3.0, 6.5  # inches: of all panels, and the least and most height of them
MARKED = 16  # places along a tensor's first axis that are named one by one
UNLIKE = 10  # panels whose largest entries differ by more than this factor have scales of their own
RULED = 64  # and that are told apart by a line


def draw_grid(
    title: str, rows: Sequence[Tensor], columns: Sequence[Tensor], blocks: Mapping[tuple[str, str], Any], *, label: str, structure: bool = False
) -> Figure:
    """`blocks` are matrices (NumPy's, or SciPy's sparse ones) [elements of a row's tensor, elements of a column's]. `structure`: where entries may be
    non-zero, in ink, and not their values."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure

    found = {key: entries(matrix) for key, matrix in blocks.items()}
    rows, columns, left_out = _largest(rows, columns, found)
    heights, widths = _shares(rows), _shares(columns)
    tall, wide = (sum(prod(shape) for _, shape in side) for side in (rows, columns))
    height = min(max(WIDTH * (tall / wide) ** 0.5, LEAST), MOST)
    figure = Figure(figsize=(WIDTH + 2.2, height + 1.7), dpi=DOTS_PER_INCH, layout="constrained")
    figure.get_layout_engine().set(wspace=0.012, hspace=0.012, w_pad=0.05, h_pad=0.04)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(len(rows), len(columns), squeeze=False, width_ratios=widths, height_ratios=heights)
    reduced = {}
    for i, (row, out) in enumerate(rows):
        for j, (column, in_) in enumerate(columns):
            r, c, values = found.get((row, column), (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)))
            most = (_cells(heights[i], heights, height), _cells(widths[j], widths, WIDTH))
            reduced[i, j] = _reduced(r, c, np.ones(values.size) if structure else values, (prod(out), prod(in_)), most)
    limit, cut = symmetric_limit(np.concatenate([block.ravel() for block, _ in reduced.values()]))
    limits = {key: symmetric_limit(block) for key, (block, _) in reduced.items()}
    sizes = [limits[key][0] for key, (block, _) in reduced.items() if np.any(block)]
    # Where one tensor's derivatives would leave no colour to another's, each panel has a scale of its own, written above it.
    apart = len(sizes) > 1 and not structure and max(sizes) > UNLIKE * min(sizes)
    colours, scale = colormaps[COLOURS].with_extremes(bad=MISSING), Normalize(-limit, limit)
    if structure:
        colours, scale, cut = LinearSegmentedColormap.from_list("ink", ["white", INK]), Normalize(0, 1), False
    if apart:
        scale, cut = Normalize(-1, 1), any(beyond for _, beyond in limits.values())
    for i, (row, out) in enumerate(rows):
        for j, (column, in_) in enumerate(columns):
            axis, (block, (high, across)) = axes[i, j], reduced[i, j]
            extent = (-0.5, block.shape[1] * across - 0.5, block.shape[0] * high - 0.5, -0.5)
            if apart:
                own = limits[i, j][0] if np.any(block) else 0.0
                block = block / (own or 1.0)
                narrow = widths[j] / sum(widths) * WIDTH < 0.5
                axis.set_title(f"±{format_number(own)}" if own else "0", fontsize=7, pad=2, color="0.35", rotation=90 if narrow else 0)
            axis.imshow(np.ma.masked_invalid(block), cmap=colours, norm=scale, interpolation="nearest", aspect="auto", extent=extent)
            axis.set_xlim(-0.5, prod(in_) - 0.5)
            axis.set_ylim(prod(out) - 0.5, -0.5)
            for spine in axis.spines.values():
                spine.set(linewidth=0.6, color=INK)
            _mark(axis, "y", row, out, heights[i] / sum(heights) * height, named=j == 0)
            _mark(axis, "x", column, in_, widths[j] / sum(widths) * WIDTH, named=i == len(rows) - 1)
    if not structure:
        bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, extend="both" if cut else "neither", extendfrac=0.03, pad=0.015, fraction=0.04)
        blocked = any(size != (1, 1) for _, size in reduced.values())
        words = label + (", as a share of the figure above each panel" if apart else "") + (", largest in each dot" if blocked else "")
        bar.set_label("\n".join(wrap(words, max(int(height * 12), 20))), fontsize=9)
        bar.ax.tick_params(labelsize=8)
    everything = np.concatenate([v for _, _, v in found.values()]) if found else np.zeros(0)
    size = sum(prod(out) for _, out in rows) * sum(prod(in_) for _, in_ in columns)
    count = int(np.count_nonzero(everything))
    note = f"{tall:,} x {wide:,}, {count:,} of {size:,} entries {'may be' if structure else 'are'} non-zero ({100 * count / max(size, 1):.3g} %)"
    note += "" if structure else f" · {range_note(everything) if everything.size else 'all zero'}{non_finite_note(everything)}"
    note += f" · {left_out} more tensors are not drawn" if left_out else ""
    figure.suptitle(f"{short(title, 64)}\n", fontsize=11, x=0.01, ha="left")
    figure.text(0.0105, 1 - 0.27 / figure.get_figheight(), note, fontsize=8, color="0.35", va="top")
    return figure


def _largest(rows: Sequence[Tensor], columns: Sequence[Tensor], found: Mapping[tuple[str, str], Any]) -> tuple[list[Tensor], list[Tensor], int]:
    """The tensors that are drawn, and how many are not."""

    def norm(side: int, name: str) -> float:
        return float(sum(np.square(v[np.isfinite(v)]).sum() for key, (_, _, v) in found.items() if key[side] == name))

    kept = []
    for side, tensors in enumerate((rows, columns)):
        names = sorted((t[0] for t in tensors), key=lambda name, side=side: -norm(side, name))[:MOST_PANELS]  # type: ignore[misc]
        kept.append([t for t in tensors if t[0] in names])
    return kept[0], kept[1], len(rows) + len(columns) - len(kept[0]) - len(kept[1])


def _shares(tensors: Sequence[Tensor]) -> list[float]:
    """How long each tensor's side of a panel is: by the square root of its size, and none so short that its name has no room."""
    lengths = [max(prod(shape), 1) ** 0.5 for _, shape in tensors]
    least = 0.45 * sum(lengths) / len(lengths)
    return [max(length, least) for length in lengths]


def _cells(share: float, shares: Sequence[float], inches: float) -> int:
    """Dots along a side: as many as the picture has room for."""
    return max(int(share / sum(shares) * inches * DOTS_PER_INCH / 2), 8)


def _reduced(row: Array, column: Array, values: Array, shape: tuple[int, int], most: tuple[int, int]) -> tuple[Array, tuple[int, int]]:
    """The entries in blocks, each as its largest."""
    tall, wide = (max(-(-size // cells), 1) for size, cells in zip(shape, most, strict=True))
    down, across = max(-(-shape[0] // tall), 1), max(-(-shape[1] // wide), 1)
    blocks, _ = block_extremes(row // tall, column // wide, values, (down, across), most=max(down, across))
    return blocks, (tall, wide)


def _mark(axis: Axes, side: str, name: str, shape: tuple[int, ...], inches: float, named: bool) -> None:
    """The tensor's name, the places along its first axis that has several, and lines between them."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    along = axis.xaxis if side == "x" else axis.yaxis
    first = next((k for k, d in enumerate(shape) if d > 1), None)
    size = prod(shape)
    line = axis.axvline if side == "x" else axis.axhline
    if first is None or size == shape[first]:  # a vector: its places are its elements
        if named and inches > 0.9 and size > 1:
            along.set_major_locator(MaxNLocator(nbins=max(int(inches * 2), 2), integer=True))
        elif named and size > 1:
            along.set_ticks([0, size - 1])
        else:
            along.set_major_locator(NullLocator())
    else:
        count, stride = shape[first], prod(shape[first + 1 :])
        if count <= RULED and inches / count > 0.06:
            for k in range(1, count):
                line(k * stride - 0.5, color="0.6", linewidth=0.4)
        if named and count <= MARKED and inches / count > (0.3 if side == "x" else 0.16):
            along.set_ticks([(k + 0.5) * stride - 0.5 for k in range(count)], [f"[{k}]" for k in range(count)])
        elif named:
            shown = list(range(0, count, max(-(-count // max(int(inches * 3), 1)), 1)))
            along.set_ticks([(k + 0.5) * stride - 0.5 for k in shown], [f"[{k}]" for k in shown])
        else:
            along.set_major_locator(NullLocator())
    axis.tick_params(axis=side, labelsize=7, length=2, pad=2, color=INK)  # type: ignore[arg-type]
    if not named:
        return
    sizes = "x".join(map(str, shape)) or "1"
    room = max(int(inches * 13), 6)
    if side == "x":
        text = f"{short(name, max(room, 10))}\n{sizes}"
        if len(short(name, 40)) > room:  # no room beside its neighbours: the name stands upright
            axis.set_xlabel(f"{short(name, 28)} {sizes}", fontsize=7.5, rotation=90)
        else:
            axis.set_xlabel(text, fontsize=8)
    elif len(short(name, 40)) + len(sizes) + 1 > room:
        axis.set_ylabel(f"{short(name, 28)}\n{sizes}", fontsize=7.5, rotation=0, ha="right", va="center")
    else:
        axis.set_ylabel(f"{short(name, 40)} {sizes}", fontsize=8)
