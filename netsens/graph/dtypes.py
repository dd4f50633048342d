"""ONNX's element types: the numbers that stand for them, and NumPy's dtypes; the usual ones without importing onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT, UINT8, INT8, INT32, INT64, STRING, BOOL, DOUBLE = 1, 2, 3, 6, 7, 8, 9, 11
HALVES = frozenset({10, 16})  # float16, bfloat16
FLOATS = frozenset({FLOAT, DOUBLE}) | HALVES

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


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a derivative by values of this dtype makes sense (float16 to float64, bfloat16)."""
    return (dtype.kind == "f" and dtype.itemsize >= 2) or dtype.name == "bfloat16"
