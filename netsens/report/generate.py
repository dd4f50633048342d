"""Inputs out of thin air: `random`, `random:SEED`, `zeros`, `ones`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from netsens.errors import InputError, UsageError
from netsens.report.dtypes import Array, kind_of
from netsens.report.specs import InputSpec

LARGEST_RANDOM_INTEGER = 9


class Generator(NamedTuple):
    """One of the words. `random`: standard normal floats, integers from 0 to 9, fair booleans, the same for a seed."""

    word: Literal["random", "zeros", "ones"]
    seed: int = 0

    def array(self, spec: InputSpec, position: int, shape: tuple[int, ...]) -> Array:
        """The array for the model's input number `position`, which has numbers of its own under the one seed."""
        kind = kind_of(spec.dtype)
        if kind not in ("float", "integer", "boolean"):
            raise InputError(f"input {spec.name!r} takes {kind}, which {self.word!r} cannot make; give it as a file")
        if self.word != "random":
            return np.full(shape, 0 if self.word == "zeros" else 1).astype(spec.dtype)
        generator = np.random.default_rng([self.seed, position])
        if kind == "float":
            return np.asarray(generator.standard_normal(shape)).astype(spec.dtype)
        upper = 1 if kind == "boolean" else LARGEST_RANDOM_INTEGER
        return np.asarray(generator.integers(0, upper, size=shape, endpoint=True)).astype(spec.dtype)


def parse_generator(source: str) -> Generator | None:
    """The generator that the word names, or None when it is no such word (then it is a file)."""
    match source.split(":", 1):
        case ["random" | "zeros" | "ones" as word]:
            return Generator(word)
        case ["random", seed]:
            if not (seed.isascii() and seed.isdigit()):
                raise UsageError(f"{source!r}: the seed is a whole number, as in random:7")
            return Generator("random", int(seed))
    return None


def generated_shape(spec: InputSpec, shapes: Mapping[str, tuple[int, ...]], symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The shape to generate: what `--shape` says, else the model's, symbols as other inputs have them, else 1."""
    if spec.name in shapes:
        return shapes[spec.name]
    if spec.shape is None:
        raise UsageError(f"the model does not say which shape input {spec.name!r} has; say it with --shape {spec.name}=1x3x224x224")
    return tuple(size if isinstance(size, int) else symbols.get(size, 1) if isinstance(size, str) else 1 for size in spec.shape)
