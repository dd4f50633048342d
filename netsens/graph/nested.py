"""What normal form does with the weights inside If, Loop and Scan: they are lifted out, to be parameters like any other. (The shapes that
a Loop keeps, and an If whose condition follows from shapes, are the matter of `propagate`.)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from netsens.graph.dtypes import is_float
from netsens.graph.graph import Array, Graph, Node
from netsens.graph.propagate import infer_types


def settled(graph: Graph) -> Graph:
    """The graph with types, its subgraphs included, and without the Ifs that shapes decide."""
    return infer_types(lifted(graph) if any(True for node in graph.nodes for _ in node.subgraphs()) else graph)


def lifted(graph: Graph) -> Graph:
    """Floating point constants of subgraphs moved to the graph around them all, where they are parameters like any other and are stored once. Names
    are unique already."""
    constants: dict[str, Array] = {}
    parameters: list[str] = []

    def strip(g: Graph) -> Graph:
        nodes = [_with_subgraphs(n, {k: strip(sub) for k, sub in n.subgraphs()}) for n in g.nodes]
        weights = {k: v for k, v in g.constants.items() if is_float(v.dtype) and k not in g.outputs}
        constants.update(weights)
        parameters.extend(p for p in g.parameters if p in weights)
        kept = {k: v for k, v in g.constants.items() if k not in weights}
        return replace(g, nodes=nodes, constants=kept, parameters=[p for p in g.parameters if p not in weights])

    nodes = [_with_subgraphs(n, {k: strip(sub) for k, sub in n.subgraphs()}) for n in graph.nodes]
    return replace(graph, nodes=nodes, constants={**graph.constants, **constants}, parameters=[*graph.parameters, *parameters])


def _with_subgraphs(node: Node, subgraphs: Mapping[str, Graph]) -> Node:
    return replace(node, attributes={**node.attributes, **subgraphs}) if subgraphs else node
