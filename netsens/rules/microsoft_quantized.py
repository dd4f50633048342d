"""onnxruntime's products with quantised weights (`com.microsoft`), the weights dequantised; the QLinear operators are in quantization.py."""

from __future__ import annotations

from netsens.errors import UnsupportedError
from netsens.graph.emit import Builder, Value
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.words import NodeView, expansion

UINT8 = 2


def _unpacked(op: Builder, packed: Value, bits: int) -> Value:
    """Each byte as the 8/bits numbers in it, the lowest bits first, as int32: [..., W] -> [..., W*8/bits]."""
    wide = op.Cast(packed, to=6)
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
    numbers = op.Cast(op.Reshape(_unpacked(op, packed, bits), [rows, blocks, size]), to=n.x.dtype)
    if zeros is None:
        shifted = numbers - float(2 ** (bits - 1))
    else:
        if zeros.dtype == UINT8:
            unpacked = op.Reshape(_unpacked(op, zeros, bits), [rows, -1])
            zeros = op.Cast(op.Slice(unpacked, [0], [blocks], [1]), to=n.x.dtype)
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
