"""Outputs before their last Reshape. onnxruntime copies what it reshapes into an output, which for the gradients of large weights takes as long as some
products; an array's shape costs nothing to set."""

from __future__ import annotations

from dataclasses import replace

from netsens.graph.graph import Graph, TensorType


def without_last_reshapes(graph: Graph) -> tuple[Graph, dict[str, tuple[int, ...]]]:
    """The graph whose outputs may have other axes, and the shapes that these are to be given."""
    producers, consumers = graph.producers(), graph.consumers()
    outputs: dict[str, str] = {}  # what becomes an output, and which
    shapes: dict[str, tuple[int, ...]] = {}
    dropped: set[str] = set()
    for output in graph.outputs:
        node = producers.get(output)
        path = [output]
        while node is not None and node.op == "Identity" and not node.domain and node.inputs[0] not in graph.outputs and len(consumers[node.inputs[0]]) == 1:
            path.append(node.inputs[0])
            node = producers.get(node.inputs[0])
        if node is None or node.op != "Reshape" or node.domain or output in consumers or output in shapes:
            continue
        source, target = node.inputs[0], graph.constants.get(node.inputs[1])
        if target is None or not (target > 0).all() or source not in producers or source in graph.outputs or len(consumers[source]) > 1:
            continue
        outputs[source], shapes[output] = output, tuple(int(d) for d in target)
        dropped.update(path)
    if not shapes:
        return graph, {}
    nodes = [
        replace(node, outputs=tuple(outputs.get(o, o) for o in node.outputs)) if any(o in outputs for o in node.outputs) else node
        for node in graph.nodes
        if node.outputs[0] not in dropped
    ]
    types = {**graph.types, **{output: TensorType(graph.types[output].dtype) for output in shapes}}
    return replace(graph, nodes=nodes, types=types), shapes
