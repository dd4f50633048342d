"""Results as pictures: which suits an array, and writing it. How each is drawn is in `heatmap`, `bars`, `matrix`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from netsens.errors import OutputError, UsageError
from netsens.report.atomic import replacing
from netsens.report.dtypes import Array, widened
from netsens.report.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PictureKind = Literal["auto", "image", "bars", "matrix"]
_ENDINGS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
_SMALLEST_IMAGE = 5  # a side below this is a filter's, not a picture's


def check_plot_path(path: str | os.PathLike[str]) -> None:
    """Raises before any computing when the ending is not a picture's or matplotlib is not there."""
    if Path(path).suffix.lower() not in _ENDINGS:
        raise UsageError(f"{os.fspath(path)!r} ends in no picture format; end it with {' '.join(_ENDINGS)}")
    if not Path(path).parent.is_dir():
        raise OutputError(f"cannot write {os.fspath(path)!r}: there is no folder {str(Path(path).parent)!r}; make it first")
    require("matplotlib")


def plot_array(
    path: str | os.PathLike[str],
    name: str,
    array: Any,
    *,
    input_array: Array | None = None,
    features: Sequence[str] | None = None,
    kind: PictureKind = "auto",
    label: str = "gradient",
    row_axes: int = 1,
) -> None:
    """Draws the array and writes the picture, whole or not at all; arguments as in `figure_of`."""
    check_plot_path(path)
    figure = figure_of(name, array, input_array=input_array, features=features, kind=kind, label=label, row_axes=row_axes)
    save_figure(figure, path)


def figure_of(
    name: str,
    array: Any,
    *,
    input_array: Array | None = None,
    features: Sequence[str] | None = None,
    kind: PictureKind = "auto",
    label: str = "gradient",
    row_axes: int = 1,
) -> Figure:
    """The picture as a matplotlib figure.

    `array`: a gradient, or a Jacobian (a SciPy sparse matrix too). `input_array`: what it was taken at, drawn beneath.
    `label`: what the numbers are, with their unit. `row_axes`: how many leading axes of a Jacobian are its rows.
    """
    from netsens.report.bars import draw_bars
    from netsens.report.heatmap import draw_heatmaps
    from netsens.report.matrix import draw_matrix

    require("matplotlib")
    if hasattr(array, "tocoo"):
        return draw_matrix(name, array, label=label)
    values = widened(np.asarray(array))
    if values.size == 0:
        raise OutputError(f"there is nothing to draw: {name!r} has shape {values.shape}, with no values")
    if kind == "auto":
        kind = suitable_kind(values.shape, has_input=input_array is not None, has_features=features is not None)
    if kind == "image":
        return draw_heatmaps(name, values, input_array, label=label)
    if kind == "bars":
        return draw_bars(name, values, features, label=label)
    rows = int(np.prod(values.shape[:row_axes])) if values.ndim > 1 else 1
    return draw_matrix(name, values.reshape(rows, -1), label=label)


def plot_grid(
    path: str | os.PathLike[str], title: str, rows: Sequence[tuple[str, tuple[int, ...]]], columns: Sequence[tuple[str, tuple[int, ...]]],
    blocks: Mapping[tuple[str, str], Any], *, label: str, structure: bool = False,
) -> None:  # fmt: skip
    """Draws a Jacobian or Hessian tensor by tensor; arguments as in `grid.draw_grid`."""
    from netsens.report.grid import draw_grid

    check_plot_path(path)
    if not prod(sum(prod(shape) for _, shape in side) for side in (rows, columns)):
        raise OutputError("there is nothing to draw: the Jacobian has no entries")
    save_figure(draw_grid(title, rows, columns, blocks, label=label, structure=structure), path)


def suitable_kind(shape: Sequence[int], *, has_input: bool, has_features: bool) -> PictureKind:
    """Bars for a row or rows of features, a heat map for what has the shape of images, else a matrix."""
    if has_features or len(shape) < 2:
        return "bars"
    if len(shape) == 2:
        return "bars" if has_input or 1 in shape else "matrix"
    if len(shape) == 3 and min(shape[1:]) >= _SMALLEST_IMAGE:
        return "image"
    if len(shape) == 4:
        channels_first = shape[1] in (1, 3, 4) and min(shape[2:]) >= _SMALLEST_IMAGE
        channels_last = shape[3] in (1, 3, 4) and min(shape[1:3]) >= _SMALLEST_IMAGE
        if channels_first or channels_last:
            return "image"
    return "matrix"


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes the figure in the format of the path's ending; without dates: the same picture is the same bytes."""
    import matplotlib

    ending = Path(path).suffix.lower()
    dates: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "netsens", "svg.fonttype": "path"}):
        figure.savefig(temporary, format=_ENDINGS[ending], metadata=dates.get(ending, {}))
