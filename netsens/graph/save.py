"""Graphs back into ONNX's protobuf, whole or with their large constants left out for whoever runs or stores them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.graph.graph import Array, Graph, Node, TensorType
from netsens.graph.shapes import known

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10  # the first that knows opset 21's types; every onnxruntime that runs opset 21 reads it


@cache
def _attribute_kinds(op: str, domain: str, opset: int) -> dict[str, int]:
    """The kind (int, float, ...) that the specification gives each attribute of an operator."""
    import onnx

    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return {}
    types: dict[str, Any] = {name: a.type for name, a in schema.attributes.items()}
    return {name: int(getattr(t, "value", t)) for name, t in types.items()}


def attribute_proto(key: str, value: Any, kind: int | None, opset: int, domains: dict[str, int]) -> onnx.AttributeProto:
    """A Python value as an attribute, of the kind that the specification wants (an int where it wants a float is one)."""
    import onnx
    from onnx import helper

    kinds = onnx.AttributeProto
    if isinstance(value, onnx.AttributeProto):
        return value
    if isinstance(value, Graph):
        return helper.make_attribute(key, graph_proto(value, opset, domains, {}))
    if isinstance(value, np.ndarray):
        return helper.make_attribute(key, tensor_proto(value, ""))
    if kind == kinds.FLOAT:
        value = float(value)
    elif kind == kinds.FLOATS:
        value = [float(v) for v in value]
    elif kind == kinds.INT:
        value = int(value)
    elif kind == kinds.INTS:
        value = [int(v) for v in value]
    return helper.make_attribute(key, value, attr_type=kind if kind and isinstance(value, list) and not value else None)


def node_proto(node: Node, opset: int, domains: dict[str, int]) -> onnx.NodeProto:
    import onnx

    proto = onnx.NodeProto(op_type=node.op, input=node.inputs, output=node.outputs, name=node.name, domain=node.domain)
    if node.attributes:
        kinds = _attribute_kinds(node.op, node.domain, domains.get(node.domain, opset) if node.domain else opset)
        proto.attribute.extend(attribute_proto(k, v, kinds.get(k), opset, domains) for k, v in node.attributes.items())
    return proto


def type_proto(type_: TensorType) -> onnx.TypeProto:
    from onnx import helper

    shape = None if type_.shape is None else list(type_.shape)
    tensor = helper.make_tensor_type_proto(type_.dtype, shape)
    if type_.container == "sequence":
        return helper.make_sequence_type_proto(tensor)
    if type_.container == "optional":
        return helper.make_optional_type_proto(tensor)
    return tensor


def value_proto(name: str, type_: TensorType | None) -> onnx.ValueInfoProto:
    import onnx

    proto = onnx.ValueInfoProto(name=name)
    if type_ is not None and type_.dtype:
        proto.type.CopyFrom(type_proto(type_))
    return proto


def tensor_proto(array: Array, name: str) -> onnx.TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def graph_proto(graph: Graph, opset: int, domains: dict[str, int], left_out: dict[str, Array], inline_bytes: int | None = None) -> onnx.GraphProto:
    """The graph as protobuf. Constants over `inline_bytes` go to `left_out` and become external stubs in their place."""
    import onnx
    from onnx import helper

    proto = onnx.GraphProto(name=graph.name)
    proto.node.extend(node_proto(n, opset, domains) for n in graph.nodes)
    proto.input.extend(value_proto(i, graph.types.get(i)) for i in graph.inputs)
    proto.output.extend(value_proto(o, graph.types.get(o)) for o in graph.outputs)
    # Of a Reshape to a computed shape onnxruntime knows but the rank, where netsens may know the lengths.
    told = (n.outputs[0] for n in graph.nodes if n.op == "Reshape" and n.inputs[1] not in graph.constants and n.outputs[0] not in graph.outputs)
    proto.value_info.extend(value_proto(o, graph.types[o]) for o in told if o in graph.types and known(graph.types[o].shape))
    for name, array in graph.constants.items():
        if inline_bytes is not None and array.nbytes > inline_bytes and array.dtype != object:
            left_out[name] = array
            stub = proto.initializer.add(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
            stub.data_location = onnx.TensorProto.EXTERNAL
            stub.external_data.add(key="location", value=f"{len(left_out)}.bin")
        else:
            proto.initializer.append(tensor_proto(array, name))
    return proto


def model_proto(graph: Graph, inline_bytes: int | None = None) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The whole model, and the constants left out of it (none where `inline_bytes` is None)."""
    import onnx
    from onnx import helper

    left_out: dict[str, Array] = {}
    proto = onnx.ModelProto(ir_version=IR_VERSION, producer_name="netsens")
    proto.graph.CopyFrom(graph_proto(graph, graph.opset, graph.domains, left_out, inline_bytes))
    proto.opset_import.append(helper.make_opsetid("", graph.opset))
    proto.opset_import.extend(helper.make_opsetid(d, v) for d, v in graph.domains.items() if d)
    for key, value in graph.metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return proto, left_out
