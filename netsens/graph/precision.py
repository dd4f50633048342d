"""The same graph in another floating point precision, so that a derivative can be judged in float64 or half models computed wider."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from netsens.graph.dtypes import DOUBLE, FLOAT, FLOATS, is_float
from netsens.graph.graph import Graph, Node, TensorType, free_name


def in_precision(graph: Graph, dtype: int = DOUBLE) -> Graph:
    """Every float tensor, constant and cast of the graph and its subgraphs in `dtype` (ONNX's element type)."""
    from onnx import helper

    numpy_dtype = np.dtype(helper.tensor_dtype_to_np_dtype(dtype))

    def type_(t: TensorType) -> TensorType:
        return replace(t, dtype=dtype) if t.dtype in FLOATS else t

    def attribute(node: Node, key: str, value: Any) -> Any:
        if isinstance(value, Graph):
            return in_precision(value, dtype)
        if isinstance(value, np.ndarray) and is_float(value.dtype):
            return value.astype(numpy_dtype)
        if key in ("to", "dtype", "stash_type", "softmax_precision", "output_dtype") and value in FLOATS:
            return dtype
        return value

    def node(n: Node) -> Node:
        attributes = {k: attribute(n, k, v) for k, v in n.attributes.items()}
        if n.op == "ConstantOfShape" and "value" not in attributes:
            attributes["value"] = np.zeros(1, numpy_dtype)
        if n.op in ("EyeLike", "RandomNormal", "RandomUniform", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"):
            attributes.setdefault("output_datatype" if "W" in n.op else "dtype", dtype)
            if attributes.get("output_datatype") in FLOATS:
                attributes["output_datatype"] = dtype
        if n.op == "LayerNormalization":
            attributes["stash_type"] = dtype
        return replace(n, attributes=attributes)

    return _with_float_scales(replace(
        graph,
        nodes=[node(n) for n in graph.nodes],
        constants={k: v.astype(numpy_dtype) if is_float(v.dtype) else v for k, v in graph.constants.items()},
        types={k: type_(t) for k, t in graph.types.items()},
    ))  # fmt: skip


def _with_float_scales(graph: Graph) -> Graph:
    """The scales of Resize nodes as float32, which they are in every precision."""
    taken = graph.names() if any(n.op == "Resize" and not n.domain for n in graph.nodes) else set[str]()
    nodes, types, constants = [], dict(graph.types), dict(graph.constants)
    for node in graph.nodes:
        scales = node.inputs[2] if node.op == "Resize" and not node.domain and len(node.inputs) > 2 else ""
        if scales:
            name = free_name(f"{scales}/float", taken)
            types[name] = TensorType(FLOAT, graph.types[scales].shape if scales in graph.types else None)
            if scales in constants:
                constants[name] = constants[scales].astype(np.float32)
            else:
                nodes.append(Node("Cast", (scales,), (name,), {"to": FLOAT}))
            node = replace(node, inputs=(*node.inputs[:2], name, *node.inputs[3:]))
        nodes.append(node)
    return replace(graph, nodes=nodes, types=types, constants=constants)
