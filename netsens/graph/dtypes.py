"""ONNX's element types as NumPy's; the usual ones without importing onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

_USUAL = {
    number: np.dtype(name)
    for number, name in {
        1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "object", 9: "bool", 10: "float16", 11: "float64",
        12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128",
    }.items()
}  # fmt: skip


def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """NumPy's dtype for ONNX's number of an element type."""
    found = _USUAL.get(dtype)
    if found is not None:
        return found
    from onnx import helper

    return np.dtype(helper.tensor_dtype_to_np_dtype(dtype))
