"""Emits typed nodes: each operator that is asked for is written as ONNX nodes at the end of a graph, once each, simplified where that is free.

A value may be *linear*: it carries a tangent (or a cotangent). What it goes into is linear too, and whoever differentiates
reads which nodes those are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from netsens.errors import RuleError
from netsens.graph.derivative import Derivative
from netsens.graph.dtypes import numpy_dtype
from netsens.graph.emitted import NEVER_SHARED, Emitted
from netsens.graph.fold import fold
from netsens.graph.graph import Array, Graph, Node, Shape, TensorType, free_name
from netsens.graph.infer import infer_node
from netsens.graph.pieces import joined_before
from netsens.graph.shapes import constant_type
from netsens.graph.simplified import simplified, unexpanded
from netsens.graph.value import Value

_FOLD_ELEMENTS = 4096  # constants up to this size are computed while building


class Emitter:
    """Appends nodes to `graph`, which is changed in place: `op.MatMul(a, b)` emits a MatMul and returns its output. `around` emits the graph that this one lies in.

    Python numbers among the operands take the dtype of the first value beside them; lists of integers become int64
    vectors. `outputs=` asks for more than one output. While `tape` is a list, nodes over linear values go there instead
    of into the graph."""

    def __init__(self, graph: Graph, prefix: str, around: Emitter | None, taken: Iterable[str]) -> None:
        self.graph = graph
        self.prefix = prefix
        self.around = around
        self.tape: list[Node] | None = None
        self.derivative: Derivative = around.derivative.inside() if around else Derivative()
        self.emitted: Emitted = Emitted(around.emitted if around else None)
        # Only constants made here are folded: a parameter's place in the graph must stay visible to a second derivative.
        self.literals: set[str] = around.literals if around else set()
        self._used: set[str] = around._used if around else graph.names()
        self._linear: set[str] = around._linear if around else set()
        self._tape_types: dict[str, TensorType] = {}
        self._constants: dict[Any, str] = {}
        self.take(taken)
        for node in graph.nodes:
            self.emitted.remember(node)

    # Values ---------------------------------------------------------------------------------------------------------

    def value(self, name: str) -> Value:
        """The value of that name, from this graph or the ones around it."""
        scope: Emitter | None = self
        while scope is not None:
            found = scope._tape_types.get(name) or scope.graph.types.get(name)
            if found is not None:
                return Value(self, name, found, name in self._linear)
            if name in scope.graph.constants:
                return Value(self, name, constant_type(scope.graph.constants[name]))
            scope = scope.around
        return Value(self, name, TensorType(0), name in self._linear)

    def constant_of(self, value: Value) -> Array | None:
        scope: Emitter | None = self
        while scope is not None:
            if value.name in scope.graph.constants:
                return scope.graph.constants[value.name]
            scope = scope.around
        return None

    def constant(self, array: Any, like: Value | None = None) -> Value:
        """A constant; of the dtype of `like` where that is given. Equal constants are one."""
        data = np.asarray(array, numpy_dtype(like.dtype)) if like is not None and like.dtype else np.asarray(array)
        key = (data.dtype.str if data.dtype.kind != "V" else data.dtype.name, data.shape, data.tobytes())
        name = self._constants.get(key)
        if name is None:
            name = self._constants[key] = self.fresh("constant")
            self.literals.add(name)
            self.graph.constants[name] = data
            self.graph.types[name] = constant_type(data)
        return Value(self, name, self.graph.types[name])

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

    def fresh(self, hint: str) -> str:
        return self.fresh_name(f"{self.prefix}/{hint}")

    def fresh_name(self, base: str) -> str:
        """`base`, or the like of it where that is taken."""
        return free_name(base, self._used)

    def take(self, names: Iterable[str]) -> None:
        """No new value gets one of these names."""
        self._used.update(names)

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
        if self.derivative.finite_only and self.derivative.pulled:
            return self._unread_passed_over(op, inputs, attributes, outputs, domain)
        return self._emit(op, inputs, attributes, outputs, domain)

    def _unread_passed_over(self, op: str, inputs: list[Value | None], attributes: dict[str, Any], outputs: int, domain: str) -> Any:
        """The node, in a way that keeps a cotangent of zero at zero."""
        result = self._emit(op, inputs, attributes, outputs, domain)
        if not any(i is not None and i.name in self.derivative.pulled for i in inputs):
            return result
        factors = inputs if op == "Mul" else inputs[:1] if op == "Div" else []
        g = next((i for i in factors if i is not None and i.name in self.derivative.pulled), None)
        if g is not None:
            zero = self.constant(0, g)
            result = self._emit("Where", [self._emit("Equal", [g, zero], {}, 1, ""), zero, result], {}, 1, "")
        self.derivative.pulled.update(v.name for v in (result if isinstance(result, tuple) else (result,)))
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
        key = self.emitted.key(op, domain, names, attributes, outputs)
        known_outputs = self.emitted.found(key)
        if known_outputs is None:
            known_outputs = self._append(op, domain, inputs, names, attributes, outputs, linear)
            self.emitted.share(key, op, known_outputs)
        values = tuple(self.value(o) for o in known_outputs)
        return values[0] if outputs == 1 else values

    def _append(
        self, op: str, domain: str, inputs: Sequence[Value | None], names: tuple[str, ...], attributes: dict[str, Any], outputs: int, linear: bool
    ) -> tuple[str, ...]:
        constants = [None if i is None or (linear and i.linear) else self.constant_of(i) for i in inputs]
        if (
            outputs == 1
            and not domain
            and inputs
            and all(
                c is not None and c.size <= _FOLD_ELEMENTS and (i is None or i.name in self.literals or c.dtype.kind in "iub")
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
            self.emitted.remember_on_tape(node)
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
        self.emitted.remember(node)

    def apart(self) -> AbstractContextManager[None]:
        """Within, nothing emitted before is used again, nor looked through."""
        return self.emitted.apart()

    def producer(self, value: Value) -> Node | None:
        """The node that the value comes from."""
        return self.emitted.producer(value.name)

    def stand_for(self, node: Node, outputs: Sequence[Value | None]) -> None:
        """Says that these values, which a derivative needs, equal the node's outputs, so that the node need not run as well."""
        known = self.derivative
        names = [(o, y.name) for o, y in zip(node.outputs, outputs, strict=False) if o and y is not None]
        if known.instead is not None and not known.finite_only and names and all(self.emitted.holds(node, o) for o, _ in names):
            known.instead.update(names)

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
