"""onnxruntime's mixtures of experts (`com.microsoft`): each token goes through the few experts that its router prefers, and what they give is added up.

Which experts are chosen is piecewise constant; how much each counts is not. Written as onnxruntime's CPU kernels compute them, every expert for every token."""

from __future__ import annotations

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import INT32
from netsens.graph.emit import Builder, Value
from netsens.rules.attention import places
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.microsoft_quantized import unpacked
from netsens.rules.words import NodeView, expansion


def _refused(n: NodeView, what: str) -> UnsupportedError:
    return UnsupportedError(f"{n.node.label} {what}, which onnxruntime's CPU kernel doesn't compute; there is nothing to hold its derivative to.")


@expansion("MoE", domain=DOMAIN)
def mixture_of_experts(op: Builder, n: NodeView) -> Value:
    if n.input(6) is not None or n.input(7) is not None:
        raise _refused(n, "has a third weight for each expert")
    router, first, second = operand(n, 1), operand(n, 2), operand(n, 4)
    chosen = _chosen(op, n, router)
    # Normalised, the shares of the chosen experts add up to one; otherwise they are shares among all of them.
    shares = (
        _softmax_among(op, router, chosen) if setting(n, "normalize_routing_weights", 0) else op.Softmax(router, axis=-1) * op.Cast(chosen, to=router.dtype)
    )
    return _mixed(op, n, shares, first, n.input(3), second, n.input(5))


@expansion("QMoE", domain=DOMAIN)
def quantised_mixture_of_experts(op: Builder, n: NodeView) -> Value:
    if any(n.input(k) is not None for k in (8, 9, 10, 13)):
        raise _refused(n, "has a third weight for each expert")
    kind = str(setting(n, "quant_type", "int"))
    if kind != "int" or any(n.input(k) is not None for k in range(15, 21)) or int(setting(n, "weights_prepacked", -1)) == 1:
        raise _refused(n, f"stores its weights as {kind}, or packed for another device")
    router, weighing = operand(n, 1), n.input(14)
    first, second = (_dequantised(op, n, name, *places) for name, places in (("fc1", (2, 3, 11)), ("fc2", (5, 6, 12))))
    chosen = _chosen(op, n, router)
    if weighing is None:
        shares = _softmax_among(op, router, chosen)  # whether or not normalize_routing_weights asks for it
    else:
        shares = weighing * op.Cast(chosen, to=weighing.dtype)
        if setting(n, "normalize_routing_weights", 0):
            shares = shares / op.ReduceSum(shares, [-1])
    return _mixed(op, n, shares, first, n.input(4), second, n.input(7))


def _chosen(op: Builder, n: NodeView, router: Value) -> Value:
    """Which experts a token goes to, [T, E]: those of the largest logits; of equal ones the last."""
    backwards = op.dim(router, 1) - 1 - places(op, router, 1)
    _, found = op.TopK(op.Gather(router, backwards, axis=1), op.constant(np.asarray([int(setting(n, "k", 1))])), axis=-1, outputs=2)
    here = op.Equal(op.Unsqueeze(found, [2]), backwards)  # [T, k, E]
    return op.Greater(op.ReduceSum(op.Cast(here, to=INT32), [1], keepdims=0), op.constant(np.asarray(0, np.int32)))


def _softmax_among(op: Builder, router: Value, chosen: Value) -> Value:
    return op.Softmax(op.Where(chosen, router, op.constant(-np.inf, router)), axis=-1)


def _mixed(op: Builder, n: NodeView, shares: Value, first: Value, first_bias: Value | None, second: Value, second_bias: Value | None) -> Value:
    """Tokens [.., D] and shares [T, E] through weights [E, F, D] and [E, D, H]: [.., D]."""
    if setting(n, "use_sparse_mixer", 0):
        raise _refused(n, "sets use_sparse_mixer")
    tokens = op.Reshape(n.x, op.vector([1, -1, op.dim(n.x, n.x.rank - 1)]))  # [.., D] -> [1, T, D]
    hidden = _activated(op, n, _layer(op, tokens, first, first_bias))  # [E, T, H]
    given = _layer(op, hidden, second, second_bias)  # [E, T, D]
    weighed = given * op.Unsqueeze(op.Transpose(shares, perm=[1, 0]), [2])
    return op.reshape_like(op.ReduceSum(weighed, [0], keepdims=0), n.x)


def _layer(op: Builder, x: Value, weight: Value, bias: Value | None) -> Value:
    y = op.MatMul(x, op.Transpose(weight, perm=[0, 2, 1]))
    return y if bias is None else y + op.Unsqueeze(bias, [1])


def _activated(op: Builder, n: NodeView, z: Value) -> Value:
    match str(setting(n, "activation_type", "relu")):
        case "relu":
            return op.Relu(z)
        case "gelu":
            return op.Gelu(z, approximate="tanh")
        case "silu":
            return z * op.Sigmoid(z)
        case "identity":
            return z
        case "swiglu":
            return _gated(op, n, z)
        case other:
            raise _refused(n, f"has the activation {other}")


def _gated(op: Builder, n: NodeView, z: Value) -> Value:
    """Gates and what they let through, side by side in pairs: [E, T, 2*H] -> [E, T, H]."""
    if int(setting(n, "swiglu_fusion", 0)) != 1:
        raise _refused(n, "has its gates and values apart (swiglu_fusion other than 1)")
    pairs = op.Split(op.Reshape(z, [0, 0, -1, 2]), axis=-1, num_outputs=2, outputs=2)
    gate, value = (op.Squeeze(part, [3]) for part in pairs)
    limit = setting(n, "swiglu_limit", None)
    if limit is not None:
        top = op.constant(float(limit), z)
        gate, value = op.Clip(gate, None, top), op.Clip(value, op.constant(-float(limit), z), top)
    opened = gate * op.Sigmoid(gate * float(setting(n, "activation_alpha", 1.0)))
    return opened * (value + float(setting(n, "activation_beta", 0.0)))


def _dequantised(op: Builder, n: NodeView, name: str, weights_at: int, scales_at: int, zeros_at: int) -> Value:
    """Weights [E, N, K], from bytes of several numbers each, a scale and zero point for each row or for each block of it."""
    bits = int(setting(n, f"{name}_expert_weight_bits", 0) or setting(n, "expert_weight_bits", 4))
    scales, zeros = n.input(scales_at), n.input(zeros_at)
    packed = operand(n, weights_at)
    if scales is None or bits not in (2, 4, 8):
        raise _refused(n, f"has weights of {bits} bits, or without scales")
    experts, rows = op.dim(packed, 0), op.dim(packed, 1)
    blocks = op.dim(scales, 2) if scales.rank == 3 else 1
    numbers = op.Cast(op.Reshape(unpacked(op, packed, bits), op.vector([experts, rows, blocks, -1])), to=scales.dtype)
    zero: Value | float = float(2 ** (bits - 1))
    if zeros is not None:
        # Packed zero points may end in a part of a byte that nothing uses.
        last = scales.rank - 1
        whole = op.Slice(unpacked(op, zeros, bits), [0], op.dim(scales, last), [last])
        zero = op.Reshape(op.Cast(whole, to=scales.dtype), op.vector([experts, rows, blocks, 1]))
    real = (numbers - zero) * op.Reshape(scales, op.vector([experts, rows, blocks, 1]))
    return op.Cast(op.Reshape(real, op.vector([experts, rows, -1])), to=n.x.dtype)
