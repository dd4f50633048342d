"""Horizontal bars for features: the largest first, each row of the data a dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from netsens.report.drawing import DOTS_PER_INCH, INK, NEGATIVE, POSITIVE, range_note, short
from netsens.report.dtypes import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 20
MOST_DOTS = 200  # a feature; rows beyond are thinned evenly


def draw_bars(name: str, array: Array, features: Sequence[str] | None, *, label: str) -> Figure:
    """[N, F] as F bars: for one row its signed values, for several the mean magnitude with a dot for each row."""
    from matplotlib.figure import Figure

    rows = np.asarray(array, dtype=np.float64)
    rows = rows.reshape(1, -1) if rows.ndim < 2 else rows.reshape(len(rows), -1)
    count, width = rows.shape
    names = list(features) if features is not None and len(features) == width else _index_names(np.shape(array), width)
    finite = np.where(np.isfinite(rows), rows, np.nan)
    magnitude = _mean_magnitude(finite)
    order = np.argsort(-magnitude, kind="stable")[:MOST_BARS]
    figure = Figure(figsize=(7.0, 1.3 + 0.26 * len(order)), dpi=DOTS_PER_INCH, layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(order))
    if count == 1:
        values = np.nan_to_num(finite[0, order])
        axis.barh(places, values, color=[POSITIVE if value >= 0 else NEGATIVE for value in values], height=0.72)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_xlabel(label, fontsize=9)
    else:
        axis.barh(places, magnitude[order], color="0.82", edgecolor="0.6", linewidth=0.6, height=0.72, zorder=1)
        kept = np.unique(np.linspace(0, count - 1, min(count, MOST_DOTS)).astype(int))
        spread = np.linspace(-0.26, 0.26, len(kept)) if len(kept) > 1 else np.zeros(1)
        for place, feature in enumerate(order):
            values = finite[kept, feature]
            axis.scatter(
                np.abs(values),
                place + spread,
                s=9,
                alpha=0.6 if len(kept) > 40 else 0.9,
                color=[NEGATIVE if value < 0 else POSITIVE for value in values],
                linewidths=0,
                zorder=2,
            )
        axis.set_xlim(left=0)
        axis.set_xlabel(f"mean |{label}| (bars) and each row's |{label}| (dots: red positive, blue negative)", fontsize=9)
    axis.set_yticks(places, [short(names[index], 28) for index in order], fontsize=8)
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_title(f"{short(name)}\n", fontsize=11, loc="left")
    axis.text(0, 1.0, _subtitle(rows, len(order), width), transform=axis.transAxes, fontsize=8, color="0.35", va="bottom")
    return figure


def _mean_magnitude(finite: Array) -> Array:
    present = np.isfinite(finite)
    sums = np.where(present, np.abs(finite), 0).sum(0)
    return np.asarray(sums / np.maximum(present.sum(0), 1))


def _subtitle(rows: Array, shown: int, width: int) -> str:
    parts = [f"{len(rows)} rows"] if len(rows) > 1 else []
    if shown < width:
        parts.append(f"the {shown} largest of {width} features")
    parts.append(range_note(rows))
    missing = int(rows.size - np.isfinite(rows).sum())
    return " · ".join([*parts, *([f"{missing} values not finite, left out"] if missing else [])])


def _index_names(shape: tuple[int, ...], width: int) -> list[str]:
    inner = shape[1:] if len(shape) > 1 else shape
    if len(inner) == 1 or not inner:
        return [f"[{index}]" for index in range(width)]
    return [f"[{','.join(map(str, index))}]" for index in np.ndindex(*inner)]
