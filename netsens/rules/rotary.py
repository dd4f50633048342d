"""Rotary embedding: pairs of numbers turned by an angle that grows with their place. `rotate` serves onnxruntime's own operators, too."""

from __future__ import annotations

from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, expansion


def rotate(op: Builder, x: Value, cosine: Value, sine: Value, interleaved: bool) -> Value:
    """Pairs of numbers of the last axis turned by an angle; those beyond twice the number of angles stay. `cosine` and `sine` broadcast."""
    half = cosine.shape[-1]
    full = isinstance(half, int) and x.shape[-1] == 2 * half
    turned, rest = x, None
    if not full:
        pairs = op.dim(cosine, cosine.rank - 1) * 2
        turned, rest = op.Split(x, op.vector([pairs, op.dim(x, x.rank - 1) - pairs]), axis=-1, outputs=2)
    if interleaved:
        # [..., R] -> [..., R/2, 2] -> twice [..., R/2]
        two = op.Reshape(turned, [0] * (x.rank - 1) + [-1, 2])
        first, second = (op.Squeeze(part, [-1]) for part in op.Split(two, axis=-1, num_outputs=2, outputs=2))
    else:
        first, second = op.Split(turned, axis=-1, num_outputs=2, outputs=2)
    real, imaginary = first * cosine - second * sine, first * sine + second * cosine
    if interleaved:
        result = op.Reshape(op.Concat(op.Unsqueeze(real, [-1]), op.Unsqueeze(imaginary, [-1]), axis=-1), [0] * (x.rank - 1) + [-1])
        if rest is not None:
            result = op.Concat(result, rest, axis=-1)
    else:
        result = op.Concat(*([real, imaginary] if rest is None else [real, imaginary, rest]), axis=-1)
    return op.retyped(result, x.type.shape)


@expansion("RotaryEmbedding")
def rotary_embedding(op: Builder, n: NodeView) -> Value:
    cosine, sine, which = n.inputs[1], n.inputs[2], n.input(3)
    assert cosine is not None
    assert sine is not None
    if which is not None:
        cosine, sine = op.Gather(cosine, which, axis=0), op.Gather(sine, which, axis=0)
    if n.x.rank == 4:
        return rotate(op, n.x, op.Unsqueeze(cosine, [1]), op.Unsqueeze(sine, [1]), bool(n["interleaved"]))
    heads = op.Reshape(n.x, [0, 0, int(n["num_heads"]), -1])  # [B, L, H*D] -> [B, L, H, D]
    return op.reshape_like(rotate(op, heads, op.Unsqueeze(cosine, [2]), op.Unsqueeze(sine, [2]), bool(n["interleaved"])), n.x)
