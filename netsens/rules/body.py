"""The function body that the ONNX specification gives a composite operator, emitted in place of the node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netsens.errors import RuleError, UnsupportedError
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node
from netsens.graph.read import attribute_value, constant_attribute
from netsens.graph.save import node_proto, type_proto


def has_body(node: Node, opset: int) -> bool:
    """Whether the specification gives the operator a function body."""
    import onnx

    try:
        schema: Any = onnx.defs.get_schema(node.op, opset, node.domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def specification_body(op: Builder, n: Any) -> list[Value | None]:
    """The node's outputs over again, through the specification's own body."""
    import onnx

    node: Node = n.node
    schema: Any = onnx.defs.get_schema(node.op, n.opset, node.domain)
    proto = node_proto(node, n.opset, op.graph.domains)
    if schema.has_context_dependent_function:
        types = [type_proto(v.type) if v is not None else onnx.TypeProto() for v in n.inputs]
        best = max((v for v in schema.context_dependent_function_opset_versions if v <= n.opset), default=n.opset)
        body = onnx.FunctionProto.FromString(
            schema.get_context_dependent_function_with_opset_version(best, proto.SerializeToString(), [t.SerializeToString() for t in types])
        )
    elif schema.has_function:
        best = max((v for v in schema.function_opset_versions if v <= n.opset), default=n.opset)
        body = onnx.FunctionProto.FromString(schema.get_function_with_opset_version(best))
    else:
        raise RuleError(f"The specification gives {node.op} no function body.")
    values: dict[str, Value | None] = dict(zip(body.input, [*n.inputs, *([None] * (len(body.input) - len(n.inputs)))], strict=False))
    attributes = {a.name: a for a in body.attribute_proto}
    for inner in body.node:
        emit_node(op, inner, values, node, attributes, n)
    if any(o not in values for o in body.output[: len(n.outputs)]) or not body.output:
        raise UnsupportedError(f"ONNX builds no function body for {node.label} as it stands here, so it cannot be differentiated.")
    return [values[o] for o in body.output[: len(n.outputs)]]


def emit_node(op: Builder, inner: Any, values: dict[str, Value | None], node: Node, defaults: dict[str, Any], n: Any) -> None:
    """One node of a function body over the caller's values; attribute references take the caller's attributes."""
    attributes: dict[str, Any] = {}
    for a in inner.attribute:
        if a.ref_attr_name:
            value = n[a.ref_attr_name]
            if value is None and a.ref_attr_name in defaults:
                value = attribute_value(defaults[a.ref_attr_name], n.opset, None)
            if value is not None:
                attributes[a.name] = value
        else:
            attributes[a.name] = attribute_value(a, n.opset, None)
    operands = [values[i] if i else None for i in inner.input]
    if inner.op_type == "Constant":
        values[inner.output[0]] = op.constant(constant_attribute(attributes))
        return
    if any(isinstance(v, Graph) for v in attributes.values()):
        mapping = {k: v.name for k, v in values.items() if v is not None}
        attributes = {k: own_names(op, v).renamed(mapping) if isinstance(v, Graph) else v for k, v in attributes.items()}
    result = op.emit(inner.op_type, operands, attributes, len(inner.output), inner.domain)
    outputs = [result] if len(inner.output) == 1 else list(result)
    values.update({name: value for name, value in zip(inner.output, outputs, strict=True) if name})


def own_names(op: Builder, graph: Graph) -> Graph:
    """A subgraph whose own values have names that nothing else has."""
    own = [*graph.inputs, *graph.constants, *(o for node in graph.nodes for o in node.outputs if o)]
    mapping = {name: op.fresh(name) for name in own}
    nodes = [replace(n, attributes={k: own_names(op, v) if isinstance(v, Graph) else v for k, v in n.attributes.items()}) for n in graph.nodes]
    return replace(graph, nodes=nodes).renamed(mapping)
