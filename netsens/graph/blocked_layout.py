"""Undoes the blocked channel layout (`com.microsoft.nchwc`) of models that onnxruntime optimised for one machine and saved: its operators become the
standard's, over tensors in the ordinary order of axes.

A blocked tensor of shape [N, C, H, W] lies in memory as [N, C / block, H, W, block], its channels padded to a multiple of the block. Whatever works
element by element, or joins channels, doesn't mind the order, so only the nodes of that domain change, and parameters keep the order of the file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from netsens.graph.graph import Array, Graph, Node, free_name
from netsens.graph.nested import settled

BLOCKED = "com.microsoft.nchwc"
BLOCK = 16  # channels that onnxruntime keeps side by side where the processor has AVX-512; 8 where it has not
# The whole of the nodes that correlate x and g, [N, C, *places] both, channel by channel: [C, positions of the window].
DEPTHWISE_WEIGHT = "DepthwiseWeight"
# Activations that onnxruntime fuses, with the attributes that their parameters are; those of Clip are inputs.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "": (), "Relu": (), "Sigmoid": (), "Tanh": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Clip": (),
}  # fmt: skip


def holds_blocked_layout(graph: Graph) -> bool:
    return any(node.domain == BLOCKED for node in graph.nodes)


def without_blocked_layout(graph: Graph, block: int) -> Graph:
    """The graph in standard operators. `block` is how many channels the machine's onnxruntime keeps side by side."""
    rewriting = _Rewriting(graph, block)
    for node in graph.nodes:
        rewriting.node(node)
    domains = {domain: version for domain, version in graph.domains.items() if domain != BLOCKED}
    constants = {**graph.constants, **rewriting.constants}
    plain = settled(replace(graph, nodes=rewriting.nodes, constants=constants, domains={**domains, "com.microsoft": 1}))
    # Where the channels fill whole blocks, nothing was added to them.
    nodes = [
        Node("Identity", node.inputs[:1], node.outputs) if node.outputs[0] in rewriting.padded and _pads_nothing(node, plain) else node for node in plain.nodes
    ]
    return replace(plain, nodes=nodes)


def _pads_nothing(node: Node, graph: Graph) -> bool:
    pads = graph.constants.get(node.inputs[1])
    return pads is not None and not pads.any()


class _Rewriting:
    """The nodes so far, and the constants that they need."""

    def __init__(self, graph: Graph, block: int) -> None:
        self.block = block
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.padded: set[str] = set()
        self._known = graph.constants
        self._taken = graph.names()

    def node(self, node: Node) -> None:
        if node.domain != BLOCKED:
            self.nodes.append(node)
            return
        match node.op:
            case "ReorderInput":
                self._blocked(node)
            case "ReorderOutput":
                self._plain(node)
            case "Conv":
                self._convolution(node)
            case "Upsample":
                self._upsampled(node)
            case _:  # the pools, whose attributes are the standard's
                self.nodes.append(replace(node, domain=""))

    def op(self, op: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        name = to or free_name(f"unblocked/{op.lower()}", self._taken)
        self.nodes.append(Node(op, inputs, (name,), attributes))
        return name

    def ints(self, *values: int) -> str:
        name = free_name("unblocked/constant", self._taken)
        self.constants[name] = np.asarray(values, np.int64)
        return name

    def number(self, value: float) -> str:
        name = free_name("unblocked/number", self._taken)
        self.constants[name] = np.asarray(value, np.float32)
        return name

    def _blocked(self, node: Node) -> None:
        """Channels padded with zeros to whole blocks."""
        x, y = node.inputs[0], node.outputs[0]
        if node.attributes.get("channels_last"):
            x = self.op("Transpose", x, perm=[0, 3, 1, 2])
        missing = self.op("Mod", self.op("Neg", self.op("Shape", x, start=1, end=2)), self.ints(self.block))
        self.op("Pad", x, self.op("Concat", self.ints(0, 0, 0, 0, 0), missing, self.ints(0, 0), axis=0), to=y)
        self.padded.add(y)

    def _plain(self, node: Node) -> None:
        """Without the padding of the channels."""
        x, y, channels = node.inputs[0], node.outputs[0], int(node.attributes["channels"])
        last = bool(node.attributes.get("channels_last"))
        if channels % self.block:
            x = self.op("Slice", x, self.ints(0), self.ints(channels), self.ints(1), to="" if last else y)
        if last:
            self.op("Transpose", x, perm=[0, 2, 3, 1], to=y)
        elif x != y:
            self.op("Identity", x, to=y)

    def _convolution(self, node: Node) -> None:
        """The weights of a block of outputs lie side by side: [O / b, I / b, H, W, b of I, b of O], or [O / b, I, H, W, b] with fewer inputs than a block."""
        weight, block = node.inputs[1], self.block
        outputs, inputs, *window = self._known[weight].shape
        if inputs < block:
            apart = self.op("Reshape", weight, self.ints(outputs // block, inputs, *window, block))
            turned = self.op("Transpose", apart, perm=[0, 4, 1, 2, 3])
        else:
            apart = self.op("Reshape", weight, self.ints(outputs // block, inputs // block, *window, block, block))
            turned = self.op("Transpose", apart, perm=[0, 5, 1, 4, 2, 3])
        straight = self.op("Reshape", turned, self.ints(outputs, inputs, *window))
        kind, y = node.attributes.get("activation") or "", node.outputs[0]
        kept = {k: v for k, v in node.attributes.items() if not k.startswith("activation")}
        added = node.inputs[3] if len(node.inputs) > 3 else ""
        if kind not in _ACTIVATIONS:
            self.nodes.append(replace(node, op="FusedConv", domain="com.microsoft", inputs=(node.inputs[0], straight, *node.inputs[2:])))
            return
        x = self.op("Conv", node.inputs[0], straight, *node.inputs[2:3], to="" if kind or added else y, **kept)
        if added:
            x = self.op("Add", x, added, to="" if kind else y)
        parameters = [float(v) for v in node.attributes.get("activation_params") or ()]
        if kind == "Clip":
            self.op("Clip", x, *(self.number(v) for v in parameters), to=y)
        elif kind:
            self.op(kind, x, to=y, **dict(zip(_ACTIVATIONS[kind], parameters, strict=False)))

    def _upsampled(self, node: Node) -> None:
        scales = free_name("unblocked/scales", self._taken)
        self.constants[scales] = np.asarray(node.attributes["scales"], np.float32)
        given = {k: v for k, v in node.attributes.items() if k in ("mode", "coordinate_transformation_mode")}
        mode = given.get("mode", "nearest")
        default = "asymmetric" if mode == "nearest" else "half_pixel"
        kept = {"mode": mode, "coordinate_transformation_mode": given.get("coordinate_transformation_mode", default)}
        self.op("Resize", node.inputs[0], "", scales, to=node.outputs[0], **kept, **({"nearest_mode": "floor"} if mode == "nearest" else {}))
