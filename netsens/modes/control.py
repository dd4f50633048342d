"""Derivatives of If: an If over the same condition, whose branches compute each branch's derivative. What its branches share with the bodies of
loops, whose derivatives are in `loops.py`, is here too.

A derivative works on a copy of a subgraph with names of its own: the copy computes the subgraph's values again, and the derivative's
nodes come after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node, TensorType, pruned
from netsens.modes.activity import active_inside, carries
from netsens.modes.forward import SUBGRAPH_JVPS, push
from netsens.modes.reverse import SUBGRAPH_VJPS, pull
from netsens.rules.body import own_names

BRANCHES = ("then_branch", "else_branch")


def copied(op: Builder, graph: Graph) -> Builder:
    """A builder on a copy of the subgraph, whose own values have new names; outer values are seen through it."""
    copy = replace(own_names(op, graph), opset=op.graph.opset, domains=op.graph.domains)
    return Builder(copy.copy(), op.prefix, parent=op)


def captured_tangents(body: Builder, known: Mapping[str, Value]) -> dict[str, Value]:
    """The tangents of the outer values that a subgraph reads, as its own builder sees them."""
    return {name: _within(body, known[name], name) for name in body.graph.captured() if name in known}


def _within(body: Builder, t: Value, like: str) -> Value:
    """An outer tangent or cotangent inside a subgraph, where `like` has its shape."""
    return body.as_linear(t.name, body.value(like)) if t.linear else body.value(t.name)


def seeded(body: Builder, pairs: Sequence[tuple[str, Value | None]]) -> dict[str, Value]:
    """The cotangents of a subgraph's outputs; a value that is an output twice has the sum."""
    seeds: dict[str, Value] = {}
    for name, g in pairs:
        if g is not None:
            seeds[name] = body.Add(seeds[name], g) if name in seeds else g
    return seeds


def output_names(body: Builder, values: Sequence[Value]) -> list[str]:
    """Names for a subgraph's outputs: each must be computed inside it, and be an output once."""
    own = {o for node in body.graph.nodes for o in node.outputs}
    names: list[str] = []
    for value in values:
        name = value.name
        if name not in own or name in names:
            name = body.fresh("output")
            body.add(Node("Identity", (value.name,), (name,)), [value.type])
        names.append(name)
    return names


def finished(body: Builder, outputs: Sequence[Value], inputs: Sequence[str] = ()) -> Graph:
    """The subgraph with these outputs, and nothing that they don't need."""
    names = output_names(body, outputs)
    return pruned(replace(body.graph, inputs=list(inputs)), names)


def result(op: Builder, name: str, like: str, linear: bool) -> Value:
    """A derivative that a node with subgraphs gave, of the shape of the value `like`."""
    return op.as_linear(name, op.value(like)) if linear else op.value(name)


def derivative_type(like: Value) -> TensorType:
    return TensorType(like.dtype, like.type.shape)


def push_if(op: Builder, node: Node, known: Mapping[str, Value]) -> list[Value | None]:
    """An If whose branches compute the tangents."""
    bodies = [copied(op, node.attributes[key]) for key in BRANCHES]
    found = [push(body, list(body.graph.nodes), captured_tangents(body, known)) for body in bodies]
    moving = [
        k for k, output in enumerate(node.outputs)
        if output and carries(op.value(output).type) and any(body.graph.outputs[k] in t for body, t in zip(bodies, found, strict=True))
    ]  # fmt: skip
    if not moving:
        return [None] * len(node.outputs)
    branches = {}
    for key, body, tangents in zip(BRANCHES, bodies, found, strict=True):
        names = [body.graph.outputs[k] for k in moving]
        branches[key] = finished(body, [tangents[y] if y in tangents else body.zeros_like(body.value(y)) for y in names])
    fresh = tuple(op.fresh("if") for _ in moving)
    op.add(Node("If", node.inputs, fresh, branches), [derivative_type(op.value(node.outputs[k])) for k in moving])
    answer: list[Value | None] = [None] * len(node.outputs)
    linear = any(t.linear for t in known.values())
    for k, name in zip(moving, fresh, strict=True):
        answer[k] = result(op, name, node.outputs[k], linear)
    return answer


def pull_if(op: Builder, node: Node, cotangents: Sequence[Value | None], active: set[str]) -> list[tuple[str, Value]]:
    """An If whose branches compute the cotangents of what they capture, zero where a branch doesn't use it."""
    bodies = [copied(op, node.attributes[key]) for key in BRANCHES]
    found = []
    for body in bodies:
        outputs = body.graph.outputs
        captured = [name for name in body.graph.captured() if name in active]
        seeds = seeded(body, [(y, None if g is None else _within(body, g, y)) for y, g in zip(outputs, cotangents, strict=True)])
        pulled = pull(body, list(body.graph.nodes), seeds, active_inside(body.graph, active))
        found.append({name: pulled[name] for name in captured if name in pulled})
    wanted = list(dict.fromkeys(name for pulled in found for name in pulled))
    if not wanted:
        return []
    branches = {
        key: finished(body, [pulled[w] if w in pulled else body.zeros_like(body.value(w)) for w in wanted])
        for key, body, pulled in zip(BRANCHES, bodies, found, strict=True)
    }
    fresh = tuple(op.fresh("if") for _ in wanted)
    op.add(Node("If", node.inputs, fresh, branches), [derivative_type(op.value(w)) for w in wanted])
    linear = any(g is not None and g.linear for g in cotangents)
    return [(w, result(op, name, w, linear)) for w, name in zip(wanted, fresh, strict=True)]


SUBGRAPH_JVPS["If"] = push_if
SUBGRAPH_VJPS["If"] = pull_if
