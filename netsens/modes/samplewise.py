"""Convolutional models that compute each sample of a batch from that sample alone, told operator by operator: their gradient may be found a few samples at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from netsens.graph.dtypes import numpy_dtype
from netsens.graph.emitted import CHANCE
from netsens.graph.graph import Array, Graph, Node, Shape, pruned
from netsens.rules.words import attribute_default

ELEMENTWISE = {
    "Abs", "Add", "Cast", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mish",
    "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip
# Of the first operand sample by sample, with weights that all samples share.
WEIGHING = {
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "Dropout", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "SpaceToDepth",
}  # fmt: skip
DENSE = {"Gemm", "MatMul"}
RESHAPING = {"Expand", "Flatten", "Reshape", "Squeeze", "Unsqueeze"}
AXIS = {"Hardmax", "LayerNormalization", "LogSoftmax", "Softmax", "Split"}
REDUCING = {"ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"}


@dataclass(frozen=True, slots=True)
class Batch:
    """What a layer's values are along the batch: `rows` are those that hold samples along their first axis, each computed from its own sample, and `shared` those that
    no sample reaches. `sample_bytes` are those of the largest value for one sample, `dense_bytes` those of the weights of dense layers."""

    rows: frozenset[str]
    shared: frozenset[str]
    sample_bytes: int
    dense_bytes: int


def batch_of(graph: Graph, layer: str) -> Batch | None:
    """The batch that a layer holds along its first axis; None where samples may meet on the way to it, where sizes are unknown, or where nothing is convolved."""
    type_ = graph.types.get(layer)
    symbol = type_.shape[0] if type_ is not None and type_.shape else None
    if not isinstance(symbol, str):
        return None
    walk = _Walk(pruned(graph, [layer]), symbol)
    if not any(node.op in ("Conv", "ConvTranspose") for node in walk.graph.nodes) or not all(walk.passed(node) for node in walk.graph.nodes):
        return None
    sizes = [walk.sample_bytes(name) for name in walk.rows]
    known = [size for size in sizes if size is not None]
    if layer not in walk.rows or len(known) < len(sizes):
        return None
    dense = {node.inputs[1] for node in walk.graph.nodes if node.op in DENSE} & walk.shared
    return Batch(frozenset(walk.rows), frozenset(walk.shared), max(known), sum(graph.constants[w].nbytes for w in dense if w in graph.constants))


@dataclass(slots=True)
class _Walk:
    """Over the nodes in order. `lengths` are values computed from shapes alone: they may say how something is reshaped, and nothing else."""

    graph: Graph
    symbol: str
    rows: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    lengths: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.shared.update(self.graph.constants)
        for name in self.graph.inputs:
            (self.rows if self.leads(name) else self.shared).add(name)

    def shape(self, name: str) -> Shape | None:
        known = self.graph.types.get(name)
        return None if known is None else known.shape

    def leads(self, name: str) -> bool:
        """Whether the batch is the value's first axis, and no other."""
        shape = self.shape(name)
        if not shape or shape[0] != self.symbol:
            return False
        return not any(isinstance(d, str) and self.symbol in d for d in shape[1:])

    def sample_bytes(self, name: str) -> int | None:
        shape = self.shape(name)
        sizes = [d for d in (shape or ())[1:] if isinstance(d, int)]
        return prod(sizes) * numpy_dtype(self.graph.types[name].dtype).itemsize if shape is not None and len(sizes) == len(shape) - 1 else None

    def constant(self, node: Node, index: int) -> Array | None:
        return self.graph.constants.get(node.inputs[index]) if len(node.inputs) > index else None

    def attribute(self, node: Node, key: str) -> int:
        return int(node.attributes[key] if key in node.attributes else attribute_default(node.op, "", self.graph.opset, key))

    def passed(self, node: Node) -> bool:
        """Whether it is known what the node's outputs are."""
        reads, outputs = [i for i in node.reads() if i], [o for o in node.outputs if o]
        if node.domain or any(node.subgraphs()) or not carries_over(node):
            return False
        if all(i in self.shared for i in reads):
            self.shared.update(outputs)
        elif node.op in ("Shape", "Size") or all(i in self.lengths or i in self.shared for i in reads):
            self.lengths.update(outputs)
        elif self.sample_by_sample(node) and all(self.leads(o) for o in outputs):
            self.rows.update(outputs)
        else:
            return False
        return True

    def sample_by_sample(self, node: Node) -> bool:
        inputs = [i for i in node.inputs if i]
        if node.op in ELEMENTWISE:
            return all(self._beside(i, node) for i in inputs)
        if node.op == "Concat":
            return _off_axis(self, node) and all(i in self.rows for i in inputs)
        if node.inputs[0] not in self.rows:
            return False
        if node.op in RESHAPING:
            return all(i in self.lengths or i in self.shared for i in inputs[1:])
        check = CHECKS.get(node.op)
        return (node.op in WEIGHING or (check is not None and check(self, node))) and all(i in self.shared for i in inputs[1:])

    def _beside(self, name: str, node: Node) -> bool:
        """Whether an operand lies beside the output sample by sample, or is the same for all."""
        mine, whole = self.shape(name), self.shape(node.outputs[0])
        if mine is None or whole is None:
            return False
        if name in self.rows:
            return len(mine) == len(whole)
        return name in self.shared and (len(mine) < len(whole) or mine[0] == 1)


def carries_over(node: Node) -> bool:
    """Whether the node computes the same however many samples there are, and each time."""
    return (
        node.op not in CHANCE
        and not (node.op == "BatchNormalization" and node.attributes.get("training_mode"))
        and not (node.op == "Dropout" and len(node.inputs) > 2)
    )


def _dense(walk: _Walk, node: Node) -> bool:
    if node.op == "Gemm":
        bias = walk.shape(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else ()
        return not node.attributes.get("transA") and bias is not None and (len(bias) < 2 or bias[0] == 1)
    x, w = walk.shape(node.inputs[0]), walk.shape(node.inputs[1])
    return x is not None and w is not None and len(x) >= 2 and len(w) <= 2


def _off_axis(walk: _Walk, node: Node) -> bool:
    shape = walk.shape(node.inputs[0]) or ()
    return walk.attribute(node, "axis") % max(len(shape), 1) != 0


def _over_other_axes(index: int) -> Callable[[_Walk, Node], bool]:
    """Of operators whose operand `index` lists axes: that the first is not among them."""

    def check(walk: _Walk, node: Node) -> bool:
        shape, axes = walk.shape(node.inputs[0]) or (), walk.constant(node, index)
        return axes is not None and axes.size > 0 and all(int(a) % len(shape) for a in axes.reshape(-1))

    return check


def _padded(walk: _Walk, node: Node) -> bool:
    pads = walk.constant(node, 1)
    return pads is not None and len(node.inputs) < 4 and pads[0] == 0 == pads[len(pads) // 2]


CHECKS: Mapping[str, Callable[[_Walk, Node], bool]] = {
    **dict.fromkeys(DENSE, _dense),
    **dict.fromkeys(AXIS, _off_axis),
    **dict.fromkeys(REDUCING, _over_other_axes(1)),
    "MaxPool": lambda walk, node: len([o for o in node.outputs if o]) == 1,  # its indices count through the whole batch
    "Pad": _padded,
    # That the batch keeps its length is asked of every output.
    "Resize": lambda walk, node: node.attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize",
    "Slice": _over_other_axes(3),
    "Transpose": lambda walk, node: (node.attributes.get("perm") or [1])[0] == 0,
}
