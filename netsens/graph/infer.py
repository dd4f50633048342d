"""Types of values: what ONNX's shape inference says of a whole graph, and those of a single new node through short formulas of its own
(ONNX's inference where there is none), since asking ONNX for every node would dominate building."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from netsens.errors import RuleError
from netsens.graph.graph import Array, Dim, Graph, Node, TensorType, walk
from netsens.graph.infer_layout import FORMULAS as LAYOUT
from netsens.graph.infer_mistaken import FORMULAS as MISTAKEN
from netsens.graph.infer_mistaken import is_mistaken
from netsens.graph.infer_values import FORMULAS as VALUES
from netsens.graph.infer_values import LEARNED
from netsens.graph.infer_windows import FORMULAS as WINDOWS
from netsens.graph.read import type_from_proto
from netsens.graph.save import model_proto, node_proto, tensor_proto, type_proto
from netsens.graph.shapes import constant_type

if TYPE_CHECKING:
    import onnx

_SMALL = 1024  # bytes of a constant that shape inference may want to see
FORMULAS = {**VALUES, **LAYOUT, **WINDOWS, **MISTAKEN}
_NOBODYS = "nobodys"


def onnx_types(graph: Graph) -> dict[str, TensorType]:
    """The type of every value, in subgraphs too, that ONNX's own inference can tell. Weights are not looked at."""
    light = replace(graph, constants={}, inputs=list(graph.inputs), types=dict(graph.types))
    for name, array in graph.constants.items():
        if array.nbytes <= _SMALL:
            light.constants[name] = array
        else:
            light.inputs.append(name)
            light.types[name] = constant_type(array)
    light = walk(light, _without_promises)
    found = _asked(light)
    mistaken: set[str] = set()

    def look(g: Graph) -> Graph:
        mistaken.update(n.outputs[0] for n in g.nodes if is_mistaken(n, found.get(n.outputs[0]), g.constants))
        return g

    walk(light, look)
    return _asked(walk(light, lambda g: _hidden(g, mistaken))) if mistaken else found


def _asked(graph: Graph) -> dict[str, TensorType]:
    import onnx
    from onnx import shape_inference

    proto, _ = model_proto(graph)
    try:
        inferred = shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except Exception:  # ONNX's inference raises a bare RuntimeError on models that it takes for broken; run time will tell
        inferred = proto
    found: dict[str, TensorType] = {}

    def collect(g: onnx.GraphProto) -> None:
        for value in [*g.value_info, *g.output, *g.input]:
            if value.type.WhichOneof("value"):
                found[value.name] = type_from_proto(value.type)
        for node in g.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    collect(attribute.g)

    collect(inferred.graph)
    return found


def _hidden(graph: Graph, outputs: set[str]) -> Graph:
    """The graph with the nodes of these outputs in a domain of which ONNX's inference knows nothing."""
    nodes = [replace(node, domain=_NOBODYS) if node.outputs and node.outputs[0] in outputs else node for node in graph.nodes]
    return replace(graph, nodes=nodes, domains={**graph.domains, _NOBODYS: 1})


def _without_promises(graph: Graph) -> Graph:
    """ONNX's inference trusts an output's declared shape, and files lie: its dtype alone is kept."""
    types = dict(graph.types)
    for name in graph.outputs:
        known = types.get(name)
        if known is not None and name not in graph.inputs and name not in graph.constants:
            types[name] = replace(known, shape=None)
    return replace(graph, types=types)


def infer_node(node: Node, types: Sequence[TensorType], constants: Sequence[Array | None], opset: int, domains: dict[str, int]) -> list[TensorType]:
    """The types of one node's outputs (shape None where unknown)."""
    formula = {"": FORMULAS, "ai.onnx.ml": LEARNED}.get(node.domain, {}).get(node.op)
    if formula is not None and all(t.shape is not None for t in types):
        result = formula(types, dict(node.attributes), constants)
        if result is not None:
            return result + [TensorType(0)] * (len(node.outputs) - len(result))
    return _ask_onnx(node, types, constants, opset, domains)


def _ask_onnx(node: Node, types: Sequence[TensorType], constants: Sequence[Array | None], opset: int, domains: dict[str, int]) -> list[TensorType]:
    import onnx
    from onnx import helper, shape_inference

    try:
        schema = onnx.defs.get_schema(node.op, domains.get(node.domain, opset) if node.domain else opset, node.domain)
    except onnx.defs.SchemaError:
        return [TensorType(types[0].dtype if types else 0) for _ in node.outputs]
    names = [f"i{k}" if n else "" for k, n in enumerate(node.inputs)]
    alone = replace(node, inputs=tuple(names), outputs=tuple(f"o{k}" if o else "" for k, o in enumerate(node.outputs)))
    data = {f"i{k}": tensor_proto(c, f"i{k}") for k, c in enumerate(constants) if c is not None and c.dtype != object}
    versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in domains.items() if d)]
    try:
        found = shape_inference.infer_node_outputs(
            schema, node_proto(alone, opset, domains), {n: type_proto(t) for n, t in zip(names, types, strict=True) if n and t.dtype},
            data, opset_imports=versions, ir_version=10,
        )  # fmt: skip
    except Exception as error:  # ONNX raises its own C++ errors here
        raise RuleError(f"A rule emitted a {node.label} that ONNX's inference rejects: {error}") from error
    symbols = {d for t in types for d in t.shape or ()}
    return [_over(type_from_proto(found[o]), symbols) if o in found else TensorType(types[0].dtype if types else 0) for o in alone.outputs]


def _over(type_: TensorType, symbols: set[Dim]) -> TensorType:
    """Without the symbols that ONNX makes up for one node alone."""
    if type_.shape is None:
        return type_
    return replace(type_, shape=tuple(d if isinstance(d, int) or d in symbols else None for d in type_.shape))
