"""Sequences and optionals turned into the tensors that they hold, wherever which tensors those are is known without running the model, so that rules meet
tensors alone. What stays (a sequence that only the data decides) is left as it is."""

from __future__ import annotations

from netsens.graph.graph import Graph, walk
from netsens.graph.sequences.branches import inserted_after_branches
from netsens.graph.sequences.known import holds_sequences
from netsens.graph.sequences.scope import Scope
from netsens.graph.sequences.subgraphs import resolved

__all__ = ["holds_sequences", "without_sequences"]


def without_sequences(graph: Graph) -> Graph:
    """The graph, typed, with the sequences that are known resolved; the types of new values are for inference to find."""
    if not holds_sequences(graph):
        return graph
    graph = walk(graph, inserted_after_branches)
    result = resolved(Scope(graph, loops=True), graph, {})
    # A Loop that no longer carries a sequence which someone still reads is left as it was.
    return result if _is_closed(result, set()) else resolved(Scope(graph, loops=False), graph, {})


def _is_closed(graph: Graph, outer: set[str]) -> bool:
    """Whether everything that is read is there."""
    there = {*outer, *graph.inputs, *graph.constants}
    for node in graph.nodes:
        if not there.issuperset(i for i in node.inputs if i) or not all(_is_closed(g, there) for _, g in node.subgraphs()):
            return False
        there.update(node.outputs)
    return there.issuperset(graph.outputs)
