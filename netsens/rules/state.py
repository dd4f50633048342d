"""Operators that hand a state from one call to the next: linear attention, and the causal convolution that goes with it."""

from __future__ import annotations

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import FLOAT, HALVES
from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, expansion

_DOUBLINGS = 16  # where the length of a sequence is not known; enough for 65,536 steps


def _heads(op: Builder, x: Value, heads: int, size: int = -1) -> Value:
    """[B, T, H*D] -> [B, H, 1, T, D], computed in float32 at least; the third axis is for the queries that share a head."""
    wide = op.Cast(x, to=FLOAT) if x.dtype in HALVES else x
    return op.Unsqueeze(op.Transpose(op.Reshape(wide, [0, 0, heads, size]), perm=[0, 2, 1, 3]), [2])


def _swapped(op: Builder, x: Value) -> Value:
    return op.Transpose(x, perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2])


@expansion("LinearAttention")
def linear_attention(op: Builder, n: NodeView) -> list[Value | None]:
    """The recurrence S_t = e^(g_t) S_(t-1) + k_t u_t' unrolled: S_t is the sum over s <= t of e^(c_t - c_s) k_s u_s', with c the running sum of g.
    Where u_t corrects what the state gives for k_t already, the u solve a triangular system."""
    query, key, value = (x for x in n.inputs[:3] if x is not None)
    past, decay, beta = n.input(3), n.input(4), n.input(5)
    groups, heads, rule = int(n["kv_num_heads"]), int(n["q_num_heads"]), str(n["update_rule"] or "gated_delta")
    k, v = _heads(op, key, groups), _heads(op, value, groups)
    # [B, T, H*D] -> [B, J, H/J, T, D]: head h of the queries reads state h // (H/J). With fewer queries than states, each reads J/H of them.
    wide = op.Cast(query, to=k.dtype)
    if heads < groups:
        wide = op.Concat(*[op.Reshape(wide, [0, 0, heads, 1, -1])] * (groups // heads), axis=3)
    apart = op.Transpose(op.Reshape(wide, [0, 0, groups, max(heads // groups, 1), -1]), perm=[0, 2, 3, 1, 4])
    size = k.shape[-1]
    if not isinstance(size, int):
        raise UnsupportedError(f"{n.node.label} has keys of unknown width; its derivative needs it.")
    q = apart * (float(n["scale"] or 0.0) or 1 / float(np.sqrt(size)))
    length = op.dim(query, 1)
    index = op.constant(np.arange(int(length.constant[0]))) if length.constant is not None else op.Range(
        op.constant(np.asarray(0)), op.Squeeze(length, [0]), op.constant(np.asarray(1))
    )  # fmt: skip
    ahead = op.Greater(op.Unsqueeze(index, [0]), op.Unsqueeze(index, [1]))  # [T, T]: s after t
    spent: Value | None = None
    if decay is not None and "gated" in rule:
        each = decay.shape[-1] != groups
        spent = op.CumSum(_heads(op, decay, groups, -1 if each else 1), op.constant(np.asarray(3)))  # [B, J, 1, T, D or 1]
        fade = op.Unsqueeze(spent, [4]) - op.Unsqueeze(spent, [3])  # [B, J, 1, T, T, D or 1]
        fade = op.Exp(op.Where(op.Unsqueeze(ahead, [2]), op.constant(-np.inf, fade), fade))

    def seen(a: Value) -> Value:
        """How much of each key a query a_t meets at its time: [B, J, G, T, S], zero for later keys."""
        if spent is None:
            return op.MatMul(a, _swapped(op, k)) * (1 - op.Cast(ahead, to=k.dtype))
        if spent.shape[-1] == 1:
            return op.MatMul(a, _swapped(op, k)) * op.Squeeze(fade, [5])
        return op.ReduceSum(op.Unsqueeze(a, [4]) * op.Unsqueeze(k, [3]) * fade, [5], keepdims=0)

    start = None if past is None else op.Unsqueeze(op.Cast(past, to=k.dtype), [2])  # [B, J, 1, D, E]

    def remembered(a: Value) -> Value | None:
        """What the first state gives for a_t at its time."""
        return None if start is None else op.MatMul(a if spent is None else a * op.Exp(spent), start)

    written = v
    if beta is not None and "delta" in rule:
        rate = _heads(op, beta, -1, 1)
        before = remembered(k)
        written = rate * (v if before is None else v - before)
        step = -rate * seen(k) * op.Cast(op.Greater(op.Unsqueeze(index, [1]), op.Unsqueeze(index, [0])), to=k.dtype)
        # (1 - N)^-1 = (1 + N)(1 + N^2)(1 + N^4)..., and N to the power of the length is zero.
        doublings = _DOUBLINGS if length.constant is None else max(int(length.constant[0]) - 1, 0).bit_length()
        for i in range(doublings):
            written = written + op.MatMul(step, written)
            if i < doublings - 1:
                step = op.MatMul(step, step)
    y = op.MatMul(seen(q), written)
    first = remembered(q)
    y = y if first is None else y + first
    joined = op.Reshape(op.Transpose(y, perm=[0, 3, 1, 2, 4]), op.vector([op.dim(query, 0), length, -1]))
    outputs: list[Value | None] = [op.Cast(joined, to=query.dtype), _last_state(op, k, written, spent, start, (past or query).dtype)]
    return outputs[: len(n.outputs)]


def _last_state(op: Builder, k: Value, written: Value, spent: Value | None, start: Value | None, dtype: int) -> Value:
    """[B, J, D, E]: what is left at the end of the first state and of all that was written."""
    left = k
    if spent is not None:
        end = op.Slice(spent, [-1], [2**31], [3])  # [B, J, 1, 1, D or 1]
        left = k * op.Exp(end - spent)
        start = None if start is None else start * op.Exp(_swapped(op, end))
    state = op.MatMul(_swapped(op, left), written)
    state = state if start is None else state + start
    return op.Cast(op.Squeeze(state, [2]), to=dtype)


@expansion("CausalConvWithState")
def causal_convolution(op: Builder, n: NodeView) -> list[Value | None]:
    weight = n.inputs[1]
    assert weight is not None
    outputs: list[Value | None] = [*convolved(op, n, n.x, weight, n.input(2), n.input(3), 1)]
    return outputs[: len(n.outputs)]


def convolved(op: Builder, n: NodeView, x: Value, weight: Value, bias: Value | None, past: Value | None, dilation: int) -> tuple[Value, Value]:
    """Each channel of x [B, C, L] over itself and what came before it, activated as the node says, and the last that the next call needs of it."""
    channels, width = weight.shape[0], weight.shape[2]
    if not isinstance(channels, int) or not isinstance(width, int):
        raise UnsupportedError(f"{n.node.label} has weights of shape {weight.shape}; its derivative needs their channels and width as numbers.")
    before = (width - 1) * dilation
    if past is None:
        past = op.Expand(op.constant(0, x), op.vector([op.dim(x, 0), channels, before]))
    sequence = op.Concat(past, x, axis=2)
    y = op.Conv(sequence, weight, bias, group=channels, dilations=[dilation])
    state = op.Slice(sequence, op.dim(x, 2), op.dim(x, 2) + before, [2])
    state = op.retyped(state, (*x.shape[:2], before))
    return y * op.Sigmoid(y) if n["activation"] in ("silu", "swish") else y, state
