"""The structure of interpolation: which samples each output reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netsens.modes.pattern import LIMIT, Pattern, pattern
from netsens.modes.structures.view import Link, StructureView, rule


@rule("Resize Upsample")
def _resize(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    links: list[Link] = []
    for a, (n, d) in enumerate(zip(s.results[0], s.shapes[0], strict=True)):
        if n == d and _keeps(s, a):
            # A scale of one takes each position from itself in every mode but a crop.
            if str(s["coordinate_transformation_mode"] or "") != "tf_crop_and_resize":
                links.append((a, a, None))
            continue
        if d > 1:
            matrix = _interpolation(s, a, n, d)
            if matrix is not None:
                links.append((a, a, matrix))
    return links


def _keeps(s: StructureView, axis: int) -> bool:
    """Whether an axis that keeps its length has a scale of one: 5 times 1.1, rounded down, is 5 too."""
    position = 2 if s.node.op == "Resize" else 1
    scales = s.constant(position)
    if scales is None:
        return s.node.op == "Resize" and not (s.has(position) and s.shapes[position] != (0,))
    rank = len(s.shapes[0])
    axes = [a % rank for a in s["axes"]] if s["axes"] else list(range(rank))
    return not scales.size or axis not in axes or float(scales.reshape(-1)[axes.index(axis)]) == 1


def _interpolation(s: StructureView, axis: int, n: int, d: int) -> Pattern | None:
    """The input positions that each output position may weigh, widened by one where rounding could decide."""
    rank = len(s.shapes[0])
    axes = [a % rank for a in s["axes"]] if s["axes"] else list(range(rank))
    scales = s.constant(2) if s.node.op == "Resize" else s.constant(1)
    if axis not in axes:
        return None
    scale = float(scales.reshape(-1)[axes.index(axis)]) if scales is not None and scales.size else n / d
    if str(s["keep_aspect_ratio_policy"] or "stretch") != "stretch" or scale <= 0:
        return None
    o = np.arange(n, dtype=np.float64)
    mode = str(s["coordinate_transformation_mode"] or ("asymmetric" if s.node.op == "Upsample" else "half_pixel"))
    match mode:
        case "half_pixel":
            x = (o + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            x = (o + 0.5) / scale - 0.5 if n > 1 else np.zeros(1)
        case "asymmetric":
            x = o / scale
        case "align_corners":
            x = o * (d - 1) / (n - 1) if n > 1 else np.zeros(1)
        case _:
            return None
    # A scale that is a power of two has exact coordinates; with others rounding could decide between neighbours, so both count.
    slack = 0.0 if np.log2(scale).is_integer() and mode != "align_corners" else 1e-4
    kind = str(s["mode"] or "nearest")
    if kind == "nearest":
        rounding = str(s["nearest_mode"] or "round_prefer_floor") if s.node.op == "Resize" else "floor"
        ways: dict[str, Callable[[Any], Any]] = {
            "floor": np.floor, "ceil": np.ceil, "round_prefer_floor": lambda x: np.ceil(x - 0.5), "round_prefer_ceil": lambda x: np.floor(x + 0.5)
        }  # fmt: skip
        to_int = ways.get(rounding)
        if to_int is None:
            return None
        low, high = to_int(x - slack), to_int(x + slack)
    elif kind in ("linear", "cubic"):
        reach = 1.0 if kind == "linear" else 2.0
        wide = reach * max(1.0, 1 / scale) if s["antialias"] else reach
        low, high = np.floor(x - slack - wide) + 1, np.ceil(x + slack + wide) - 1
    else:
        return None
    first, last = np.clip(low, 0, d - 1).astype(np.int64), np.clip(high, 0, d - 1).astype(np.int64)
    lengths = last - first + 1
    if int(lengths.sum()) > LIMIT:
        return None
    rows = np.repeat(np.arange(n), lengths)
    offsets = np.arange(rows.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pattern(n, d, rows, first[rows] + offsets)
