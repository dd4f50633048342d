"""Which conversions of an array's dtype are safe, and doing them: nothing is rounded, cut or reinterpreted unseen."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from netsens.errors import InputError, NetsensWarning

Array = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["float", "integer", "boolean", "text", "complex", "other"]


@lru_cache(maxsize=256)  # NumPy makes a dtype's name anew each time
def kind_of(dtype: np.dtype[Any]) -> Kind:
    """By name, since the dtypes that ml_dtypes adds (bfloat16, int4, ...) are all of kind `V` to NumPy."""
    if dtype.kind in "OUST":
        return "text"
    for prefix, kind in _PREFIXES.items():
        if dtype.name.startswith(prefix):
            return kind
    return "other"


_PREFIXES: dict[str, Kind] = {"float": "float", "bfloat": "float", "int": "integer", "uint": "integer", "bool": "boolean", "complex": "complex"}


def convert(array: Array, dtype: np.dtype[Any], place: str, *, textual: bool = False) -> Array:
    """The array in the model's dtype, in C order and native bytes; `InputError` where that would change its values.

    `textual`: the numbers come from text (JSON, CSV), whose own types say little, so that 1 for 1.0 is no news.
    """
    have, want = kind_of(array.dtype), kind_of(dtype)
    if want == "text" and have == "text":
        return _as_text(array, place)
    native = array.dtype.newbyteorder("=")
    if native == dtype:
        return np.asarray(array, dtype=dtype, order="C")
    if have in ("text", "complex", "other") or want in ("text", "complex", "other"):
        raise InputError(f"{place} holds {_describe(array)}, but the model expects {dtype.name}; {_remedy(array)}")
    if want != "float" and have == "float":
        raise InputError(
            f"{place} holds {array.dtype.name}, but the model expects {dtype.name}; numbers are not rounded unasked: "
            f"convert it first, with array.astype('{dtype.name}')"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.asarray(array).astype(dtype, order="C")
    _check_kept(np.asarray(array), converted, dtype, place, exact=want != "float")
    if not textual and not (native == np.float64 and dtype == np.float32):
        warnings.warn(NetsensWarning(f"{place.partition(' from ')[0]} is {array.dtype.name}; it is read as {dtype.name}"), stacklevel=2)
    return converted


def warn_of_non_finite(array: Array, place: str) -> None:
    """One warning when the array holds NaN or infinity."""
    if kind_of(array.dtype) != "float" or array.size == 0:
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    nans = int(np.isnan(array).sum())
    infinities = int(array.size - finite.sum()) - nans
    counts = " and ".join(f"{count} {what}" for count, what in ((nans, "NaN"), (infinities, "infinite")) if count)
    warnings.warn(NetsensWarning(f"{place} holds {counts} of {array.size} values; what depends on them may be NaN too"), stacklevel=2)


def widened(array: Array) -> Array:
    """Dtypes that files cannot hold (bfloat16, float8, int4) as the smallest that they can; others unchanged."""
    if array.dtype.kind in "biufc":
        return array
    kind = kind_of(array.dtype)
    if kind == "float":
        return array.astype(np.float32)
    return array.astype(np.int32) if kind == "integer" else array


def _as_text(array: Array, place: str) -> Array:
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8").astype(object)
    strings = array.astype(object)
    for value in strings.reshape(-1):
        if not isinstance(value, str):
            raise InputError(f"{place} holds {value!r}, but the model expects text there; write it as a string")
    return strings


def _check_kept(before: Array, after: Array, dtype: np.dtype[Any], place: str, *, exact: bool) -> None:
    if before.dtype == bool:
        return
    if exact:
        # back again and the same, sign included: 2**63 wraps to -2**63 in int64 and back to itself
        lost = (after.astype(before.dtype) != before) | ((after < 0) != (before < 0))
    else:
        lost = np.isinf(after.astype(np.float64)) & np.isfinite(before.astype(np.float64))
    if np.any(lost):
        value = before[lost].reshape(-1)[0]
        raise InputError(f"{place} holds {value}, which does not fit the model's {dtype.name}; scale or clip it first")


def _describe(array: Array) -> str:
    return "text" if kind_of(array.dtype) == "text" else f"{array.dtype.name} values"


def _remedy(array: Array) -> str:
    if kind_of(array.dtype) == "complex":
        return "take its real part, or what the model was trained on"
    return "encode it as the model was trained to have it"
