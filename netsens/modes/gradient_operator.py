"""The standard's own `Gradient` operator (ai.onnx.preview.training), rewritten to the plain operators that compute it."""

from __future__ import annotations

from dataclasses import replace

from netsens.errors import ModelError, NoPathError
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node
from netsens.graph.propagate import infer_types
from netsens.modes.activity import active_values
from netsens.modes.reverse import pull

TRAINING = "ai.onnx.preview.training"


def without_gradient_operators(graph: Graph) -> Graph:
    """The graph with each Gradient node replaced by its meaning; the same graph where there is none."""
    if not any(_is_gradient(n) for n in graph.nodes):
        return graph
    result = replace(graph.copy(), nodes=[], domains={d: v for d, v in graph.domains.items() if d != TRAINING})
    op = Builder(result, taken=graph.names())
    for node in graph.nodes:
        if _is_gradient(node):
            _rewrite(op, node)
        else:
            op.add(node, [graph.types[o] if o in graph.types else op.value(o).type for o in node.outputs])
    return infer_types(result)


def _is_gradient(node: Node) -> bool:
    return node.domain == TRAINING and node.op == "Gradient"


def _rewrite(op: Builder, node: Node) -> None:
    xs, zs, y = list(node.attributes["xs"]), list(node.attributes.get("zs", ())), str(node.attributes["y"])
    sources = [*xs, *zs]
    if len(node.inputs) < len(sources):
        raise ModelError(f"{node.label} names {len(sources)} tensors in xs and zs, and has {len(node.inputs)} inputs.")
    given = dict(zip(sources, node.inputs, strict=False))
    nodes = _between(op, set(sources), y, node)
    renames: dict[str, str] = {}
    if any(name != value for name, value in given.items()):
        # The operator may ask for the derivative elsewhere than where the graph is: its nodes again, over these values.
        renames = {**given, **{o: op.fresh(o) for n in nodes for o in n.outputs if o}}
        copies = []
        for n in nodes:
            copies.append(replace(n.renamed(renames), name=""))
            op.add(copies[-1], [op.value(o).type for o in n.outputs])
        nodes = copies
    last = op.value(renames.get(y, y))
    wrt = [renames.get(x, x) for x in xs]
    seed = op.full_like(last, 1.0)
    active = active_values(replace(op.graph, nodes=nodes), wrt)
    found = pull(op, nodes, {last.name: seed}, active)
    for x, output in zip(wrt, node.outputs, strict=False):
        if output:
            gradient: Value = found[x] if x in found else op.zeros_like(op.value(x))
            op.add(Node("Identity", (gradient.name,), (output,)), [gradient.type])


def _between(op: Builder, sources: set[str], y: str, node: Node) -> list[Node]:
    """The nodes that compute `y` from `sources`, in order."""
    needed, found = {y}, []
    for n in reversed(op.graph.nodes):
        if any(o in needed and o not in sources for o in n.outputs):
            found.append(n)
            needed.update(n.reads())
    if not needed & sources and y not in sources:
        raise NoPathError(f"{node.label} asks for the derivative of '{y}', which is not computed from {', '.join(sorted(sources))}.")
    return found[::-1]
