"""onnxruntime's own operators (`com.microsoft`) as its optimiser leaves them: fused activations, products, convolutions and normalisations.

Each is written in standard operators. Those around attention are in microsoft_attention.py, the quantised products in microsoft_quantized.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import INT32
from netsens.graph.emit import Builder, Value
from netsens.rules.normalization import standardised
from netsens.rules.words import NodeView, expansion, quantizes

DOMAIN = "com.microsoft"


def setting(n: NodeView, key: str, default: Any) -> Any:
    """An attribute, or the default that onnxruntime gives it."""
    value = n[key]
    if value is None:
        return default
    return value.decode() if isinstance(value, bytes) else value


def operand(n: NodeView, position: int) -> Value:
    value = n.input(position)
    assert value is not None
    return value


# Activations ---------------------------------------------------------------------------------------------------------------------


@expansion("Gelu BiasGelu", domain=DOMAIN)
def gelu(op: Builder, n: NodeView) -> Value:
    return op.Gelu(_biased(n))


@expansion("FastGelu", domain=DOMAIN)
def fast_gelu(op: Builder, n: NodeView) -> Value:
    return op.Gelu(_biased(n), approximate="tanh")


def _biased(n: NodeView) -> Value:
    bias = n.input(1)
    return n.x if bias is None else n.x + bias


@expansion("QuickGelu", domain=DOMAIN)
def quick_gelu(op: Builder, n: NodeView) -> Value:
    return n.x * op.Sigmoid(n.x * float(setting(n, "alpha", 1.702)))


@expansion("BiasSplitGelu", domain=DOMAIN)
def bias_split_gelu(op: Builder, n: NodeView) -> Value:
    left, right = op.Split(_biased(n), axis=-1, num_outputs=2, outputs=2)
    return left * op.Gelu(right)


@expansion("BiasAdd", domain=DOMAIN)
def bias_add(op: Builder, n: NodeView) -> Value:
    return n.x + operand(n, 1) + operand(n, 2)


@expansion("BiasSoftmax", domain=DOMAIN)
def bias_softmax(op: Builder, n: NodeView) -> Value:
    scores = _biased(n)
    axis = int(setting(n, "axis", 1)) % scores.rank
    if axis == scores.rank - 1:
        return op.Softmax(scores, axis=-1)
    return op.reshape_like(op.Softmax(op.Reshape(scores, [0] * axis + [-1]), axis=-1), scores)


@expansion("BiasDropout", domain=DOMAIN)
def bias_dropout(op: Builder, n: NodeView) -> Value:
    training = n.input(4)
    if training is not None and (training.constant is None or training.constant.any()):
        raise UnsupportedError(f"{n.node.label} may drop values at random; set its training_mode input to a constant false.")
    residual = n.input(2)
    return _biased(n) if residual is None else _biased(n) + residual


@expansion("Trilu", domain=DOMAIN)
def trilu(op: Builder, n: NodeView) -> Value:
    return op.Trilu(n.x, n.input(1), upper=int(setting(n, "upper", 1)))


def activated(op: Builder, x: Value, name: str, parameters: Sequence[float], label: str) -> Value:
    """x through the activation that a fused operator names, with its parameters in the order of the standard's attributes."""
    first = float(parameters[0]) if parameters else 0.01
    match name:
        case "":
            return x
        case "Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign" | "HardSwish" | "Exp" | "Abs" | "Neg":
            return op.emit(name, [x], {})
        case "LeakyRelu":
            return op.LeakyRelu(x, alpha=first)
        case "Elu" | "ThresholdedRelu":
            return op.emit(name, [x], {"alpha": float(parameters[0]) if parameters else 1.0})
        case "Clip":
            return op.Clip(x, *(op.constant(float(p), x) for p in parameters[:2]))
        case "HardSigmoid":
            alpha, beta = (*map(float, parameters), 0.5)[:2] if parameters else (0.2, 0.5)
            return op.HardSigmoid(x, alpha=alpha, beta=beta)
        case _:
            raise UnsupportedError(f"{label} has the activation {name}, which is not known here; --method finite-difference finds its derivative.")


# Products and convolutions -----------------------------------------------------------------------------------------------------------


@expansion("FusedConv", domain=DOMAIN)
def fused_convolution(op: Builder, n: NodeView) -> Value:
    kept = {k: v for k, v in n.node.attributes.items() if not k.startswith("activation")}
    y = op.emit("Conv", [n.x, n.inputs[1], n.input(2)], kept)
    added = n.input(3)
    y = y if added is None else y + added
    return activated(op, y, setting(n, "activation", ""), setting(n, "activation_params", []), n.node.label)


@expansion("FusedGemm", domain=DOMAIN)
def fused_gemm(op: Builder, n: NodeView) -> Value:
    kept = {k: v for k, v in n.node.attributes.items() if not k.startswith("activation")}
    y = op.emit("Gemm", list(n.inputs), kept)
    parameters = [float(v) for k in ("alpha", "beta", "gamma") if (v := n[f"activation_{k}"]) is not None]
    return activated(op, y, setting(n, "activation", ""), parameters, n.node.label)


@expansion("FusedMatMul TransposeMatMul", domain=DOMAIN)
def fused_product(op: Builder, n: NodeView) -> Value:
    a = _arranged(op, n.x, bool(n["transA"]), bool(n["transBatchA"]))
    b = _arranged(op, operand(n, 1), bool(n["transB"]), bool(n["transBatchB"]))
    return op.MatMul(a, b) * float(setting(n, "alpha", 1.0))


def _arranged(op: Builder, x: Value, matrix: bool, batch: bool) -> Value:
    if x.rank < 2:
        return x  # a vector stays one
    axes = list(range(x.rank))
    if batch:
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if matrix:
        axes = [*axes[:-2], axes[-1], axes[-2]]
    return op.Transpose(x, perm=axes)


@expansion("NhwcMaxPool", domain=DOMAIN)
def pool_channels_last(op: Builder, n: NodeView) -> Value:
    last = n.x.rank - 1
    front = op.Transpose(n.x, perm=[0, last, *range(1, last)])
    return op.Transpose(op.emit("MaxPool", [front], dict(n.node.attributes)), perm=[0, *range(2, last + 1), 1])


quantizes("NhwcMaxPool", domain=DOMAIN)


# Normalisations ----------------------------------------------------------------------------------------------------------------------


def _summed(n: NodeView, bias_at: int) -> Value:
    """The sum of input, skip and bias; the skip may lack the batch axis."""
    bias = n.input(bias_at)
    total = n.x + operand(n, 1)
    return total if bias is None else total + bias


@expansion("SkipLayerNormalization", domain=DOMAIN)
def skip_layer_normalization(op: Builder, n: NodeView) -> list[Value | None]:
    total = _summed(n, 4)
    y, mean, inverse = op.LayerNormalization(total, operand(n, 2), n.input(3), axis=-1, epsilon=float(setting(n, "epsilon", 1e-12)), outputs=3)
    return [y, mean, inverse, total][: len(n.outputs)]


@expansion("SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_root_mean_square(op: Builder, n: NodeView) -> list[Value | None]:
    total = _summed(n, 3)
    inverse = 1 / op.Sqrt(op.ReduceMean(total * total, [-1]) + float(setting(n, "epsilon", 1e-12)))
    return [total * inverse * operand(n, 2), None, inverse, total][: len(n.outputs)]


@expansion("EmbedLayerNormalization", domain=DOMAIN)
def embedding_normalization(op: Builder, n: NodeView) -> list[Value | None]:
    segments, mask, places = n.input(1), n.input(7), n.input(8)
    total = op.Gather(operand(n, 2), n.x, axis=0)
    position = operand(n, 3)
    if places is None:
        total = total + op.Slice(position, op.constant(np.zeros(1, np.int64)), op.dim(n.x, 1), [0])
    else:
        total = total + op.Gather(position, places, axis=0)
    if segments is not None:
        total = total + op.Gather(operand(n, 4), segments, axis=0)
    y = op.LayerNormalization(total, operand(n, 5), operand(n, 6), axis=-1, epsilon=float(setting(n, "epsilon", 1e-12)))
    if mask is None:
        lengths = op.Expand(op.constant(np.asarray(0, np.int32)), op.dim(n.x, 0))
    else:
        lengths = op.ReduceSum(op.Cast(mask, to=INT32), [1], keepdims=0)
    return [y, lengths, total][: len(n.outputs)]


@expansion("GroupNorm", domain=DOMAIN)
def group_norm(op: Builder, n: NodeView) -> Value:
    return _grouped(op, n, n.x, operand(n, 1), operand(n, 2))


@expansion("SkipGroupNorm", domain=DOMAIN)
def skip_group_norm(op: Builder, n: NodeView) -> list[Value | None]:
    skip, bias = operand(n, 3), n.input(4)
    if skip.rank == 2:
        skip = op.Unsqueeze(skip, [1, 2] if setting(n, "channels_last", 1) else [2, 3])
    total = n.x + skip
    if bias is not None:
        total = total + (bias if setting(n, "channels_last", 1) else op.Reshape(bias, [-1, 1, 1]))
    outputs: list[Value | None] = [_grouped(op, n, total, operand(n, 1), operand(n, 2)), total]
    return outputs[: len(n.outputs)]


def _grouped(op: Builder, n: NodeView, x: Value, gamma: Value, beta: Value) -> Value:
    last = bool(setting(n, "channels_last", 1))
    front = op.Transpose(x, perm=[0, 3, 1, 2]) if last else x
    rows = op.Reshape(front, [0, int(n["groups"]), -1])
    xhat = op.reshape_like(standardised(op, rows, 2, float(setting(n, "epsilon", 1e-5)))[0], front)
    y = xhat * op.Reshape(gamma, [-1, 1, 1]) + op.Reshape(beta, [-1, 1, 1])
    if int(setting(n, "activation", 0)):
        y = y * op.Sigmoid(y)
    return op.Transpose(y, perm=[0, 2, 3, 1]) if last else y
