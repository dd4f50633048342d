"""Whether arrays hold finite numbers alone, which every gradient is asked."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

import numpy as np

from netsens.graph.graph import Array


def all_finite(arrays: Iterable[Array]) -> bool:
    """Each array's product with itself is asked first, which is infinite or NaN if any element is: no array of truth values is made, and 400 MB take 23 ms instead
    of 56, a few numbers 0.5 us instead of 1.5. It may be infinite for large finite numbers too, and then each is asked."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(_has_finite_square(a) or bool(np.isfinite(a).all()) for a in arrays)


def _has_finite_square(array: Array) -> bool:
    if array.dtype.char not in "fd" or not array.flags.c_contiguous:
        return False
    flat = array.reshape(-1)
    return isfinite(np.dot(flat, flat))
