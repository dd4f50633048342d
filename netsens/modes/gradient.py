"""The two programs that everything else is made of: a model's graph with the nodes appended that push tangents of `wrt` forward to `of`,
or pull a cotangent of `of` back to `wrt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node, TensorType, pruned
from netsens.graph.order import in_order
from netsens.modes import control, loops  # noqa: F401  # they declare how If, Loop and Scan are differentiated
from netsens.modes.activity import active_values
from netsens.modes.forward import push
from netsens.modes.reverse import pull


@dataclass(frozen=True, slots=True)
class Derivative:
    """A graph with a derivative in it. `seeds` are its inputs of tangents (by wrt) or of the cotangent (by of); `results` say
    which value holds each gradient (by wrt) or tangent (by of). What has no path is missing from `results`. `cotangents` are those of inner values."""

    graph: Graph
    seeds: Mapping[str, str]
    results: Mapping[str, str]
    cotangents: Mapping[str, str] = field(default_factory=dict)


def append_vjp(graph: Graph, of: str, wrt: Sequence[str], *, seed: Value | None = None, ones: bool = False, op: Builder | None = None) -> Derivative:
    """Reverse mode: the cotangent of `of` is a new graph input of its shape, or all ones."""
    op = op or Builder(graph.copy())
    y = op.value(of)
    seeds: dict[str, str] = {}
    if seed is None:
        seed = op.full_like(y, 1.0) if ones else op.input(op.fresh(f"cotangent/{of}"), y.type, linear=True, like=y)
        if not ones:
            seeds[of] = seed.name
    op.derivative.exposed = _moved_to(op.graph, [of])
    op.derivative.instead = {}
    found = pull(op, list(op.graph.nodes), {of: seed}, active_values(op.graph, wrt))
    op.graph.nodes = computed_once(op.graph.nodes, op.derivative.instead)
    op.derivative.instead = None
    return Derivative(op.graph, seeds, {w: found[w].name for w in wrt if w in found}, {v: g.name for v, g in found.items()})


def computed_once(nodes: list[Node], instead: Mapping[str, str]) -> list[Node]:
    """The nodes without those whose outputs other nodes give `instead`, which come where they are first needed."""
    if not instead:
        return nodes
    kept: list[Node] = []
    for node in nodes:
        outputs = [o for o in node.outputs if o]
        given = bool(outputs) and all(o in instead for o in outputs)
        kept += [Node("Identity", (instead[o],), (o,)) for o in outputs] if given else [node]
    return in_order(kept)


# Operators that only move or choose the numbers they are given.
_MOVES = {
    "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"
}  # fmt: skip


def _moved_to(graph: Graph, of: Sequence[str]) -> frozenset[str]:
    """The values whose numbers are those of `of`, moved or chosen at most."""
    found = {*of}
    for node in reversed(graph.nodes):
        if not node.domain and node.op in _MOVES and not found.isdisjoint(node.outputs):
            found.update(node.inputs if node.op == "Concat" else node.inputs[:1])
    return frozenset(found)


def append_jvp(graph: Graph, of: Sequence[str], wrt: Sequence[str], *, op: Builder | None = None) -> Derivative:
    """Forward mode: the tangent of each `wrt` is a new graph input of its shape."""
    op = op or Builder(graph.copy())
    tangents = {w: op.input(op.fresh(f"tangent/{w}"), op.value(w).type, linear=True, like=op.value(w)) for w in wrt}
    op.derivative.exposed = _moved_to(op.graph, of)
    found = push(op, list(op.graph.nodes), tangents)
    return Derivative(op.graph, {w: t.name for w, t in tangents.items()}, {y: found[y].name for y in of if y in found})


def output_named(op: Builder, value: Value, name: str) -> str:
    """A copy of the value under a name of the caller's choosing, so that no value of the user's is renamed."""
    op.add(Node("Identity", (value.name,), (name,)), [TensorType(value.dtype, value.type.shape)])
    return name


def kept(derivative: Derivative, also: Sequence[str] = ()) -> Graph:
    """Only what the results, and `also`, need."""
    outputs = list(dict.fromkeys([*also, *derivative.results.values()]))
    return pruned(derivative.graph, outputs)
