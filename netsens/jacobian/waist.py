"""Finds a waist: where all paths from `wrt` to `of` lead through few numbers, the Jacobian is the product of two, each cheap.

The waist is a minimum cut over the graph's values, each as heavy as it is large."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import prod

from netsens.graph.graph import Graph
from netsens.graph.shapes import known
from netsens.jacobian.direct import direct_plan
from netsens.jacobian.linearize import Linearizer
from netsens.jacobian.plan import Waist
from netsens.jacobian.product import Product
from netsens.modes.activity import active_values, carries

_INFINITE = 1 << 60


def find_waist(lin: Linearizer, of: str, wrt: Sequence[str], passes: int | None, memory_limit: int | None) -> Waist | None:
    """The cheapest waist, or None where there is none that could beat `passes`."""
    names = minimum_cut(lin.graph, of, wrt)
    if not names:
        return None
    size = sum(prod(lin.shape(name)) for name in names)
    out = lin.shape(of)
    batch = out[0] if out and all(lin.shape(n)[:1] == out[:1] for n in names) else 1
    if passes is not None and size // max(batch, 1) >= passes:
        return None
    for name in names:
        if active_values(lin.graph, [name]) & set(names) != {name}:
            return None  # one value of the cut leads to another, so their Jacobians aren't independent
    before = []
    for name in names:
        inner = Linearizer(lin.graph, (name,), tuple(wrt), lin.load, lin.fallback)
        before.append((inner, direct_plan(inner, memory_limit=memory_limit)))
    outer = Linearizer(lin.graph, (of,), names, lin.load, lin.fallback)
    after = direct_plan(outer, memory_limit=memory_limit)
    apart = batch > 1 and all(after.by_sample(name) for name in names)
    halves = after.bytes // (batch if apart else 1) + sum(p.bytes for _, p in before)
    if halves > after.memory:
        return None
    columns = sum(prod(lin.shape(w)) // (batch if apart and all(p.by_sample(w) for _, p in before if w in p.relations) else 1) for w in wrt)
    product = prod(out) * columns * (size // (batch if apart else 1)) / 16
    cost = sum(p.cost for _, p in before) + after.cost + product
    return Waist(names, size, tuple(before), (outer, after), Product(lin.load, lin.graph.types[of].dtype, lin.graph.opset), apart, cost)


def minimum_cut(graph: Graph, of: str, wrt: Sequence[str]) -> tuple[str, ...]:
    """The values, neither `of` nor `wrt`, with the fewest numbers among those that cut every path; empty where none do. Of equal cuts the one
    nearest to `wrt`."""
    active = active_values(graph, wrt)
    needed, edges = {of}, []
    for node in reversed(graph.nodes):
        outputs = [o for o in node.outputs if o in needed]
        if not outputs:
            continue
        needed.update(node.reads())
        reads = [name for name in dict.fromkeys(node.reads()) if name in active and carries(graph.types.get(name))]
        edges += [(i, o) for i in reads for o in outputs if o in active]
    names = list(dict.fromkeys(v for edge in edges for v in edge))
    number = {name: k for k, name in enumerate(names)}
    flow = _Flow(2 * len(names) + 1)
    source = 2 * len(names)
    for name, k in number.items():
        found = graph.types[name].shape if name in graph.types else None
        inner = name != of and name not in wrt and found is not None and known(found)
        size = prod(d for d in found if isinstance(d, int)) if inner and found is not None else 0
        flow.edge(2 * k, 2 * k + 1, max(size, 1) if inner else _INFINITE)
    for i, o in edges:
        flow.edge(2 * number[i] + 1, 2 * number[o], _INFINITE)
    for w in wrt:
        if w in number:
            flow.edge(source, 2 * number[w], _INFINITE)
    if of not in number or flow.run(source, 2 * number[of] + 1) >= _INFINITE:
        return ()
    near = flow.reached(source)
    return tuple(name for name, k in number.items() if 2 * k in near and 2 * k + 1 not in near)


class _Flow:
    """Maximum flow by shortest augmenting paths (Edmonds and Karp)."""

    def __init__(self, nodes: int) -> None:
        self.leaving: list[list[int]] = [[] for _ in range(nodes)]
        self.to: list[int] = []
        self.capacity: list[int] = []

    def edge(self, a: int, b: int, capacity: int) -> None:
        self.leaving[a].append(len(self.to))
        self.to.append(b)
        self.capacity.append(capacity)
        self.leaving[b].append(len(self.to))
        self.to.append(a)
        self.capacity.append(0)

    def run(self, source: int, sink: int) -> int:
        total = 0
        while total < _INFINITE:
            came = self._search(source, sink)
            if sink not in came:
                return total
            path = []
            at = sink
            while at != source:
                path.append(came[at])
                at = self.to[came[at] ^ 1]
            amount = min(self.capacity[e] for e in path)
            for e in path:
                self.capacity[e] -= amount
                self.capacity[e ^ 1] += amount
            total += amount
        return total

    def reached(self, source: int) -> set[int]:
        return set(self._search(source, -1)) | {source}

    def _search(self, source: int, sink: int) -> dict[int, int]:
        came: dict[int, int] = {}
        queue = deque([source])
        while queue and sink not in came:
            at = queue.popleft()
            for e in self.leaving[at]:
                if self.capacity[e] > 0 and self.to[e] not in came and self.to[e] != source:
                    came[self.to[e]] = e
                    queue.append(self.to[e])
        return came
