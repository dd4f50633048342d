"""Which values may be infinite, or no numbers, where the model's results still are finite: what a division, a root or a logarithm gives, until a convolution or a
product of matrices mixes it with others, which then aren't finite either."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from netsens.graph.dtypes import FLOATS
from netsens.graph.graph import Graph, Node

MANY = 1 << 12  # of so many numbers a constant is a weight, whose file need not be read for this
_MIXING = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Those that make of finite numbers finite ones, whatever fills the last block.
FINITE = [
    "Abs", "Add", "And", "Cast", "Clip", "Elu", "Equal", "Erf", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less",
    "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "Or", "Relu", "Sigmoid", "Sign", "Sub", "Sum", "Tanh", "Where", "Xor",
]  # fmt: skip
_TAME = {
    *FINITE, "AveragePool", "BatchNormalization", "Concat", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "Gelu",
    "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Mish", "PRelu", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Resize",
    "ScatterElements", "ScatterND", "Selu", "Shape", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Squeeze", "ThresholdedRelu", "Tile",
    "Transpose", "Unsqueeze",
}  # fmt: skip


class Infinite:
    """Those of one graph, found when first asked for."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._constants: dict[str, bool] = {}

    def __contains__(self, name: str) -> bool:
        return self._constant(name) if name in self._graph.constants else name in self._values

    @cached_property
    def _values(self) -> set[str]:
        found, fixed = set(self._graph.inputs), set(self._graph.constants)
        for node in self._graph.nodes:
            computed = bool(node.inputs) and all(i in fixed for i in node.reads())
            if computed:
                fixed.update(node.outputs)
            if self._may_be(node, computed, found):
                found.update(o for o in node.outputs if o not in self._graph.types or self._graph.types[o].dtype in FLOATS)
        return found

    def _may_be(self, node: Node, fixed: bool, found: set[str]) -> bool:
        """`fixed`: it is computed from constants, and where a division of these isn't finite no result is."""
        reads = node.inputs
        if node.op in _MIXING and not node.domain:
            if int(node.attributes.get("group", 1)) == 1:
                return False
            reads = node.inputs[:1]
        elif node.op == "Div" and not node.domain and not fixed:
            below = self._graph.constants.get(node.inputs[1])
            if below is None or not below.all():
                return True
        elif not fixed and (node.domain or node.op not in _TAME):
            return True
        return any(i in found or (i in self._graph.constants and self._constant(i)) for i in reads)

    def _constant(self, name: str) -> bool:
        if name not in self._constants:
            array = self._graph.constants[name]
            self._constants[name] = array.dtype.kind == "f" and array.size <= MANY and not bool(np.isfinite(array).all())
        return self._constants[name]
