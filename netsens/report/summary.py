"""The figures of an array in one row: what `--summary` prints. How rows are printed is in `render`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
            good, found = _without_nan(part)
            nans += part.size - good.size
            if not good.size:
                continue
            count += good.size
            zeros += int(good.size - np.count_nonzero(good))
            total += found
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


def tensor_rows(arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> list[Row]:
    """A row a tensor; then one a feature, where the features have names."""
    found = []
    for name, array in arrays.items():
        found.append(summarize(name, array))
        names = features.get(name, ())
        if array.ndim == 2 and array.shape[1] == len(names):
            found += [{"name": name, "feature": feature} | summarize(name, array[:, k]) for k, feature in enumerate(names)]
    return found


def joined(first: Row, second: Row) -> Row:
    """The row of two arrays one after another along their first axis, from the rows of each."""
    sizes = [math.prod(row["shape"]) for row in (first, second)]
    nans = [row.get("nan", 0) for row in (first, second)]
    counts = [size - nan for size, nan in zip(sizes, nans, strict=True)]
    row = {k: v for k, v in (first if counts[0] else second).items() if k != "nan"}
    if all(counts):
        share = counts[1] / sum(counts)
        apart = second["mean"] - first["mean"]
        deviations = math.sqrt(1 - share) * first["std"], math.sqrt(share) * second["std"], math.sqrt(share * (1 - share)) * apart
        row["mean"] = first["mean"] + share * apart
        row["std"] = math.hypot(*deviations) if all(map(math.isfinite, deviations)) else math.nan
        row["min"], row["max"] = min(first["min"], second["min"]), max(first["max"], second["max"])
    row["shape"] = [first["shape"][0] + second["shape"][0], *first["shape"][1:]]
    row["l1"], row["l2"] = first["l1"] + second["l1"], math.hypot(first["l2"], second["l2"])
    zeros = [r["zeros"] * size if size else 0.0 for r, size in zip((first, second), sizes, strict=True)]
    row["zeros"] = sum(zeros) / sum(sizes) if sum(sizes) else math.nan
    return row | ({"nan": sum(nans)} if any(nans) else {})


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
        scaled = _without_nan(part)[0] / largest
        squares += float(np.dot(scaled, scaled))
        scaled -= mean / largest
        deviations += float(np.dot(scaled, scaled))
    return math.sqrt(deviations / count) * largest, math.sqrt(squares) * largest


def _without_nan(part: Array) -> tuple[Array, float]:
    """The numbers, and their sum, which tells whether one can be NaN at all."""
    total = float(part.sum())
    if not math.isnan(total):
        return part, total
    good = part[~np.isnan(part)]
    return good, float(good.sum())


def _parts(flat: Array) -> Iterator[Array]:
    return (flat[start : start + _CHUNK].astype(np.float64) for start in range(0, flat.size, _CHUNK))
