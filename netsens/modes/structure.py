"""The structure of a Jacobian, from the graph and its shapes alone: which positions of a value may depend on which positions of `wrt`.

One rule an operator says how its outputs depend on its operands, axis by axis. An operator without one is judged by the linear nodes of its JVP (or by
its expansion); where those say nothing either, everything may depend on everything. Values are never looked at, save small constants
that are indices, so a structure holds for every input of the same shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from netsens.errors import NetsensError
from netsens.graph.emit import Builder
from netsens.graph.graph import Graph, Node
from netsens.graph.shapes import known
from netsens.modes.activity import active_values, carries
from netsens.modes.forward import expanded
from netsens.modes.pattern import Relation, TooLarge, aligned, compose, union
from netsens.modes.structures import RULES
from netsens.modes.structures.layout import elementwise
from netsens.modes.structures.view import Shape, StructureView, relation_of
from netsens.rules.words import rule_of, view

Relations = dict[str, dict[str, Relation]]  # value -> wrt -> how the value depends on it


def structure(graph: Graph, of: Sequence[str], wrt: Sequence[str]) -> dict[tuple[str, str], Relation]:
    """(of, wrt) to the relation between them; a pair without a path is missing. The graph's shapes should all be numbers; a value of unknown
    shape counts as depending on everything."""
    op = Builder(graph.copy(), "structure")
    walk = _Walk(op)
    for name in wrt:
        walk.start(name)
    walk.over(_between(graph, of, wrt))
    return {(y, w): r for y in of for w, r in walk.found.get(y, {}).items() if r.out is not None}


def _between(graph: Graph, of: Iterable[str], wrt: Iterable[str]) -> list[Node]:
    """The nodes on paths from `wrt` to `of`."""
    active, needed, nodes = active_values(graph, wrt), set(of), []
    for node in reversed(graph.nodes):
        if any(o in needed for o in node.outputs):
            needed.update(node.reads())
            if any(name in active for name in node.reads()):
                nodes.append(node)
    return nodes[::-1]


class _Walk:
    """Relations found so far, over one builder."""

    def __init__(self, op: Builder) -> None:
        self.op = op
        self.found: Relations = {}

    def start(self, name: str) -> None:
        shape = self.shape(name)
        if shape is not None:
            self.found[name] = {name: aligned(shape)}

    def shape(self, name: str) -> Shape | None:
        shape = self.op.value(name).type.shape
        return tuple(int(d) for d in shape if isinstance(d, int)) if shape is not None and known(shape) else None

    def over(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            reads = [name for name in node.reads() if name in self.found]
            if not reads:
                continue
            declared = rule_of(node)
            if declared is not None and declared.status == "flat":
                continue
            if not self.by_rule(node) and not self.derived(node, declared):
                self.full(node)

    def full(self, node: Node) -> None:
        for o in node.outputs:
            if o and carries(self.op.value(o).type):
                for name in node.reads():
                    for w, r in self.found.get(name, {}).items():
                        self.add(o, w, Relation(self.shape(o), r.in_))

    def add(self, name: str, w: str, relation: Relation) -> None:
        known_ones = self.found.setdefault(name, {})
        known_ones[w] = union(known_ones[w], relation) if w in known_ones else relation

    def by_rule(self, node: Node) -> bool:
        """Whether the table knew the node."""
        declared = rule_of(node)
        if node.domain or any(node.subgraphs()):
            return False
        chosen = RULES.get(node.op)
        if chosen is None and declared is not None and declared.partials:
            chosen = elementwise
        if chosen is None:
            return False
        shapes = [self.shape(i) if i else () for i in node.inputs]
        results = [self.shape(o) if o else () for o in node.outputs]
        if any(s is None for s in (*shapes, *results)):
            return False
        s = StructureView(self.op, node, tuple(x or () for x in shapes), tuple(x or () for x in results))
        local: dict[tuple[int, int], Relation] = {}
        for j, o in enumerate(node.outputs):
            if not o or not carries(self.op.value(o).type):
                continue
            for k, i in enumerate(node.inputs):
                if i and i in self.found:
                    try:
                        links = chosen(s, k, j)
                    except TooLarge:
                        links = ()
                    local[k, j] = links if isinstance(links, Relation) else relation_of(s.results[j], s.shapes[k], links)
        for (k, j), relation in local.items():
            for w, r in list(self.found[node.inputs[k]].items()):
                self.add(node.outputs[j], w, compose(relation, r))
        return True

    def derived(self, node: Node, declared: Any) -> bool:
        """Through the operator's expansion, or the linear nodes of its JVP; False where neither is there."""
        if declared is None or declared.transpose is not None or any(node.subgraphs()):
            return False  # a linear operator's JVP is the operator itself
        op = self.op
        n = view(op, node, [bool(i) and i in self.found for i in node.inputs])
        try:
            if declared.expansion is not None and declared.jvp is None:
                nodes, outputs = expanded(op, declared, n)
            elif declared.jvp is not None:
                leaves = {k: op.tangent(x) for k, x in enumerate(n.inputs) if x is not None and n.wanted[k]}
                previous, op.tape, before, op.node = op.tape, [], op.node, n
                try:
                    outputs = declared.jvp(op, n, [leaves.get(k) for k in range(len(n.inputs))])
                    nodes = list(op.tape)
                finally:
                    op.tape, op.node = previous, before
                for k, leaf in leaves.items():
                    self.found[leaf.name] = dict(self.found[node.inputs[k]])
            else:
                return False
        except NetsensError:
            return False
        self.over(nodes)
        for name, value in zip(node.outputs, outputs, strict=False):
            if name and value is not None and value.name in self.found:
                for w, r in self.found[value.name].items():
                    out = self.shape(name)
                    self.add(name, w, r if r.out == out else Relation(out, r.in_))
        return True
