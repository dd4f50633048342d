"""The nodes that were emitted, to be found again: one that computes just what another does is never emitted, and a value leads to the node it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from netsens.graph.graph import Node

CHANCE = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}  # other numbers each time
NEVER_SHARED = CHANCE | {"Dropout"}
Outputs = tuple[str, ...]


class Emitted:
    """Those of one graph; what isn't found in it is looked for in those `around` it."""

    def __init__(self, around: Emitted | None = None) -> None:
        self._around = around
        self._outputs: dict[Any, Outputs] = {}  # by what is computed
        self._producers: dict[str, Node] = {}
        self._on_tape: dict[str, Node] = {}
        self._apart = 0

    def remember(self, node: Node) -> None:
        """A node of the graph."""
        for output in node.outputs:
            self._producers[output] = node
        if not any(node.subgraphs()) and "" not in node.outputs:
            self.share(self.key(node.op, node.domain, node.inputs, node.attributes, len(node.outputs)), node.op, node.outputs)

    def remember_on_tape(self, node: Node) -> None:
        """A node that is emitted beside the graph."""
        self._on_tape.update(dict.fromkeys(node.outputs, node))

    @staticmethod
    def key(op: str, domain: str, inputs: Outputs, attributes: Mapping[str, Any], outputs: int) -> Any:
        """What a node computes, apart from its outputs' names."""
        return op, domain, inputs, _frozen(attributes), outputs

    def share(self, key: Any, op: str, outputs: Outputs) -> None:
        """Gives these outputs to whoever asks for what the key says, unless it is drawn anew each time."""
        if op not in NEVER_SHARED:
            self._outputs.setdefault(key, outputs)

    def found(self, key: Any) -> Outputs | None:
        """The outputs that hold what the key says."""
        scope: Emitted | None = self
        while scope is not None and (scope is self or not self._apart):
            if key in scope._outputs:
                return scope._outputs[key]
            scope = scope._around
        return None

    def producer(self, name: str) -> Node | None:
        """The node that a value comes from."""
        scope: Emitted | None = self
        while scope is not None:
            node = scope._on_tape.get(name) or scope._producers.get(name)
            if node is not None:
                return node
            scope = None if scope._apart else scope._around
        return None

    def holds(self, node: Node, output: str) -> bool:
        """Whether the value comes from just this node of this graph."""
        return self._producers.get(output) is node

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within, nothing emitted before is used again, nor looked through: a simplification that went behind an operand's producer would
        hide that the operand is read."""
        outputs, self._outputs = self._outputs, {}
        producers, self._producers = self._producers, {}
        self._apart += 1
        try:
            yield
        finally:
            self._apart -= 1
            self._outputs = {**self._outputs, **outputs}
            self._producers = {**producers, **self._producers}


def _frozen(attributes: Any) -> Any:
    if isinstance(attributes, dict) or hasattr(attributes, "items"):
        return tuple(sorted((k, _frozen(v)) for k, v in attributes.items()))
    if isinstance(attributes, (list, tuple)):
        return tuple(_frozen(a) for a in attributes)
    if isinstance(attributes, np.ndarray):
        return (attributes.dtype.str, attributes.shape, attributes.tobytes())
    if isinstance(attributes, (int, float, str, bytes)):
        return (type(attributes).__name__, attributes)
    return ("object", id(attributes))
