"""onnxruntime's fused gates and branch-wise normalisations (`com.microsoft`), as recurrent and hyper-connected language models have them."""

from __future__ import annotations

from netsens.graph.emit import Builder, Value
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.words import NodeView, expansion


def _normalised(op: Builder, x: Value, epsilon: float) -> Value:
    """x over the root mean square of its last axis."""
    return x / op.Sqrt(op.ReduceMean(x * x, [-1]) + epsilon)


@expansion("GatedAdd", domain=DOMAIN)
def gated_add(op: Builder, n: NodeView) -> Value:
    return n.x + operand(n, 1) * operand(n, 2)


@expansion("ScaledSiLU", domain=DOMAIN)
def scaled_silu(op: Builder, n: NodeView) -> Value:
    scale = n.input(1)
    z = n.x * (float(setting(n, "alpha", 1.0)) if scale is None else op.Cast(scale, to=n.x.dtype))
    return z * op.Sigmoid(z)


@expansion("GatedRMSNorm", domain=DOMAIN)
def gated_root_mean_square(op: Builder, n: NodeView) -> Value:
    """Over groups of as many elements as the scale has, times the activated gate."""
    scale, gate = operand(n, 1), operand(n, 2)
    # [.., H * C] -> [.., H, C]
    groups = op.Reshape(n.x, op.Concat(op.Slice(op.shape(n.x), [0], [n.x.rank - 1], [0]), [-1], op.dim(scale, 0), axis=0))
    y = op.reshape_like(_normalised(op, groups, float(setting(n, "epsilon", 1e-5))) * scale, n.x)
    opened = op.Sigmoid(gate)
    return y * (opened if setting(n, "activation", "silu") == "sigmoid" else gate * opened)


@expansion("LinearAttentionGate", domain=DOMAIN)
def linear_attention_gate(op: Builder, n: NodeView) -> list[Value | None]:
    wide = op.Cast(n.x, to=operand(n, 1).dtype)
    decay = op.Cast(operand(n, 2) * op.Softplus(wide + operand(n, 1)), to=n.x.dtype)
    gate = n.input(3)
    outputs: list[Value | None] = [decay, None if gate is None else op.Sigmoid(gate)]
    return outputs[: len(n.outputs)]


@expansion("BranchwiseRMSNorm", domain=DOMAIN)
def branchwise_root_mean_square(op: Builder, n: NodeView) -> Value:
    scale, count = n.input(1), int(setting(n, "num_branches", 0))
    x = _branches(op, n.x, count)
    y = _normalised(op, x, float(setting(n, "epsilon", 1e-5)))
    if scale is not None:
        if scale.rank == 1 and not (isinstance(scale.shape[0], int) and scale.shape[0] == x.shape[-1]):
            scale = op.Reshape(scale, op.Concat([-1], op.dim(x, x.rank - 1), axis=0))
        y = y * op.Cast(scale, to=n.x.dtype)
    return op.reshape_like(y, n.x)


@expansion("HyperConnectionPreMix", domain=DOMAIN)
def mixed_before(op: Builder, n: NodeView) -> Value:
    x = _branches(op, n.x, int(setting(n, "num_branches", 0)))
    weights = op.Cast(operand(n, 1), to=n.x.dtype)
    if weights.rank < x.rank:
        # [.., C] -> [.., C, 1], or [.., C * H] -> [.., C, H]
        weights = op.Reshape(weights, op.Concat(op.Slice(op.shape(x), [0], [x.rank - 1], [0]), [-1], axis=0))
    return op.ReduceSum(x * weights, [-2], keepdims=0) * float(setting(n, "reduction_scale", 1.0))


@expansion("HyperConnectionPostMix", domain=DOMAIN)
def mixed_after(op: Builder, n: NodeView) -> Value:
    x = _branches(op, n.x, int(setting(n, "num_branches", 0)))
    block, after, mix = op.Unsqueeze(operand(n, 1), [-2]), op.Cast(operand(n, 2), to=n.x.dtype), n.input(3)
    if after.rank < x.rank:
        after = op.Unsqueeze(after, [-1])
    if mix is not None:
        mix = op.Cast(mix, to=n.x.dtype)
        x = op.MatMul(op.Transpose(mix, perm=[*range(mix.rank - 2), mix.rank - 1, mix.rank - 2]), x)
    return op.reshape_like(x + after * block, n.x)


def _branches(op: Builder, x: Value, count: int) -> Value:
    """[.., C * H] -> [.., C, H] where a number of branches is given."""
    if not count:
        return x
    return op.Reshape(x, op.Concat(op.Slice(op.shape(x), [0], [x.rank - 1], [0]), [count, -1], axis=0))


@expansion("EngramGate", domain=DOMAIN)
def engram_gate(op: Builder, n: NodeView) -> list[Value | None]:
    epsilon, rank = float(setting(n, "epsilon", 1e-5)), n.x.rank
    query, value = operand(n, 1), operand(n, 2)
    key = _normalised(op, n.x, epsilon) * operand(n, 3)
    dot = op.ReduceSum(key * (_normalised(op, query, epsilon) * operand(n, 4)), [-1])
    dot = dot / op.Sqrt(op.Cast(op.dim(n.x, rank - 1), to=n.x.dtype))
    gate = op.Sigmoid(op.Sign(dot) * op.Sqrt(op.Max(op.Abs(dot), op.constant(1e-6, n.x))))
    y = gate * op.Unsqueeze(value, [2])
    scale = n.input(5)
    outputs: list[Value | None] = [y, None if scale is None else _normalised(op, y, epsilon) * scale]
    return outputs[: len(n.outputs)]
