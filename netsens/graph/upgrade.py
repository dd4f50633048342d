"""Lifts older opsets to one: each operator whose meaning or form changed is rewritten once, so that rules know one form alone.
The table at the end names them all; an operator that is not in it means today what it always meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import FLOAT
from netsens.graph.graph import Array, Graph, Node, TensorType, free_name, walk

TARGET_OPSET = 21
POOLS = ("MaxPool", "AveragePool", "LpPool")
EXACT_POOLS = 22  # from here on ONNX's shape inference leaves out, as onnxruntime does at any opset, a pool's last window that would begin beyond the image


class Lift:
    """What a rewrite may ask and add: types of values at the old opset, constants, and nodes that go before its own."""

    def __init__(self, graph: Graph) -> None:
        self.opset = graph.opset
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self._graph = graph
        self._used = graph.names()
        self._known: dict[str, Array] = {}
        self._types: dict[str, TensorType] | None = None
        walk(graph, self._collect)

    def _collect(self, graph: Graph) -> Graph:
        self._known.update(graph.constants)
        return graph

    def fresh(self, hint: str) -> str:
        return free_name(f"upgrade/{hint}", self._used)

    def constant(self, array: Array) -> str:
        name = self.fresh("constant")
        self.constants[name] = array
        return name

    def ints(self, values: Sequence[int]) -> str:
        return self.constant(np.asarray(values, np.int64))

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node before the rewritten one; its output."""
        name = self.fresh(op.lower())
        self.nodes.append(Node(op, inputs, (name,), attributes))
        return name

    def array(self, name: str) -> Array | None:
        """The value of a constant, from any scope."""
        return self._known.get(name)

    def type(self, name: str) -> TensorType:
        from netsens.graph.infer import onnx_types
        from netsens.graph.shapes import constant_type

        if name in self._known:
            return constant_type(self._known[name])
        if self._types is None:
            self._types = {**self._graph.types, **onnx_types(self._graph)}
        return self._types.get(name, TensorType(0))

    def rank(self, node: Node, name: str) -> int:
        rank = self.type(name).rank
        if rank is None:
            raise UnsupportedError(
                f"{node.label} has the form of opset {self.opset}, whose meaning depends on the rank of '{name}', and that is not known; "
                "give the model's inputs a shape, or export it at opset 13 or newer."
            )
        return rank


Rewrite = Callable[[Node, Lift], Node]


def upgrade(graph: Graph) -> Graph:
    """The graph at opset 21, or at its own where that is newer; at 22 where the older shape inference would count windows that aren't there."""
    graph = _lifted(graph)
    if graph.opset == EXACT_POOLS - 1 and _may_leave_out_windows(graph):
        graph = walk(graph, lambda g: replace(g, opset=EXACT_POOLS))
    return graph


def _may_leave_out_windows(graph: Graph) -> bool:
    """Whether a pool that rounds up may have a last window that begins beyond the image, inside subgraphs too."""
    return any(_leaves_out(node) for node in graph.every_node() if node.op in POOLS and not node.domain)


def _leaves_out(node: Node) -> bool:
    attributes = node.attributes
    kernel = list(attributes["kernel_shape"])
    rank = len(kernel)
    strides, dilations = attributes.get("strides") or [1] * rank, attributes.get("dilations") or [1] * rank
    ends = (attributes.get("pads") or [0] * 2 * rank)[rank:]
    return bool(attributes.get("ceil_mode")) and any(e + s > (k - 1) * d + 1 for k, s, d, e in zip(kernel, strides, dilations, ends, strict=True))


def _lifted(graph: Graph) -> Graph:
    if graph.opset >= TARGET_OPSET:
        return graph
    lift = Lift(graph)

    def visit(g: Graph) -> Graph:
        nodes: list[Node] = []
        lift.constants = {}
        for node in g.nodes:
            since, rewrite = REWRITES.get(node.op, (0, None)) if node.domain == "" else (0, None)
            if "consumed_inputs" in node.attributes and not node.domain:
                node = without(node, "consumed_inputs")
            if rewrite is not None and lift.opset < since:
                lift.nodes = []
                last = rewrite(node, lift)
                nodes += [*lift.nodes, last]
            else:
                nodes.append(node)
        return replace(g, nodes=nodes, constants={**g.constants, **lift.constants}, opset=TARGET_OPSET)

    return walk(graph, visit)


def without(node: Node, *keys: str) -> Node:
    return replace(node, attributes={k: v for k, v in node.attributes.items() if k not in keys})


def become(node: Node, op: str, *inputs: str, **attributes: Any) -> Node:
    """Another operator in the node's place."""
    return replace(node, op=op, inputs=inputs, attributes=attributes)


def input_at(node: Node, k: int) -> str:
    return node.inputs[k] if k < len(node.inputs) else ""


# Attributes that became inputs ------------------------------------------------------------------------------------------


def axes_input(node: Node, lift: Lift) -> Node:
    axes = node.attributes.get("axes")
    node = without(node, "axes")
    return replace(node, inputs=(node.inputs[0], lift.ints(axes))) if axes else node


def slice_inputs(node: Node, lift: Lift) -> Node:
    starts, ends = node.attributes["starts"], node.attributes["ends"]
    axes = node.attributes.get("axes") or list(range(len(starts)))
    return become(node, "Slice", node.inputs[0], lift.ints(starts), lift.ints(ends), lift.ints(axes))


def topk_input(node: Node, lift: Lift) -> Node:
    return replace(without(node, "k"), inputs=(node.inputs[0], lift.ints([node.attributes["k"]])))


def split_input(node: Node, lift: Lift) -> Node:
    sizes = node.attributes.get("split")
    if input_at(node, 1):
        return node
    node = without(node, "split")
    if sizes:
        return replace(node, inputs=(node.inputs[0], lift.ints(sizes)))
    return replace(node, attributes={**node.attributes, "num_outputs": len(node.outputs)})


def reshape_input(node: Node, lift: Lift) -> Node:
    return become(node, "Reshape", node.inputs[0], lift.ints(node.attributes["shape"]))


def clip_inputs(node: Node, lift: Lift) -> Node:
    x = node.inputs[0]
    dtype = lift.type(x).dtype or FLOAT
    bounds = [lift.constant(_scalar(node.attributes[k], dtype)) if k in node.attributes else "" for k in ("min", "max")]
    while bounds and not bounds[-1]:
        bounds.pop()
    return become(node, "Clip", x, *bounds)


def pad_inputs(node: Node, lift: Lift) -> Node:
    pads = node.attributes.get("pads", node.attributes.get("paddings"))
    x, value = node.inputs[0], float(node.attributes.get("value", 0.0))
    inputs = [x, lift.ints(pads or [])]
    if value:
        inputs.append(lift.constant(_scalar(value, lift.type(x).dtype or FLOAT)))
    return become(node, "Pad", *inputs, mode=node.attributes.get("mode", "constant"))


def _scalar(value: float, dtype: int) -> Array:
    from onnx import helper

    return np.asarray(value, np.dtype(helper.tensor_dtype_to_np_dtype(dtype)))


def dft_axis(node: Node, lift: Lift) -> Node:
    axis = lift.constant(np.asarray(node.attributes.get("axis", 1), np.int64))
    return replace(without(node, "axis"), inputs=(node.inputs[0], input_at(node, 1), axis))


def dropout(node: Node, lift: Lift) -> Node:
    """As the specification says since opset 7, there is no training form without the `training_mode` input: an identity."""
    if len(node.outputs) > 1 and node.outputs[1] and lift.opset < 10:
        mask = lift.fresh("mask")
        lift.nodes.append(Node("Dropout", (node.inputs[0],), (node.outputs[0], mask), {}, "", node.name))
        return Node("Cast", (mask,), (node.outputs[1],), {"to": lift.type(node.inputs[0]).dtype or FLOAT})
    return become(node, "Dropout", node.inputs[0])


# Semantics that changed -------------------------------------------------------------------------------------------------


def softmax(node: Node, lift: Lift) -> Node:
    """Before opset 13 all axes from `axis` on were one; the same as today's where at most one of them is longer than 1."""
    x, axis = node.inputs[0], int(node.attributes.get("axis", 1))
    shape = lift.type(x).shape
    if shape is not None:
        axis %= max(len(shape), 1)
        long = [k for k in range(axis, len(shape)) if shape[k] != 1]
        if len(long) <= 1 and shape:
            return become(node, node.op, x, axis=long[0] if long else len(shape) - 1)
    # [a, b, c, d] -> [a, b * c * d] -> back
    flat = lift.op(node.op, lift.op("Flatten", x, axis=axis), axis=1)
    return become(node, "Reshape", flat, lift.op("Shape", x), allowzero=1)


def batch_normalization(node: Node, lift: Lift) -> Node:
    kept = {k: v for k, v in node.attributes.items() if k in ("epsilon", "momentum")}
    extra = [o for o in node.outputs[1:] if o]
    if node.attributes.get("spatial", 1) == 0 and lift.opset < 9:
        return _per_activation(node, lift, extra)
    if not extra:
        return replace(node, outputs=node.outputs[:1], attributes=kept)
    if any(node.outputs[3:]):
        raise UnsupportedError(f"{node.label} is in the training form of opset {lift.opset}, with saved statistics; export the model for inference.")
    return replace(node, attributes={**kept, "training_mode": 1})


def _per_activation(node: Node, lift: Lift, extra: Sequence[str]) -> Node:
    # Statistics of shape [C, H, W] broadcast against [N, C, H, W].
    if extra:
        raise UnsupportedError(f"{node.label} is in the training form of opset {lift.opset}; export the model for inference.")
    x, scale, bias, mean, variance = node.inputs
    epsilon = lift.constant(_scalar(node.attributes.get("epsilon", 1e-5), lift.type(x).dtype or FLOAT))
    deviation = lift.op("Sqrt", lift.op("Add", variance, epsilon))
    normal = lift.op("Div", lift.op("Sub", x, mean), deviation)
    return become(node, "Add", lift.op("Mul", normal, scale), bias)


def group_normalization(node: Node, lift: Lift) -> Node:
    """Scale and bias were a number a group, [G]; now a number a channel, [C]."""
    x, *factors = node.inputs
    groups, shape = int(node.attributes["num_groups"]), lift.type(x).shape
    if shape is not None and isinstance(shape[1], int):
        target = lift.ints([groups, shape[1] // groups])
    else:
        each = lift.op("Div", lift.op("Shape", x, start=1, end=2), lift.ints([groups]))
        target = lift.op("Concat", lift.ints([groups]), each, axis=0)
    channels = []
    for factor in factors:
        wide = lift.op("Expand", lift.op("Unsqueeze", factor, lift.ints([1])), target)  # [G] -> [G, 1] -> [G, C / G]
        channels.append(lift.op("Reshape", wide, lift.ints([-1])))
    return replace(node, inputs=(x, *channels))


def grid_sample(node: Node, lift: Lift) -> Node:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = node.attributes.get("mode", "bilinear")
    return replace(node, attributes={**node.attributes, "mode": names.get(mode, mode)})


def upsample(node: Node, lift: Lift) -> Node:
    modes = {"bilinear": "linear", "trilinear": "linear"}
    mode = node.attributes.get("mode", "nearest")
    if lift.opset < 7:
        scales = [1.0, 1.0, node.attributes["height_scale"], node.attributes["width_scale"]]
    else:
        scales = node.attributes.get("scales", [])
    source = lift.constant(np.asarray(scales, np.float32)) if lift.opset < 9 else node.inputs[1]
    return _asymmetric(node, node.inputs[0], source, modes.get(mode, mode), "floor")


def _asymmetric(node: Node, x: str, scales: str, mode: str, nearest: str) -> Node:
    attributes = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    return become(node, "Resize", x, "", scales, **attributes, **({"nearest_mode": nearest} if mode == "nearest" else {}))


def resize(node: Node, lift: Lift) -> Node:
    if lift.opset < 11:
        return _resize_10(node, lift)
    attributes = dict(node.attributes)
    if attributes.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        # floor((x + 1/2) / s) is half_pixel's coordinate rounded, halves up; ceil of half_pixel's is its rounding, halves down.
        rounding = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}.get(attributes.get("nearest_mode", "round_prefer_floor"))
        if attributes.get("mode", "nearest") != "nearest" or rounding is None:
            raise UnsupportedError(
                f"{node.label} uses 'tf_half_pixel_for_nn', which ONNX dropped, in a form that has no newer equal; export the model at opset 13 or newer."
            )
        attributes |= {"coordinate_transformation_mode": "half_pixel", "nearest_mode": rounding}
    inputs = [node.inputs[0], *(i if not stands_for_absent(lift, i) else "" for i in node.inputs[1:])]
    while not inputs[-1]:
        inputs.pop()
    return replace(node, inputs=tuple(inputs), attributes=attributes)


def stands_for_absent(lift: Lift, name: str) -> bool:
    """Whether a constant stands for an absent input, as before opset 13 it had to."""
    array = lift.array(name)
    return array is not None and array.size == 0


def _resize_10(node: Node, lift: Lift) -> Node:
    """Nearest rounded down where it enlarged and up where it shrank, axis by axis."""
    x, scales = node.inputs[:2]
    mode, array = node.attributes.get("mode", "nearest"), lift.array(scales)
    if mode != "nearest" or (array is not None and (array >= 1).all()):
        return _asymmetric(node, x, scales, mode, "floor")
    if array is not None and (array <= 1).all():
        return _asymmetric(node, x, scales, mode, "ceil")
    one = lift.constant(np.ones((), np.float32))
    first = replace(_asymmetric(node, x, lift.op("Max", scales, one), mode, "floor"), outputs=(lift.fresh("enlarged"),))
    lift.nodes.append(first)
    return _asymmetric(node, first.outputs[0], lift.op("Min", scales, one), mode, "ceil")


def scatter(node: Node, lift: Lift) -> Node:
    return replace(node, op="ScatterElements")


def roi_align(node: Node, lift: Lift) -> Node:
    return replace(node, attributes={"coordinate_transformation_mode": "output_half_pixel", **node.attributes})


def scan(node: Node, lift: Lift) -> Node:
    """Opset 8 scanned axis 1 for every member of a batch on axis 0: a scan over the batch around a scan over the sequence."""
    if input_at(node, 0):
        raise UnsupportedError(f"{node.label} has sequence lengths, a form of opset 8 that ONNX dropped; export the model at opset 9 or newer.")
    body: Graph = node.attributes["body"]
    outer = node.inputs[1:]
    scanned = int(node.attributes["num_scan_inputs"])
    inner_inputs, inner_outputs = [lift.fresh("member") for _ in outer], [lift.fresh("member") for _ in node.outputs]
    directions = node.attributes.get("directions")
    inner = Node(
        "Scan", tuple(inner_inputs), tuple(inner_outputs),
        {"body": body, "num_scan_inputs": scanned, **({"scan_input_directions": directions} if directions else {})},
    )  # fmt: skip
    types = {name: replace(lift.type(value), shape=None) for name, value in zip(inner_inputs, outer, strict=True)}
    wrapped = Graph([inner], inner_inputs, inner_outputs, {}, types, TARGET_OPSET, name="member")
    return become(node, "Scan", *outer, body=wrapped, num_scan_inputs=len(outer))


# Forms before opset 7 ---------------------------------------------------------------------------------------------------


def old_broadcast(node: Node, lift: Lift) -> Node:
    """The second operand's shape lay at `axis` of the first's: [C] at axis 1 of [N, C, H, W] is [C, 1, 1]."""
    a, b = node.inputs
    axis = node.attributes.get("axis")
    node = without(node, "axis", "broadcast")
    if axis is None:
        return node
    rank, inner = lift.rank(node, a), lift.rank(node, b)
    behind = rank - int(axis) % rank - inner
    return replace(node, inputs=(a, lift.op("Unsqueeze", b, lift.ints(range(inner, inner + behind))))) if behind > 0 else node


def cast_name(node: Node, lift: Lift) -> Node:
    import onnx

    to = node.attributes["to"]
    return replace(node, attributes={"to": onnx.TensorProto.DataType.Value(to.upper()) if isinstance(to, str) else to})


def channel_slope(node: Node, lift: Lift) -> Node:
    x, slope = node.inputs
    shape = lift.type(slope).shape
    behind = lift.rank(node, x) - 2
    if shape == (1,) or behind <= 0:
        return node
    return replace(node, inputs=(x, lift.op("Unsqueeze", slope, lift.ints(range(1, 1 + behind)))))


def old_defaults(**defaults: Any) -> Rewrite:
    return lambda node, lift: replace(node, attributes={**defaults, **node.attributes})


def dropping(*keys: str) -> Rewrite:
    return lambda node, lift: without(node, *keys)


def whole_power(node: Node, lift: Lift) -> Node:
    return replace(node, attributes={**node.attributes, "p": int(node.attributes.get("p", 2))})


def tile(node: Node, lift: Lift) -> Node:
    x = node.inputs[0]
    tiles, axis = (lift.array(i) for i in node.inputs[1:3])
    if tiles is None or axis is None:
        raise UnsupportedError(f"{node.label} computes its tiles at run time in the form of opset 1; export the model at opset 7 or newer.")
    repeats = [1] * lift.rank(node, x)
    repeats[int(axis.reshape(-1)[0])] = int(tiles.reshape(-1)[0])
    return become(node, "Tile", x, lift.ints(repeats))


# Operators that ONNX had for a while and never kept; old converters wrote them ------------------------------------------


def image_scaler(node: Node, lift: Lift) -> Node:
    # [N, C, H, W] * scale + bias[C, 1, 1]
    bias = np.asarray(node.attributes.get("bias", [0.0]), np.float32).reshape(-1, 1, 1)
    return become(node, "Add", lift.op("Mul", node.inputs[0], lift.constant(np.asarray(node.attributes.get("scale", 1.0), np.float32))), lift.constant(bias))


def affine(node: Node, lift: Lift) -> Node:
    alpha, beta = (lift.constant(np.asarray(node.attributes.get(k, d), np.float32)) for k, d in (("alpha", 1.0), ("beta", 0.0)))
    return become(node, "Add", lift.op("Mul", node.inputs[0], alpha), beta)


def scale(node: Node, lift: Lift) -> Node:
    return become(node, "Mul", node.inputs[0], lift.constant(np.asarray(node.attributes.get("scale", 1.0), np.float32)))


def _scaled(op: str) -> Rewrite:
    def rewrite(node: Node, lift: Lift) -> Node:
        alpha, beta = (lift.constant(np.asarray(node.attributes[k], np.float32)) for k in ("alpha", "beta"))
        return become(node, "Mul", lift.op(op, lift.op("Mul", node.inputs[0], beta)), alpha)

    return rewrite


_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare")
_BROADCASTING = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")

# Operator -> (the opset from which it is written as it is today, its rewrite).
REWRITES: dict[str, tuple[int, Rewrite]] = {
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceSum"), (13, axes_input)),
    **dict.fromkeys(_REDUCTIONS, (18, axes_input)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), (13, softmax)),
    **dict.fromkeys(_BROADCASTING, (7, old_broadcast)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (7, dropping("output_sequence"))),
    "Affine": (TARGET_OPSET, affine),
    "BatchNormalization": (14, batch_normalization),
    "Cast": (6, cast_name),
    "Clip": (11, clip_inputs),
    "Concat": (4, old_defaults(axis=1)),
    "DFT": (20, dft_axis),
    "Dropout": (12, dropout),
    "Gemm": (7, dropping("broadcast")),
    "GlobalLpPool": (2, whole_power),
    "GridSample": (20, grid_sample),
    "GroupNormalization": (21, group_normalization),
    "ImageScaler": (TARGET_OPSET, image_scaler),
    "LpPool": (2, whole_power),
    "PRelu": (7, channel_slope),
    "Pad": (11, pad_inputs),
    "ParametricSoftplus": (TARGET_OPSET, _scaled("Softplus")),
    "Reshape": (5, reshape_input),
    "Resize": (13, resize),
    "RoiAlign": (16, roi_align),
    "Scale": (TARGET_OPSET, scale),
    "ScaledTanh": (TARGET_OPSET, _scaled("Tanh")),
    "Scan": (9, scan),
    "Scatter": (11, scatter),
    "Selu": (6, old_defaults(alpha=1.6732, gamma=1.0507)),
    "Slice": (10, slice_inputs),
    "Split": (18, split_input),
    "Tile": (6, tile),
    "TopK": (10, topk_input),
    "Upsample": (10, upsample),
}
