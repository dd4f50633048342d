"""The graph of a model in normal form: read from its source when it is first needed, and as its inputs show it where the file leaves ranks open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsens.graph.graph import Array, Graph, TensorType, walk
from netsens.run.feeds import Feeds, fed

# What builds graphs is imported where it is needed: a gradient graph that comes from the cache needs none of it.
if TYPE_CHECKING:
    import onnx

Run = Callable[[Graph, Sequence[str], Mapping[str, Array]], list[Any]]  # these values of the graph at these inputs


def read_graph(source: str | Path | bytes | onnx.ModelProto, compute_dtype: str | None) -> Graph:
    """The model's normal form, without what only onnxruntime's training or one kind of processor knows, computed in that precision (None: in its own)."""
    from netsens.graph.blocked_layout import holds_blocked_layout, without_blocked_layout
    from netsens.graph.normal import load_graph
    from netsens.modes.gradient_operator import without_gradient_operators

    graph = without_gradient_operators(load_graph(source))
    if holds_blocked_layout(graph):
        from netsens.run.channel_block import channel_block

        graph = without_blocked_layout(graph, channel_block())
    if compute_dtype is not None:
        from netsens.graph.dtypes import DOUBLE, FLOAT
        from netsens.graph.precision import in_precision

        graph = in_precision(graph, FLOAT if compute_dtype == "float32" else DOUBLE)
    return graph


class ModelGraph:
    """A graph, or what reads it. `inputs` are the model's inputs where they are known without reading it."""

    def __init__(self, graph: Graph | Callable[[], Graph], straight_through: bool, inputs: Mapping[str, TensorType] | None = None) -> None:
        self._read = graph if callable(graph) else None
        self._straight_through = straight_through
        self._inputs = None if inputs is None else dict(inputs)
        self._observed: dict[Any, Graph] = {}
        if not callable(graph):
            self.graph = self._marked(graph)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; what runs showed is seen anew there."""
        apart = {"_observed", "_symbols_apart", "unknown"}
        return {**{name: value for name, value in self.__dict__.items() if name not in apart}, "_observed": {}}

    def without_source(self) -> None:
        """Reads the graph now, and forgets what it is read from."""
        assert self.graph is not None
        self._read = self._inputs = None

    @cached_property
    def graph(self) -> Graph:
        """The whole model; read when it is first needed."""
        assert self._read is not None
        return self._marked(self._read())

    def _marked(self, graph: Graph) -> Graph:
        return walk(graph, lambda g: replace(g, straight_through=self._straight_through))

    @property
    def is_read(self) -> bool:
        return "graph" in self.__dict__

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The model's inputs, with their types."""
        if self._inputs is not None and not self.is_read:
            return self._inputs
        return {name: self.graph.types[name] for name in self.graph.inputs}

    def feeds(self, inputs: Feeds | Any) -> dict[str, Array]:
        """The inputs as arrays of the model's dtypes; raises `InputError` for one that is missing, unknown or does not fit."""
        return fed(inputs, self.inputs, lambda: self.graph.constants)

    # Where the file doesn't say how many axes a value has -----------------------------------------------------------------------

    @cached_property
    def unknown(self) -> set[str]:
        """The values whose ranks inference could not tell."""
        from netsens.graph.observe import unknown_ranks

        return set(unknown_ranks(self.graph))

    @cached_property
    def _symbols_apart(self) -> Graph:
        from netsens.graph.observe import symbols_apart

        return symbols_apart(self.graph)

    def observed(self, feeds: Mapping[str, Array], run: Run) -> Graph:
        """The graph with the ranks that inference could not tell, as a run on these inputs shows them. Where an If gives tensors of one rank or
        another, the graph is that of the branches which these inputs take, asked anew each time."""
        from netsens.graph.observe import contradictions, observed, specialised

        graph = self.graph
        if contradictions(graph, feeds):
            graph = self._symbols_apart
        if not self.unknown:
            return graph
        branching = any(n.op == "If" and any(o in self.unknown for o in n.outputs) for n in graph.every_node())
        seen = (specialised if branching else observed)(graph, feeds, run)
        key = tuple(n.outputs for n in seen.nodes), tuple(t.rank for t in seen.types.values())
        return self._observed.setdefault(key, seen)
