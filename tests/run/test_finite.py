"""Finite or not, however it is found out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netsens.run.finite import all_finite


@pytest.mark.parametrize("size", [1, 1000, 1 << 18])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_that_is_not_is_found(size: int, dtype: Any) -> None:
    array = np.ones(size, dtype)
    assert all_finite([array, np.full(size, np.finfo(dtype).max, dtype)])  # whose squares are not
    for bad in (np.nan, np.inf, -np.inf):
        array[size // 2] = bad
        assert not all_finite([np.ones(3), array])
    assert all_finite([array[::2][: size // 8], np.zeros(0, dtype)])
