"""Nodes that need not be emitted, since a value that is there equals theirs, or that fewer equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.graph.shapes import known, same_shape

if TYPE_CHECKING:
    from netsens.graph.emitter import Emitter
    from netsens.graph.value import Value


def unexpanded(op: Emitter, name: str, inputs: list[Value | None]) -> list[Value | None]:
    """The operands, without an Expand to a shape that another operand has anyway: broadcasting does the same and copies nothing."""
    if name not in ("Add", "Sub", "Mul", "Div", "Where"):
        return inputs
    result = list(inputs)
    for k, x in enumerate(inputs):
        node = None if x is None else op.producer(x)
        if x is None or node is None or node.op != "Expand" or node.domain:
            continue
        if any(other is not None and j != k and same_shape(other.type.shape, x.type.shape) for j, other in enumerate(result)):
            result[k] = op.value(node.inputs[0])
    return result


def _is_number(value: Value, number: float) -> bool:
    constant = value.constant
    if constant is not None and constant.dtype.kind == "f" and value.name not in value.op.literals:
        return False  # a parameter that happens to have this value must stay visible to a derivative by it
    return constant is not None and constant.size == 1 and constant.dtype.kind in "fiu" and bool(constant.reshape(-1)[0] == number)


def _keeps_shape(constant: Value, other: Value) -> bool:
    return constant.rank <= other.rank


def simplified(op: Emitter, name: str, inputs: Sequence[Value | None], attributes: dict[str, Any]) -> Value | None:
    """The value that a node would equal, where it need not be emitted."""
    if not inputs or inputs[0] is None:
        return None
    x, y = inputs[0], inputs[1] if len(inputs) > 1 else None
    match name:
        case "Mul" if y is not None and x.type.shape is not None and y.type.shape is not None:
            if _is_number(y, 1) and _keeps_shape(y, x):
                return x
            if _is_number(x, 1) and _keeps_shape(x, y):
                return y
            if _is_number(y, -1) and _keeps_shape(y, x):
                return op.Neg(x)
            if _is_number(x, -1) and _keeps_shape(x, y):
                return op.Neg(y)
        case "Add" if y is not None and x.type.shape is not None and y.type.shape is not None:
            if _is_number(y, 0) and _keeps_shape(y, x):
                return x
            if _is_number(x, 0) and _keeps_shape(x, y):
                return y
            if same_shape(x.type.shape, y.type.shape) and not op.derivative.finite_only:
                return _swish(op, x, y) or _swish(op, y, x)
        case "Sub" if y is not None and x.type.shape is not None and y.type.shape is not None:
            if _is_number(y, 0) and _keeps_shape(y, x):
                return x
            if _is_number(x, 0) and _keeps_shape(x, y):
                return op.Neg(y)
        case "Div" if y is not None and x.type.shape is not None and y.type.shape is not None and _is_number(y, 1) and _keeps_shape(y, x):
            return x
        case "Where" if y is not None and y.name in op.derivative.rectified and inputs[2] is not None and _is_number(inputs[2], 0):
            node = op.producer(x)
            if node is not None and node.op == "Greater" and node.inputs[0] == op.derivative.rectified[y.name] and _is_number(op.value(node.inputs[1]), 0):
                return y
        case "Neg":
            node = op.producer(x)
            if node is not None and node.op == "Neg" and not node.domain:
                return op.value(node.inputs[0])
        case "Identity":
            return x
        case "Cast" if int(attributes["to"]) == x.dtype:
            return x
        case "Transpose":
            perm = list(attributes.get("perm") or range(x.rank)[::-1])
            if perm == list(range(len(perm))):
                return x
            node = op.producer(x)
            if node is not None and node.op == "Transpose" and not node.domain:
                inner = list(node.attributes.get("perm") or range(x.rank)[::-1])
                return op.Transpose(op.value(node.inputs[0]), perm=[inner[p] for p in perm])
        case "Reshape" if y is not None:
            target = y.constant
            if target is not None and x.static and (target > 0).all() and tuple(int(t) for t in target) == x.shape:
                return x
            node = op.producer(x)
            if node is not None and node.op in ("Reshape", "Squeeze", "Unsqueeze") and not node.domain and target is not None and (target != 0).all():
                return op.retyped(op.Reshape(op.value(node.inputs[0]), y), None)
        case "Squeeze" if y is not None and y.constant is not None:
            node = op.producer(x)
            if node is not None and node.op == "Unsqueeze" and not node.domain:
                axes = op.value(node.inputs[1]).constant
                if axes is not None and {int(a) % x.rank for a in axes} == {int(a) % x.rank for a in y.constant}:
                    return op.value(node.inputs[0])
        case "Expand" if y is not None:
            target = y.constant
            if target is not None and x.static and len(target) <= x.rank and all(
                int(t) in (1, d) for t, d in zip(target[::-1], x.shape[::-1], strict=False)
            ):  # fmt: skip
                return x
        case "Shape" if known(x.type.shape):
            return op.constant(np.asarray(x.shape[attributes.get("start", 0) : attributes.get("end")], np.int64))
        case "ReduceSum" | "ReduceMean" | "ReduceMax" if (
            y is not None and y.constant is not None and y.constant.size == 0 and attributes.get("noop_with_empty_axes")
        ):
            return x
    return None


def _factors(op: Emitter, value: Value) -> tuple[str, str] | None:
    """The two values whose product a value is."""
    node = op.producer(value)
    return None if node is None or node.op != "Mul" or node.domain else (node.inputs[0], node.inputs[1])


def _swish(op: Emitter, direct: Value, through: Value) -> Value | None:
    """The two ways back from x * Sigmoid(x), g * s and (g * x) * (s * (1 - s)), as g * (s * (1 + x - x * s)): four passes instead of six."""
    outer, inner = _factors(op, direct), _factors(op, through)
    if outer is None or inner is None:
        return None
    for g, s in (outer, outer[::-1]):
        node = op.producer(op.value(s))
        if node is None or node.op != "Sigmoid" or node.domain:
            continue
        (x,) = node.inputs
        for pulled, slope in (inner, inner[::-1]):
            split, parts = _factors(op, op.value(pulled)), _factors(op, op.value(slope))
            if split is None or parts is None or set(split) != {g, x} or parts[0] != s:
                continue
            rest = op.producer(op.value(parts[1]))
            if rest is None or rest.op != "Sub" or rest.domain or rest.inputs[1] != s or not _is_number(op.value(rest.inputs[0]), 1):
                continue
            sigmoid, whole = op.value(s), op.value(x)
            return op.value(g) * (sigmoid * (1 + (whole - whole * sigmoid)))
    return None
