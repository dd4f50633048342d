"""Forward mode: tangents pushed through the nodes in order, each by its operator's JVP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from netsens.errors import UnsupportedError
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Node
from netsens.rules.words import NodeView, Rule, rule_of, view

# How operators that hold subgraphs push tangents: (op, node, known tangents) -> a tangent (or None) an output.
SubgraphJvp = Callable[[Builder, Node, Mapping[str, Value]], Sequence[Value | None]]
SUBGRAPH_JVPS: dict[str, SubgraphJvp] = {}


def push(op: Builder, nodes: Sequence[Node], tangents: Mapping[str, Value]) -> dict[str, Value]:
    """The tangents of all values that `tangents` reach through `nodes`. Where one of them reaches another, that one's own is added."""
    known = dict(tangents)
    for node in nodes:
        if not any(name in known for name in node.reads()):
            continue
        for name, t in zip(node.outputs, _pushed(op, node, known), strict=False):
            if name and t is not None:
                known[name] = op.Add(t, tangents[name]) if name in tangents else t
    return known


def _pushed(op: Builder, node: Node, known: Mapping[str, Value]) -> Sequence[Value | None]:
    """The tangents of a node's outputs."""
    around = SUBGRAPH_JVPS.get(node.op) if not node.domain else None
    if around is not None:
        return around(op, node, known)
    rule = require_rule(op, node)
    if rule.status == "flat":
        return []
    ts = [known.get(i) if i else None for i in node.inputs]
    return push_node(op, rule, view(op, node, [t is not None for t in ts]), ts, known)


def push_node(op: Builder, rule: Rule, n: NodeView, tangents: Sequence[Value | None], known: Mapping[str, Value] | None = None) -> Sequence[Value | None]:
    """The tangents of one node's outputs. `known` are the tangents around it, which subgraphs may capture."""
    if rule.expansion is not None and rule.jvp is None:
        nodes, outputs = expanded(op, rule, n)
        given = {x.name: t for x, t in zip(n.inputs, tangents, strict=False) if x is not None and t is not None}
        inner = push(op, nodes, given)
        return [inner.get(y.name) if y is not None else None for y in outputs]
    if rule.jvp is None:
        raise UnsupportedError(f"{n.node.label} has no forward rule.")
    previous, op.node = op.node, n
    result = rule.jvp(op, n, tangents)
    op.node = previous
    return result


def expanded(op: Builder, rule: Rule, n: NodeView) -> tuple[list[Node], Sequence[Value | None]]:
    """The simpler nodes that stand for a composite one, and its outputs as they compute them.

    They share nothing with nodes outside, so that what depends on the node's inputs is exactly what was emitted here."""
    assert rule.expansion is not None
    start = len(op.graph.nodes)
    with op.apart():
        outputs = rule.expansion(op, n)
    return op.graph.nodes[start:], outputs


def require_rule(op: Builder, node: Node) -> Rule:
    """The operator's rule (or the fallback's), or an error that says why it has none."""
    rule = rule_of(node)
    if rule is None and op.derivative.fallback is not None:
        op.derivative.differenced.append(node)
        return op.derivative.fallback(node)
    if rule is None:
        raise UnsupportedError(f"{node.label} has no derivative rule; --method auto finds its derivative by finite differences.")
    if rule.status == "refused":
        raise UnsupportedError(f"{node.label} cannot be differentiated: {rule.why}.")
    return rule
