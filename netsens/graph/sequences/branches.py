"""What a branch of an If appends to a sequence, appended behind the If instead: the branches then hand on tensors."""

from __future__ import annotations

from dataclasses import replace

from netsens.graph.graph import Graph, Node, free_name, pruned


def inserted_after_branches(graph: Graph) -> Graph:
    """Ifs both of whose branches append a tensor to the same sequence of a graph around them choose the tensor, and one SequenceInsert follows."""
    if not any(node.op == "If" and not node.domain for node in graph.nodes):
        return graph
    taken, nodes = graph.names(), list[Node]()
    types = dict(graph.types)
    for node in graph.nodes:
        if node.op != "If" or node.domain:
            nodes.append(node)
            continue
        branches: dict[str, Graph] = dict(node.subgraphs())
        outputs, after = list(node.outputs), list[Node]()
        for k, output in enumerate(node.outputs):
            inserts = [_appended(branch, branch.outputs[k]) for branch in branches.values()]
            sequences = {insert.inputs[0] for insert in inserts if insert is not None}
            if None in inserts or len(sequences) != 1:
                continue
            (sequence,) = sequences
            outputs[k] = element = free_name(f"{output or sequence}/element", taken)
            for (key, branch), insert in zip(list(branches.items()), inserts, strict=True):
                assert insert is not None
                branches[key] = pruned(branch, [insert.inputs[1] if i == k else o for i, o in enumerate(branch.outputs)])
                known = branch.types.get(insert.inputs[1])
                if known is not None:
                    types[element] = known if types.get(element, known) == known else replace(known, shape=None)
            if output:
                after.append(Node("SequenceInsert", (sequence, element), (output,)))
        nodes += [replace(node, outputs=tuple(outputs), attributes={**node.attributes, **branches}), *after]
    return replace(graph, nodes=nodes, types=types)


def _appended(branch: Graph, output: str) -> Node | None:
    """The SequenceInsert at the end of an outer sequence that gives a branch's output."""
    producers = branch.producers()
    while output in producers and producers[output].op == "Identity" and not producers[output].domain:
        output = producers[output].inputs[0]
    insert = producers.get(output)
    own = {*branch.constants, *producers}
    appends = insert is not None and insert.op == "SequenceInsert" and len([i for i in insert.inputs if i]) == 2 and insert.inputs[0] not in own
    return insert if appends else None
