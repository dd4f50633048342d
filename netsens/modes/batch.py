"""Many directions at once: a program that is linear in its seeds, with a leading axis K of directions on everything that the seeds reach.

The rules, one an operator as it stands in a tangent program, live in `batches`; an operator without a rule runs in an ONNX Scan over K, which is exact for any of them."""

from __future__ import annotations

from collections.abc import Sequence

from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node, TensorType, pruned
from netsens.graph.shapes import known
from netsens.modes.batches import RULES
from netsens.modes.batches.view import BatchView, Unknown, repeated

DIRECTIONS = "K"  # the symbol of the leading axis


def batched(graph: Graph, seeds: Sequence[str], directions: int | None = None) -> Graph:
    """The graph with a leading axis on its `seeds` and on all that follows from them; other inputs (residuals) stay as they are. `directions` fixes
    K, otherwise it is a symbol. Outputs that no seed reaches are repeated K times."""
    target = Graph([], [], [], dict(graph.constants), {}, graph.opset, dict(graph.domains), name=graph.name)
    target.types.update({k: graph.types[k] for k in graph.constants if k in graph.types})
    target.inputs = [i for i in graph.inputs if i not in seeds]
    target.types.update({i: graph.types.get(i, TensorType(0)) for i in target.inputs})
    op = Builder(target, "batch")
    op.take(graph.names())
    found: dict[str, Value] = {}
    lead = DIRECTIONS if directions is None else directions
    for seed in seeds:
        type_ = graph.types[seed]
        found[seed] = op.input(seed, TensorType(type_.dtype, (lead, *(type_.shape or ()))))
        op.anchor(seed)
    count = op.dim(found[seeds[0]], 0)
    for node in graph.nodes:
        if not any(name in found for name in node.reads()):
            op.add(node, [graph.types.get(o, TensorType(0)) for o in node.outputs])
            continue
        values = _batch_node(op, node, graph, found, count)
        for name, value in zip(node.outputs, values, strict=True):
            if name:
                type_ = graph.types.get(name, TensorType(0))
                found[name] = op.retyped(value, (lead, *type_.shape)) if known(type_.shape) and type_.shape is not None else value
    outputs = []
    for name in graph.outputs:
        value = found.get(name) or repeated(op, op.value(name), count)
        # A graph's output is a name of its own, even where it is an input or another output too.
        outputs.append(_copy(op, value, name) if name in seeds or value.name in outputs or value.name in target.constants else value.name)
    target.outputs = outputs
    return pruned(target)


def _copy(op: Builder, value: Value, name: str) -> str:
    fresh = op.fresh(f"{name}/directions")
    op.add(Node("Identity", (value.name,), (fresh,)), [value.type])
    return fresh


def _batch_node(op: Builder, node: Node, graph: Graph, found: dict[str, Value], count: Value) -> list[Value]:
    xs = tuple((found.get(i) or op.value(i)) if i else None for i in node.inputs)
    types = tuple(graph.types.get(i) or (TensorType(0) if not i else op.value(i).type) for i in node.inputs)
    b = BatchView(op, node, xs, tuple(i in found for i in node.inputs), types, tuple(graph.types.get(o, TensorType(0)) for o in node.outputs), count)
    chosen = RULES.get(node.op) if not node.domain and not any(node.subgraphs()) else None
    if chosen is not None:
        try:
            result = chosen(b)
            return list(result) if isinstance(result, (tuple, list)) else [result]
        except Unknown:
            pass
    return scanned(b, found)


def scanned(b: BatchView, found: dict[str, Value]) -> list[Value]:
    """The node, once a direction, in a Scan."""
    op, node = b.op, b.node
    moving = list(dict.fromkeys(name for name in node.reads() if name in found))
    inner = {name: op.fresh(f"{name}/direction") for name in moving}
    results = {o: op.fresh(f"{o}/direction") for o in node.outputs if o}
    types: dict[str, TensorType] = {}
    for name in moving:
        outer = found[name].type
        types[inner[name]] = TensorType(outer.dtype, None if outer.shape is None else outer.shape[1:])
    for o, type_ in zip(node.outputs, b.results, strict=True):
        if o:
            types[results[o]] = type_
    body_node = node.renamed({**inner, **results})
    body = Graph([body_node], list(inner.values()), list(results.values()), {}, types, op.graph.opset, dict(op.graph.domains), name="one_direction")
    outputs = tuple(op.fresh(f"{o}/directions") for o in results)
    lead = found[moving[0]].type.shape
    first = lead[0] if lead else None
    out_types = [TensorType(types[r].dtype, None if (s := types[r].shape) is None else (first, *s)) for r in results.values()]
    op.add(Node("Scan", tuple(found[m].name for m in moving), outputs, {"body": body, "num_scan_inputs": len(moving)}), out_types)
    given = dict(zip(results, outputs, strict=True))
    return [op.value(given[o]) if o else op.constant(0.0) for o in node.outputs]
