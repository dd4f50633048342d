"""Masks that stay in the layout onnxruntime keeps convolutions in on CPUs, blocks of channels (NCHWc): only a Conv, a pool, a Concat, a sum, a product and a
few activations are computed there, and every other operator takes its operands out of the blocks and what follows puts them back.

In reverse mode the mask of a Relu or of a Clip comes between any two convolutions. As Where(y > 0, g, 0) it costs three reorderings and two slow passes; here it
becomes g times a mask that is computed in blocks, a Conv of one number a channel whose activation, a HardSigmoid, is steep enough to be a step: the least number
above 0, times STEEP twice, is far above 1. On 1x64x56x56, one thread of an EPYC with AVX-512: 72 us instead of 145.
A product turns an infinite cotangent under the mask into NaN, where Where leaves 0. A result that isn't finite is computed again past unread values, and there
the operands are other values, which this leaves alone."""

from __future__ import annotations

import numpy as np

from netsens.graph.blocked_layout import BLOCK
from netsens.graph.graph import Array, Graph, Node, free_name, pruned

DIRECT = 8  # a Conv with fewer input channels reads them as they are
FLOAT = 1
STEEP = float(np.float32(3e38))
ALONE = {"Relu", "Sigmoid", "Tanh"}  # activations computed in blocks by themselves
FUSED = {"Clip", "HardSigmoid", "LeakyRelu"}  # those that are computed there as part of a Conv alone
POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}


def blocked_masks(graph: Graph) -> Graph:
    """The graph with the masks between values in blocks written as what can be computed there."""
    if not any(n.op == "Where" for n in graph.nodes) or not any(n.op == "Conv" for n in graph.nodes):
        return graph
    work = _Blocks(graph)
    for node in graph.nodes:
        work.visit(node)
    if not work.masks:
        return graph
    return pruned(work.graph)


class _Blocks:
    """One walk over a graph: which values onnxruntime has in blocks, and the nodes written over again."""

    def __init__(self, graph: Graph) -> None:
        self.original = graph
        self.graph = graph.copy()
        self.graph.nodes = []
        self.producers: dict[str, Node] = {}
        self.readers = {name: len(nodes) for name, nodes in graph.consumers().items()}
        self.inside: set[str] = set()
        self.fixed = set(graph.constants)
        self.masks: dict[tuple[str, float, float], str] = {}
        self.used = graph.names()

    def visit(self, node: Node) -> None:
        masked = self._masked(node)
        if masked is not None:
            self._append(masked)
            self.inside.add(node.outputs[0])
            return
        self._append(node)
        if node.inputs and not any(node.subgraphs()) and all(i in self.fixed for i in node.reads()):
            self.fixed.update(node.outputs)
        if len(node.outputs) == 1 and not node.domain and self._stays_inside(node):
            self.inside.add(node.outputs[0])

    def _append(self, node: Node) -> None:
        self.graph.nodes.append(node)
        self.producers.update(dict.fromkeys(node.outputs, node))

    # What is in blocks -----------------------------------------------------------------------------------------------

    def _stays_inside(self, node: Node) -> bool:
        inputs = [i for i in node.inputs if i]
        match node.op:
            case "Conv":
                return self._takes_blocks(node)
            case "Add" | "Mul":
                return all(i in self.inside for i in inputs) and self._shape(inputs[0]) == self._shape(inputs[1])
            case "Concat":
                return node.attributes["axis"] == 1 and all(i in self.inside and self._whole_blocks(i) for i in inputs)
            case "BatchNormalization":
                return inputs[0] in self.inside and not node.attributes.get("training_mode")
            case op if op in FUSED:
                return inputs[0] in self.inside and self._ends_a_conv(inputs[0]) and all(i in self.fixed for i in inputs[1:])
            case op if op in ALONE or op in POOLS or op == "Identity":
                return inputs[0] in self.inside
        return False

    def _takes_blocks(self, node: Node) -> bool:
        weight = self._shape(node.inputs[1])
        y = self.original.types.get(node.outputs[0])
        if (
            y is None
            or y.dtype != FLOAT
            or y.rank != 4
            or weight is None
            or not all(isinstance(d, int) for d in weight)
            or not all(i in self.fixed for i in node.inputs[1:] if i)
        ):
            return False
        outputs, inputs = int(weight[0] or 0), int(weight[1] or 0)
        group = int(node.attributes.get("group", 1))
        if group > 1:
            return inputs == 1 and outputs == group and outputs % BLOCK == 0
        return outputs % BLOCK == 0 and (inputs < DIRECT or inputs % BLOCK == 0)

    def _whole_blocks(self, name: str) -> bool:
        shape = self._shape(name)
        return shape is not None and isinstance(shape[1], int) and shape[1] % BLOCK == 0

    def _ends_a_conv(self, name: str) -> bool:
        """Whether the value is a Conv's alone, or that of a normalisation that becomes part of one."""
        node = self.producers.get(name)
        if node is None or self.readers.get(name, 0) != 1:
            return False
        return node.op == "Conv" or (node.op == "BatchNormalization" and self._ends_a_conv(node.inputs[0]))

    def _shape(self, name: str) -> tuple[int | str | None, ...] | None:
        type_ = self.original.types.get(name)
        if type_ is None:
            return self.original.constants[name].shape if name in self.original.constants else None
        return type_.shape

    # Masks -----------------------------------------------------------------------------------------------------------

    def _masked(self, node: Node) -> Node | None:
        """Where(y > 0, g, 0) or Where(low < y < high, g, 0), both in blocks, as a product."""
        if node.op != "Where" or node.domain or self._number(node.inputs[2]) != 0:
            return None
        condition, g = node.inputs[:2]
        bounds = self._bounds(condition)
        if bounds is None:
            return None
        y, low, high = bounds
        shape = self._shape(y)
        if y not in self.inside or shape is None or shape != self._shape(g) or None in shape:
            return None
        channels = shape[1]
        if not isinstance(channels, int) or not self._whole_blocks(y):
            return None
        if g not in self.inside:
            g = self._brought_inside(g, channels)
        if high < np.inf:
            g = self._product(g, self._step(y, channels, high, -1.0), free_name("blocked/masked", self.used))
        return Node("Mul", (g, self._step(y, channels, low, 1.0)), node.outputs, {}, "", node.name)

    def _bounds(self, condition: str) -> tuple[str, float, float] | None:
        """The value that a condition compares, and what it lies between: y > low, or low < y < high."""
        node = self.producers.get(condition)
        if node is None or node.domain or len(node.inputs) != 2:
            return None
        if node.op == "Greater":
            low = self._number(node.inputs[1])
            return None if low is None else (node.inputs[0], low, np.inf)
        if node.op != "And":
            return None
        above, below = (self.producers.get(i) for i in node.inputs)
        if above is None or below is None or (above.op, below.op) != ("Greater", "Less") or above.inputs[0] != below.inputs[0]:
            return None
        low, high = self._number(above.inputs[1]), self._number(below.inputs[1])
        return None if low is None or high is None else (above.inputs[0], low, high)

    def _number(self, name: str) -> float | None:
        array = self.original.constants.get(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype == np.float32 else None

    def _step(self, y: str, channels: int, bound: float, sign: float) -> str:
        """1 where sign * y lies above sign * bound, else 0. Beside a bound other than 0 the difference of two floats is exact enough to keep its sign, and no
        smaller than half their spacing."""
        key = (y, bound, sign)
        if key not in self.masks:
            weight = self._constant(np.full((channels, 1, 1, 1), sign * (STEEP if bound == 0 else 1.0), np.float32))
            bias = () if bound == 0 else (self._constant(np.full(channels, -sign * bound, np.float32)),)
            steep, mask = free_name("blocked/steep", self.used), free_name("blocked/mask", self.used)
            self._append(Node("Conv", (y, weight, *bias), (steep,), {"group": channels}))
            self._append(Node("HardSigmoid", (steep,), (mask,), {"alpha": STEEP, "beta": 0.0}))
            self.graph.types[steep] = self.graph.types[mask] = self.original.types[y]
            self.masks[key] = mask
        return self.masks[key]

    def _brought_inside(self, g: str, channels: int) -> str:
        """g times one, in blocks: what is added to it further on, and its masks, stay there too."""
        output = free_name("blocked/inside", self.used)
        self._append(Node("Conv", (g, self._constant(np.ones((channels, 1, 1, 1), np.float32))), (output,), {"group": channels}))
        self.graph.types[output] = self.original.types[g]
        return output

    def _product(self, a: str, b: str, output: str) -> str:
        self._append(Node("Mul", (a, b), (output,)))
        self.graph.types[output] = self.graph.types[a]
        return output

    def _constant(self, array: Array) -> str:
        name = free_name("blocked/weight", self.used)
        self.graph.constants[name] = array
        return name
