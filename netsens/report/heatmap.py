"""A signed heat map over the image that it belongs to; several samples in a grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from netsens.report.drawing import COLOURS, DOTS_PER_INCH, MISSING, non_finite_note, range_note, short, symmetric_limit
from netsens.report.dtypes import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SAMPLES = 8


def draw_heatmaps(name: str, array: Array, input_array: Array | None, *, label: str) -> Figure:
    """[N, C, H, W], [N, H, W, C], [N, H, W], [C, H, W] or [H, W] as N pictures, channels summed, one scale for all."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    maps, channels = as_images(array)
    total = len(maps)
    maps = maps[:MOST_SAMPLES]
    beneath = None
    if input_array is not None and np.shape(input_array) == array.shape:
        beneath = as_images(np.asarray(input_array), mean=True)[0][:MOST_SAMPLES]
    columns = min(len(maps), 4)
    rows = math.ceil(len(maps) / columns)
    aspect = min(max(maps.shape[1] / maps.shape[2], 0.4), 2.5)
    side = 4.4 if len(maps) == 1 else 2.3
    figure = Figure(figsize=(max(columns * side, 3.8) + 1.3, rows * (side * aspect + 0.25) + 0.9), dpi=DOTS_PER_INCH, layout="constrained")
    limit, cut = symmetric_limit(maps)
    scale = Normalize(-limit, limit)
    colours = colormaps[COLOURS].with_extremes(bad=MISSING)
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if place >= len(maps):
            continue
        if beneath is None:
            painted = colours(scale(np.ma.masked_invalid(maps[place])))
        else:
            # the scale's own colours are near white around zero and would bleach the picture: the stronger half of
            # them is laid on, the more opaque the larger the value
            strength = np.clip(np.abs(maps[place]) / limit, 0, 1)
            strong = colours(scale(np.ma.masked_invalid(np.sign(maps[place]) * limit * (0.55 + 0.45 * strength))))
            painted = _blend(strong, strength, beneath[place])
        axis.imshow(painted, interpolation="nearest", aspect="equal")
        if total > 1:
            axis.set_title(f"sample {place}", fontsize=8)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, extend="both" if cut else "neither", extendfrac=0.03, shrink=0.9, pad=0.02)
    bar.set_label(label + (f", summed over {channels} channels" if channels > 1 else ""), fontsize=9)
    bar.ax.tick_params(labelsize=8)
    shown = f" · {len(maps)} of {total} samples" if total > len(maps) else ""
    figure.suptitle(f"{short(name)}\n", fontsize=11)
    figure.text(0.5, 0.985, f"\n\n{range_note(maps)}{shown}{non_finite_note(maps)}", ha="center", va="top", fontsize=8, color="0.35")
    return figure


def as_images(array: Array, *, mean: bool = False) -> tuple[Array, int]:
    """([N, H, W] in float64 with the channels summed, or averaged; the number of channels)."""
    values = np.asarray(array, dtype=np.float64)
    if values.ndim == 2:
        values = values[np.newaxis]
    if values.ndim == 3 and values.shape[0] == 3:
        values = values[np.newaxis]  # [C, H, W] -> [1, C, H, W]
    if values.ndim == 3:
        return values, 1
    axis = 1 if values.shape[1] in (1, 3, 4) or values.shape[3] not in (1, 3, 4) else 3
    reduced = values.mean(axis) if mean else values.sum(axis)
    return reduced, values.shape[axis]


def _blend(colours: Array, strength: Array, image: Array) -> Array:
    """The colours [H, W, RGBA] over the image in light grey, as opaque as they are strong; NaN wholly so."""
    finite = np.where(np.isfinite(image), image, 0.0)
    low, high = float(finite.min()), float(finite.max())
    grey = 0.6 + 0.4 * ((finite - low) / (high - low) if high > low else np.ones_like(finite))
    opacity = np.where(np.isfinite(strength), strength, 1.0)[..., np.newaxis]
    return np.asarray(opacity * colours[..., :3] + (1 - opacity) * grey[..., np.newaxis])
