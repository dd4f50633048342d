"""Chains of nodes that give a value other axes and move nothing, as one Reshape each. A batch of one, whose length is known when a session is opened, makes such of
transposes and sums over it too; onnxruntime runs each by itself, and copies at some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from netsens.graph.dtypes import INT64
from netsens.graph.graph import Graph, Node, TensorType, free_name, pruned

_VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
_SUMS = {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"}


def joined_views(graph: Graph, lengths: Mapping[str, int]) -> Graph:
    """The graph with the fewest such nodes. `lengths` are those of symbolic dimensions, for a graph that runs on no others."""
    work = _Views(graph, lengths)
    nodes = [work.seen(node) for node in graph.nodes]
    if not work.constants:
        return graph
    return pruned(_with(graph, nodes, work))


def _with(graph: Graph, nodes: list[Node], work: _Views) -> Graph:
    result = graph.copy()
    result.nodes = nodes
    for shape, name in work.constants.items():
        result.constants[name] = np.asarray(shape, np.int64)
        result.types[name] = TensorType(INT64, (len(shape),))
    return result


class _Views:
    """Where values under other axes come from, and the shapes that are known in full."""

    def __init__(self, graph: Graph, lengths: Mapping[str, int]) -> None:
        self.graph = graph
        self.shapes: dict[str, tuple[int, ...]] = {name: array.shape for name, array in graph.constants.items()}
        self.sources: dict[str, str] = {}
        self.constants: dict[tuple[int, ...], str] = {}
        self._used = graph.names()
        for name, type_ in graph.types.items():
            shape = tuple(lengths.get(d, d) if isinstance(d, str) else d for d in type_.shape or (None,))
            if not type_.container and all(isinstance(d, int) for d in shape):
                self.shapes[name] = tuple(d for d in shape if isinstance(d, int))

    def seen(self, node: Node) -> Node:
        """The node, or the one Reshape that stands for a chain which it ends."""
        if node.domain or not node.inputs or len(node.outputs) != 1 or node.inputs[0] in self.graph.constants:
            return node
        x, y = node.inputs[0], node.outputs[0]
        shape = self._shape(node)
        if shape is None or not self._moves_nothing(node, shape):
            return node
        self.shapes[y] = shape
        source = self.sources.get(x, x)
        self.sources[y] = source
        if node.op == "Identity" or (source == x and node.op in _VIEWS):
            return node
        if 0 in shape:
            return node
        if shape not in self.constants:
            self.constants[shape] = free_name("view/shape", self._used)
        return Node("Reshape", (source, self.constants[shape]), (y,), {}, "", node.name)

    def _shape(self, node: Node) -> tuple[int, ...] | None:
        """The shape of what a node gives, where it is known in full."""
        known = self.shapes.get(node.outputs[0])
        before = self.shapes.get(node.inputs[0])
        target = self.graph.constants.get(node.inputs[1]) if node.op == "Reshape" else None
        if known is not None or target is None or before is None or node.attributes.get("allowzero"):
            return known
        lengths = [before[k] if d == 0 else int(d) for k, d in enumerate(target)]
        if -1 in lengths:
            rest = -prod(lengths)
            if not rest:
                return None
            lengths[lengths.index(-1)] = prod(before) // rest
        return tuple(lengths)

    def _moves_nothing(self, node: Node, after: Sequence[int]) -> bool:
        if node.op in _VIEWS:
            return True
        before = self.shapes.get(node.inputs[0])
        if before is None:
            return False
        if node.op == "Transpose":
            perm = list(node.attributes.get("perm") or range(len(before))[::-1])
            kept = [p for p in perm if before[p] != 1]
            return kept == sorted(kept)
        # A sum over axes of length one.
        return node.op in _SUMS and len(node.inputs) == 2 and prod(before) == prod(after) and self._over_ones(node, before)

    def _over_ones(self, node: Node, before: Sequence[int]) -> bool:
        axes = self.graph.constants.get(node.inputs[1])
        return axes is not None and axes.size > 0 and all(before[int(a)] == 1 for a in axes)
