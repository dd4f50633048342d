"""onnxruntime's attention with grouped queries and its rotary embedding (`com.microsoft`), as language models have them, in standard operators."""

from __future__ import annotations

import numpy as np

from netsens.graph.dtypes import INT64
from netsens.graph.emit import Builder, Value
from netsens.rules.attention import additive, all_of, attend, indices, join_heads, places, split_heads
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.microsoft_attention import refused, scale_of
from netsens.rules.rotary import rotate
from netsens.rules.words import NodeView, expansion


@expansion("RotaryEmbedding", domain=DOMAIN)
def rotary_embedding(op: Builder, n: NodeView) -> Value:
    if setting(n, "is_packed_batching", 0) or float(setting(n, "scale", 1.0)) != 1.0:
        raise refused(n, "packs its batches or scales its angles")
    which, cosine, sine = operand(n, 1), operand(n, 2), operand(n, 3)
    if which.rank == 1:
        which = op.Unsqueeze(places(op, n.x, 2 if n.x.rank == 4 else 1) + which, [0])
    axis = [1] if n.x.rank == 4 else [2]
    angles = [op.Unsqueeze(op.Gather(cache, which, axis=0), axis) for cache in (cosine, sine)]
    interleaved = bool(setting(n, "interleaved", 0))
    if n.x.rank == 4:
        return rotate(op, n.x, angles[0], angles[1], interleaved)
    heads = int(setting(n, "num_heads", 0))
    # Without rotary_embedding_dim all of a head turns, so its size is twice the number of angles, whatever num_heads says.
    size: Value | int = -1 if setting(n, "rotary_embedding_dim", 0) else op.dim(cosine, 1) * 2
    shape = op.vector([op.dim(n.x, 0), op.dim(n.x, 1), heads, -1] if isinstance(size, int) else [op.dim(n.x, 0), op.dim(n.x, 1), -1, size])
    apart = op.Reshape(n.x, shape)  # [B, L, H*D] -> [B, L, H, D]
    return op.reshape_like(rotate(op, apart, angles[0], angles[1], interleaved), n.x)


@expansion("GroupQueryAttention", domain=DOMAIN)
def group_query_attention(op: Builder, n: NodeView) -> list[Value | None]:
    for key in ("sliding_window_cache", "kv_cache_bit_width"):
        if setting(n, key, 0):
            raise refused(n, f"sets {key}")
    if any(n.input(k) is not None for k in (12, 13, 14, 15)):
        raise refused(n, "has a quantised cache or normalised queries")
    heads, groups = int(n["num_heads"]), int(n["kv_num_heads"])
    if n.input(1) is None:
        whole = op.Reshape(n.x, [0, 0, heads + 2 * groups, -1])
        parts = op.Split(whole, op.vector([heads, groups, groups]), axis=2, outputs=3)
        q, k, v = (op.Transpose(part, perm=[0, 2, 1, 3]) for part in parts)
    else:
        q, k, v = (split_heads(op, operand(n, i), count) for i, count in ((0, heads), (1, groups), (2, groups)))
    length = op.dim(q, 2)
    # How many keys each sample has, [B, 1], and how many of them came before these queries.
    total = op.Reshape(op.Cast(operand(n, 5), to=INT64), [-1, 1]) + 1
    prompt = _fresh(op, n)
    before = total - length if prompt is None else op.constant(np.zeros((1, 1), np.int64))
    if setting(n, "do_rotary", 0):
        which = before + op.Unsqueeze(places(op, q, 2), [0]) if n.input(9) is None else operand(n, 9)
        angles = [op.Unsqueeze(op.Gather(operand(n, c), which, axis=0), [1]) for c in (7, 8)]
        q, k = (rotate(op, x, angles[0], angles[1], bool(setting(n, "rotary_interleaved", 0))) for x in (q, k))
    if prompt is None:
        k, v = (_appended(op, n, operand(n, i), new, before) for i, new in ((3, k), (4, v)))
        v = op.retyped(v, (*k.shape[:3], v.shape[3]))
    place = op.Reshape(before, [-1, 1, 1, 1]) + op.Unsqueeze(places(op, q, 2), [1])  # [B, 1, L, 1]
    columns = op.Unsqueeze(places(op, k, 2), [0])
    conditions: list[Value] = []
    if setting(n, "causal", 1):
        conditions.append(op.Not(op.Greater(columns, place)))
        window = int(setting(n, "local_window_size", -1))
        if window >= 0:
            conditions.append(op.Greater(columns, place - window))
    else:
        conditions.append(op.Less(columns, op.Reshape(total, [-1, 1, 1, 1])))
    bias, added = additive(op, all_of(op, conditions), q), n.input(10)
    if added is not None:
        bias = added + bias
    sink = n.input(11)
    if sink is None and int(setting(n, "smooth_softmax", -1)) == 1:
        sink = op.Expand(op.constant(0, q), op.vector([heads]))
    found = attend(op, q, k, v, scale_of(n), bias, softcap=float(setting(n, "softcap", 0.0)), sink=sink)
    scores = {1: found.biased, 2: found.probabilities}.get(int(setting(n, "qk_output", 0)))
    return [join_heads(op, found.y), k, v, scores][: len(n.outputs)]


def _fresh(op: Builder, n: NodeView) -> bool | None:
    """True where there is no past at all; None where there is, or may be."""
    past = n.input(3)
    return True if past is None or past.shape[2] == 0 else None


def _appended(op: Builder, n: NodeView, past: Value, new: Value, before: Value) -> Value:
    """The cache: of each sample the first `before` [B, 1] of its past, then the new: [B, J, S, D]."""
    both = op.Concat(past, new, axis=2)
    size = op.Max(op.dim(past, 2), op.Reshape(op.Cast(operand(n, 6), to=INT64), [1]))
    place = op.Unsqueeze(indices(op, size), [0])
    after = op.Min(place - before + op.dim(past, 2), op.dim(past, 2) + op.dim(new, 2) - 1)
    source = op.Reshape(op.Where(op.Less(place, before), place, after), op.vector([op.dim(past, 0), 1, -1, 1]))
    source = op.Expand(source, op.vector([op.dim(past, 0), op.dim(past, 1), size, op.dim(new, 3)]))
    present = n.outputs[1].type.shape if len(n.outputs) > 1 and n.outputs[1] is not None else None
    length = present[2] if present is not None else None
    return op.retyped(op.GatherElements(both, source, axis=2), (*past.shape[:2], length, new.shape[3]))
