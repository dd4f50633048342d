"""Reverse mode: cotangents pulled back through the nodes, last one first.

An operator's own reverse rule is its JVP transposed: the JVP is written down on a tape of nodes linear in the tangent, and the
tape is transposed at once. Fan-out becomes a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from netsens.errors import RuleError
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Node
from netsens.graph.pieces import placed_together
from netsens.modes.activity import spread
from netsens.modes.forward import expanded, require_rule
from netsens.rules.words import NodeView, Rule, rule_of, view

# How operators that hold subgraphs pull cotangents: (op, node, cotangents, active) -> (name, cotangent) pairs.
SubgraphVjp = Callable[[Builder, Node, Sequence[Value | None], set[str]], Iterable[tuple[str, Value]]]
SUBGRAPH_VJPS: dict[str, SubgraphVjp] = {}


def pull(op: Builder, nodes: Sequence[Node], cotangents: Mapping[str, Value], active: set[str]) -> dict[str, Value]:
    """The cotangents of all `active` values that `cotangents` reach backwards through `nodes`."""
    if op.derivative.finite_only:
        op.derivative.pulled.update(g.name for g in cotangents.values())
    around, op.derivative.active = op.derivative.active, active
    try:
        return _pull(op, nodes, {name: [g] for name, g in cotangents.items()}, active)
    finally:
        op.derivative.active = around


def _pull(op: Builder, nodes: Sequence[Node], sums: dict[str, list[Value]], active: set[str]) -> dict[str, Value]:
    for node in reversed(nodes):
        gs = [_total(op, sums, o) for o in node.outputs]
        if all(g is None for g in gs):
            continue
        wanted = [bool(i) and i in active for i in node.inputs]
        if not any(name in active for name in node.reads()):
            continue
        around = SUBGRAPH_VJPS.get(node.op) if not node.domain else None
        if around is not None:
            for name, g in around(op, node, gs, active):
                sums.setdefault(name, []).append(g)
            continue
        rule = require_rule(op, node)
        if rule.status == "flat":
            continue
        n = view(op, node, wanted)
        for name, g in pull_node(op, rule, n, gs, active):
            if name in active:
                sums.setdefault(name, []).append(g)
    return _totals(op, sums)


def _totals(op: Builder, sums: dict[str, list[Value]]) -> dict[str, Value]:
    return {name: total for name in sums if (total := _total(op, sums, name)) is not None}


def _total(op: Builder, sums: dict[str, list[Value]], name: str) -> Value | None:
    parts = sums.get(name)
    if not name or not parts:
        return None
    if len(parts) > 1:
        parts = placed_together(op, parts)
        total = parts[0]
        for part in parts[1:]:
            total = op.Add(total, part)
        sums[name] = parts = [total]
    return parts[0]


def pull_node(op: Builder, rule: Rule, n: NodeView, cotangents: Sequence[Value | None], active: set[str]) -> Iterable[tuple[str, Value]]:
    """The cotangents that one node gives to the values it reads, as (name, cotangent) pairs."""
    if op.derivative.finite_only:
        finite = replace(n, inputs=tuple(x and op.finite(x) for x in n.inputs), outputs=tuple(y and op.finite(y) for y in n.outputs))
        names = {f.name: x.name for f, x in zip(finite.inputs, n.inputs, strict=True) if f is not None and x is not None}
        return [(names.get(name, name), g) for name, g in _pull_by_rule(op, rule, finite, cotangents)]
    return _pull_by_rule(op, rule, n, cotangents)


def _pull_by_rule(op: Builder, rule: Rule, n: NodeView, cotangents: Sequence[Value | None]) -> Iterable[tuple[str, Value]]:
    previous, op.node = op.node, n
    try:
        if rule.vjp is not None:
            answer = rule.vjp(op, n, cotangents)
            if answer is not NotImplemented:
                return _named(n, answer)
        if rule.transpose is not None:
            return _named(n, rule.transpose(op, n, cotangents))
        if rule.jvp is not None:
            return transposed(op, rule, n, cotangents)
        return _pull_expanded(op, rule, n, cotangents)
    finally:
        op.node = previous


def _named(n: NodeView, cotangents: Sequence[Value | None]) -> list[tuple[str, Value]]:
    return [(x.name, g) for x, g, w in zip(n.inputs, cotangents, n.wanted, strict=False) if x is not None and g is not None and w]


def _pull_expanded(op: Builder, rule: Rule, n: NodeView, cotangents: Sequence[Value | None]) -> list[tuple[str, Value]]:
    nodes, outputs = expanded(op, rule, n)
    given: dict[str, Value] = {}
    for y, g in zip(outputs, cotangents, strict=False):
        if y is not None and g is not None:
            given[y.name] = op.Add(given[y.name], g) if y.name in given else g
    inputs = {x.name for x, w in zip(n.inputs, n.wanted, strict=True) if x is not None and w}
    inner = reachable(op, nodes, inputs)
    found = pull(op, nodes, given, inner)
    return [(name, found[name]) for name in inputs if name in found]


def reachable(op: Builder, nodes: Sequence[Node], start: Iterable[str]) -> set[str]:
    """Values that carry a derivative of `start` within `nodes`."""
    active = set(start)
    spread(nodes, active, lambda name: op.value(name).type, op.graph.straight_through)
    return active


def transposed(op: Builder, rule: Rule, n: NodeView, cotangents: Sequence[Value | None]) -> list[tuple[str, Value]]:
    """The node's cotangents through the transpose of its JVP."""
    assert rule.jvp is not None
    leaves = {k: op.tangent(x) for k, x in enumerate(n.inputs) if x is not None and n.wanted[k]}
    previous, op.tape = op.tape, []
    try:
        results = rule.jvp(op, n, [leaves.get(k) for k in range(len(n.inputs))])
        tape = op.tape
    finally:
        op.tape = previous
    for result in results:
        if result is not None and not result.linear:
            raise RuleError(f"The JVP of {n.node.label} gave a tangent that doesn't depend on its tangents.")
    given: dict[str, Value] = {}
    for t, g in zip(results, cotangents, strict=False):
        if t is not None and g is not None:
            given[t.name] = op.Add(given[t.name], g) if t.name in given else g
    found = transpose_tape(op, tape, given)
    pairs: list[tuple[str, Value]] = []
    for k, leaf in leaves.items():
        x = n.inputs[k]
        if leaf.name in found and x is not None:
            pairs.append((x.name, found[leaf.name]))
    return pairs


def transpose_tape(op: Builder, tape: Sequence[Node], cotangents: Mapping[str, Value]) -> dict[str, Value]:
    """A program of linear nodes run backwards on cotangents."""
    sums: dict[str, list[Value]] = {name: [g] for name, g in cotangents.items()}
    for node in reversed(tape):
        gs = [_total(op, sums, o) for o in node.outputs]
        if all(g is None for g in gs):
            continue
        n = view(op, node, [bool(i) and op.value(i).linear for i in node.inputs])
        for name, g in _named(n, transpose_linear(op, n, gs)):
            if g.linear and not any(v is not None and v.linear for v in gs):
                raise RuleError(f"The transpose of {node.label} depends on the tangent itself, so the node isn't linear in it.")
            sums.setdefault(name, []).append(g)
    return _totals(op, sums)


def transpose_linear(op: Builder, n: NodeView, cotangents: Sequence[Value | None]) -> Sequence[Value | None]:
    """The transpose of one linear node; an operator that declares none may not stand in a tangent program."""
    rule = rule_of(n.node)
    if rule is None or rule.transpose is None:
        raise RuleError(f"{n.node.label} stands in a tangent program, but {n.node.op} isn't declared linear.")
    return rule.transpose(op, n, cotangents)
