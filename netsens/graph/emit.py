"""Emits typed nodes. A `Value` behaves as an array in a formula (`1 - y * y`); a `Builder` writes each operator that is asked of it as
ONNX nodes at the end of a graph, once each, simplified where that is free.

A value may be *linear*: it carries a tangent (or a cotangent). What it goes into is linear too, and whoever differentiates
reads which nodes those are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netsens.errors import RuleError
from netsens.graph.dtypes import FLOATS, INT64, numpy_dtype
from netsens.graph.fold import fold
from netsens.graph.graph import Array, Dim, Graph, Node, Shape, TensorType, free_name
from netsens.graph.infer import infer_node
from netsens.graph.pieces import joined_before
from netsens.graph.shapes import constant_type, known, same_shape
from netsens.graph.simplified import simplified, unexpanded

_FOLD_ELEMENTS = 4096  # constants up to this size are computed while building
NEVER_SHARED = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A typed value of the graph under construction."""

    op: Builder
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


class Builder:
    """Appends nodes to `graph`, which is changed in place: `op.MatMul(a, b)` emits a MatMul and returns its output.

    Python numbers among the operands take the dtype of the first value beside them; lists of integers become int64
    vectors. `outputs=` asks for more than one output. While `tape` is a list, nodes over linear values go there instead
    of into the graph."""

    def __init__(self, graph: Graph, prefix: str = "grad", parent: Builder | None = None, taken: Iterable[str] = ()) -> None:
        self.graph = graph
        self.prefix = prefix
        self.parent = parent
        self.node: Any = None  # the node that is being differentiated, as its rule sees it
        self.tape: list[Node] | None = None
        # Whether reverse mode passes over what `of` never reads, which may be NaN or infinite: residuals that aren't finite count as zero, and a
        # cotangent of zero stays zero whatever it is multiplied with or divided by. `pulled` are the cotangents, and what was computed from them.
        self.finite_only: bool = parent.finite_only if parent else False
        self.pulled: set[str] = parent.pulled if parent else set()
        # What stands in for the rule of an operator that has none, and the nodes that needed it.
        self.fallback: Callable[[Node], Any] | None = parent.fallback if parent else None
        self.differenced: list[Node] = parent.differenced if parent else []
        # In reverse mode, what cotangents are wanted of: a rule may lean on what the rule of another operand will compute anyway.
        self.active: AbstractSet[str] = parent.active if parent else frozenset()
        # Values whose numbers are those of what is differentiated, moved at most.
        self.exposed: AbstractSet[str] = parent.exposed if parent else frozenset()
        # Cotangents that are zero already wherever a value isn't positive, and that value.
        self.rectified: dict[str, str] = parent.rectified if parent else {}
        # What a reverse rule computes besides the node itself, to keep values on the way: the node's outputs, and what equals them. None: not asked for.
        self.instead: dict[str, str] | None = None
        self._used: set[str] = parent._used if parent else graph.names()
        self._used.update(taken)
        self._linear: set[str] = parent._linear if parent else set()
        # Only constants made here are folded: a parameter's place in the graph must stay visible to a second derivative.
        self._literals: set[str] = parent._literals if parent else set()
        self._stand_ins: dict[str, Value] = {}
        self._tape_types: dict[str, TensorType] = {}
        self._tape_nodes: dict[str, Node] = {}
        self._seen: dict[Any, tuple[str, ...]] = {}
        self._constants: dict[Any, str] = {}
        self._anchors: dict[str, tuple[str, int]] = dict(parent._anchors) if parent else {}
        self._apart = 0
        self._producer: dict[str, Node] = {}
        for name in graph.inputs:
            self.anchor(name)
        for node in graph.nodes:
            self._remember(node)

    # Values ---------------------------------------------------------------------------------------------------------

    def value(self, name: str) -> Value:
        """The value of that name, from this graph or the ones around it."""
        scope: Builder | None = self
        while scope is not None:
            found = scope._tape_types.get(name) or scope.graph.types.get(name)
            if found is not None:
                return Value(self, name, found, name in self._linear)
            if name in scope.graph.constants:
                return Value(self, name, constant_type(scope.graph.constants[name]))
            scope = scope.parent
        return Value(self, name, TensorType(0), name in self._linear)

    def constant_of(self, value: Value) -> Array | None:
        scope: Builder | None = self
        while scope is not None:
            if value.name in scope.graph.constants:
                return scope.graph.constants[value.name]
            scope = scope.parent
        return None

    def constant(self, array: Any, like: Value | None = None) -> Value:
        """A constant; of the dtype of `like` where that is given. Equal constants are one."""
        data = np.asarray(array, numpy_dtype(like.dtype)) if like is not None and like.dtype else np.asarray(array)
        key = (data.dtype.str if data.dtype.kind != "V" else data.dtype.name, data.shape, data.tobytes())
        name = self._constants.get(key)
        if name is None:
            name = self._constants[key] = self.fresh("constant")
            self._literals.add(name)
            self.graph.constants[name] = data
            self.graph.types[name] = constant_type(data)
        return Value(self, name, self.graph.types[name])

    def input(self, name: str, type_: TensorType, linear: bool = False, like: Value | None = None) -> Value:
        """A new graph input (a tangent or a cotangent, say); `like` is a value that has its shape."""
        self.graph.inputs.append(name)
        self.graph.types[name] = type_
        self._used.add(name)
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
        return 11 if any(t.dtype == 11 for t in self.graph.types.values()) else 1

    def fresh(self, hint: str) -> str:
        return self.fresh_name(f"{self.prefix}/{hint}")

    def fresh_name(self, base: str) -> str:
        """`base`, or the like of it where that is taken."""
        return free_name(base, self._used)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within, nothing emitted before is used again, nor looked through: a simplification that went behind an operand's producer would
        hide that the operand is read."""
        seen, self._seen = self._seen, {}
        producer, self._producer = self._producer, {}
        self._apart += 1
        try:
            yield
        finally:
            self._apart -= 1
            self._seen = {**self._seen, **seen}
            self._producer = {**producer, **self._producer}

    def anchor(self, name: str) -> None:
        """Lets symbolic dimensions be read from this value's shape."""
        type_ = self.graph.types.get(name)
        for axis, dim in enumerate((type_.shape if type_ else None) or ()):
            if isinstance(dim, str):
                self._anchors.setdefault(dim, (name, axis))

    # Nodes ----------------------------------------------------------------------------------------------------------

    def __getattr__(self, op: str) -> Callable[..., Any]:
        if op.startswith("_") or not op[0].isupper():
            raise AttributeError(op)

        def emit(*operands: Any, outputs: int = 1, **attributes: Any) -> Any:
            return self.emit(op, operands, attributes, outputs)

        return emit

    def emit(self, op: str, operands: Sequence[Any], attributes: dict[str, Any], outputs: int = 1, domain: str = "") -> Any:
        """One node; its output, or a tuple of them."""
        like = next((o for o in operands if isinstance(o, Value) and not (op == "Where" and o is operands[0])), None)
        inputs = [self._operand(o, like) for o in operands]
        while inputs and inputs[-1] is None:
            inputs.pop()
        attributes = {k: v for k, v in attributes.items() if v is not None}
        if self.finite_only and self.pulled:
            return self._unread_passed_over(op, inputs, attributes, outputs, domain)
        return self._emit(op, inputs, attributes, outputs, domain)

    def _unread_passed_over(self, op: str, inputs: list[Value | None], attributes: dict[str, Any], outputs: int, domain: str) -> Any:
        """The node, in a way that keeps a cotangent of zero at zero."""
        result = self._emit(op, inputs, attributes, outputs, domain)
        if not any(i is not None and i.name in self.pulled for i in inputs):
            return result
        factors = inputs if op == "Mul" else inputs[:1] if op == "Div" else []
        g = next((i for i in factors if i is not None and i.name in self.pulled), None)
        if g is not None:
            zero = self.constant(0, g)
            result = self._emit("Where", [self._emit("Equal", [g, zero], {}, 1, ""), zero, result], {}, 1, "")
        self.pulled.update(v.name for v in (result if isinstance(result, tuple) else (result,)))
        return result

    def _emit(self, op: str, inputs: list[Value | None], attributes: dict[str, Any], outputs: int, domain: str) -> Any:
        linear = any(i is not None and i.linear for i in inputs)
        if outputs == 1 and not domain:
            inputs = unexpanded(self, op, inputs)
            simple = simplified(self, op, inputs, attributes)
            if simple is not None:
                return simple
        if op == "Split" and not domain:
            pieces = joined_before(self, inputs, attributes, outputs)
            if pieces is not None:
                return tuple(pieces) if outputs > 1 else pieces[0]
        names = tuple(i.name if i is not None else "" for i in inputs)
        key = (op, domain, names, _frozen(attributes), outputs)
        known_outputs = self._lookup(key)
        if known_outputs is None:
            known_outputs = self._append(op, domain, inputs, names, attributes, outputs, linear)
            if op not in NEVER_SHARED:
                self._seen[key] = known_outputs
        values = tuple(self.value(o) for o in known_outputs)
        return values[0] if outputs == 1 else values

    def _lookup(self, key: Any) -> tuple[str, ...] | None:
        scope: Builder | None = self
        while scope is not None and (scope is self or not self._apart):
            if key in scope._seen:
                return scope._seen[key]
            scope = scope.parent
        return None

    def _append(
        self, op: str, domain: str, inputs: Sequence[Value | None], names: tuple[str, ...], attributes: dict[str, Any], outputs: int, linear: bool
    ) -> tuple[str, ...]:
        constants = [None if i is None or (linear and i.linear) else self.constant_of(i) for i in inputs]
        if (
            outputs == 1
            and not domain
            and inputs
            and all(
                c is not None and c.size <= _FOLD_ELEMENTS and (i is None or i.name in self._literals or c.dtype.kind in "iub")
                for i, c in zip(inputs, constants, strict=True)
            )
        ):
            folded = fold(op, [c for c in constants if c is not None], attributes)
            if folded is not None:
                return (self.constant(folded).name,)
        fresh = tuple(self.fresh(op.lower()) for _ in range(outputs))
        node = Node(op, names, fresh, attributes, domain)
        types = [TensorType(0, ()) if i is None else i.type for i in inputs]
        found = infer_node(node, types, [c if c is not None and c.size <= _FOLD_ELEMENTS else None for c in constants], self.graph.opset, self.graph.domains)
        if linear:
            self._linear.update(fresh)
        if linear and self.tape is not None:
            self.tape.append(node)
            self._tape_types.update(zip(fresh, found, strict=False))
            self._tape_nodes.update(dict.fromkeys(fresh, node))
        else:
            self.add(node, found)
        return fresh

    def add(self, node: Node, types: Sequence[TensorType]) -> None:
        """A ready node, with the types of its outputs."""
        self.graph.nodes.append(node)
        for name, type_ in zip(node.outputs, types, strict=False):
            if name:
                self.graph.types[name] = type_
                self._used.add(name)
        self._remember(node)

    def _remember(self, node: Node) -> None:
        for output in node.outputs:
            self._producer[output] = node
        if not any(node.subgraphs()) and node.op not in NEVER_SHARED and "" not in node.outputs:
            self._seen.setdefault((node.op, node.domain, node.inputs, _frozen(node.attributes), len(node.outputs)), node.outputs)

    def producer(self, value: Value) -> Node | None:
        scope: Builder | None = self
        while scope is not None:
            node = scope._tape_nodes.get(value.name) or scope._producer.get(value.name)
            if node is not None:
                return node
            scope = None if scope._apart else scope.parent
        return None

    def stand_for(self, node: Node, outputs: Sequence[Value | None]) -> None:
        """Says that these values, which a derivative needs, equal the node's outputs, so that the node need not run as well."""
        names = [(o, y.name) for o, y in zip(node.outputs, outputs, strict=False) if o and y is not None]
        if self.instead is not None and not self.finite_only and names and all(self._producer.get(o) is node for o, _ in names):
            self.instead.update(names)

    def is_fixed(self, value: Value, steps: int = 8) -> bool:
        """Whether the value is computed from constants alone, in a few steps."""
        if self.constant_of(value) is not None:
            return True
        node = self.producer(value)
        if node is None or value.linear or not steps or node.op in NEVER_SHARED or any(node.subgraphs()):
            return False
        return all(self.is_fixed(self.value(i), steps - 1) for i in node.inputs if i)

    def _operand(self, operand: Any, like: Value | None) -> Value | None:
        if operand is None or isinstance(operand, Value):
            return operand
        if isinstance(operand, np.ndarray):
            return self.constant(operand)
        if isinstance(operand, (list, tuple)):
            if any(isinstance(o, Value) for o in operand):
                raise RuleError("A list of values is not an operand; concatenate them.")
            return self.constant(np.asarray(operand, np.int64))
        return self.constant(operand, like)

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

    def retyped(self, value: Value, shape: Shape | None) -> Value:
        """The same value, its shape better known than inference could tell."""
        if shape is None or value.type.shape == shape or value.constant is not None:
            return value
        type_ = replace(value.type, shape=shape)
        if value.name in self._tape_types:
            self._tape_types[value.name] = type_
        elif value.name in self.graph.types:
            self.graph.types[value.name] = type_
        return replace(value, type=type_)

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


def _frozen(attributes: Any) -> Any:
    if isinstance(attributes, dict) or hasattr(attributes, "items"):
        return tuple(sorted((k, _frozen(v)) for k, v in attributes.items()))
    if isinstance(attributes, (list, tuple)):
        return tuple(_frozen(a) for a in attributes)
    if isinstance(attributes, np.ndarray):
        return (attributes.dtype.str, attributes.shape, attributes.tobytes())
    if isinstance(attributes, (int, float, str, bytes)):
        return (type(attributes).__name__, attributes)
    return ("object", id(attributes))


__all__ = ["INT64", "Builder", "Value", "same_shape"]
