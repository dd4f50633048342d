"""Writes out composite operators in the operators that their rules expand them to: for evaluators that lack them, such as ONNX's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from netsens.graph.emit import Builder
from netsens.graph.graph import Graph, Node, TensorType, walk
from netsens.rules.body import has_body, specification_body
from netsens.rules.words import rule_of, view


def not_standard(node: Node) -> bool:
    """Whether a node is onnxruntime's own (SimplifiedLayerNormalization stands in the standard's domain without being of it)."""
    return node.domain == "com.microsoft" or node.op == "SimplifiedLayerNormalization"


def written_out(graph: Graph, which: Callable[[Node], bool] = not_standard) -> Graph:
    """The graph, subgraphs included, with the nodes that `which` picks expanded by their rule, or by the specification's body for them. Nodes with neither
    stay."""

    def visit(g: Graph) -> Graph:
        if not any(_expands(node, which, g.opset) for node in g.nodes):
            return g
        op = Builder(replace(g.copy(), nodes=[]), prefix="standard", taken=g.names())
        for node in g.nodes:
            types = [g.types.get(o, TensorType(0)) for o in node.outputs]
            if not _expands(node, which, g.opset):
                op.add(node, types)
                continue
            rule = rule_of(node)
            expand = rule.expansion if rule is not None and rule.expansion is not None else specification_body
            outputs = expand(op, view(op, node, [True] * len(node.inputs)))
            for name, value in zip(node.outputs, outputs, strict=False):
                if name and value is not None:
                    op.add(Node("Identity", (value.name,), (name,)), [value.type])
        return op.graph

    return walk(graph, visit)


def _expands(node: Node, which: Callable[[Node], bool], opset: int) -> bool:
    rule = rule_of(node)
    return which(node) and ((rule is not None and rule.expansion is not None) or has_body(node, opset))
