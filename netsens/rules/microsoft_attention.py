"""The attention operators of onnxruntime (`com.microsoft`) in standard operators."""

from __future__ import annotations

from collections.abc import Sequence

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import INT64
from netsens.graph.emit import Builder, Value
from netsens.rules.attention import Attended, additive, attend, join_heads, places, split_heads
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.microsoft_quantized import dequantised
from netsens.rules.words import NodeView, expansion

MASKED = -10000.0  # what onnxruntime adds to the score of a key that a mask excludes, unless told otherwise


def refused(n: NodeView, what: str) -> UnsupportedError:
    return UnsupportedError(f"{n.node.label} {what}, which is not known here; --method finite-difference finds its derivative.")


def scale_of(n: NodeView) -> float | None:
    return float(setting(n, "scale", 0.0)) or None


def _not_future(op: Builder, q: Value, k: Value) -> Value:
    """Each query sees the keys up to its own place, the queries being the last of the keys: [L, S]."""
    rows, columns = op.Unsqueeze(places(op, q, 2), [1]), op.Unsqueeze(places(op, k, 2), [0])
    return op.Not(op.Greater(columns, rows + (op.dim(k, 2) - op.dim(q, 2))))


def _unmasked(op: Builder, n: NodeView, mask: Value, k: Value) -> Value:
    """Which keys a mask leaves, broadcasting against [B, H, L, S]. It holds 1 and 0 for each key, or where each sample's keys end (and start)."""
    batch = k.shape[0]
    if mask.rank == 1:
        columns = op.Unsqueeze(places(op, k, 2), [0])
        ends = op.Reshape(op.Cast(mask, to=INT64), [-1, 1, 1, 1])
        if mask.shape[0] == batch:
            return op.Less(columns, ends)
        if isinstance(batch, int) and mask.shape[0] == 2 * batch:
            ends, starts = op.Split(ends, axis=0, num_outputs=2, outputs=2)
            return op.And(op.Less(columns, ends), op.Not(op.Less(columns, starts)))
        raise refused(n, f"has a mask of shape {mask.shape} over a batch of {batch}")
    if mask.rank > 3:
        raise refused(n, f"has a mask of rank {mask.rank}")
    return op.Unsqueeze(op.Greater(mask, op.constant(0, mask)), [1, 2] if mask.rank == 2 else [1])


def _masked(
    op: Builder, n: NodeView, q: Value, k: Value, v: Value, mask: Value | None, causal: bool, bias: Value | None
) -> Attended:  # fmt: skip
    """Attention under a mask that lowers scores by a finite number, a causal one, and a bias."""
    total: Value | None = None
    if mask is not None:
        total = additive(op, _unmasked(op, n, mask, k), q, float(setting(n, "mask_filter_value", MASKED)))
    if causal:
        ahead = additive(op, _not_future(op, q, k), q)
        total = ahead if total is None else total + ahead
    if bias is not None:
        total = bias if total is None else bias + total
    return attend(op, q, k, v, scale_of(n), total)


# Attention and QAttention: one weight for queries, keys and values ---------------------------------------------------------------


def _self_attention(
    op: Builder, n: NodeView, merged: Value, sizes: Sequence[int], mask: Value | None, past: Value | None, bias: Value | None
) -> list[Value | None]:
    if setting(n, "do_rotary", 0) or setting(n, "past_present_share_buffer", 0):
        raise refused(n, "rotates its queries or shares the buffer of its past")
    heads = int(n["num_heads"])
    parts = op.Split(merged, op.vector(list(sizes)), axis=-1, outputs=3)
    q, k, v = (split_heads(op, part, heads) for part in parts)
    if past is not None:
        before = op.Split(past, axis=0, num_outputs=2, outputs=2)  # [2, B, H, P, D]
        k, v = (op.Concat(op.Squeeze(old, [0]), new, axis=2) for old, new in zip(before, (k, v), strict=True))
    found = _masked(op, n, q, k, v, mask, bool(setting(n, "unidirectional", 0)), bias)
    present = op.Concat(op.Unsqueeze(k, [0]), op.Unsqueeze(v, [0]), axis=0) if len(n.outputs) > 1 and n.outputs[1] is not None else None
    return [join_heads(op, found.y), present][: len(n.outputs)]


def _sizes(n: NodeView, weight: Value) -> list[int]:
    sizes = [int(s) for s in setting(n, "qkv_hidden_sizes", [])]
    if sizes:
        return sizes
    width = weight.shape[1]
    if not isinstance(width, int):
        raise UnsupportedError(f"{n.node.label} has weights of unknown width; its derivative needs it.")
    return [width // 3] * 3


@expansion("Attention", domain=DOMAIN)
def attention(op: Builder, n: NodeView) -> list[Value | None]:
    weight, bias = operand(n, 1), n.input(2)
    merged = op.MatMul(n.x, weight)
    merged = merged if bias is None else merged + bias
    return _self_attention(op, n, merged, _sizes(n, weight), n.input(3), n.input(4), n.input(5))


@expansion("QAttention", domain=DOMAIN)
def quantised_attention(op: Builder, n: NodeView) -> list[Value | None]:
    weight, bias = operand(n, 1), operand(n, 2)
    x = dequantised(op, n.x, operand(n, 3), n.input(6))
    w = dequantised(op, weight, operand(n, 4), n.input(7))
    return _self_attention(op, n, op.MatMul(x, w) + bias, _sizes(n, weight), n.input(5), n.input(8), None)


# MultiHeadAttention: queries, keys and values apart ------------------------------------------------------------------------------


@expansion("MultiHeadAttention", domain=DOMAIN)
def multi_head_attention(op: Builder, n: NodeView) -> list[Value | None]:
    if n.input(8) is not None or n.input(9) is not None:
        raise refused(n, "shares the buffer of its past")
    return _multi_head(op, n, n.input(3), n.input(4), n.input(5), n.input(6), n.input(7), bool(setting(n, "unidirectional", 0)))


@expansion("DecoderMaskedMultiHeadAttention", domain=DOMAIN)
def decoder_attention(op: Builder, n: NodeView) -> list[Value | None]:
    if setting(n, "past_present_share_buffer", 0) or n.input(9) is not None:
        raise refused(n, "shares the buffer of its past, or decodes beams")
    return _multi_head(op, n, n.input(10), n.input(3), n.input(4), n.input(5), n.input(6), False)


def _multi_head(
    op: Builder, n: NodeView, bias: Value | None, mask: Value | None, added: Value | None, past_key: Value | None, past_value: Value | None, causal: bool
) -> list[Value | None]:  # fmt: skip
    q, k, v = _queries_keys_values(op, n, bias)
    if past_key is not None:
        k, v = op.Concat(past_key, k, axis=2), op.Concat(past_value, v, axis=2)
    found = _masked(op, n, q, k, v, mask, causal, added)
    outputs: list[Value | None] = [join_heads(op, found.y), k, v, found.biased]
    return outputs[: len(n.outputs)]


def _queries_keys_values(op: Builder, n: NodeView, bias: Value | None) -> tuple[Value, Value, Value]:
    """All three as [B, H, L, D], from whichever packing they come in."""
    heads, query, key, value = int(n["num_heads"]), n.x, n.input(1), n.input(2)
    if query.rank == 5:  # [B, L, H, 3, D]
        if bias is not None:
            query = query + op.Transpose(op.Reshape(bias, [3, heads, -1]), perm=[1, 0, 2])
        q, k, v = op.Split(query, axis=3, num_outputs=3, outputs=3)
        return _unpacked(op, q), _unpacked(op, k), _unpacked(op, v)
    parts: Sequence[Value | None] = (None, None, None)
    if bias is not None:
        width = op.dim(query, 2)
        parts = op.Split(bias, op.vector([width, width, op.dim(bias, 0) - width * 2]), axis=0, outputs=3)
    q = split_heads(op, _plus(query, parts[0]), heads)
    assert key is not None
    if key.rank == 5:  # [B, S, H, 2, D]
        k, v = (_unpacked(op, part) for part in op.Split(key, axis=3, num_outputs=2, outputs=2))
        return q, k, v
    assert value is not None
    if key.rank == 4:  # a past that is the whole of the keys, its bias in it already
        return q, key, value
    return q, split_heads(op, _plus(key, parts[1]), heads), split_heads(op, _plus(value, parts[2]), heads)


def _plus(x: Value, bias: Value | None) -> Value:
    return x if bias is None else x + bias


def _unpacked(op: Builder, x: Value) -> Value:
    """[B, L, H, 1, D] -> [B, H, L, D]."""
    return op.Transpose(op.Squeeze(x, [3]), perm=[0, 2, 1, 3])
