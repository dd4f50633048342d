"""What the pictures share: the diverging colours, the scale symmetric around zero, long names cut."""

from __future__ import annotations

import numpy as np

from netsens.report.dtypes import Array
from netsens.report.render import fold_middle, format_number

POSITIVE = "#b2182b"
NEGATIVE = "#2166ac"
COLOURS = "RdBu_r"  # red above zero, blue below; told apart by the colour-blind as well
INK = "#333333"
MISSING = "#e0c040"  # NaN: a colour that the scale does not have
DOTS_PER_INCH = 150


def symmetric_limit(values: Array, *, quantile: float = 0.995) -> tuple[float, bool]:
    """(limit, cut): the scale runs from -limit to limit; `cut` when a few outliers lie beyond it.

    The quantile is of what is not zero, so that one bright pixel, or a sparse matrix, does not wash the rest out.
    """
    magnitudes = np.abs(values[np.isfinite(values)]).astype(np.float64)
    magnitudes = magnitudes[magnitudes > 0]
    if magnitudes.size == 0:
        return 1.0, False
    largest = float(magnitudes.max())
    limit = float(np.quantile(magnitudes, quantile))
    return (limit, True) if limit < 0.8 * largest else (largest, False)


def non_finite_note(values: Array) -> str:
    """` · 3 values not finite (yellow)`, or nothing."""
    count = int(values.size - np.isfinite(values).sum())
    return f" · {count} values not finite (yellow)" if count else ""


def range_note(values: Array) -> str:
    """`from -0.123 to 0.456`, of the finite values."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return "no finite value"
    if not finite.any():
        return "all zero"
    return f"from {format_number(float(finite.min()))} to {format_number(float(finite.max()))}"


def short(name: str, width: int = 48) -> str:
    """A tensor's name as it fits in a title, safe from matplotlib's reading of `$` as mathematics."""
    return fold_middle(name, width).replace("$", r"\$")
