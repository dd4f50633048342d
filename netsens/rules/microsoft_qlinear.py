"""onnxruntime's operators over quantised tensors (`com.microsoft`): each is the float operator between a DequantizeLinear and a QuantizeLinear, as the
quantiser of onnxruntime made it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.emit import Builder, Value
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.microsoft_quantized import dequantised
from netsens.rules.words import NodeView, expansion, quantizes

QUANTISED = (
    "QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu QLinearSoftmax QLinearAveragePool QLinearGlobalAveragePool QLinearReduceMean QLinearConcat"
    " QLinearWhere QLinearConv QGemm QuantizeLinear"
)


def _real(op: Builder, n: NodeView, at: int) -> Value:
    """The quantised operand at this place, its scale and its zero point behind it, as real numbers."""
    return dequantised(op, operand(n, at), operand(n, at + 1), n.input(at + 2))


def _quantised(op: Builder, n: NodeView, y: Value, at: int) -> Value:
    """y in the integers of the output, whose scale and zero point are these operands."""
    scale, zero = operand(n, at), n.input(at + 1)
    return op.QuantizeLinear(y, _scalar(op, scale), None if zero is None else _scalar(op, zero))


def _scalar(op: Builder, part: Value) -> Value:
    """Scales of one tensor come as a number or as a vector of one."""
    return part if part.rank == 0 else op.Reshape(part, op.constant(np.zeros(0, np.int64)))


def _unary(names: str, function: Callable[[Builder, NodeView, Value], Value]) -> None:
    """Operators with inputs x, its scale and zero point, then the output's scale and zero point."""

    @expansion(names, domain=DOMAIN)
    def expand(op: Builder, n: NodeView) -> Value:
        return _quantised(op, n, function(op, n, _real(op, n, 0)), 3)


def _channels_first(op: Builder, n: NodeView, x: Value, function: Callable[[Value], Value]) -> Value:
    """`function` over [N, C, ..], where the node may have its channels last."""
    if not setting(n, "channels_last", 0):
        return function(x)
    last = x.rank - 1
    return op.Transpose(function(op.Transpose(x, perm=[0, last, *range(1, last)])), perm=[0, *range(2, last + 1), 1])


def _average(op: Builder, n: NodeView, x: Value) -> Value:
    kept = {k: v for k, v in n.node.attributes.items() if k != "channels_last"}
    return _channels_first(op, n, x, lambda front: op.AveragePool(front, **kept))


def _reduced(op: Builder, n: NodeView, x: Value) -> Value:
    axes = setting(n, "axes", None)
    return op.ReduceMean(x, None if axes is None else list(axes), keepdims=int(setting(n, "keepdims", 1)))


def _softmax(op: Builder, n: NodeView, x: Value) -> Value:
    axis = int(setting(n, "axis", -1)) % x.rank
    if int(setting(n, "opset", 13)) >= 13:
        return op.Softmax(x, axis=axis)
    # Before opset 13 everything from the axis on is one.
    return op.reshape_like(op.Softmax(op.Reshape(x, op.vector([0] * axis + [-1])), axis=-1), x)


_unary("QLinearSigmoid", lambda op, n, x: op.Sigmoid(x))
_unary("QLinearLeakyRelu", lambda op, n, x: op.LeakyRelu(x, alpha=float(setting(n, "alpha", 0.01))))
_unary("QLinearSoftmax", _softmax)
_unary("QLinearAveragePool", _average)
_unary("QLinearGlobalAveragePool", lambda op, n, x: _channels_first(op, n, x, lambda front: op.GlobalAveragePool(front)))
_unary("QLinearReduceMean", _reduced)


@expansion("QLinearAdd", domain=DOMAIN)
def quantised_sum(op: Builder, n: NodeView) -> Value:
    return _quantised(op, n, _real(op, n, 0) + _real(op, n, 3), 6)


@expansion("QLinearMul", domain=DOMAIN)
def quantised_product(op: Builder, n: NodeView) -> Value:
    return _quantised(op, n, _real(op, n, 0) * _real(op, n, 3), 6)


@expansion("QLinearConcat", domain=DOMAIN)
def quantised_concat(op: Builder, n: NodeView) -> Value:
    parts = [_real(op, n, k) for k in range(2, len(n.inputs), 3)]
    return _quantised(op, n, op.Concat(*parts, axis=int(n.node.attributes["axis"])), 0)


@expansion("QLinearWhere", domain=DOMAIN)
def quantised_choice(op: Builder, n: NodeView) -> Value:
    return _quantised(op, n, op.Where(n.x, _real(op, n, 1), _real(op, n, 4)), 7)


@expansion("QLinearConv", domain=DOMAIN)
def quantised_convolution(op: Builder, n: NodeView) -> Value:
    kept = {k: v for k, v in n.node.attributes.items() if k != "channels_last"}
    weight, scale, zero, bias = operand(n, 3), operand(n, 4), n.input(5), n.input(8)
    filters = op.DequantizeLinear(weight, scale, zero, axis=0)
    # The bias is stored in units of the product of both scales.
    added = None if bias is None else op.Cast(bias, to=scale.dtype) * (_scalar(op, operand(n, 1)) * scale)
    y = _channels_first(op, n, _real(op, n, 0), lambda front: op.emit("Conv", [front, filters, added], kept))
    return _quantised(op, n, y, 6)


@expansion("QGemm", domain=DOMAIN)
def quantised_gemm(op: Builder, n: NodeView) -> Value:
    """y = quantise(alpha a b + c), c in units of alpha times the product of both scales; in floats where no output scale is given."""
    alpha, across = float(setting(n, "alpha", 1.0)), bool(setting(n, "transB", 0))
    scale, zero, c = operand(n, 4), n.input(5), n.input(6)
    a, b = _real(op, n, 0), op.DequantizeLinear(operand(n, 3), scale, zero, axis=0 if across else 1)
    y = op.Gemm(a, b, alpha=alpha, transA=int(setting(n, "transA", 0)), transB=int(across))
    if c is not None:
        y = y + op.Cast(c, to=scale.dtype) * (_scalar(op, operand(n, 1)) * scale * alpha)
    return y if n.input(7) is None else _quantised(op, n, y, 7)


@expansion("QuantizeLinear", domain=DOMAIN)
def quantised_as_in_the_standard(op: Builder, n: NodeView) -> Value:
    return op.QuantizeLinear(n.x, n.inputs[1], n.input(2), axis=int(setting(n, "axis", 1)), output_dtype=None if n.input(2) is not None else n.y.dtype)


@expansion("DequantizeLinear", domain=DOMAIN)
def dequantised_as_in_the_standard(op: Builder, n: NodeView) -> Value:
    return op.DequantizeLinear(n.x, n.inputs[1], n.input(2), axis=int(setting(n, "axis", 1)))


@expansion("DynamicQuantizeLSTM", domain=DOMAIN)
def long_short_term_memory(op: Builder, n: NodeView) -> list[Value | None]:
    """The LSTM of the dequantised weights. What onnxruntime quantises besides, the input and each hidden state as it comes, is passed straight through."""
    if setting(n, "input_forget", 0):
        raise UnsupportedError(f"{n.node.label} couples its input and forget gates, which is not known here.")
    weights = []
    for at, scale_at in ((1, 8), (2, 10)):
        # [directions, in, 4 hidden] with scales [directions] or [directions, 4 hidden]
        scale, zero = operand(n, scale_at), n.input(scale_at + 1)
        axes = [1] if scale.rank == 2 else [1, 2]
        real = dequantised(op, operand(n, at), op.Unsqueeze(scale, axes), None if zero is None else op.Unsqueeze(zero, axes))
        weights.append(op.Transpose(real, perm=[0, 2, 1]))
    operands = [n.x, *weights, *(n.input(k) for k in range(3, 8))]
    found = op.emit("LSTM", operands, dict(n.node.attributes), outputs=3)
    return list(found)[: len(n.outputs)]


quantizes(QUANTISED, domain=DOMAIN)
