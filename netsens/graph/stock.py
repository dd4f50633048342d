"""Spellings that stock onnxruntime's optimiser breaks, and the plain ones it is given instead: the same values, in operators it takes whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from netsens.graph.dtypes import INT64
from netsens.graph.graph import Graph, Node, TensorType, free_name, walk


def plainly_spelled(graph: Graph) -> Graph:
    """The graph without second names of constants, and with the amounts of each Pad for all axes."""
    graph = without_second_names(graph)
    return walk(graph, with_whole_pads) if any(_chooses_axes(n) for n in graph.every_node()) else graph


def without_second_names(graph: Graph) -> Graph:
    """Identity nodes of constants resolved: onnxruntime, which resolves them too, loses some that fused nodes and others read."""
    constant: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "Identity" and not node.domain:
            name = constant.get(node.inputs[0], node.inputs[0])
            if name in graph.constants:
                constant[node.outputs[0]] = name
    second = {k: v for k, v in constant.items() if k not in graph.outputs}
    if not second:
        return graph
    nodes = [n.renamed(second) for n in graph.nodes if n.outputs[0] not in second]
    return replace(graph, nodes=nodes, types={k: v for k, v in graph.types.items() if k not in second})


def _chooses_axes(node: Node) -> bool:
    return node.op == "Pad" and not node.domain and len(node.inputs) > 3 and bool(node.inputs[3])


def with_whole_pads(graph: Graph) -> Graph:
    """Pads for all axes where they were given for chosen ones: onnxruntime, moving a Transpose past a Pad, takes them to be for all."""
    if not any(_chooses_axes(n) for n in graph.nodes):
        return graph
    constants, types, nodes = dict(graph.constants), dict(graph.types), []
    taken = graph.names()

    def fresh(name: str, shape: tuple[int, ...]) -> str:
        name = free_name(name, taken)
        types[name] = TensorType(INT64, shape)
        return name

    for node in graph.nodes:
        type_ = graph.types.get(node.inputs[0]) if _chooses_axes(node) else None
        chosen = graph.constants.get(node.inputs[3]) if type_ is not None else None
        if type_ is None or type_.rank is None or chosen is None:
            nodes.append(node)
            continue
        rank, axes = type_.rank, [int(a) for a in chosen.ravel()]
        place = {a % rank: k for k, a in enumerate(axes)}
        # The amount before each axis and that after it, by place among those given, with a zero added as their last.
        order = [place.get(a, 2 * len(axes)) if before else place.get(a, len(axes)) + len(axes) for before in (True, False) for a in range(rank)]
        pads = fresh(f"{node.outputs[0]}/pads", (2 * rank,))
        given = graph.constants.get(node.inputs[1])
        if given is not None:
            constants[pads] = np.append(given, 0)[order].astype(np.int64)
        else:
            none, places, amounts = (
                fresh(f"{pads}/{what}", shape) for what, shape in (("none", (1,)), ("order", (2 * rank,)), ("given", (2 * len(axes) + 1,)))
            )
            constants[none], constants[places] = np.zeros(1, np.int64), np.asarray(order, np.int64)
            nodes.append(Node("Concat", (node.inputs[1], none), (amounts,), {"axis": 0}))
            nodes.append(Node("Gather", (amounts, places), (pads,), {"axis": 0}))
        nodes.append(replace(node, inputs=(node.inputs[0], pads, *node.inputs[2:3])))
    return replace(graph, nodes=nodes, constants=constants, types=types)
