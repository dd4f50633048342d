"""The graph at hand while sequences are resolved: what is known of its values, and the nodes that it is to have instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from netsens.graph.dtypes import INT64
from netsens.graph.graph import Array, Dim, Graph, Node, TensorType, numbered_name
from netsens.graph.sequences.known import OPERATORS, Known, Listed


class Scope:
    """A graph, and those around it. `loops` says whether a Loop may stop carrying a sequence."""

    def __init__(self, graph: Graph, loops: bool) -> None:
        self.loops = loops
        self.used = graph.names()
        self.made: set[str] = set()  # the values that are new
        self.copied: dict[str, TensorType] = {}  # types of values in copies of a SequenceMap's body
        self.fed = {d for name in graph.inputs for d in (graph.types[name].shape if name in graph.types else None) or () if isinstance(d, str)}
        self.graphs: list[Graph] = []
        self.known: dict[str, Known] = {}
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}

    @contextmanager
    def inside(self, graph: Graph, known: Mapping[str, Known]) -> Iterator[None]:
        """Within, this graph is at hand; `known` are the sequences of its inputs and of the graphs around it."""
        outside = self.graphs, self.known, self.nodes, self.constants
        self.graphs, self.known, self.nodes, self.constants = [graph, *self.graphs], dict(known), [], dict(graph.constants)
        try:
            yield
        finally:
            self.graphs, self.known, self.nodes, self.constants = outside

    def type(self, name: str) -> TensorType:
        return self.copied.get(name) or next((g.types[name] for g in self.graphs if name in g.types), TensorType(0))

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        if name in self.constants:
            return self.constants[name].shape
        return self.type(name).shape

    def array(self, name: str) -> Array | None:
        found = self.constants.get(name)
        return found if found is not None else next((g.constants[name] for g in self.graphs if name in g.constants), None)

    def number(self, name: str) -> int | None:
        found = self.array(name)
        return None if found is None or found.size != 1 else int(found.reshape(-1)[0])

    def fresh(self, base: str) -> str:
        return numbered_name(base, self.used)

    def needed(self, outputs: Sequence[str]) -> list[Node]:
        """The scope's nodes without those over sequences, and those made here, that nobody reads."""
        read, kept = set(outputs), []
        for node in reversed(self.nodes):
            spare = (node.op in OPERATORS and not node.domain) or all(o in self.made or self.type(o).container for o in node.outputs if o)
            if spare and not any(o in read for o in node.outputs):
                continue
            read.update(node.reads())
            kept.append(node)
        return kept[::-1]

    def emit(self, op: str, inputs: Sequence[str], hint: str, attributes: Mapping[str, Any] | None = None, to: str = "") -> str:
        """A node with one output, called `to` where that is given."""
        output = to or self.fresh(hint)
        self.made.add(output)
        self.nodes.append(Node(op, tuple(inputs), (output,), dict(attributes or {})))
        return output

    def constant(self, array: Any, hint: str) -> str:
        name = self.fresh(hint)
        self.constants[name] = np.asarray(array)
        return name

    def listed(self, name: str) -> tuple[str, ...] | None:
        known = self.known.get(name)
        return known.names if isinstance(known, Listed) else None

    def keep(self, node: Node, known: Known) -> bool:
        """The node's output is known; the node itself goes away later, where nobody reads it."""
        self.known[node.outputs[0]] = known
        self.nodes.append(node)
        return True

    def copy(self, node: Node, source: str) -> bool:
        """The node's output is this value."""
        known = self.known.get(source)
        if known is not None:
            self.known[node.outputs[0]] = known
        self.emit("Identity", [source], "", to=node.outputs[0])
        return True

    def vector(self, number: int, hint: str) -> str:
        return self.constant(np.asarray([number], np.int64), f"{hint}/number")

    def fixed(self, shape: Sequence[Dim]) -> bool:
        """Whether the shape is the same whenever it is met, in every turn of a loop too."""
        return all(isinstance(d, int) or d in self.fed for d in shape)

    def stacked(self, names: Sequence[str], axis: int, hint: str, to: str = "") -> str:
        axes = self.constant(np.asarray([axis], np.int64), f"{hint}/axes")
        return self.emit("Concat", [self.emit("Unsqueeze", [n, axes], f"{hint}/{k}") for k, n in enumerate(names)], f"{hint}/stack", {"axis": axis}, to)

    def whole(self, number: str, hint: str) -> str:
        """A number as int64, which shapes are."""
        return number if self.type(number).dtype in (0, INT64) else self.emit("Cast", [number], f"{hint}/number", {"to": INT64})
