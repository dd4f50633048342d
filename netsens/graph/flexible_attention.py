"""Writes FlexAttention out in plain operators. Its scores and probabilities go through subgraphs of the model's own, which read outer values
as no other operator's do, and no runtime knows it yet; so the normal form has none."""

from __future__ import annotations

from dataclasses import replace

from netsens.errors import ModelError
from netsens.graph.dtypes import DOUBLE, FLOAT
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node, TensorType, walk
from netsens.graph.sizes import product


def _is_one(node: Node) -> bool:
    return node.op == "FlexAttention" and node.domain == "ai.onnx.preview"


def holds_flexible_attention(graph: Graph) -> bool:
    return any(_is_one(n) or any(holds_flexible_attention(g) for _, g in n.subgraphs()) for n in graph.nodes)


def without_flexible_attention(graph: Graph) -> Graph:
    """The graph, typed and its names unique, with every FlexAttention written out."""
    return walk(graph, _written_out)


def _written_out(graph: Graph) -> Graph:
    if not any(_is_one(n) for n in graph.nodes):
        return graph
    op = Builder(replace(graph.copy(), nodes=[]), prefix="flexible")
    for node in graph.nodes:
        if _is_one(node):
            y = _attention(op, node)
            op.add(Node("Identity", (y.name,), node.outputs[:1]), [y.type])
        else:
            op.add(node, [graph.types.get(o, TensorType(0)) for o in node.outputs])
    return op.graph


def _attention(op: Builder, node: Node) -> Value:
    """Softmax(q k' / sqrt(D)) v with a word of the subgraphs on the scores and the probabilities."""
    q, k, v = (op.value(name) for name in node.inputs[:3])
    heads, groups = q.shape[1], k.shape[1]
    if heads != groups and not (isinstance(heads, int) and isinstance(groups, int)):
        raise ModelError(f"{node.label} has {heads!r} query heads for {groups!r} key heads; fix these dimensions.")
    shared = heads // groups if isinstance(heads, int) and isinstance(groups, int) else 1
    scale = node.attributes.get("scale")
    factor = op.constant(float(scale), q) if scale is not None else 1 / op.Sqrt(op.Cast(op.dim(q, 3), to=q.dtype))
    # Heads that share keys: [B, H, L, D] -> [B, J, H/J*L, D], and no key is repeated.
    rows = _stacked(op, q * factor, k, product([shared, q.shape[2]])) if shared > 1 else q * factor
    scores = op.MatMul(rows, op.Transpose(k, perm=[0, 1, 3, 2]))
    precision = int(node.attributes.get("softmax_precision") or (DOUBLE if q.dtype == DOUBLE else FLOAT))
    scores = op.Cast(_apart(op, scores, q, k.shape[2]) if shared > 1 else scores, to=precision)
    probabilities = op.Softmax(_modified(op, node, "score_mod", scores), axis=-1)
    weights = op.Cast(_modified(op, node, "prob_mod", probabilities), to=q.dtype)
    if shared == 1:
        return op.MatMul(weights, v)
    return _apart(op, op.MatMul(_stacked(op, weights, k, product([shared, q.shape[2]])), v), q, v.shape[3])


def _stacked(op: Builder, x: Value, k: Value, length: int | str | None) -> Value:
    """[B, H, L, S] -> [B, J, H/J*L, S]."""
    result = op.Reshape(x, op.vector([op.dim(x, 0), op.dim(k, 1), -1, op.dim(x, 3)]))
    return op.retyped(result, (x.shape[0], k.shape[1], length, x.shape[3]))


def _apart(op: Builder, x: Value, q: Value, width: int | str | None) -> Value:
    """[B, J, H/J*L, S] -> [B, H, L, S]."""
    return op.retyped(op.Reshape(x, op.vector([op.dim(q, 0), op.dim(q, 1), op.dim(q, 2), -1])), (*q.shape[:3], width))


def _modified(op: Builder, node: Node, key: str, x: Value) -> Value:
    """What a subgraph of one input makes of x, its nodes and constants moved here."""
    body = node.attributes.get(key)
    if not isinstance(body, Graph):
        return x
    op.graph.constants.update(body.constants)
    op.graph.types.update({name: body.types[name] for name in body.constants if name in body.types})
    op.graph.parameters += [p for p in body.parameters if p not in op.graph.parameters]
    for inner in body.nodes:
        op.add(inner.renamed({body.inputs[0]: x.name}), [body.types.get(o, TensorType(0)) for o in inner.outputs])
    name = x.name if body.outputs[0] == body.inputs[0] else body.outputs[0]
    return op.retyped(replace(op.value(name), type=replace(op.value(name).type, dtype=x.dtype)), x.type.shape)


__all__ = ["holds_flexible_attention", "without_flexible_attention"]
