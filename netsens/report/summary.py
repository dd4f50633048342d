"""The figures of an array in one row: what `--summary` prints. How rows are printed is in `render`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from netsens.report.dtypes import Array, kind_of, widened

Row = dict[str, Any]
_CHUNK = 1 << 20  # elements that are in float64 at a time, so that a summary needs no second copy of the array


def summarize(name: str, array: Array) -> Row:
    """name, shape, mean, std, min, max, l1, l2 and zeros (the share of exact zeros), in float64.

    NaN is left out of the figures and counted under `nan`, which is there only when some are. Figures of nothing
    (an empty array, or all NaN) are NaN; an infinite value makes those infinite or NaN that it touches.
    """
    flat = np.asarray(widened(np.asarray(array))).reshape(-1)
    if kind_of(flat.dtype) == "complex":
        raise TypeError(f"{name}: complex arrays have no minimum; summarize their parts")
    count = nans = zeros = 0
    total = absolute = 0.0
    smallest, largest = math.inf, -math.inf
    with np.errstate(all="ignore"):
        for part in _parts(flat):
            good = part[~np.isnan(part)]
            nans += part.size - good.size
            if not good.size:
                continue
            count += good.size
            zeros += int(good.size - np.count_nonzero(good))
            total += float(good.sum())
            absolute += float(np.abs(good).sum())
            smallest, largest = min(smallest, float(good.min())), max(largest, float(good.max()))
        mean = total / count if count else math.nan
        std, l2 = _second_moments(flat, mean, max(-smallest, largest), count)
    row: Row = {
        "name": name,
        "shape": list(np.shape(array)),
        "mean": mean,
        "std": std,
        "min": smallest if count else math.nan,
        "max": largest if count else math.nan,
        "l1": absolute,
        "l2": l2,
        "zeros": zeros / flat.size if flat.size else math.nan,
    }
    if nans:
        row["nan"] = nans
    return row


def _second_moments(flat: Array, mean: float, largest: float, count: int) -> tuple[float, float]:
    """Standard deviation (of the population) and L2 norm, scaled so that squares neither overflow nor vanish."""
    if not count:
        return math.nan, 0.0
    if math.isinf(largest):
        return math.nan, math.inf
    if largest == 0:
        return 0.0, 0.0
    squares = deviations = 0.0
    for part in _parts(flat):
        scaled = part[~np.isnan(part)] / largest
        squares += float(np.dot(scaled, scaled))
        scaled -= mean / largest
        deviations += float(np.dot(scaled, scaled))
    return math.sqrt(deviations / count) * largest, math.sqrt(squares) * largest


def _parts(flat: Array) -> Iterator[Array]:
    return (flat[start : start + _CHUNK].astype(np.float64) for start in range(0, flat.size, _CHUNK))
