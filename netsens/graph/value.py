"""A value of a graph under construction, which behaves as an array in a formula (`1 - y * y`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsens.errors import RuleError
from netsens.graph.graph import Array, Shape, TensorType
from netsens.graph.shapes import known

if TYPE_CHECKING:
    from netsens.graph.emitter import Emitter


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A typed value, and what emits the operators that are asked of it."""

    op: Emitter
    name: str
    type: TensorType
    linear: bool = False

    @property
    def dtype(self) -> int:
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        if self.type.shape is None:
            raise RuleError(f"The rank of '{self.name}' is not known, and its derivative needs it.")
        return self.type.shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def static(self) -> bool:
        return known(self.type.shape)

    @property
    def constant(self) -> Array | None:
        return self.op.constant_of(self)

    def __add__(self, other: Any) -> Value:
        return self.op.Add(self, other)

    def __radd__(self, other: Any) -> Value:
        return self.op.Add(other, self)

    def __sub__(self, other: Any) -> Value:
        return self.op.Sub(self, other)

    def __rsub__(self, other: Any) -> Value:
        return self.op.Sub(other, self)

    def __mul__(self, other: Any) -> Value:
        return self.op.Mul(self, other)

    def __rmul__(self, other: Any) -> Value:
        return self.op.Mul(other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.op.Div(self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self.op.Div(other, self)

    def __pow__(self, other: Any) -> Value:
        return self.op.Pow(self, other)

    def __neg__(self) -> Value:
        return self.op.Neg(self)

    def __lt__(self, other: Any) -> Value:
        return self.op.Less(self, other)

    def __le__(self, other: Any) -> Value:
        return self.op.LessOrEqual(self, other)

    def __gt__(self, other: Any) -> Value:
        return self.op.Greater(self, other)

    def __ge__(self, other: Any) -> Value:
        return self.op.GreaterOrEqual(self, other)
