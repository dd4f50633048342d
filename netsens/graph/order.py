"""Puts nodes in the order in which they can run. ONNX asks files for that order; some tools append nodes at the end, and onnxruntime minds as little."""

from __future__ import annotations

from collections.abc import Sequence

from netsens.graph.graph import Node


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, each after those whose results it reads, otherwise in the order given. Nodes in a circle stay where they are."""
    producers = {o: k for k, n in enumerate(nodes) for o in n.outputs if o}
    needs = [{producers[i] for i in n.reads() if i in producers} for n in nodes]
    if all(k > max(need, default=-1) for k, need in enumerate(needs)):
        return list(nodes)
    readers: dict[int, list[int]] = {}
    for k, need in enumerate(needs):
        for producer in need:
            readers.setdefault(producer, []).append(k)
    waiting = [len(need) for need in needs]
    order: list[int] = []
    for first in range(len(nodes)):
        ready = [first] if waiting[first] == 0 else []
        while ready:
            k = ready.pop()
            waiting[k] = -1
            order.append(k)
            for reader in readers.get(k, ()):
                waiting[reader] -= 1
                if waiting[reader] == 0 and reader < first:  # a later one comes in its own turn
                    ready.append(reader)
    return [nodes[k] for k in order] if len(order) == len(nodes) else list(nodes)
