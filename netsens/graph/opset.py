"""Opsets newer than the one that runs them: a graph keeps its own, and takes an older stamp where every operator in it had the same form there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from netsens.errors import UnsupportedError
from netsens.graph.graph import Graph, Node, TensorType

if TYPE_CHECKING:
    from onnx.defs import OpSchema


def runnable_opset(graph: Graph, maximum: int) -> Graph:
    """The graph stamped with opset `maximum` where its own is newer. `UnsupportedError` names the operator that has no such form there."""
    if graph.opset <= maximum:
        return graph
    types: dict[str, TensorType] = {}

    def stamped(g: Graph) -> Graph:
        types.update(g.types)
        nodes = []
        for node in g.nodes:
            if not node.domain:
                node = _older(node, graph.opset, maximum, types)
            changed = {k: stamped(v) for k, v in node.subgraphs()}
            nodes.append(replace(node, attributes={**node.attributes, **changed}) if changed else node)
        return replace(g, nodes=nodes, opset=maximum)

    return stamped(graph)


def _older(node: Node, opset: int, maximum: int, types: dict[str, TensorType]) -> Node:
    """The node as it is written at `maximum`."""
    import onnx

    try:
        new, old = onnx.defs.get_schema(node.op, opset), onnx.defs.get_schema(node.op, maximum)
    except onnx.defs.SchemaError:
        raise UnsupportedError(
            f"{node.label} is of opset {opset}, and the installed runtime only knows opset {maximum}, which has no such operator; "
            "install a newer onnxruntime, or export the model at an older opset."
        ) from None
    if new.since_version == old.since_version:
        return node
    # An attribute that is new since, at the value that means what the operator did before, is left out.
    attributes = {k: v for k, v in node.attributes.items() if k in old.attributes or not _is_default(new, k, v)}
    changed = [k for k in attributes if k not in old.attributes]
    inputs_fit = len(node.inputs) <= old.max_input and [i.name for i in new.inputs][: len(old.inputs)] == [i.name for i in old.inputs]
    if changed or not inputs_fit or _is_default_changed(new, old) or not _types_fit(node, old, types):
        raise UnsupportedError(
            f"{node.label} is of opset {opset}, in a form that opset {maximum}, the newest of the installed runtime, does not have; "
            "install a newer onnxruntime, or export the model at an older opset."
        )
    return replace(node, attributes=attributes)


def _is_default(schema: OpSchema, key: str, value: object) -> bool:
    import onnx

    attribute = schema.attributes.get(key)
    if attribute is None or not attribute.default_value.name:
        return False
    default = onnx.helper.get_attribute_value(attribute.default_value)
    return bool(value == (default.decode() if isinstance(default, bytes) else default))


def _is_default_changed(new: OpSchema, old: OpSchema) -> bool:
    return any(
        new.attributes[k].default_value.SerializeToString() != a.default_value.SerializeToString() for k, a in old.attributes.items() if k in new.attributes
    )


def _types_fit(node: Node, schema: OpSchema, types: dict[str, TensorType]) -> bool:
    """Whether the operator took these dtypes then."""
    import onnx

    formal = list(schema.inputs)
    for k, name in enumerate(node.inputs):
        type_ = types.get(name)
        parameter = formal[min(k, len(formal) - 1)] if formal else None
        if type_ is None or not type_.dtype or type_.container or parameter is None or not parameter.types:
            continue
        if f"tensor({onnx.TensorProto.DataType.Name(type_.dtype).lower()})" not in parameter.types:
            return False
    return True
