"""onnxruntime's products with quantised weights (`com.microsoft`), the weights dequantised; the QLinear operators are in quantization.py."""

from __future__ import annotations

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import INT32, UINT8
from netsens.graph.emit import Builder, Value
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.words import NodeView, expansion

_INT4 = (21, 22)  # uint4, int4
# What the sixteen codes of bitsandbytes stand for: FP4, a sign and a float of three bits over 12; NF4, quantiles of a normal distribution.
_FP4 = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0]
_NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
_CODES = {0: [v / 12 for v in (*_FP4, *(-v for v in _FP4))], 1: _NF4}


def unpacked(op: Builder, packed: Value, bits: int) -> Value:
    """Each byte as the 8/bits numbers in it, the lowest bits first, as int32: [..., W] -> [..., W*8/bits]."""
    wide = op.Cast(packed, to=INT32)
    if bits == 8:
        return wide
    parts = []
    for k in range(8 // bits):
        shifted = op.Div(wide, op.constant(2 ** (bits * k), wide)) if k else wide
        parts.append(op.Unsqueeze(op.Mod(shifted, op.constant(2**bits, wide)), [-1]))
    return op.Reshape(op.Concat(*parts, axis=-1), [0] * (packed.rank - 1) + [-1])


@expansion("MatMulNBits", domain=DOMAIN)
def product_of_few_bits(op: Builder, n: NodeView) -> Value:
    packed, scales, zeros, bias = operand(n, 1), operand(n, 2), n.input(3), n.input(5)
    bits, size, rows, columns = int(setting(n, "bits", 4)), int(n["block_size"]), int(n["N"]), int(n["K"])
    if n.input(4) is not None or setting(n, "weight_prepacked", 0) or bits not in (2, 4, 8):
        raise UnsupportedError(f"{n.node.label} stores its weights in an order, or in {bits} bits, that is not known here.")
    blocks = -(-columns // size)
    numbers = op.Cast(op.Reshape(unpacked(op, packed, bits), [rows, blocks, size]), to=n.x.dtype)
    if zeros is None:
        shifted = numbers - float(2 ** (bits - 1))
    else:
        if zeros.dtype == UINT8:
            whole = op.Reshape(unpacked(op, zeros, bits), [rows, -1])
            zeros = op.Cast(op.Slice(whole, [0], [blocks], [1]), to=n.x.dtype)
        shifted = numbers - op.Reshape(zeros, [rows, blocks, 1])
    weights = op.Reshape(shifted * op.Reshape(scales, [rows, blocks, 1]), [rows, blocks * size])
    if blocks * size != columns:
        weights = op.Slice(weights, [0], [columns], [1])
    y = op.MatMul(n.x, op.Transpose(weights, perm=[1, 0]))
    return y if bias is None else y + bias


def dequantised(op: Builder, x: Value, scale: Value, zero: Value | None) -> Value:
    """A quantised operand as numbers, of the dtype of its scale: one scale and zero point, or one for each column."""
    number = op.Cast(x, to=scale.dtype)
    return (number if zero is None else number - op.Cast(zero, to=scale.dtype)) * scale


@expansion("DynamicQuantizeMatMul", domain=DOMAIN)
def product_quantised_as_it_comes(op: Builder, n: NodeView) -> Value:
    bias = n.input(4)
    a = op.DequantizeLinear(*op.DynamicQuantizeLinear(n.x, outputs=3))
    y = op.MatMul(a, dequantised(op, operand(n, 1), operand(n, 2), n.input(3)))
    return y if bias is None else y + bias


@expansion("MatMulIntegerToFloat", domain=DOMAIN)
def product_of_integers(op: Builder, n: NodeView) -> Value:
    bias = n.input(6)
    a = dequantised(op, n.x, operand(n, 2), n.input(4))
    y = op.MatMul(a, dequantised(op, operand(n, 1), operand(n, 3), n.input(5)))
    return y if bias is None else y + bias


@expansion("MatMulBnb4", domain=DOMAIN)
def product_of_codes(op: Builder, n: NodeView) -> Value:
    """The weights [N, K], flat, are codes of four bits, the first of a byte in its high half, times the largest magnitude of their block."""
    rows, columns, size = int(n["N"]), int(n["K"]), int(n["block_size"])
    count, blocks = rows * columns, -(-rows * columns // size)
    low, high = (op.Reshape(half, [-1, 1]) for half in _halves(op, operand(n, 1)))
    codes = op.Reshape(op.Concat(high, low, axis=1), [-1])
    numbers = op.Gather(op.constant(np.asarray(_CODES[int(setting(n, "quant_type", 1))]), n.x), op.Slice(codes, [0], [count], [0]), axis=0)
    if count != blocks * size:
        numbers = op.Pad(numbers, [0, blocks * size - count])
    weights = op.Reshape(numbers, [blocks, size]) * op.Cast(op.Reshape(operand(n, 2), [blocks, 1]), to=n.x.dtype)
    weights = op.Reshape(op.Slice(op.Reshape(weights, [-1]), [0], [count], [0]), [rows, columns])
    return op.MatMul(n.x, op.Transpose(weights, perm=[1, 0]) if setting(n, "transB", 1) else weights)


def _halves(op: Builder, packed: Value) -> tuple[Value, Value]:
    wide = op.Cast(packed, to=INT32)
    sixteen = op.constant(16, wide)
    return op.Mod(wide, sixteen), op.Div(wide, sixteen)


@expansion("GatherBlockQuantized", domain=DOMAIN)
def gather_blocks(op: Builder, n: NodeView) -> Value:
    """The rows that are asked for, dequantised: the scales and zero points are gathered along."""
    data, which, scales, zeros = n.x, operand(n, 1), operand(n, 2), n.input(3)
    axis, along, bits, size = (int(setting(n, k, d)) for k, d in (("gather_axis", 0), ("quantize_axis", 1), ("bits", 4), ("block_size", 128)))
    axis, along = axis % data.rank, along % data.rank
    packed = data.dtype == UINT8 and bits < 8
    if along != data.rank - 1 or axis == along or (data.dtype not in (UINT8, *_INT4) or bits not in (2, 4, 8)) or not size:
        raise UnsupportedError(
            f"{n.node.label} stores its data in an order, or in a type, that is not known here; --method finite-difference finds its derivative."
        )

    def rows(x: Value) -> Value:
        taken = op.Gather(op.Cast(x, to=INT32), which, axis=axis)
        return unpacked(op, taken, bits) if packed else taken

    numbers, scale = rows(data), op.Gather(scales, which, axis=axis)
    last = numbers.rank - 1
    zero: Value | float = 0.0 if data.dtype != UINT8 else float(2 ** (bits - 1))
    if zeros is not None:
        # Packed zero points may end in a half byte that nothing uses.
        zero = op.Slice(rows(zeros), [0], op.dim(scale, last), [last])
        zero = op.Unsqueeze(op.Cast(zero, to=scale.dtype), [-1])
    width = op.dim(numbers, last)
    # [.., L] -> [.., blocks, size], the last block filled up
    missing = op.dim(scale, last) * size - width
    whole = op.Pad(op.Cast(numbers, to=scale.dtype), op.Concat([0], missing, axis=0), None, [last])
    blocks = op.Reshape(whole, op.Concat(op.shape(scale), [size], axis=0))
    y = op.Reshape((blocks - zero) * op.Unsqueeze(scale, [-1]), op.shape(whole))
    return op.Slice(y, [0], width, [last])


@expansion("QEmbedLayerNormalization", domain=DOMAIN)
def quantised_embedding_normalization(op: Builder, n: NodeView) -> list[Value | None]:
    segments = n.input(1)
    scales = {2: 8, 3: 9, 4: 10, 5: 11, 6: 12}

    def table(k: int) -> Value:
        return dequantised(op, operand(n, k), operand(n, scales[k]), n.input(scales[k] + 5))

    word, place, gamma, beta = (table(k) for k in (2, 3, 5, 6))
    total = op.Gather(word, n.x, axis=0) + op.Slice(place, [0], op.dim(n.x, 1), [0])
    if segments is not None:
        total = total + op.Gather(table(4), segments, axis=0)
    y = op.LayerNormalization(total, gamma, beta, axis=-1, epsilon=float(setting(n, "epsilon", 1e-12)))
    mask = n.input(7)
    lengths = op.Expand(op.constant(np.asarray(0, np.int32)), op.dim(n.x, 0)) if mask is None else op.ReduceSum(op.Cast(mask, to=INT32), [1], keepdims=0)
    outputs: list[Value | None] = [y, lengths]
    return outputs[: len(n.outputs)]
