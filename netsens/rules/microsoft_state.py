"""onnxruntime's operators of recurrent language models (`com.microsoft`): linear attention and the causal convolution before it, which hand a state on, and
rotary embedding by three positions a token."""

from __future__ import annotations

import numpy as np

from netsens.graph.emit import Builder, Value
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.microsoft_attention import refused
from netsens.rules.rotary import rotate
from netsens.rules.state import convolved, linear_attention
from netsens.rules.words import NodeView, expansion, refuse

refuse("SparseAttention", domain=DOMAIN,
       why="onnxruntime runs it only in place, over the buffer of keys and values that it reads; export the model with attention under a mask instead")  # fmt: skip


@expansion("LinearAttention", domain=DOMAIN)
def attention_by_state(op: Builder, n: NodeView) -> list[Value | None]:
    if setting(n, "state_window", 0):
        raise refused(n, "keeps a window of states")
    return linear_attention(op, n)


@expansion("CausalConvWithState", domain=DOMAIN)
def causal_convolution(op: Builder, n: NodeView) -> list[Value | None]:
    if setting(n, "state_window", 0) or int(setting(n, "ndim", 1)) != 1:
        raise refused(n, "keeps a window of states, or has more than one spatial axis")
    weight, past, last = operand(n, 1), n.input(3), bool(setting(n, "channels_last", 0))

    def channels_first(x: Value) -> Value:
        """[B, L, ...] -> [B, C, L]."""
        front = op.Transpose(op.Reshape(x, op.vector([op.dim(x, 0), op.dim(x, 1), op.dim(weight, 0)])), perm=[0, 2, 1])
        return op.retyped(front, (x.shape[0], weight.shape[0], x.shape[1]))

    x = channels_first(n.x) if last else n.x
    past = channels_first(past) if last and past is not None else past
    y, state = convolved(op, n, x, weight, n.input(2), past, int(setting(n, "dilation", 1)))
    if last:
        y = op.reshape_like(op.Transpose(y, perm=[0, 2, 1]), n.x)
        behind = [op.dim(n.x, k) for k in range(2, n.x.rank)]
        state = op.Reshape(op.Transpose(state, perm=[0, 2, 1]), op.vector([op.dim(state, 0), op.dim(state, 2), *behind]))
    outputs: list[Value | None] = [y, state]
    return outputs[: len(n.outputs)]


@expansion("MRotaryEmbedding", domain=DOMAIN)
def rotary_embedding_by_three_positions(op: Builder, n: NodeView) -> Value:
    """Each angle goes by one of a token's three positions: in sections, or in turns."""
    if setting(n, "is_packed_batching", 0) or float(setting(n, "scale", 1.0)) != 1.0:
        raise refused(n, "packs its batches or scales its angles")
    sections = [int(s) for s in n["mrope_section"]]
    by = np.repeat(np.arange(3), sections)
    if setting(n, "mrope_layout", 0):
        by = np.zeros(sum(sections), np.int64)
        for position in (1, 2):
            by[position : sections[position] * 3 : 3] = position
    # The angles of each position side by side, then back in their own order.
    columns = [np.flatnonzero(by == position) for position in range(3)]
    order = np.argsort(np.concatenate(columns))

    def angles(cache: Value) -> Value:
        """[positions, angles] -> [B, L, angles]."""
        parts = [
            op.Gather(op.Gather(cache, op.constant(found), axis=1), op.Gather(operand(n, 1), op.constant(np.asarray(position)), axis=0), axis=0)
            for position, found in enumerate(columns)
            if found.size
        ]
        joined = op.Concat(*parts, axis=2) if len(parts) > 1 else parts[0]
        return op.Gather(joined, op.constant(order), axis=2) if (np.diff(order) < 0).any() else joined

    axis = [1] if n.x.rank == 4 else [2]
    cosine, sine = (op.Unsqueeze(angles(operand(n, k)), axis) for k in (2, 3))
    interleaved = bool(setting(n, "interleaved", 0))
    if n.x.rank == 4:
        return rotate(op, n.x, cosine, sine, interleaved)
    heads = op.Reshape(n.x, [0, 0, int(setting(n, "num_heads", 0)), -1])  # [B, L, H*D] -> [B, L, H, D]
    return op.reshape_like(rotate(op, heads, cosine, sine, interleaved), n.x)
