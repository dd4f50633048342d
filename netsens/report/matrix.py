"""A Jacobian as a picture of its entries; a large one is drawn in blocks, so that no entry is lost between pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.report.drawing import COLOURS, DOTS_PER_INCH, MISSING, non_finite_note, range_note, short, symmetric_limit
from netsens.report.dtypes import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CELLS = 400  # a side of the picture


def draw_matrix(name: str, matrix: Any, *, label: str) -> Figure:
    """A dense [rows, columns] array or a SciPy sparse matrix, signed, zero in white."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows, columns = matrix.shape
    row, column, values = entries(matrix)
    blocks, (tall, wide) = block_extremes(row, column, values, (rows, columns))
    limit, cut = symmetric_limit(blocks)
    aspect = min(max(rows / columns, 0.4), 1.6)
    figure = Figure(figsize=(6.6, 5.0 * aspect + 1.3), dpi=DOTS_PER_INCH, layout="constrained")
    axis = figure.subplots()
    scale = Normalize(-limit, limit)
    colours = colormaps[COLOURS].with_extremes(bad=MISSING)
    extent = (-0.5, blocks.shape[1] * wide - 0.5, blocks.shape[0] * tall - 0.5, -0.5)
    axis.imshow(np.ma.masked_invalid(blocks), cmap=colours, norm=scale, interpolation="nearest", aspect="auto", extent=extent)
    axis.set_xlim(-0.5, columns - 0.5)
    axis.set_ylim(rows - 0.5, -0.5)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(f"column (of {columns})", fontsize=9)
    axis.set_ylabel(f"row (of {rows})", fontsize=9)
    axis.tick_params(labelsize=8)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axis, extend="both" if cut else "neither", extendfrac=0.03, pad=0.02)
    blocked = tall > 1 or wide > 1
    bar.set_label(label + (f", largest of each {tall}x{wide} block" if blocked else ""), fontsize=9)
    bar.ax.tick_params(labelsize=8)
    count = int(np.count_nonzero(values))
    axis.set_title(f"{short(name)}\n", fontsize=11, loc="left")
    note = f"{count} of {rows * columns} entries not zero ({100 * count / (rows * columns):.3g} %) · {range_note(values)}"
    axis.text(0, 1.01, note + non_finite_note(values), transform=axis.transAxes, fontsize=8, color="0.35", va="bottom")
    return figure


def block_extremes(row: Array, column: Array, values: Array, shape: tuple[int, int], most: int = MOST_CELLS) -> tuple[Array, tuple[int, int]]:
    """([blocks, blocks]: the entry of largest magnitude in each block, NaN before all; (rows, columns) of a block)."""
    tall, wide = (max(-(-size // most), 1) for size in shape)
    down, across = -(-shape[0] // tall), -(-shape[1] // wide)
    place = (row // tall) * across + column // wide
    magnitude = np.where(np.isnan(values), np.inf, np.abs(values))
    order = np.argsort(magnitude, kind="stable")  # of two in one block, the later assignment stays: the larger
    blocks = np.zeros(down * across)
    blocks[place[order]] = values[order]
    return blocks.reshape(down, across), (tall, wide)


def entries(matrix: Any) -> tuple[Array, Array, Array]:
    """Rows, columns and values of what isn't zero (of a sparse matrix: of what is stored)."""
    if hasattr(matrix, "tocoo"):
        entries = matrix.tocoo()
        return entries.row.astype(np.int64), entries.col.astype(np.int64), entries.data.astype(np.float64)
    dense = np.asarray(matrix, dtype=np.float64)
    row, column = np.nonzero(dense)
    return row, column, dense[row, column]
