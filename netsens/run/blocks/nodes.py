"""Nodes and constants added to a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netsens.graph.graph import Array, Graph, Node, TensorType, free_name

FLOAT, INT64, BOOL = 1, 7, 9


class Nodes:
    """A graph that nodes are added to. `memory` holds what was written for one value and may serve another."""

    def __init__(self, graph: Graph, block: int, used: set[str]) -> None:
        self.graph, self.block = graph, block
        self.memory: dict[Any, str] = {}
        self._used = used

    def filled(self, channels: int) -> int:
        """Channels filled up to whole blocks."""
        return -(-channels // self.block) * self.block

    def write(self, op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> None:
        self.graph.nodes.append(Node(op, tuple(inputs), (output,), attributes, domain))

    def emit(self, op: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        name = free_name(f"blocks/{op.lower()}", self._used)
        self.write(op, inputs, name, domain, **attributes)
        return name

    def ints(self, *values: int) -> str:
        return self.array(np.asarray(values, np.int64))

    def array(self, array: Array) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.memory:
            name = free_name("blocks/constant", self._used)
            self.memory[key] = name
            self.graph.constants[name] = array
            self.graph.types[name] = TensorType({"f": FLOAT, "i": INT64, "b": BOOL}[array.dtype.kind], array.shape)
        return self.memory[key]

    def reshaped(self, name: str, shape: Sequence[int]) -> str:
        return self.emit("Reshape", [name, self.ints(*shape)])
