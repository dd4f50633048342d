"""Brings a model to normal form: functions inlined, one opset, constants lifted, names unique, types known. A rule never meets
an opset fork or a function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.errors import ModelError, UnsupportedError
from netsens.graph.flexible_attention import holds_flexible_attention, without_flexible_attention
from netsens.graph.graph import Array, Graph, Node, free_name, numbered_name, walk
from netsens.graph.nested import settled
from netsens.graph.quantized_weights import with_dequantized_weights
from netsens.graph.read import constant_attribute, graph_from_proto, read_model
from netsens.graph.sequences import holds_sequences, without_sequences
from netsens.graph.shapes import constant_type
from netsens.graph.upgrade import TARGET_OPSET, upgrade

if TYPE_CHECKING:
    import onnx


def load_graph(source: str | Path | bytes | onnx.ModelProto) -> Graph:
    """The normal form of a model."""
    proto, arrays, path = read_model(source)
    try:
        domains = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
        opset = domains.pop("", TARGET_OPSET)
        graph = graph_from_proto(inlined(proto).graph, arrays, opset, path.parent if path else None)
        graph.domains = domains
        graph.metadata = {p.key: p.value for p in proto.metadata_props}
        return normal_form(graph)
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError, AttributeError, AssertionError, NotImplementedError, RuntimeError) as error:
        fault = "a name in it is no text" if isinstance(error, UnicodeError) else specification_fault(proto, arrays)
        if fault is None:
            raise  # nothing is wrong with the model, so something is with netsens
        where = f"'{path}'" if path else "The model"
        raise ModelError(f"{where} is damaged, or breaks ONNX's specification: {fault}.") from error


def specification_fault(proto: onnx.ModelProto, arrays: dict[str, Array]) -> str | None:
    """What ONNX's checker finds wrong with a model that was read; None where it finds nothing."""
    import onnx

    light = onnx.ModelProto()
    light.CopyFrom(proto)
    kept = [t for t in light.graph.initializer if t.name not in arrays]
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    present = {i.name for i in light.graph.input}
    light.graph.input.extend(onnx.helper.make_tensor_value_info(n, 1, a.shape) for n, a in arrays.items() if n not in present)
    try:
        onnx.checker.check_model(light)
    except Exception as error:  # the checker raises C++ errors of its own, and protobuf's
        return " ".join(str(error).split())[:300].rstrip(".")
    return None


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions expanded in place."""
    if not proto.functions:
        return proto
    from onnx import inliner

    proto = with_defaults(proto)
    try:
        return inliner.inline_local_functions(proto, convert_version=True)
    except RuntimeError as error:  # the converter needs types that not every value of a function has
        changed = next(operators_of_another_version(proto), None)
        if changed is not None:
            function, operator = changed
            raise UnsupportedError(
                f"The function '{function}' is written for another opset than the model, {operator} differs between the two, and ONNX's converter cannot "
                f"bring it to the model's ({' '.join(str(error).split())[:120]}); save the model with its functions at its own opset, or inlined."
            ) from error
        return inliner.inline_local_functions(at_one_opset(proto))


def at_one_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions said to be at its own opset."""
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    versions = {o.domain: o.version for o in proto.opset_import}
    for function in whole.functions:
        for imported in function.opset_import:
            imported.version = versions.get(imported.domain, imported.version)
    return whole


def operators_of_another_version(proto: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Operators in functions, as (function, operator), that mean something else at the function's opset than at the model's."""
    import onnx

    versions = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in proto.opset_import}

    def visit(nodes: Iterable[onnx.NodeProto], own: dict[str, int]) -> Iterator[str]:
        for node in nodes:
            domain = "" if node.domain == "ai.onnx" else node.domain
            at, model = own.get(domain), versions.get(domain)
            if at != model and at is not None and model is not None and onnx.defs.has(node.op_type, domain):
                since = [onnx.defs.get_schema(node.op_type, version, domain).since_version for version in (at, model)]
                if since[0] != since[1]:
                    yield node.op_type
            for attribute in node.attribute:
                yield from visit(attribute.g.node, own)

    for function in proto.functions:
        own = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in function.opset_import}
        yield from ((function.name, operator) for operator in visit(function.node, own))


def with_defaults(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the defaults of its functions' attributes written at every call: ONNX's inliner forgets them."""
    import onnx

    defaults = {(f.domain, f.name, f.overload): f.attribute_proto for f in proto.functions if f.attribute_proto}
    if not defaults:
        return proto
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)

    def visit(nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            given = {a.name for a in node.attribute}
            node.attribute.extend(d for d in defaults.get((node.domain, node.op_type, node.overload), ()) if d.name not in given)
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    visit(attribute.g.node)

    visit(whole.graph.node)
    for function in whole.functions:
        visit(function.node)
    return whole


def normal_form(graph: Graph) -> Graph:
    """The graph that rules see."""
    graph = walk(graph, lift_constants)
    graph = unique_names(graph)
    graph = with_dequantized_weights(upgrade(graph))
    graph = settled(walk(graph, spell_out))
    if holds_flexible_attention(graph):
        graph = settled(without_flexible_attention(graph))
    return without_places(settled(without_sequences(graph)) if holds_sequences(graph) else graph)


def without_places(graph: Graph) -> Graph:
    """The scales and the region of a Resize, which exporters store as floats beside the weights, are no parameters: they say where it reads."""
    if not any(_is_resize(n) for n in graph.every_node()):
        return graph

    def weighing(g: Graph) -> set[str]:
        """The outer values, and the graph's own, that its outputs are computed from."""
        needed = set(g.outputs)
        for node in reversed(g.nodes):
            if any(o in needed for o in node.outputs):
                needed.update(node.inputs[:1] if _is_resize(node) else node.inputs)
                needed.update(*(weighing(inner) for _, inner in node.subgraphs()))
        return needed

    needed, read = weighing(graph), {i for n in graph.nodes for i in n.reads()}
    return replace(graph, parameters=[p for p in graph.parameters if p in needed or p not in read])


def _is_resize(node: Node) -> bool:
    return node.op == "Resize" and not node.domain


# Defaults that ONNX's own inference forgets when the attribute is absent: it would give a wrong shape, or reject the node.
_FORGOTTEN: dict[str, dict[str, Any]] = {"STFT": {"onesided": 1}, "MeanVarianceNormalization": {"axes": [0, 2, 3]}}


def spell_out(graph: Graph) -> Graph:
    """Those defaults, explicit; and the mask of a Dropout that may train, which its derivative needs."""
    if not any((n.op in _FORGOTTEN or n.op == "Dropout") and not n.domain for n in graph.nodes):
        return graph
    taken = graph.names()

    def spelled(node: Node) -> Node:
        if node.domain:
            return node
        if node.op == "Dropout" and len(node.inputs) > 2 and node.inputs[2] and not any(node.outputs[1:]):
            return replace(node, outputs=(node.outputs[0], free_name(f"{node.outputs[0]}_mask", taken)))
        return replace(node, attributes={**_FORGOTTEN[node.op], **node.attributes}) if node.op in _FORGOTTEN else node

    return replace(graph, nodes=[spelled(n) for n in graph.nodes])


def lift_constants(graph: Graph) -> Graph:
    """Constant nodes become constants."""
    constants, types, nodes = dict(graph.constants), dict(graph.types), []
    for node in graph.nodes:
        if node.op == "Constant" and not node.domain and "sparse_value" not in node.attributes:
            array: Array = np.asarray(constant_attribute(dict(node.attributes)))
            constants[node.outputs[0]] = array
            types[node.outputs[0]] = constant_type(array)
        else:
            nodes.append(node)
    return replace(graph, nodes=nodes, constants=constants, types=types)


def unique_names(graph: Graph) -> Graph:
    """Values inside subgraphs renamed where two scopes use one name for different values."""
    used: set[str] = set()

    def visit(g: Graph, mapping: dict[str, str], top: bool) -> Graph:
        own = [*g.inputs, *g.constants, *(o for n in g.nodes for o in n.outputs if o)]
        inner = dict(mapping)
        for name in own:
            new = numbered_name(name, used)
            if new != name:
                inner[name] = new
            else:
                inner.pop(name, None)
        nodes: list[Node] = []
        for n in g.nodes:
            attributes = {key: visit(value, inner, False) if isinstance(value, Graph) else value for key, value in n.attributes.items()}
            plain = replace(n, attributes={k: v for k, v in attributes.items() if not isinstance(v, Graph)})
            nodes.append(replace(plain.renamed(inner), attributes=attributes))
        shell = replace(g, nodes=[]).renamed(inner)
        return replace(shell, nodes=nodes)

    return visit(graph, {}, True) if any(True for n in graph.nodes for _ in n.subgraphs()) else graph
