"""Random networks of convolutions and what lies between them, wide enough to lie in blocks of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper


class Drawing:
    """A network drawn at random, a node after the other; every value is [2, C, H, W]."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, int, int]] = {
            "x": (int(self.random.choice([3, 16, 20, 32])), int(self.random.integers(6, 12)), int(self.random.integers(6, 12)))
        }
        self.values = ["x"]

    def node(self, op: str, inputs: list[str], shape: tuple[int, int, int], **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        self.shapes[name] = shape
        self.values.append(name)
        return name

    def parameter(self, *shape: int, scale: float = 0.3, around: float = 0.0) -> str:
        name = f"p{len(self.constants)}"
        self.constants[name] = (around + scale * self.random.standard_normal(shape)).astype(np.float32)
        return name

    def number(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"p{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.random.integers(len(choices)))]

    # What may follow a value -----------------------------------------------------------------------------------------

    def convolution(self, x: str) -> str:
        c, h, w = self.shapes[x]
        kernel, stride, dilation = [self.pick(1, 2, 3), self.pick(1, 3)], [self.pick(1, 1, 2), self.pick(1, 1, 2)], self.pick(1, 1, 2)
        pads = [self.pick(0, 1), self.pick(0, 1), self.pick(0, 1), self.pick(0, 1)]
        outs = [(n + pads[k] + pads[2 + k] - (kernel[k] - 1) * dilation - 1) // stride[k] + 1 for k, n in enumerate((h, w))]
        if min(outs) < 2:
            return x
        depthwise = c % 4 == 0 and self.pick(True, False)
        m, group = (c, c) if depthwise else (self.pick(16, 20, 24, 32, 48, 5), 1)
        if not depthwise and c == 32 and m == 32 and self.pick(True, False):
            group = 2
        inputs = [x, self.parameter(m, c // group, *kernel), *([self.parameter(m)] if self.pick(True, False) else [])]
        return self.node("Conv", inputs, (m, outs[0], outs[1]), strides=stride, dilations=[dilation] * 2, pads=pads, group=group, kernel_shape=kernel)

    def transposed(self, x: str) -> str:
        c, h, w = self.shapes[x]
        kernel, stride = [self.pick(1, 2, 3, 4), self.pick(2, 3)], [self.pick(1, 2, 3), self.pick(1, 2)]
        pads, extra = [self.pick(0, 1) if kernel[0] > 1 else 0, self.pick(0, 1), 0, 0], [self.pick(0, stride[0] - 1), 0]
        outs = [(n - 1) * stride[k] + kernel[k] - pads[k] - pads[2 + k] + extra[k] for k, n in enumerate((h, w))]
        if max(outs) > 24 or min(outs) < 2:
            return x
        group = c if c % 4 == 0 and self.pick(True, False) else 1
        m = c if group > 1 else self.pick(16, 24, 3)
        weight = self.parameter(c, m // group, *kernel)
        return self.node("ConvTranspose", [x, weight], (m, outs[0], outs[1]), strides=stride, pads=pads, output_padding=extra, group=group, kernel_shape=kernel)

    def normalised(self, x: str) -> str:
        c = self.shapes[x][0]
        variance = self.number(self.random.uniform(0.5, 2, c))
        return self.node("BatchNormalization", [x, self.parameter(c, around=1), self.parameter(c), self.parameter(c), variance], self.shapes[x])

    def activated(self, x: str) -> str:
        shape, kind = (
            self.shapes[x],
            self.pick("Relu", "Relu6", "LeakyRelu", "Swish", "HardSwish", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Softplus", "PRelu"),
        )
        if kind == "Relu6":
            return self.node("Clip", [x, self.number(0.0), self.number(1.0)], shape)
        if kind == "Swish":
            return self.node("Mul", [x, self.node("Sigmoid", [x], shape)], shape)
        if kind == "PRelu":
            return self.node("PRelu", [x, self.parameter(shape[0], 1, 1)], shape)
        return self.node(kind, [x], shape)

    def pooled(self, x: str) -> str:
        c, h, w = self.shapes[x]
        op, kernel, stride, pad, ceil = self.pick("MaxPool", "AveragePool"), self.pick(2, 3), self.pick(1, 2), self.pick(0, 1), self.pick(0, 1)
        outs = [-(-(n + 2 * pad - kernel) // stride) + 1 if ceil else (n + 2 * pad - kernel) // stride + 1 for n in (h, w)]
        if any((o - 1) * stride >= n + pad for o, n in zip(outs, (h, w), strict=True)) or min(outs) < 2:
            return x
        return self.node(op, [x], (c, outs[0], outs[1]), kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=ceil)

    def excited(self, x: str) -> str:
        c, h, w = self.shapes[x]
        mean = self.node("GlobalAveragePool", [x], (c, 1, 1))
        factor = self.node("Sigmoid", [self.node("Conv", [mean, self.parameter(c, c, 1, 1), self.parameter(c)], (c, 1, 1))], (c, 1, 1))
        return self.node("Mul", [x, factor], (c, h, w))

    def added(self, x: str) -> str:
        same = [v for v in self.values if self.shapes[v] == self.shapes[x] and v != "x"]
        return self.node(self.pick("Add", "Mul", "Sub", "Max"), [x, self.pick(*same)], self.shapes[x]) if same and x != "x" else x

    def joined(self, x: str) -> str:
        c, h, w = self.shapes[x]
        same = [v for v in self.values if self.shapes[v][1:] == (h, w)]
        other = self.pick(*same)
        return self.node("Concat", [x, other], (c + self.shapes[other][0], h, w), axis=1) if c + self.shapes[other][0] <= 64 else x

    def scaled(self, x: str) -> str:
        c = self.shapes[x][0]
        return self.node(self.pick("Mul", "Add", "Sub", "Div"), [x, self.parameter(1, c, 1, 1, around=2)], self.shapes[x])

    def enlarged(self, x: str) -> str:
        c, h, w = self.shapes[x]
        if max(h, w) > 10:
            return x
        scales = self.number([1, 1, 2, 2])
        return self.node("Resize", [x, "", scales], (c, 2 * h, 2 * w), mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")

    def cut(self, x: str) -> str:
        c, h, w = self.shapes[x]
        if c % 32 or h < 3:
            return x
        bounds = [self.number(v, np.int64) for v in ([0, 1], [c // 2, h], [1, 2])]
        return self.node("Slice", [x, *bounds], (c // 2, h - 1, w))

    def padded(self, x: str) -> str:
        c, h, w = self.shapes[x]
        # A pad as wide as a window is what onnxruntime cannot open when it makes one of Pad and AveragePool.
        return self.node("Pad", [x, self.number([0, 0, 1, 0, 0, 0, 0, 1], np.int64)], (c, h + 1, w + 1))


def drawn(seed: int, batch: int | str = 2) -> tuple[onnx.ModelProto, Any]:
    """A model and its input."""
    d = Drawing(seed)
    x = d.convolution("x")
    steps = [d.convolution, d.convolution, d.convolution, d.transposed, d.normalised, d.activated, d.activated, d.pooled, d.excited, d.added, d.joined, d.scaled,
             d.enlarged, d.cut, d.padded]  # fmt: skip
    for _ in range(int(d.random.integers(3, 9))):
        x = steps[int(d.random.integers(len(steps)))](x)
    c, h, w = d.shapes[x]
    if d.pick(True, False):
        x = d.node("GlobalAveragePool", [x], (c, 1, 1))
        h = w = 1
    out = helper.make_tensor_value_info("y", 1, [batch, 3])
    d.nodes += [helper.make_node("Flatten", [x], ["flat"]), helper.make_node("Gemm", ["flat", d.parameter(c * h * w, 3)], ["y"])]
    inputs = [helper.make_tensor_value_info("x", 1, [batch, *d.shapes["x"]])]
    graph = helper.make_graph(d.nodes, "drawn", inputs, [out], [onnx.numpy_helper.from_array(a, k) for k, a in d.constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model, d.random.standard_normal((2, *d.shapes["x"])).astype(np.float32)
