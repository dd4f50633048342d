"""Mixed mode: where all paths from `wrt` to `of` lead through few numbers, the Jacobian is the product of two, each cheap.

The waist is a minimum cut over the graph's values, each as heavy as it is large."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from netsens.graph.graph import Array, Graph
from netsens.graph.infer import known
from netsens.jacobian.linearize import Linearization, Linearizer
from netsens.modes.activity import active_values, carries

if TYPE_CHECKING:
    from netsens.jacobian.evaluate import Progress
    from netsens.jacobian.plan import Plan

_INFINITE = 1 << 60


@dataclass(frozen=True, slots=True, eq=False)
class Waist:
    """The values that all paths lead through, with the plans of the two Jacobians: of each value by `wrt`, and of `of` by the values."""

    names: tuple[str, ...]
    size: int
    before: tuple[tuple[Linearizer, Plan], ...]
    after: tuple[Linearizer, Plan]
    by_sample: bool  # whether the second Jacobian keeps the samples of a batch apart, so that a product a sample is enough
    cost: float

    @property
    def passes(self) -> int:
        return sum(plan.passes for _, plan in self.before) + self.after[1].passes


def find_waist(lin: Linearizer, of: str, wrt: Sequence[str], passes: int | None, memory_limit: int | None) -> Waist | None:
    """The cheapest waist, or None where there is none that could beat `passes`."""
    from netsens.jacobian.evaluate import by_sample
    from netsens.jacobian.plan import make_plan

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
        before.append((inner, make_plan(inner, memory_limit=memory_limit, through_waist=False)))
    outer = Linearizer(lin.graph, (of,), names, lin.load, lin.fallback)
    after = make_plan(outer, memory_limit=memory_limit, through_waist=False)
    apart = batch > 1 and all(by_sample(after, name) for name in names)
    halves = after.bytes // (batch if apart else 1) + sum(p.bytes for _, p in before)
    if halves > after.memory:
        return None
    columns = sum(prod(lin.shape(w)) // (batch if apart and all(by_sample(p, w) for _, p in before) else 1) for w in wrt)
    product = prod(out) * columns * (size // (batch if apart else 1)) / 16
    cost = sum(p.cost for _, p in before) + after.cost + product
    return Waist(names, size, tuple(before), (outer, after), apart, cost)


def through_waist(linearization: Linearization, plan: Plan, result: dict[str, Array], progress: Progress | None) -> None:
    """The products, written into the results."""
    from netsens.jacobian.evaluate import by_sample, evaluate

    waist = plan.waist
    assert waist is not None
    out = linearization.linearizer.shape(plan.of)
    lin, second = waist.after
    told = _Told(progress, waist.passes)
    left = evaluate(Linearization(lin, linearization.feeds), second, per_sample=waist.by_sample, progress=told)
    told.next()
    totals: dict[str, Array] = {}
    alone: dict[str, bool] = {}
    for name, (inner, first) in zip(waist.names, waist.before, strict=True):
        shape = inner.shape(name)
        reached = [w for w in plan.wrt if w in first.relations]
        alone |= {w: waist.by_sample and by_sample(first, w) for w in reached if alone.get(w, True)}
        right = evaluate(Linearization(inner, linearization.feeds), first, per_sample=waist.by_sample and all(alone[w] for w in reached), progress=told)
        told.next()
        for w in reached:
            sizes = (out[0], prod(shape[1:])) if waist.by_sample else (1, prod(shape))  # samples, and numbers of the waist in each
            a = left[name].reshape(sizes[0], -1, sizes[1])  # [N, of, waist]
            b = right[w].reshape(*sizes, -1)  # [N, waist, wrt]
            if w not in totals:
                fits = result[w].size == sizes[0] * a.shape[1] * b.shape[2] and result[w].flags.c_contiguous
                totals[w] = np.matmul(a, b, out=result[w].reshape(sizes[0], a.shape[1], b.shape[2]) if fits else None)
            else:
                totals[w] += a @ b
    for w, product in totals.items():
        target = result[w]
        whole = out + linearization.linearizer.shape(w)
        if product.size == target.size:
            if not np.shares_memory(product, target):
                target[...] = product.reshape(target.shape)
            continue
        # A block a sample: [N, of, wrt] onto the diagonal of [N, of, N, wrt]
        n = out[0]
        blocks = product.reshape(n, *out[1:], *whole[len(out) + 1 :])
        diagonal = np.arange(n)
        np.moveaxis(target, len(out), 1)[diagonal, diagonal] = blocks


class _Told:
    """Passes done over several plans, told as one count."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total = progress, total
        self.before = self.done = 0

    def __call__(self, done: int, total: int) -> None:
        self.done = self.before + done
        if self.progress is not None:
            self.progress(self.done, self.total)

    def next(self) -> None:
        self.before = self.done


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
