"""Weights that operators read as quantised integers, made visible as the real numbers that they stand for: each is dequantised to a value of its own and
quantised again, which gives the same integers, so that a derivative by the real numbers can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from netsens.graph.graph import Array, Graph, Node, TensorType, free_name
from netsens.graph.shapes import constant_type

# Where an operator has a quantised weight, its scale and its zero point, and along which axis there may be several scales.
_PLACES: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("", "QLinearConv"): (3, 4, 5, 0),
    ("com.microsoft", "QLinearConv"): (3, 4, 5, 0),
    ("", "QLinearMatMul"): (3, 4, 5, -1),
    ("com.microsoft", "QGemm"): (3, 4, 5, 1),
    ("com.microsoft", "DynamicQuantizeMatMul"): (1, 2, 3, 1),
    ("com.microsoft", "MatMulIntegerToFloat"): (1, 3, 5, 1),
    ("com.microsoft", "QAttention"): (1, 4, 7, 1),
    ("com.microsoft", "QLinearAdd"): (3, 4, 5, 0),
    ("com.microsoft", "QLinearMul"): (3, 4, 5, 0),
}
_INTEGER_PRODUCTS = {("", "MatMulInteger"): (1, 3, -1), ("", "ConvInteger"): (1, 3, 0)}  # weight, zero point, axis


def with_dequantized_weights(graph: Graph) -> Graph:
    """The graph in which every constant weight that is read as integers is a DequantizeLinear's output, quantised again for who reads it.

    The output has the weight's name without the `_quantized` that onnxruntime's quantiser adds, where that is free, else `NAME_dequantized`."""
    if not any(n.op in _OPERATORS for n in graph.nodes):
        return graph
    result, taken = graph.copy(), graph.names()
    consumers, producers = graph.consumers(), graph.producers()
    made: dict[tuple[str, str, str, int], str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        found = _weight(node, graph.constants, consumers, producers)
        if found is None:
            nodes.append(node)
            continue
        at, weight, scale, zero, axis = found
        key = (weight, scale, zero, axis)
        if key not in made:
            real = free_name(weight.removesuffix("_quantized") if weight.endswith("_quantized") else f"{weight}_dequantized", taken)
            again = free_name(f"{real}_requantized", taken)
            array = graph.constants[weight]
            point = zero or free_name(f"{real}_zero_point", taken)
            if not zero:
                result.constants[point] = np.zeros(graph.constants[scale].shape, array.dtype)
                result.types[point] = constant_type(result.constants[point])
            nodes.append(Node("DequantizeLinear", (weight, scale, point), (real,), {"axis": axis}, "", real))
            nodes.append(Node("QuantizeLinear", (real, scale, point), (again,), {"axis": axis}, "", again))
            result.types[real] = TensorType(constant_type(graph.constants[scale]).dtype, array.shape)
            result.types[again] = constant_type(array)
            made[key] = again
        nodes.append(replace(node, inputs=tuple(made[key] if k == at else i for k, i in enumerate(node.inputs))))
    return replace(result, nodes=nodes)


_OPERATORS = {op for _, op in (*_PLACES, *_INTEGER_PRODUCTS)}


def _weight(
    node: Node, constants: Mapping[str, Array], consumers: Mapping[str, list[Node]], producers: Mapping[str, Node]
) -> tuple[int, str, str, str, int] | None:
    """Where the node reads a constant weight, the weight, its scale and zero point, and their axis; None where it has none, or where the scale isn't
    known to be that of the weight."""
    key = (node.domain, node.op)
    if key in _PLACES:
        at, scale_at, zero_at, axis = _PLACES[key]
        scale = node.inputs[scale_at] if scale_at < len(node.inputs) else ""
        if node.op == "QGemm" and node.attributes.get("transB", 0):
            axis = 0
    elif key in _INTEGER_PRODUCTS:
        at, zero_at, axis = _INTEGER_PRODUCTS[key]
        scale = _scale_behind(node, constants, consumers, producers)
    else:
        return None
    zero = node.inputs[zero_at] if zero_at < len(node.inputs) else ""
    weight = node.inputs[at]
    if weight not in constants or scale not in constants or (zero and zero not in constants):
        return None
    array, factors = constants[weight], constants[scale]
    axis %= max(array.ndim, 1)
    fits = factors.size == 1 or (factors.ndim == 1 and array.ndim > axis and factors.shape[0] == array.shape[axis])
    if not fits or (zero and (constants[zero].shape != factors.shape or constants[zero].dtype != array.dtype)):
        return None
    return at, weight, scale, zero, axis


def _scale_behind(node: Node, constants: Mapping[str, Array], consumers: Mapping[str, list[Node]], producers: Mapping[str, Node]) -> str:
    """The constant that the quantiser multiplies an integer product by: Cast, then Mul with the product of the input's scale and the weight's."""
    value = node.outputs[0]
    for step in ("Cast", "Mul"):
        readers = consumers.get(value, [])
        if len(readers) != 1 or readers[0].op != step:
            return ""
        last, value = (readers[0], value), readers[0].outputs[0]
    other = next((i for i in last[0].inputs if i != last[1]), "")
    scales = producers.get(other)
    if scales is None or scales.op != "Mul":
        return ""
    return next((i for i in scales.inputs if i in constants), "")
