"""What works element by element, and factors and sums a channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from netsens.graph.blocked_layout import BLOCKED
from netsens.graph.dtypes import BOOL, FLOAT
from netsens.graph.graph import Node, TensorType, free_name
from netsens.run.blocks.convolutions import absorbed_factor, absorbed_sum, added_phases, pending
from netsens.run.blocks.infinite import FINITE
from netsens.run.blocks.writing import Writing, written_by

WHOLE = ["Ceil", "Div", "Exp", "Floor", "Gelu", "IsInf", "IsNaN", "Log", "Mish", "Pow", "PRelu", "Reciprocal", "Round", "Selu", "Softplus", "Softsign", "Sqrt", "ThresholdedRelu"]  # fmt: skip
ACTIVATIONS = {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip"}


def elementwise(b: Writing, node: Node) -> bool:
    y = node.outputs[0]
    if not _can_be(b, node) or not (b.whole(y) or (node.op in FINITE and not any(_single(b, i) and i in b.infinite for i in node.inputs))):
        return False
    return _written(b, node.op, node.inputs, y, **node.attributes)


def _written(b: Writing, op: str, inputs: Sequence[str], y: str, **attributes: Any) -> bool:
    """Under the axes that fewer of the operands have to be reshaped to."""
    values = [i for i in inputs if i and not _single(b, i)]
    apart = sum(v not in b.aparts for v in values) < sum(v not in b.flats and v not in b.pending for v in values)
    name = b.apart if apart else b.flat
    written = b.emit(op, [i if not i or _single(b, i) else name(i) for i in inputs], **attributes)
    return b.settle(y, apart=written) if apart else b.settle(y, flat=written)


@written_by(*(op for op in (*FINITE, *WHOLE) if op not in ACTIVATIONS | {"Add", "Greater", "Mul", "Sub", "Sum", "Where"}))
def _other(b: Writing, node: Node) -> bool:
    return elementwise(b, node)


def _can_be(b: Writing, node: Node) -> bool:
    """Whether something is in blocks already, and every operand is of the output's shape or a single number."""
    y = node.outputs[0]
    if not b.fits(y) or not any(b.inside(i) for i in node.inputs):
        return False
    shape = b.shape(y)
    return all(not i or _single(b, i) or (b.shape(i) == shape and b.comes_inside(i)) for i in node.inputs)


def _single(b: Writing, name: str) -> bool:
    shape = b.shape(name)
    return shape is not None and all(d == 1 for d in shape) and not b.inside(name)


# Activations -----------------------------------------------------------------------------------------------------------------


@written_by(*sorted(ACTIVATIONS))
def _activation(b: Writing, node: Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    c = b.pending.get(x)
    parameters = _parameters(b, node)
    if c is None or c.activation or not b.read_once(x) or parameters is None:
        return elementwise(b, node)
    del b.pending[x]
    b.pending[y] = replace(c, activation={"activation": node.op, **({"activation_params": parameters} if parameters else {})})
    return True


def _parameters(b: Writing, node: Node) -> list[float] | None:
    match node.op:
        case "LeakyRelu":
            return [float(node.attributes.get("alpha", 0.01))]
        case "HardSigmoid":
            return [float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))]
        case "Clip":
            bounds = [b.constant(i) for i in node.inputs[1:]]
            if len(bounds) != 2 or any(v is None for v in bounds):
                return None
            return [float(v.reshape(-1)[0]) for v in bounds if v is not None]
    return []


# A number a channel ------------------------------------------------------------------------------------------------------


def _by_channel(b: Writing, node: Node) -> tuple[str, str] | None:
    """A value in blocks and the other operand, one number a channel."""
    if len(node.inputs) != 2:
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        if not b.inside(x) or b.shape(x) != b.shape(node.outputs[0]) or b.dtype(x) != FLOAT:
            continue
        shape, rank = b.shape(other), len(b.shape(x) or ())
        if rank != 4 or shape is None or not 3 <= len(shape) <= 4 or prod(b.places(x)) == 1:
            continue
        if shape[-3:] == (b.channels(x), 1, 1):
            return x, other
    return None


def _vector(b: Writing, name: str, channels: int) -> str | None:
    """A number a channel as [C], where it is computed from constants and the same for all samples."""
    shape = b.shape(name)
    if name not in b.fixed or shape is None or prod(int(d or 0) for d in shape) != channels:
        return None
    return b.reshaped(name, [channels])


@written_by("Mul")
def _product(b: Writing, node: Node) -> bool:
    found = _by_channel(b, node)
    if found is None:
        return elementwise(b, node)
    x, factor = found
    vector = _vector(b, factor, b.channels(x))
    if vector is not None:
        return absorbed_factor(b, x, vector, "", node.outputs[0])
    return _scaled(b, x, factor, node.outputs[0])


def _scaled(b: Writing, x: str, factor: str, y: str) -> bool:
    """Each channel of each sample by a number of its own: a depthwise convolution of 1x1, whose channels are those of all samples."""
    shape = b.shape(x)
    if shape is None or b.shape(factor) != (*shape[:2], 1, 1) or not isinstance(shape[0], int) or not b.comes_inside(factor):
        return False
    channels = b.filled(b.channels(x)) * shape[0]
    every = b.reshaped(b.flat(x), [1, channels, *b.places(x)])
    factors = b.reshaped(b.flat(factor), [channels, 1, 1, 1])
    y_flat = b.emit("Conv", [every, factors], BLOCKED, group=channels, kernel_shape=[1, 1])
    return b.settle(y, flat=b.reshaped(y_flat, [shape[0], b.filled(b.channels(x)), *b.places(x)]))


@written_by("Add", "Sum")
def _sum(b: Writing, node: Node) -> bool:
    found = _by_channel(b, node)
    if found is not None:
        x, summand = found
        vector = _vector(b, summand, b.channels(x))
        return vector is not None and absorbed_factor(b, x, "", vector, node.outputs[0])
    if len(node.inputs) == 2 and _number_added(b, node):
        return True
    if len(node.inputs) == 2 and b.shape(node.inputs[0]) == b.shape(node.inputs[1]) and all(b.comes_inside(i) for i in node.inputs):
        one, two = node.inputs
        if added_phases(b, one, two, node.outputs[0]) or absorbed_sum(b, two, one, node.outputs[0]) or absorbed_sum(b, one, two, node.outputs[0]):
            return True
    return elementwise(b, node)


@written_by("Sub")
def _difference(b: Writing, node: Node) -> bool:
    found = _by_channel(b, node)
    if found is None:
        return _turned_sum(b, node) or elementwise(b, node)
    x, less = found
    vector = _vector(b, less, b.channels(x)) if x == node.inputs[0] else None
    return vector is not None and absorbed_factor(b, x, "", b.emit("Neg", [vector]), node.outputs[0])


def _turned_sum(b: Writing, node: Node) -> bool:
    """x - y before a number is added, as 1 + x - x * Sigmoid(x) has it: a convolution by -1 to which x is added, and the number is its bias."""
    x, y = node.inputs
    difference = node.outputs[0]
    if not _can_be(b, node) or not b.read_once(difference) or b.shape(x) != b.shape(y) or b.dtype(x) != FLOAT or len(b.places(x)) != 2 or b.channels(x) % 4:
        return False
    if any(r.op != "Add" or not any(_single(b, i) and i in b.original.constants for i in r.inputs) for r in b.readers_of(difference)):
        return False
    shape = [b.channels(x), 1, 1, 1]
    found = pending(b, y, b.array(np.full(shape, -1, np.float32)), shape, group=b.channels(x))
    assert found is not None
    b.pending[difference] = replace(found, added=b.flat(x))
    return True


def _number_added(b: Writing, node: Node) -> bool:
    """A number added to a convolution that is part of it already with another sum."""
    for x, number in (node.inputs, node.inputs[::-1]):
        c, value = b.pending.get(x), b.constant(number)
        if c is None or value is None or value.size != 1 or b.shape(x) != b.shape(node.outputs[0]):
            continue
        if not c.activation and b.read_once(x) and not c.bias:
            del b.pending[x]
            b.pending[node.outputs[0]] = replace(c, bias=b.array(np.full(c.attributes["shape"][0], value.reshape(-1)[0], np.float32)))
            return True
    return False


# Masks ---------------------------------------------------------------------------------------------------------------------


@written_by("Where")
def _chosen(b: Writing, node: Node) -> bool:
    """Where(condition, g, 0) as a product with 1 and 0, which takes a third of the time. It would turn an infinite value under the mask into NaN, where Where
    leaves 0, as in the gradient of Sqrt(Relu(x)); what may be infinite there stays a Where."""
    condition, g, otherwise = node.inputs
    zero = b.constant(otherwise)
    if not _can_be(b, node):
        return False
    if zero is None or zero.size != 1 or zero.reshape(-1)[0] != 0 or zero.dtype != np.float32 or _single(b, g) or _single(b, condition) or g in b.infinite:
        return elementwise(b, node)
    if condition not in b.masks:
        b.masks[condition] = mask = free_name(f"{condition}/mask", b.used)
        b.types[mask] = TensorType(FLOAT, b.shape(condition))
        _written(b, "Cast", [condition], mask, to=FLOAT)
    return _written(b, "Mul", [g, b.masks[condition]], node.outputs[0])


@written_by("Greater")
def _greater(b: Writing, node: Node) -> bool:
    """y > 0 of what is nowhere negative as whether it is other than 0, which takes half the time."""
    x, bound = node.inputs
    zero = b.constant(bound)
    if not b.inside(x) or zero is None or zero.size != 1 or zero.reshape(-1)[0] != 0 or not _never_negative(b, x) or not _can_be(b, node):
        return elementwise(b, node)
    return _written(b, "Cast", [x], node.outputs[0], to=BOOL)


def _never_negative(b: Writing, name: str) -> bool:
    node = b.producers.get(name)
    if node is None or node.domain:
        return False
    if node.op == "Clip":
        low = b.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and bool((low >= 0).all())
    return node.op == "Relu"
