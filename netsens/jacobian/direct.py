"""The ways to a Jacobian by passes alone, each with its cost: forward, reverse, some tensors each way, rows and columns together, a symmetric matrix; and the
cheapest of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from netsens.jacobian.bicolouring import LARGEST, TwoSided, dense_columns_forward, dense_rows_backward, symmetric
from netsens.jacobian.colouring import Colouring, colour
from netsens.jacobian.cost import Cost
from netsens.jacobian.linearize import Linearizer
from netsens.jacobian.memory import working_memory
from netsens.jacobian.plan import Part, Plan
from netsens.modes.pattern import Relation

CHUNK_BYTES = 24 << 20  # passes at once that hold more than this leave the processor's caches and gain nothing
FEW = 4  # passes that no cleverer colouring is looked for
MANY = 12  # tensors that are no longer looked at one by one
TOGETHER_BYTES = 32 << 20  # seeds of several tensors share their passes' program up to this size


def direct_plan(lin: Linearizer, of: str | None = None, mode: str = "auto", memory_limit: int | None = None) -> Plan:
    """The cheapest plan without a product through a waist, or the cheapest of a mode (`auto`, `forward`, `reverse`)."""
    y = of or lin.of[0]
    relations = {w: lin.relations[y, w] for w in lin.wrt if (y, w) in lin.relations}
    reached = tuple(relations)
    memory = working_memory(memory_limit) // (1 if memory_limit is None else 2)  # the other half of a limit is the result's
    rows, width = prod(lin.shape(y)), sum(prod(lin.shape(w)) for w in lin.wrt)
    size = rows * width * int(lin.dtype(y).itemsize)
    if size == 0 or not reached:
        return Plan(y, lin.wrt, "forward", (), relations, (rows, width), size, mode, {"forward": 0.0}, memory)
    columns = {w: colour([r]) for w, r in relations.items()}
    ways: dict[str, list[Part]] = {}
    if mode in ("auto", "forward"):
        ways["forward"] = _forward_parts(lin, y, reached, columns, memory)
    if mode in ("auto", "reverse"):
        ways["reverse"] = _reverse_parts(lin, y, reached, relations, memory)
    if mode == "auto" and len(reached) > 1:
        ways |= _both(lin, y, relations, columns, memory)
    if mode in ("auto", "forward") and lin.symmetric and relations[reached[0]].out == relations[reached[0]].in_:
        ways |= _symmetric(lin, y, relations, columns, memory)
    elif mode == "auto":
        ways |= _two_sided(lin, y, relations, min(_cost(parts) for parts in ways.values()), memory)
    costs = {name: _cost(parts) for name, parts in ways.items()}
    chosen = min(costs, key=costs.__getitem__)
    return Plan(y, lin.wrt, chosen, tuple(ways[chosen]), relations, (rows, width), size, mode, costs, memory)


def _forward_parts(lin: Linearizer, y: str, wrt: Sequence[str], columns: dict[str, Colouring], memory: int) -> list[Part]:
    """Tensors share a program where their seeds are small, and have one each where not."""
    if not wrt:
        return []
    passes = sum(columns[w].count for w in wrt)
    seeds = sum(prod(lin.shape(w)) for w in wrt) * 4
    if len(wrt) == 1 or passes * seeds <= min(TOGETHER_BYTES, memory) or (len(wrt) > MANY and seeds <= TOGETHER_BYTES):
        cost = lin.cost(True, wrt, y)
        return [Part(True, tuple(wrt), tuple(columns[w] for w in wrt), _chunk(passes, cost, memory), cost.work)]
    parts = []
    shared = lin.cost(True, wrt, y) if len(wrt) > MANY else None
    for w in wrt:
        cost = shared or lin.cost(True, [w], y)
        parts.append(Part(True, (w,), (columns[w],), _chunk(columns[w].count, cost, memory), cost.work))
    return parts


def _reverse_parts(lin: Linearizer, y: str, wrt: Sequence[str], relations: dict[str, Relation], memory: int) -> list[Part]:
    if not wrt:
        return []
    rows = colour([relations[w].transposed() for w in wrt])
    cost = lin.cost(False, wrt, y)
    return [Part(False, tuple(wrt), (rows,), _chunk(rows.count, cost, memory), cost.work)]


def _both(lin: Linearizer, y: str, relations: dict[str, Relation], columns: dict[str, Colouring], memory: int) -> dict[str, list[Part]]:
    """The tensors with the fewest colours forward, the others in reverse, at the one or two splits that could pay."""
    order = sorted(relations, key=lambda w: columns[w].count)
    counts = [columns[w].count for w in order]
    total = prod(lin.shape(y))
    steps = [k for k in range(1, len(order)) if counts[k] > 2 * counts[k - 1] or counts[k] > total >= counts[k - 1]]
    best: tuple[float, list[Part]] | None = None
    for k in steps[-3:]:
        parts = _forward_parts(lin, y, order[:k], columns, memory) + _reverse_parts(lin, y, order[k:], relations, memory)
        total_cost = _cost(parts)
        if best is None or total_cost < best[0]:
            best = (total_cost, parts)
    return {"forward and reverse": best[1]} if best else {}


def _symmetric(lin: Linearizer, y: str, relations: dict[str, Relation], columns: dict[str, Colouring], memory: int) -> dict[str, list[Part]]:
    """Columns of a Hessian, each entry read on either side of the diagonal, where that takes fewer passes."""
    ((w, relation),) = relations.items()
    if columns[w].count < FEW:
        return {}
    found = symmetric(relation)
    if found is None or found[0].count >= columns[w].count:
        return {}
    cost = lin.cost(True, [w], y)
    return {"symmetric": [Part(True, (w,), (found[0],), _chunk(found[0].count, cost, memory), cost.work, {w: found[1]})]}


def _two_sided(lin: Linearizer, y: str, relations: dict[str, Relation], best: float, memory: int) -> dict[str, list[Part]]:
    """Dense rows backward and the rest forward, or dense columns forward and the rest backward, where that is cheaper than the `best` so far."""
    if len(relations) > MANY or sum(r.count for r in relations.values()) > LARGEST or all(not r.factors for r in relations.values()):
        return {}
    reverse = lin.cost(False, tuple(relations), y)
    forward = {w: lin.cost(True, [w], y) for w in relations}
    if best < FEW * min(reverse.work, *(cost.work for cost in forward.values())):
        return {}
    found: list[list[Part]] = []
    for way in (dense_rows_backward, dense_columns_forward):
        sides: TwoSided | None = way(relations, {w: cost.work for w, cost in forward.items()}, reverse.work, best)
        if sides is None:
            continue
        parts = [
            Part(True, (w,), (colouring,), _chunk(colouring.count, forward[w], memory), forward[w].work, {w: recovery})
            for w, (colouring, recovery) in sides.columns.items() if colouring.count
        ]  # fmt: skip
        if sides.rows is not None and sides.rows.count:
            parts.append(Part(False, tuple(relations), (sides.rows,), _chunk(sides.rows.count, reverse, memory), reverse.work, sides.row_recoveries))
        found.append(parts)
    return {"rows and columns": min(found, key=_cost)} if found else {}


def _cost(parts: Sequence[Part]) -> float:
    return sum(p.passes * p.work for p in parts)


def _chunk(passes: int, cost: Cost, memory: int) -> int:
    """How many passes at once: as many as fit, in chunks of even size."""
    gains = max(CHUNK_BYTES, 4 * cost.shared)  # weights are read once a chunk, so what passes hold should outweigh them
    most = max(1, min(memory, gains) // max(cost.live, 1))
    return ceil(passes / ceil(passes / most)) if passes else 1
