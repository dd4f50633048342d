"""Attention: scaled dot products under masks, with grouped heads. `attend` is what onnxruntime's own attention operators are made of, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import BOOL, INT64
from netsens.graph.emit import Builder, Value
from netsens.graph.sizes import product
from netsens.rules.words import RULES, NodeView, Rule, expansion


def split_heads(op: Builder, x: Value, heads: int) -> Value:
    """[B, L, H*D] -> [B, H, L, D]; what has four axes already is as it is."""
    return x if x.rank == 4 else op.Transpose(op.Reshape(x, [0, 0, heads, -1]), perm=[0, 2, 1, 3])


def join_heads(op: Builder, x: Value) -> Value:
    """[B, H, L, D] -> [B, L, H*D]."""
    return op.Reshape(op.Transpose(x, perm=[0, 2, 1, 3]), [0, 0, -1])


def indices(op: Builder, length: Value) -> Value:
    """0, 1, ... up to a length given as a vector of one."""
    if length.constant is not None:
        return op.constant(np.arange(int(length.constant[0]), dtype=np.int64))
    return op.Range(op.constant(np.asarray(0, np.int64)), op.Squeeze(length, [0]), op.constant(np.asarray(1, np.int64)))


def places(op: Builder, x: Value, axis: int) -> Value:
    """0, 1, ... along an axis of x."""
    return op.retyped(indices(op, op.dim(x, axis)), (x.shape[axis],))


def all_of(op: Builder, conditions: Sequence[Value]) -> Value:
    result = conditions[0]
    for condition in conditions[1:]:
        result = op.And(result, condition)
    return result


@dataclass(frozen=True, slots=True)
class Attended:
    """What attention gives, and the scores on the way to it: raw, after the soft cap, with the bias, and the probabilities."""

    y: Value
    raw: Value
    capped: Value
    biased: Value
    probabilities: Value


def attend(
    op: Builder, q: Value, k: Value, v: Value, scale: float | None, bias: Value | None, *, softcap: float = 0.0, precision: int = 0, guard: bool = False,
    sink: Value | None = None,
) -> Attended:  # fmt: skip
    """q [B, H, L, D], k [B, J, S, D], v [B, J, S, E] -> y [B, H, L, E], where J divides H and head h reads key head h // (H/J).

    With `guard`, a query whose every key is masked gets zero. A `sink` [H] is one more logit in each head's softmax."""
    factor = _square_root_scale(op, q) if scale is None else op.constant(scale, q)
    raw = query_rows(op, q * factor, k, op.Transpose(k, perm=[0, 1, 3, 2]))
    capped = op.Tanh(raw / softcap) * softcap if softcap else raw
    biased, kept = capped, None
    if bias is not None:
        if guard and not _surely_open(bias):
            top = op.ReduceMax(bias, [-1])
            shut = op.Equal(top, op.constant(-np.inf, top))
            kept = 1 - op.Cast(shut, to=q.dtype)
            biased = capped + bias
            safe = capped + op.Where(shut, op.constant(0, bias), bias)
        else:
            biased = safe = capped + bias
    else:
        safe = capped
    wide = op.Cast(safe, to=precision or q.dtype)
    probabilities = op.Cast(_softmax(op, wide, sink), to=q.dtype)
    if kept is not None:
        probabilities = probabilities * kept
    y = join_queries(op, probabilities, q, k, v)
    return Attended(y, raw, capped, biased, probabilities)


def query_rows(op: Builder, q: Value, k: Value, matrix: Value) -> Value:
    """q [B, H, L, D] times a matrix [B, J, D, S] of the keys k: [B, H, L, S], each key head serving H/J heads in a row.

    The queries that share keys stand under one another, [B, J, H/J*L, D], so that no key is repeated."""
    if q.shape[1] == k.shape[1]:
        return op.MatMul(q, matrix)
    heads, groups = _number(q), _number(k)
    rows = op.Reshape(q, op.vector([op.dim(q, 0), groups, -1, op.dim(q, 3)]))
    rows = op.retyped(rows, (q.shape[0], groups, product([heads // groups, q.shape[2]]), q.shape[3]))
    result = op.Reshape(op.MatMul(rows, matrix), op.vector([op.dim(q, 0), heads, op.dim(q, 2), -1]))
    return op.retyped(result, (*q.shape[:3], matrix.shape[3]))


def join_queries(op: Builder, probabilities: Value, q: Value, k: Value, v: Value) -> Value:
    """Probabilities [B, H, L, S] times the values v [B, J, S, E]: [B, H, L, E]."""
    if q.shape[1] == k.shape[1]:
        return op.MatMul(probabilities, v)
    heads, groups = _number(q), _number(k)
    rows = op.Reshape(probabilities, op.vector([op.dim(q, 0), groups, -1, op.dim(k, 2)]))
    rows = op.retyped(rows, (q.shape[0], groups, product([heads // groups, q.shape[2]]), k.shape[2]))
    y = op.Reshape(op.MatMul(rows, v), op.vector([op.dim(q, 0), heads, op.dim(q, 2), op.dim(v, 3)]))
    return op.retyped(y, (*q.shape[:3], v.shape[3]))


def _softmax(op: Builder, scores: Value, sink: Value | None) -> Value:
    if sink is None:
        return op.Softmax(scores, axis=-1)
    # One column more, [B, H, L, S] -> [B, H, L, S+1], which takes its share and is then dropped.
    column = op.Expand(op.Reshape(sink, [1, -1, 1, 1]), op.vector([op.dim(scores, k) for k in range(3)] + [1]))
    shares = op.Softmax(op.Concat(scores, column, axis=-1), axis=-1)
    return op.retyped(op.Slice(shares, [0], [-1], [3]), scores.type.shape)


def _square_root_scale(op: Builder, q: Value) -> Value:
    size = q.shape[3]
    if isinstance(size, int):
        return op.constant(1 / np.sqrt(size), q)
    return 1 / op.Sqrt(op.Cast(op.dim(q, 3), to=q.dtype))


def _number(x: Value) -> int:
    """Of a value [B, H, ...], H."""
    heads = x.shape[1]
    if not isinstance(heads, int):
        raise UnsupportedError(f"The attention over '{x.name}' has {heads!r} heads, and its derivative needs their number; fix that dimension.")
    return heads


def _surely_open(bias: Value) -> bool:
    """Whether a bias known beforehand leaves every query at least one key."""
    constant = bias.constant
    return constant is not None and bool(np.isfinite(constant.max(-1)).all())


def additive(op: Builder, allowed: Value, like: Value, masked: float = -np.inf) -> Value:
    """0 where allowed, else -infinity."""
    return op.Where(allowed, op.constant(0, like), op.constant(masked, like))


@expansion("Attention")
def attention(op: Builder, n: NodeView) -> list[Value | None]:
    q, k, v = (split_heads(op, x, int(n[key] or 1)) for x, key in zip(_three(n), ("q_num_heads", "kv_num_heads", "kv_num_heads"), strict=True))
    mask, past_key, past_value, lengths = (n.input(i) for i in (3, 4, 5, 6))
    past: Value | int = 0
    if past_key is not None:
        past = op.dim(past_key, 2)
        k, v = op.Concat(past_key, k, axis=2), op.Concat(past_value, v, axis=2)
    conditions = _conditions(op, n, q, k, past, lengths)
    if mask is not None:
        mask = _full_length(op, n, mask, k)
        if mask.dtype == BOOL:
            conditions.append(mask)
    bias = additive(op, all_of(op, conditions), q) if conditions else None
    if mask is not None and mask.dtype != BOOL:
        bias = mask if bias is None else mask + bias
    scale = None if n["scale"] is None else float(n["scale"])
    guard = mask is not None or lengths is not None or int(n["left_window_size"] or 0) >= 0
    found = attend(op, q, k, v, scale, bias, softcap=float(n["softcap"] or 0), precision=int(n["softmax_precision"] or 0), guard=guard)
    y = join_heads(op, found.y) if n.x.rank == 3 else found.y
    scores = (found.raw, found.capped, found.biased, found.probabilities)[int(n["qk_matmul_output_mode"] or 0)]
    outputs: list[Value | None] = [y, k, v, scores]
    return outputs[: len(n.outputs)]


RULES["ai.onnx.preview", "FlexAttention"] = Rule("FlexAttention", "ai.onnx.preview", "expanded", "the normal form writes it out, subgraphs and all")


def _three(n: NodeView) -> tuple[Value, Value, Value]:
    q, k, v = n.inputs[:3]
    assert q is not None
    assert k is not None
    assert v is not None
    return q, k, v


def _conditions(op: Builder, n: NodeView, q: Value, k: Value, past: Value | int, lengths: Value | None) -> list[Value]:
    """Which keys a query may read, by their places: causality, windows, and the length of each sample."""
    rows = op.Unsqueeze(places(op, q, 2), [1])  # [L, 1]
    columns = op.Unsqueeze(places(op, k, 2), [0])  # [1, S]
    filled = None if lengths is None else op.Reshape(op.Cast(lengths, to=INT64), [-1, 1, 1, 1])  # [B, 1, 1, 1]
    if filled is not None:
        past = filled - op.dim(q, 2)
    place = rows + past
    left, right = (-1 if n[key] is None else int(n[key]) for key in ("left_window_size", "right_window_size"))
    conditions: list[Value] = []
    if n["is_causal"]:
        conditions.append(op.Not(op.Greater(columns, place)))
    if left >= 0:
        conditions.append(op.Not(op.Less(columns, place - left)))
    if right >= 0:
        conditions.append(op.Not(op.Greater(columns, place + right)))
    if filled is not None:
        conditions.append(op.Less(columns, filled))
    return conditions


def _full_length(op: Builder, n: NodeView, mask: Value, k: Value) -> Value:
    """A mask that stops short of the last keys, which from opset 24 on means that they are masked, over all of them."""
    have, want = mask.shape[-1], k.shape[2]
    if n.opset < 24 or (have == want and have is not None):
        return mask
    missing = op.dim(k, 2) - op.dim(mask, mask.rank - 1)
    if mask.dtype == BOOL:
        mask = additive(op, mask, n.x)
    pads = op.vector([0, missing])
    return op.retyped(op.Pad(mask, pads, op.constant(-np.inf, mask), [-1]), (*mask.shape[:-1], want))
