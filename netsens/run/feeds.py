"""What a user gives, brought to the arrays that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from netsens.errors import InputError
from netsens.graph.dtypes import numpy_dtype
from netsens.graph.graph import Array, TensorType, shape_text

Feeds = Mapping[str, Any]


def fed(inputs: Feeds | Any, types: Mapping[str, TensorType], stored: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """The inputs by name as arrays of the wanted dtypes; raises `InputError` for one that is missing, unknown or does not fit. `stored` are the values
    in the model, which may be given too where they are the same."""
    names = list(types)
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InputError(f"The model has {len(names)} inputs ({', '.join(names)}); give them by name.")
        inputs = {names[0]: inputs}
    unknown = [name for name in inputs if name not in names and name not in stored()]
    if unknown:
        raise InputError(f"The model has no input '{unknown[0]}'; its inputs are {', '.join(names)}.")
    for name, array in inputs.items():
        if name not in names and not np.array_equal(np.asarray(array), stored()[name]):
            raise InputError(f"'{name}' is stored in the model, and another value for it was given; change it in the model, or leave it out.")
    missing = [name for name in names if name not in inputs]
    if missing:
        raise InputError(f"The input '{missing[0]}' is missing; the model's inputs are {', '.join(names)}.")
    return {name: fitted(name, inputs[name], types[name]) for name in names}


def fitted(name: str, given: Any, type_: TensorType) -> Array:
    """An array of the wanted dtype and shape, or an `InputError` that says what was wanted and what came."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"'{name}' is not an array: {error}.") from error
    dtype = numpy_dtype(type_.dtype) if type_.dtype else array.dtype
    if array.dtype != dtype:
        if (dtype.kind in "iu" and array.dtype.kind not in "iub") or (dtype.kind == "f" and array.dtype.kind not in "fiub"):
            raise InputError(f"'{name}' holds {array.dtype} numbers, and the model wants {dtype}.")
        with np.errstate(over="ignore"):  # said in words that name the input
            converted = array.astype(dtype)
        if dtype.kind == "f" and array.dtype.kind == "f" and bool(np.any(np.isinf(converted) & np.isfinite(array))):
            raise InputError(f"'{name}' holds numbers that do not fit the model's {dtype}; scale or clip them first.")
        array = converted
    if type_.shape is not None:
        fits = len(type_.shape) == array.ndim and all(not isinstance(d, int) or d == s for d, s in zip(type_.shape, array.shape, strict=True))
        if not fits:
            wanted = shape_text(type_.shape, "a single number")
            raise InputError(f"'{name}' has shape {shape_text(array.shape, '()')}, and the model wants {wanted}.")
    return array


def symbol_lengths(inputs: Mapping[str, TensorType], feeds: Mapping[str, Array]) -> dict[str, int | None]:
    """The length of each dimension that the inputs name; None for one that they contradict."""
    lengths: dict[str, int | None] = {}
    for name, type_ in inputs.items():
        for dim, size in zip(type_.shape or (), feeds[name].shape if name in feeds else (), strict=False):
            if isinstance(dim, str):
                lengths[dim] = size if lengths.get(dim, size) == size else None
    return lengths
