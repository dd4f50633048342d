"""The words that declare an operator: what it is called, and the one fact about it from which all modes follow.

A rule reads like the formula in a textbook. It gets `op`, which emits nodes (`op.MatMul(a, b)`), and `n`, the node at hand (`n["axis"]`,
`n.inputs`, `n.outputs`). It knows nothing of modes, missing tangents, fan-out or broadcasting: the engine does those."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from netsens.errors import RuleError
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node

Partial = Callable[..., Any]
Transpose = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as a rule sees it: its attributes with their defaults, its operands and results as values.

    `wanted[i]` says whether input i's derivative is asked for."""

    node: Node
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...]
    wanted: tuple[bool, ...]
    opset: int

    def __getitem__(self, key: str) -> Any:
        """An attribute, or its default in the specification; None where it has neither."""
        if key in self.node.attributes:
            return self.node.attributes[key]
        return attribute_default(self.node.op, self.node.domain, self.opset, key)

    def __contains__(self, key: str) -> bool:
        return key in self.node.attributes

    @property
    def x(self) -> Value:
        """The first input."""
        value = self.inputs[0]
        assert value is not None
        return value

    @property
    def y(self) -> Value:
        """The first output."""
        value = self.outputs[0]
        assert value is not None
        return value

    def input(self, position: int) -> Value | None:
        """An input, or None where the node leaves it out."""
        return self.inputs[position] if position < len(self.inputs) else None


@cache
def attribute_default(op: str, domain: str, opset: int, key: str) -> Any:
    import onnx
    from onnx import helper

    try:
        schema = onnx.defs.get_schema(op, opset if not domain else 1, domain)
    except onnx.defs.SchemaError:
        return None
    attribute = schema.attributes.get(key)
    if attribute is None or not attribute.default_value.name:
        return None
    value = helper.get_attribute_value(attribute.default_value)
    return value.decode() if isinstance(value, bytes) else value


@dataclass(frozen=True, slots=True)
class Rule:
    """What netsens knows of one operator. `status` is "exact", "flat", "expanded" or "refused".

    `jvp(op, n, tangents)` gives a tangent (or None) for each output. `transpose(op, n, cotangents)` gives a cotangent (or None)
    for each input, and is there where the node is linear in the inputs that carry tangents. `vjp` has the same form and is
    an alternative to transposing the JVP. `expansion(op, n)` gives the outputs over again, as simpler nodes.
    `linear` are the inputs in which the operator is jointly linear (None: any one or more of them)."""

    op: str
    domain: str = ""
    status: str = "exact"
    why: str = ""
    jvp: Callable[[Builder, NodeView, Sequence[Value | None]], Sequence[Value | None]] | None = None
    transpose: Callable[[Builder, NodeView, Sequence[Value | None]], Sequence[Value | None]] | None = None
    vjp: Callable[[Builder, NodeView, Sequence[Value | None]], Any] | None = None
    expansion: Callable[[Builder, NodeView], Sequence[Value | None]] | None = None
    spec_body: bool = False
    quantizes: bool = False  # its integer outputs carry a derivative too, in units of the integers
    partials: tuple[Partial | float | None, ...] = field(default=())


RULES: dict[tuple[str, str], Rule] = {}


def rule_of(node: Node) -> Rule | None:
    """The rule of a node's operator, if it has one."""
    return RULES.get((node.domain, node.op))


def _declare(name: str, domain: str, **facts: Any) -> None:
    key = (domain, name)
    known = RULES.get(key)
    if known is None:
        RULES[key] = Rule(name, domain, **facts)
        return
    for fact, value in facts.items():
        if fact in ("jvp", "transpose", "vjp", "expansion") and getattr(known, fact) is not None and value is not None:
            raise RuleError(f"{name} is given its {fact} twice.")
    RULES[key] = replace(known, **facts)


def _split(names: str | Iterable[str]) -> list[str]:
    return names.split() if isinstance(names, str) else list(names)


def _listed(result: Any, count: int) -> list[Value | None]:
    """A rule's answer as a list of `count` values: a single value stands for the first."""
    values = list(result) if isinstance(result, (list, tuple)) else [result]
    return values + [None] * (count - len(values))


# Elementwise -------------------------------------------------------------------------------------------------------------


def elementwise(names: str, *partials: Partial | float | None, domain: str = "") -> None:
    """An operator that acts element by element (with broadcasting). One partial derivative for each input: a number, None for
    zero, or `lambda op, x, ..., y` over all inputs and the output. A variadic operator gives one partial
    that takes `(op, inputs, k, y)`, so named."""

    def partial(op: Builder, n: NodeView, k: int) -> Any:
        if len(partials) == 1 and callable(partials[0]) and _is_variadic(partials[0]):
            op.node = n
            return partials[0](op, n.inputs, k, n.outputs[0])
        chosen = partials[k] if k < len(partials) else None
        if not callable(chosen):
            return chosen
        op.node = n
        return chosen(op, *n.inputs, *([None] * (len(partials) - len(n.inputs))), n.outputs[0])

    def scale(op: Builder, t: Value, p: Any) -> Value | None:
        if p is None:
            return None
        if isinstance(p, Value):
            p = op.Cast(p, to=t.dtype) if p.dtype and t.dtype and p.dtype != t.dtype else p  # of quantised integers, whose derivatives are floats
            return None if _is_zero(p) else op.Mul(t, p)
        return None if p == 0 else op.Mul(t, float(p))

    def jvp(op: Builder, n: NodeView, tangents: Sequence[Value | None]) -> list[Value | None]:
        total: Value | None = None
        for k, t in enumerate(tangents):
            if t is not None:
                term = scale(op, t, partial(op, n, k))
                total = term if total is None else total if term is None else op.Add(total, term)
        return [None if total is None else op.expand_like(total, n.y)]

    def transpose(op: Builder, n: NodeView, cotangents: Sequence[Value | None]) -> list[Value | None]:
        g = cotangents[0]
        result: list[Value | None] = [None] * len(n.inputs)
        for k, x in enumerate(n.inputs):
            if n.wanted[k] and x is not None and g is not None:
                term = scale(op, g, partial(op, n, k))
                result[k] = None if term is None else op.unbroadcast(term, x)
        return result

    for name in _split(names):
        _declare(name, domain, jvp=jvp, transpose=transpose, partials=partials)


@cache
def _is_variadic(function: Any) -> bool:
    return list(inspect.signature(function).parameters)[1:2] == ["inputs"]


def _is_zero(value: Value) -> bool:
    constant = value.constant
    return constant is not None and constant.size == 1 and not constant.any()


# Linear ------------------------------------------------------------------------------------------------------------------


def linear(
    names: str, transpose: Transpose, *, operands: Sequence[int] | None = (0,), domain: str = "", check: Callable[[NodeView], None] = lambda n: None
) -> None:
    """An operator that is linear in `operands` together (None: in all of them; an absent tangent is a zero there). Its JVP is itself.
    `transpose(op, n, g, ...)`, one cotangent for each output, gives the cotangent of each operand. `check` raises where a node isn't to be trusted."""

    def positions(n: NodeView) -> Sequence[int]:
        return range(len(n.inputs)) if operands is None else operands

    def jvp(op: Builder, n: NodeView, tangents: Sequence[Value | None]) -> list[Value | None]:
        if not any(tangents[k] is not None for k in positions(n) if k < len(tangents)):
            return [None] * len(n.outputs)
        check(n)
        inputs = list(n.inputs)
        for k in positions(n):
            x = n.input(k)
            if x is not None:
                t = tangents[k]
                inputs[k] = t if t is not None else op.zeros_like(x)
        result = _listed(op.emit(n.node.op, inputs, dict(n.node.attributes), len(n.outputs), domain), len(n.outputs))
        return [t if t is None or y is None else op.retyped(t, y.type.shape) for t, y in zip(result, n.outputs, strict=True)]

    def transposed(op: Builder, n: NodeView, cotangents: Sequence[Value | None]) -> list[Value | None]:
        check(n)
        full = list(cotangents)
        if len(full) > 1:
            full = [g if g is not None or y is None else op.zeros_like(y) for g, y in zip(full, n.outputs, strict=True)]
        answer = _listed(transpose(op, n, *full), 1)
        result: list[Value | None] = [None] * len(n.inputs)
        for k, g in zip(positions(n), answer, strict=False):
            result[k] = g
        return result

    for name in _split(names):
        _declare(name, domain, jvp=jvp, transpose=transposed)


def bilinear(names: str, *transposes: Transpose, bias: Transpose | None = None, domain: str = "") -> None:
    """An operator that is linear in each of its operands, the others held. `transposes[k](op, n, g)` is the cotangent of operand k. Where the last operand
    is a bias, merely added, `bias(op, n, t)` is what its tangent adds to the output."""

    def jvp(op: Builder, n: NodeView, tangents: Sequence[Value | None]) -> list[Value | None]:
        total: Value | None = None
        for k, t in enumerate(tangents):
            if t is None or k >= len(transposes):
                continue
            if bias is not None and k == len(transposes) - 1:
                term = bias(op, n, t)
            else:
                inputs = list(n.inputs[: len(transposes) - 1] if bias is not None else n.inputs)
                inputs[k] = t
                term = op.emit(n.node.op, inputs, dict(n.node.attributes), 1, domain)
            total = term if total is None else op.Add(total, term)
        return [total]

    def transpose(op: Builder, n: NodeView, cotangents: Sequence[Value | None]) -> list[Value | None]:
        g = cotangents[0]
        result: list[Value | None] = [None] * len(n.inputs)
        for k, pull in enumerate(transposes):
            if k < len(n.inputs) and n.wanted[k] and g is not None:
                result[k] = pull(op, n, g)
        return result

    for name in _split(names):
        _declare(name, domain, jvp=jvp, transpose=transpose)


# The rest ----------------------------------------------------------------------------------------------------------------


def flat(names: str, *, why: str = "it is piecewise constant", domain: str = "") -> None:
    """Operators whose derivative is zero wherever it exists."""
    for name in _split(names):
        _declare(name, domain, status="flat", why=why)


def refuse(names: str, *, why: str, domain: str = "") -> None:
    """Operators that have no derivative that a user could mean; `why` says what to do instead."""
    for name in _split(names):
        _declare(name, domain, status="refused", why=why)


def expand(names: str, *, domain: str = "") -> None:
    """Operators that are differentiated through the function body that the specification gives them."""
    from netsens.rules.body import specification_body

    for name in _split(names):
        _declare(name, domain, status="expanded", expansion=specification_body, spec_body=True)


def expansion(names: str, *, domain: str = "") -> Callable[[Callable[[Builder, NodeView], Any]], Callable[[Builder, NodeView], Any]]:
    """Declares an operator by simpler ones: the function gives the node's outputs over again."""

    def register(function: Callable[[Builder, NodeView], Any]) -> Callable[[Builder, NodeView], Any]:
        def expand_node(op: Builder, n: NodeView) -> list[Value | None]:
            return _listed(function(op, n), len(n.outputs))

        for name in _split(names):
            _declare(name, domain, status="expanded", expansion=expand_node)
        return function

    return register


def jvp(names: str, *, domain: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares how an operator pushes tangents forward: `rule(op, n, *tangents)`, one tangent (or None) an input, gives a tangent an output.
    What it emits must be linear in the tangents."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def push(op: Builder, n: NodeView, tangents: Sequence[Value | None]) -> list[Value | None]:
            return _listed(function(op, n, *tangents), len(n.outputs))

        for name in _split(names):
            _declare(name, domain, jvp=push)
        return function

    return register


def vjp(names: str, *, domain: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a reverse rule beside the JVP, where transposing would be slower: `rule(op, n, *cotangents)`, one (or None) an output, gives
    a cotangent (or None) an input; or NotImplemented, where the transpose (or the expansion) shall do it after all."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def pull(op: Builder, n: NodeView, cotangents: Sequence[Value | None]) -> Any:
            answer = function(op, n, *cotangents)
            return answer if answer is NotImplemented else _listed(answer, len(n.inputs))

        for name in _split(names):
            _declare(name, domain, vjp=pull)
        return function

    return register


def transpose(names: str, *, domain: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares how an operator whose JVP is written out is transposed: `rule(op, n, *cotangents)`, one (or None) an output, gives a cotangent
    (or None) an input. It holds for the operator's own nodes and for those of the JVP."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def pull(op: Builder, n: NodeView, cotangents: Sequence[Value | None]) -> list[Value | None]:
            return _listed(function(op, n, *cotangents), len(n.inputs))

        for name in _split(names):
            _declare(name, domain, transpose=pull)
        return function

    return register


def quantizes(names: str, *, domain: str = "") -> None:
    """Marks operators whose integer outputs stand for real numbers, and so carry derivatives while the straight-through estimator is on."""
    for name in _split(names):
        _declare(name, domain, quantizes=True)


def view(op: Builder, node: Node, wanted: Sequence[bool]) -> NodeView:
    """The node as rules see it."""
    inputs = tuple(op.value(i) if i else None for i in node.inputs)
    outputs = tuple(op.value(o) if o else None for o in node.outputs)
    opset = op.graph.domains.get(node.domain, 1) if node.domain else op.graph.opset
    return NodeView(node, inputs, outputs, tuple(wanted), opset)


__all__ = [
    "RULES",
    "Graph",
    "NodeView",
    "Rule",
    "bilinear",
    "elementwise",
    "expand",
    "expansion",
    "flat",
    "jvp",
    "linear",
    "refuse",
    "quantizes",
    "rule_of",
    "transpose",
    "view",
    "vjp",
]
