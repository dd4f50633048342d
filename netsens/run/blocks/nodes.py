"""Nodes and constants added to a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netsens.graph.dtypes import BOOL, FLOAT, INT64
from netsens.graph.fold import FOLDS, fold
from netsens.graph.graph import Array, Graph, Node, TensorType, free_name


class Nodes:
    """A graph that nodes are added to. `memory` holds what was written for one value and may serve another. What follows from constants is computed at once, up to
    `most` elements; onnxruntime would take several times as long."""

    def __init__(self, graph: Graph, block: int, most: int | None) -> None:
        self.graph, self.block, self.most = graph, block, most
        self.producers = graph.producers()
        self._computed: dict[str, Array | None] = {}
        self.memory: dict[Any, str] = {}
        self.used = graph.names()

    def filled(self, channels: int) -> int:
        """Channels filled up to whole blocks."""
        return -(-channels // self.block) * self.block

    def write(self, op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> None:
        self.graph.nodes.append(Node(op, tuple(inputs), (output,), attributes, domain))

    def emit(self, op: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        name = free_name(f"blocks/{op.lower()}", self.used)
        node = Node(op, tuple(inputs), (name,), attributes, domain)
        array = self._folded(node)
        if array is None:
            self.graph.nodes.append(node)
        else:
            self.graph.constants[name] = array
        return name

    def computed(self, name: str) -> Array | None:
        """The array that a value is, where it follows from constants; None for others, and for those that are too large."""
        if name in self.graph.constants:
            return self.graph.constants[name]
        if name not in self._computed:
            node = self.producers.get(name)
            self._computed[name] = self._folded(node) if node is not None and len(node.outputs) == 1 else None
        return self._computed[name]

    def _folded(self, node: Node) -> Array | None:
        if node.domain or not node.inputs or node.op not in FOLDS:
            return None
        arrays = [self.computed(i) for i in node.inputs]
        if any(a is None for a in arrays):
            return None
        result = fold(node.op, [a for a in arrays if a is not None], dict(node.attributes))
        return None if result is None or (self.most is not None and result.size > self.most) else result

    def ints(self, *values: int) -> str:
        return self.array(np.asarray(values, np.int64))

    def array(self, array: Array) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.memory:
            name = free_name("blocks/constant", self.used)
            self.memory[key] = name
            self.graph.constants[name] = array
            self.graph.types[name] = TensorType({"f": FLOAT, "i": INT64, "b": BOOL}[array.dtype.kind], array.shape)
        return self.memory[key]

    def reshaped(self, name: str, shape: Sequence[int]) -> str:
        return self.emit("Reshape", [name, self.ints(*shape)])
