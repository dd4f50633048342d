"""What a model expects of an input (name, dtype, shape), and shapes as text: `1x3x224x224`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsens.errors import InputError, UsageError

Dimension = int | str | None


@dataclass(frozen=True)
class InputSpec:
    """One input of a model. A dimension is a number, a symbol (`"batch"`) or None; `shape` None: any rank at all."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dimension, ...] | None
    optional: bool = False  # the model has a default for it (an initializer of the same name)


def format_shape(shape: Sequence[Dimension] | None) -> str:
    """`(1, 3, "h", None)` -> `1x3xhx?`; rank 0 -> `scalar`; None -> `any shape`."""
    if shape is None:
        return "any shape"
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


def find_spec(specs: Sequence[InputSpec], name: str) -> InputSpec:
    """The spec of that exact name; `UsageError` that lists the names there are, nearest first."""
    for spec in specs:
        if spec.name == name:
            return spec
    raise UsageError(f"the model has no input {name!r}; it has {quoted(nearest(name, [s.name for s in specs]))}")


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """All the names, the ones spelled most like `name` first."""
    import difflib

    return sorted(names, key=lambda other: -difflib.SequenceMatcher(None, name, other).ratio())


def quoted(names: Iterable[str], limit: int = 8) -> str:
    """`'a', 'b', 'c'`, cut after `limit` names."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


def shape_fits(actual: Sequence[int], expected: Sequence[Dimension] | None) -> bool:
    """Whether the rank and every fixed size agree."""
    if expected is None:
        return True
    return len(actual) == len(expected) and all(not isinstance(want, int) or want == got for got, want in zip(actual, expected, strict=True))


def check_shape(actual: Sequence[int], spec: InputSpec, place: str) -> None:
    """`InputError` with what was expected and what was got, and the likeliest slip."""
    if spec.shape is None or shape_fits(actual, spec.shape):
        return
    hint = ""
    if len(actual) + 1 == len(spec.shape) and shape_fits((1, *actual), spec.shape):
        hint = "; the batch axis is missing: array[numpy.newaxis] adds it"
    elif len(actual) == len(spec.shape) + 1 and actual[0] == 1 and shape_fits(actual[1:], spec.shape):
        hint = "; it has a leading axis too many: array[0] takes it off"
    elif len(actual) == len(spec.shape) == 4 and shape_fits((actual[0], actual[3], *actual[1:3]), spec.shape):
        hint = "; it looks like NHWC: array.transpose(0, 3, 1, 2) makes it NCHW"
    elif len(actual) == len(spec.shape) == 4 and shape_fits((actual[0], *actual[2:], actual[1]), spec.shape):
        hint = "; it looks like NCHW: array.transpose(0, 2, 3, 1) makes it NHWC"
    elif len(actual) != len(spec.shape):
        hint = f": rank {len(actual)} where the model wants rank {len(spec.shape)}"
    raise InputError(f"{place} has shape {format_shape(actual)}, but the model expects {format_shape(spec.shape)}{hint}")


def parse_shape(text: str) -> tuple[int, ...]:
    """`1x3x224x224` -> (1, 3, 224, 224); `scalar` -> ()."""
    if text == "scalar":
        return ()
    parts = text.split("x")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{text!r} is not a shape: write whole numbers with an x between them, as 1x3x224x224")
    return tuple(int(part) for part in parts)


def parse_shape_option(option: str, specs: Sequence[InputSpec]) -> tuple[str, tuple[int, ...]]:
    """`NAME=1x3x224x224`, or `1x3x224x224` where the model has one input, as (name, shape) that fit the model."""
    name, equals, text = option.rpartition("=")  # a shape holds no '=', a name may
    if equals:
        spec = find_spec(specs, name)
    elif len(specs) == 1:
        spec = specs[0]
    else:
        raise UsageError(f"--shape {option} does not say whose shape it is: write --shape NAME={option}, with NAME one of {quoted(s.name for s in specs)}")
    shape = parse_shape(text)
    if not shape_fits(shape, spec.shape):
        raise UsageError(f"--shape {option} does not fit input {spec.name!r}, which the model declares as {format_shape(spec.shape)}")
    return spec.name, shape
