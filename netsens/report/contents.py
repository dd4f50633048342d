"""What a source holds, before it is known which input it is for: arrays, a table, or a picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netsens.errors import InputError, NetsensWarning
from netsens.report.dtypes import Array
from netsens.report.specs import InputSpec, quoted

# Pictures and tables have readers of their own, imported where there is one.
if TYPE_CHECKING:
    from netsens.report.images import ImageOptions
    from netsens.report.tables import Table


@dataclass(frozen=True)
class Assigned:
    """Arrays by input name; `textual` when they were text (see `dtypes.convert`); `features` names their columns."""

    arrays: dict[str, Array]
    textual: bool = False
    features: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ArrayContent:
    """Arrays, each with a name or `""`. `positional`: they may be taken in order where no name matches. `single`: each may be one sample without
    the model's batch axis, which it is given then."""

    items: tuple[tuple[str, Array], ...]
    source: str
    textual: bool = False
    positional: bool = False
    single: bool = False

    def assign(self, specs: Sequence[InputSpec], *, sole: bool) -> Assigned:
        """The arrays for these inputs, by name; `sole`: a single array can only be meant for the one spec."""
        wanted = {spec.name for spec in specs}
        matching = {name: array for name, array in self.items if name in wanted}
        if matching:
            unused = [name for name, _ in self.items if name not in matching]
            if unused:
                warnings.warn(NetsensWarning(f"arrays of {self.source!r} that no input is read from are left out: {quoted(unused)}"), stacklevel=2)
            return Assigned({s.name: self._batch_of_one(matching[s.name], s) for s in specs if s.name in matching}, self.textual)
        if len(self.items) == 1 and len(specs) == 1 and sole:
            return Assigned({specs[0].name: self._batch_of_one(self.items[0][1], specs[0])}, self.textual)
        if self.positional and 0 < len(self.items) <= len(specs):
            return Assigned({spec.name: array for spec, (_, array) in zip(specs, self.items, strict=False)}, self.textual)
        if not self.items:
            raise InputError(f"{self.source!r} holds no array at all")
        if len(self.items) == 1:
            raise InputError(
                f"{self.source!r} holds one array and the model has several inputs: write --input NAME={self.source}, "
                f"with NAME one of {quoted(spec.name for spec in specs)}"
            )
        raise InputError(
            f"{self.source!r} holds arrays named {quoted(name for name, _ in self.items)}, none of which is the "
            f"model's {quoted(spec.name for spec in specs)}; save it with the inputs' names"
        )

    def _batch_of_one(self, array: Array, spec: InputSpec) -> Array:
        alone = self.single and spec.shape is not None and array.ndim + 1 == len(spec.shape) and (spec.shape[0] == 1 or not isinstance(spec.shape[0], int))
        return array[None] if alone else array


@dataclass(frozen=True)
class TableContent:
    """Rows and columns of text. `json`: they came as JSON."""

    table: Table
    json: bool = False

    def assign(self, specs: Sequence[InputSpec], *, sole: bool) -> Assigned:
        """The whole table for one input, or for several the columns of their names."""
        from netsens.report.tables import assign_columns

        arrays, features = assign_columns(self.table, specs, whole=sole)
        if not arrays:
            raise InputError(
                f"{self.table.source!r} has columns {quoted(self.table.columns or ['without names'])}, none of which "
                f"is the model's {quoted(spec.name for spec in specs)}"
            )
        return Assigned(arrays, True, features)


@dataclass(frozen=True)
class ImageContent:
    """An encoded picture; it is decoded when the input's layout is known."""

    encoded: bytes
    source: str
    options: ImageOptions | None = None

    def assign(self, specs: Sequence[InputSpec], *, sole: bool) -> Assigned:
        """The picture for the one input that it can be meant for."""
        from netsens.report.images import PLAIN, read_image

        if not sole:
            raise InputError(
                f"{self.source!r} is one picture and the model has several inputs: write --input NAME={self.source}, "
                f"with NAME one of {quoted(spec.name for spec in specs)}"
            )
        return Assigned({specs[0].name: read_image(io.BytesIO(self.encoded), specs[0], self.source, self.options or PLAIN)})


Content = ArrayContent | TableContent | ImageContent
