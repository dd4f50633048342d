"""What rules and modes write derivatives with: an emitter that knows linear values by what they are tangents of, and gives shapes as values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from netsens.errors import RuleError
from netsens.graph.dtypes import DOUBLE, FLOAT, FLOATS
from netsens.graph.emitter import Emitter
from netsens.graph.graph import Dim, Graph, Shape, TensorType
from netsens.graph.shapes import same_shape
from netsens.graph.value import Value


class Builder(Emitter):
    """Emits nodes (see `Emitter`). The shape of a linear value is that of its stand-in, which is not linear; symbolic dimensions are read from values that have
    them, their anchors."""

    def __init__(self, graph: Graph, prefix: str = "grad", parent: Builder | None = None, taken: Iterable[str] = ()) -> None:
        super().__init__(graph, prefix, parent, taken)
        self.node: Any = None  # the node that is being differentiated, as its rule sees it
        self.parent = parent
        self._stand_ins: dict[str, Value] = {}
        self._anchors: dict[str, tuple[str, int]] = dict(parent._anchors) if parent else {}
        for name in graph.inputs:
            self.anchor(name)

    # Linear values --------------------------------------------------------------------------------------------------

    def input(self, name: str, type_: TensorType, linear: bool = False, like: Value | None = None) -> Value:
        """A new graph input (a tangent or a cotangent, say); `like` is a value that has its shape."""
        self.graph.inputs.append(name)
        self.graph.types[name] = type_
        self.take([name])
        if linear:
            self._linear.add(name)
            if like is not None:
                self._stand_ins[name] = like
        return Value(self, name, type_, linear)

    def as_linear(self, name: str, like: Value) -> Value:
        """A value that is there already, declared linear and of the shape of `like`."""
        self._linear.add(name)
        self._stand_ins[name] = like
        return self.value(name)

    def tangent(self, primal: Value, hint: str = "tangent") -> Value:
        """A linear value of the shape and dtype of `primal`, for the tape."""
        name = self.fresh(hint)
        type_ = TensorType(self.derivative_dtype(primal), primal.type.shape)
        self._linear.add(name)
        self._tape_types[name] = type_
        self._stand_ins[name] = primal
        return Value(self, name, type_, True)

    def derivative_dtype(self, primal: Value) -> int:
        """The dtype of a value's derivative: its own, and a float where the value holds quantised integers."""
        if primal.dtype == 0 or primal.dtype in FLOATS:
            return primal.dtype
        return DOUBLE if any(t.dtype == DOUBLE for t in self.graph.types.values()) else FLOAT

    def anchor(self, name: str) -> None:
        """Lets symbolic dimensions be read from this value's shape."""
        type_ = self.graph.types.get(name)
        for axis, dim in enumerate((type_.shape if type_ else None) or ()):
            if isinstance(dim, str):
                self._anchors.setdefault(dim, (name, axis))

    # Shapes ---------------------------------------------------------------------------------------------------------

    def shape(self, value: Value) -> Value:
        """The shape of a value as an int64 vector: a constant where it is known. A linear value is never asked for it,
        so that the transposed program doesn't need the tangent."""
        if value.static:
            return self.constant(np.asarray(value.shape, np.int64))
        if not value.linear:
            return self._from_symbols(value.type.shape) or self.Shape(value)
        stand_in = self._stand_in_known(value.name)
        if stand_in is not None:
            return self.shape(stand_in)
        return self._from_symbols(value.type.shape) or self.Shape(self.stand_in(value))

    def _stand_in_known(self, name: str) -> Value | None:
        scope: Builder | None = self
        while scope is not None:
            if name in scope._stand_ins:
                found = scope._stand_ins[name]
                return found if scope is self else self.value(found.name)
            scope = scope.parent
        return None

    def stand_in(self, value: Value) -> Value:
        """A value that is not linear and has the shape of this linear one: its producer over the primal values."""
        if not value.linear:
            return value
        known = self._stand_in_known(value.name)
        if known is None:
            node = self.producer(value)
            if node is None:
                raise RuleError(f"The shape of the tangent '{value.name}' is not known.")
            tape, self.tape = self.tape, None
            operands = [self.stand_in(self.value(i)) if i else None for i in node.inputs]
            result = self.emit(node.op, operands, dict(node.attributes), len(node.outputs), node.domain)
            self.tape = tape
            for name, stand in zip(node.outputs, (result,) if len(node.outputs) == 1 else result, strict=True):
                self._stand_ins[name] = stand
            known = self._stand_ins[value.name]
        return known

    def _from_symbols(self, shape: Shape | None) -> Value | None:
        if shape is None or not all(isinstance(d, int) or d in self._anchors for d in shape) or len(shape) == 0:
            return None
        return self.vector([self.dim_of_symbol(d) if isinstance(d, str) else d for d in shape])

    def dim_of_symbol(self, symbol: Dim) -> Value:
        name, axis = self._anchors[str(symbol)]
        return self.Shape(self.value(name), start=axis, end=axis + 1)

    def dim(self, value: Value, axis: int) -> Value:
        """One dimension, as an int64 vector of length 1."""
        axis %= value.rank
        dim = value.shape[axis]
        if isinstance(dim, int):
            return self.constant(np.asarray([dim], np.int64))
        if dim in self._anchors:
            return self.dim_of_symbol(dim)
        if value.linear:
            return self.Slice(self.shape(value), [axis], [axis + 1])
        return self.Shape(value, start=axis, end=axis + 1)

    def vector(self, parts: Sequence[Value | int | None]) -> Value:
        """An int64 vector from numbers and vectors, neighbours that are numbers joined."""
        joined: list[Value | list[int]] = []
        for part in parts:
            if isinstance(part, Value) and part.constant is not None:
                part_list = [int(v) for v in part.constant]
            elif isinstance(part, int):
                part_list = [part]
            else:
                joined.append(part)  # type: ignore[arg-type]
                continue
            if joined and isinstance(joined[-1], list):
                joined[-1].extend(part_list)
            else:
                joined.append(part_list)
        values = [self.constant(np.asarray(p, np.int64)) if isinstance(p, list) else p for p in joined]
        if not values:
            return self.constant(np.zeros(0, np.int64))
        return values[0] if len(values) == 1 else self.Concat(*values, axis=0)

    def reshape_like(self, value: Value, like: Value) -> Value:
        """`value` in the shape of `like`."""
        if same_shape(value.type.shape, like.type.shape):
            return value
        copied = self._copied_lengths(value, like)
        if copied is not None:
            return self.retyped(self.Reshape(value, copied), like.type.shape)
        # A 0 in the shape is a length, and doesn't copy one.
        result = self.Reshape(value, self.shape(like), allowzero=None if like.static and all(like.shape) else 1)
        return self.retyped(result, like.type.shape)

    def _copied_lengths(self, value: Value, like: Value) -> list[int] | None:
        """The shape of `like` as `Reshape` takes it from `value`: 0 for a symbolic length that both have in the same place. Of such a constant onnxruntime can tell
        the result's shape; where it can't, it keeps every buffer, and takes a time to open that grows with the square of the graph's size."""
        if value.type.shape is None or like.type.shape is None or like.static:
            return None
        target = []
        for axis, length in enumerate(like.type.shape):
            if isinstance(length, int) and length > 0:
                target.append(length)
            elif isinstance(length, str) and axis < len(value.type.shape) and value.type.shape[axis] == length:
                target.append(0)
            else:
                return None
        return target

    def expand_like(self, value: Value, like: Value) -> Value:
        """`value` broadcast to the shape of `like`."""
        if same_shape(value.type.shape, like.type.shape):
            return value
        return self.retyped(self.Expand(value, self.shape(like)), like.type.shape)

    def full_like(self, like: Value, number: float) -> Value:
        """A tensor of the shape and dtype of `like`, filled."""
        return self.expand_like(self.constant(number, like), like)

    def finite(self, value: Value) -> Value:
        """The value with zero in place of NaN and infinity."""
        if value.dtype not in FLOATS or value.linear or (value.constant is not None and np.isfinite(value.constant).all()):
            return value
        return self.retyped(self.Where(self.Or(self.IsNaN(value), self.IsInf(value)), self.constant(0, value), value), value.type.shape)

    def zeros_like(self, like: Value) -> Value:
        return self.full_like(like, 0)

    def count(self, value: Value, axes: Sequence[int], like: Value) -> Value:
        """How many elements lie along these axes, as a scalar of the dtype of `like`."""
        dims = [value.shape[a] for a in axes]
        if all(isinstance(d, int) for d in dims):
            return self.constant(int(np.prod(np.asarray(dims, np.int64))), like)
        sizes = self.vector([self.dim(value, a) for a in axes])
        return self.Cast(self.ReduceProd(sizes, keepdims=0), to=like.dtype)

    def unbroadcast(self, value: Value, like: Value) -> Value:
        """The sum of `value` over the axes along which `like` was broadcast to its shape."""
        have, want = value.type.shape, like.type.shape
        if same_shape(have, want):
            return value
        if have is None or want is None:
            raise RuleError(f"The rank of '{like.name if have is not None else value.name}' is not known, and undoing its broadcast needs it.")
        extra = len(have) - len(want)
        if extra < 0:
            raise RuleError(f"A cotangent of rank {len(have)} cannot belong to '{like.name}', which has rank {len(want)}.")
        ones = [extra + k for k, d in enumerate(want) if d == 1 and have[extra + k] != 1]
        unsure = [extra + k for k, d in enumerate(want) if d != 1 and not isinstance(d, int) and have[extra + k] != d]
        unsure += [extra + k for k, d in enumerate(want) if d is None and have[extra + k] is None]
        result = value
        if extra and not ones and not unsure:
            return self.retyped(self.ReduceSum(result, list(range(extra)), keepdims=0), want)
        if ones or extra:
            result = self.ReduceSum(result, [*range(extra), *ones], keepdims=1)
        if unsure:
            # [.., d, ..] where d may be 1 at run time: the axes are those whose length turns out to be 1.
            axes = self.constant(np.asarray(sorted(set(unsure)), np.int64))
            lengths = self.vector([self.dim(like, int(a) - extra) for a in sorted(set(unsure))])
            result = self.ReduceSum(result, self.Compress(axes, self.Equal(lengths, [1])), keepdims=1, noop_with_empty_axes=1)
        if extra:
            result = self.Squeeze(result, list(range(extra))) if not unsure else self.Reshape(result, self.shape(like))
        return self.retyped(result, want)


__all__ = ["Builder", "Value"]
