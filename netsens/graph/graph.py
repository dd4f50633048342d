"""The graph that everything works on: nodes, tensor types and constants, in ONNX's own vocabulary.

Values are names. Nodes are immutable; a graph's lists are not, but every walk builds a new graph and leaves the old one alone.
Large constants are views into the model file and are never copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Dim = int | str | None
Shape = tuple[Dim, ...]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class TensorType:
    """What is known of a value before anything runs. `dtype` is ONNX's element type; `shape` is None where even the rank
    is unknown; a dimension is a number, a symbol, or None. `container` is "sequence" or "optional" for those, else ""."""

    dtype: int
    shape: Shape | None = None
    container: str = ""

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. An absent optional input is the empty name. Attributes are Python values: int, float, str, bytes,
    lists of them, a NumPy array for a tensor, a `Graph` for a subgraph; anything rarer stays ONNX's own protobuf."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    name: str = ""

    @property
    def label(self) -> str:
        """How messages name this node."""
        operator = f"{self.domain}.{self.op}" if self.domain else self.op
        return f"{operator} '{self.name or next((o for o in self.outputs if o), '')}'"

    def subgraphs(self) -> Iterator[tuple[str, Graph]]:
        for key, value in self.attributes.items():
            if isinstance(value, Graph):
                yield key, value

    def reads(self) -> Iterator[str]:
        """Every value this node needs, those captured by its subgraphs included."""
        for name in self.inputs:
            if name:
                yield name
        for _, graph in self.subgraphs():
            yield from graph.captured()

    def renamed(self, mapping: Mapping[str, str]) -> Node:
        """The same node over other value names (subgraphs' captured values too)."""
        attributes = {k: v.renamed(mapping) if isinstance(v, Graph) else v for k, v in self.attributes.items()}
        return replace(
            self, inputs=tuple(mapping.get(i, i) for i in self.inputs), outputs=tuple(mapping.get(o, o) for o in self.outputs), attributes=attributes
        )


@dataclass(slots=True)
class Graph:
    """A model's graph, or a subgraph that an If, Loop or Scan holds.

    `inputs` are the true inputs only: an initializer that a file also lists as an input (opsets before 9) is a constant
    here. `parameters` are the constants that the file calls initializers and that hold floating point numbers."""

    nodes: list[Node]
    inputs: list[str]
    outputs: list[str]
    constants: dict[str, Array]
    types: dict[str, TensorType]
    opset: int = 0
    domains: dict[str, int] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)
    name: str = "graph"
    metadata: dict[str, str] = field(default_factory=dict)
    straight_through: bool = False  # whether rounding to quantised integers lets derivatives pass
    # Of some values, one operation that says what many nodes compute together, for whoever runs the graph with kernels of its own. Reading it is never needed.
    wholes: dict[str, Node] = field(default_factory=dict)

    def copy(self) -> Graph:
        """A graph whose lists may be changed without touching this one (nodes and arrays are shared)."""
        return replace(
            self, nodes=list(self.nodes), inputs=list(self.inputs), outputs=list(self.outputs), constants=dict(self.constants),
            types=dict(self.types), domains=dict(self.domains), parameters=list(self.parameters), metadata=dict(self.metadata),
            wholes=dict(self.wholes),
        )  # fmt: skip

    def every_node(self) -> Iterator[Node]:
        """The nodes, those of subgraphs after the node that holds them."""
        for node in self.nodes:
            yield node
            for _, graph in node.subgraphs():
                yield from graph.every_node()

    def producers(self) -> dict[str, Node]:
        return {o: n for n in self.nodes for o in n.outputs if o}

    def consumers(self) -> dict[str, list[Node]]:
        result: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads()):
                result.setdefault(name, []).append(node)
        return result

    def captured(self) -> list[str]:
        """The outer values that this subgraph reads."""
        own = {*self.inputs, *self.constants}
        found: dict[str, None] = {}
        for node in self.nodes:
            for name in node.reads():
                if name not in own:
                    found[name] = None
            own.update(node.outputs)
        for name in self.outputs:
            if name and name not in own:
                found[name] = None
        return list(found)

    def renamed(self, mapping: Mapping[str, str]) -> Graph:
        """The same graph with values renamed everywhere."""

        def new(name: str) -> str:
            return mapping.get(name, name)

        return replace(
            self,
            nodes=[n.renamed(mapping) for n in self.nodes],
            inputs=[new(i) for i in self.inputs],
            outputs=[new(o) for o in self.outputs],
            constants={new(k): v for k, v in self.constants.items()},
            types={new(k): v for k, v in self.types.items()},
            parameters=[new(p) for p in self.parameters],
            wholes={new(k): n.renamed(mapping) for k, n in self.wholes.items()},
        )

    def names(self) -> set[str]:
        """Every value name in use, in subgraphs too."""
        used = {*self.inputs, *self.outputs, *self.constants}
        for node in self.nodes:
            used.update(node.inputs)
            used.update(node.outputs)
            for _, graph in node.subgraphs():
                used |= graph.names()
        used.discard("")
        return used


def free_name(name: str, taken: set[str]) -> str:
    """`name`, or the like of it where that is taken; it is taken from then on."""
    free, k = name, len(taken)
    while free in taken:
        free, k = f"{name}_{k}", k + 1
    taken.add(free)
    return free


def numbered_name(name: str, taken: set[str]) -> str:
    """The same for a value of the model's own, whose name is read by people: numbered from 1, so that it doesn't depend on how many names there are."""
    free, k = name, 1
    while free in taken:
        free, k = f"{name}~{k}", k + 1
    taken.add(free)
    return free


def shape_text(shape: Sequence[Dim], single: str = "") -> str:
    """`1x3xNx?` for a sentence; `single` where there are no axes."""
    return "x".join("?" if size is None else str(size) for size in shape) or single


def walk(graph: Graph, visit: Callable[[Graph], Graph]) -> Graph:
    """`visit` applied to the graph's subgraphs first, innermost first, then to the graph itself."""
    nodes = []
    for node in graph.nodes:
        changed = {key: walk(sub, visit) for key, sub in node.subgraphs()}
        nodes.append(replace(node, attributes={**node.attributes, **changed}) if changed else node)
    return visit(replace(graph, nodes=nodes))


def pruned(graph: Graph, outputs: Iterable[str] | None = None) -> Graph:
    """The graph with only what `outputs` (default: its own) need; inputs stay, since callers feed them."""
    wanted = list(graph.outputs if outputs is None else outputs)
    needed = set(wanted)
    nodes = []
    for node in reversed(graph.nodes):
        if any(o in needed for o in node.outputs):
            nodes.append(node)
            needed.update(node.reads())
    nodes.reverse()
    constants = {k: v for k, v in graph.constants.items() if k in needed}
    return replace(graph, nodes=nodes, outputs=wanted, constants=constants, parameters=[p for p in graph.parameters if p in constants])
