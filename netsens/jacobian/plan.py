"""The plan of a Jacobian: which passes answer the question, forward or backward, how many, how many at once, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.errors import UsageError
from netsens.jacobian.bicolouring import LARGEST, TwoSided, dense_columns_forward, dense_rows_backward, symmetric
from netsens.jacobian.colouring import Colouring, Ints, colour
from netsens.jacobian.memory import readable, working_memory
from netsens.jacobian.recovery import Recovery
from netsens.modes.pattern import Relation

if TYPE_CHECKING:
    from netsens.jacobian.linearize import Linearizer
    from netsens.jacobian.waist import Waist

MODES = ("auto", "forward", "reverse", "mixed")
CHUNK_BYTES = 192 << 20  # passes at once that hold more than this gain nothing
FEW = 4  # passes that no cleverer colouring is looked for
MANY = 12  # tensors that are no longer looked at one by one
TOGETHER_BYTES = 32 << 20  # seeds of several tensors share their passes' program up to this size


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Passes that run together: over the columns of each of `wrt` in turn (forward), or over the rows for all of them (reverse)."""

    forward: bool
    wrt: tuple[str, ...]
    colourings: tuple[Colouring, ...]  # one for each of wrt (forward), or one
    chunk: int
    work: float  # of a pass
    recoveries: Mapping[str, Recovery] | None = None  # by tensor, where entries are read one by one
    kept: dict[Any, Any] = field(default_factory=dict)  # seeds that were made before

    @property
    def passes(self) -> int:
        return sum(c.count for c in self.colourings)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How the Jacobian of `of` by each of `wrt` is computed. `cost` counts elements touched; `considered` are the costs of the ways that
    were weighed."""

    of: str
    wrt: tuple[str, ...]
    mode: str
    parts: tuple[Part, ...]
    relations: dict[str, Relation]
    bytes: int
    why: str
    considered: dict[str, float]
    memory: int
    waist: Waist | None = None

    @property
    def passes(self) -> int:
        return sum(p.passes for p in self.parts) if self.waist is None else self.waist.passes

    @property
    def cost(self) -> float:
        return self.considered[self.mode]

    @property
    def chunk(self) -> int:
        return max((p.chunk for p in self.parts), default=0)

    @property
    def entries(self) -> int:
        """How many entries the structure leaves."""
        return sum(r.count for r in self.relations.values())

    def row_counts(self, wrt: str) -> Ints:
        """How many entries of each row of the Jacobian by this tensor the passes give."""
        apart = [p.recoveries[wrt] for p in self.parts if p.recoveries is not None and wrt in p.recoveries]
        if not apart:
            return self.relations[wrt].row_counts()
        return np.bincount(np.concatenate([r.row for r in apart]), minlength=prod(self.relations[wrt].out or ()))

    def line(self, what: str | None = None) -> str:
        """What is computed and how, in one line; `what` it is, in the user's own words. The reason is `why`."""
        rows = prod(next(iter(self.relations.values())).out or ()) if self.relations else 0
        columns = sum(prod(r.in_) for r in self.relations.values())
        share = self.entries / max(rows * columns, 1)
        filled = "" if share > 0.999 else f", {100 * share:.2g}% filled"
        chunk = f", {self.chunk} at a time" if 0 < self.chunk < self.passes else ""
        subject = what or f"Jacobian of '{self.of}'"
        return f"{subject}, {rows:,} x {columns:,} ({readable(self.bytes)}{filled}): {self.mode}, {_many(self.passes, 'pass')}{chunk}."

    def explain(self, what: str | None = None) -> str:
        """The plan in full."""
        lines = [self.line(what), f"  {self.why}"]
        for part in self.parts:
            way = "forward, by columns" if part.forward else "reverse, by rows"
            for n, colouring in enumerate(part.colourings):
                names = part.wrt[n] if part.forward else ", ".join(part.wrt[:4]) + (f" and {len(part.wrt) - 4} more" if len(part.wrt) > 4 else "")
                size = prod(colouring.shape)
                lines.append(f"  {names}: {way}, {_many(colouring.count, 'colour')} for {_many(size, 'column' if part.forward else 'row')}")
            lines.append(f"    {_many(part.passes, 'pass')} of {part.work:,.0f} elements, {part.chunk:,} at a time")
        if self.waist is not None:
            lines.append(f"  through {', '.join(self.waist.names)} ({self.waist.size:,} numbers): {self.waist.passes:,} passes, and a product of two Jacobians")
        for name, relation in self.relations.items():
            total = prod(relation.out or ()) * prod(relation.in_)
            lines.append(f"  by {name}: {list(relation.out or ())} x {list(relation.in_)}, {relation.count:,} of {total:,} entries may be non-zero")
        lines += [f"  weighed: {name} {cost:,.0f} elements" for name, cost in sorted(self.considered.items(), key=lambda item: item[1])]
        lines.append(f"  memory for passes: {readable(self.memory)}")
        return "\n".join(lines)


def make_plan(lin: Linearizer, of: str | None = None, mode: str = "auto", memory_limit: int | None = None, through_waist: bool = True) -> Plan:
    """The cheapest plan, or the cheapest of a forced mode."""
    if mode not in MODES:
        raise UsageError(f"There is no mode '{mode}'; the modes are {', '.join(MODES)}.")
    y = of or lin.of[0]
    relations = {w: lin.relations[y, w] for w in lin.wrt if (y, w) in lin.relations}
    reached = tuple(relations)
    memory = working_memory(memory_limit) // (1 if memory_limit is None else 2)  # the other half of a limit is the result's
    itemsize = lin.dtype(y).itemsize
    size = sum(prod(lin.shape(y)) * prod(lin.shape(w)) for w in lin.wrt) * itemsize
    columns = {w: colour([r]) for w, r in relations.items()}
    costs: dict[str, float] = {}
    options: dict[str, list[Part]] = {}
    empty = size == 0 or not reached
    if empty:
        return Plan(y, lin.wrt, "forward", (), relations, size, "there is nothing to compute", {"forward": 0.0}, memory)
    if mode in ("auto", "forward"):
        options["forward"] = _forward_parts(lin, y, reached, columns, memory)
    if mode in ("auto", "reverse"):
        options["reverse"] = _reverse_parts(lin, y, reached, relations, memory)
    if mode == "auto" and len(reached) > 1:
        options |= _both(lin, y, relations, columns, memory)
    if mode in ("auto", "forward") and lin.symmetric and relations[reached[0]].out == relations[reached[0]].in_:
        options |= _symmetric(lin, y, relations, columns, memory)
    elif mode == "auto":
        options |= _two_sided(lin, y, relations, min(_cost(parts) for parts in options.values()), memory)
    for name, parts in options.items():
        costs[name] = _cost(parts)
    chosen = min(costs, key=costs.__getitem__) if costs else "mixed"
    if mode == "mixed" or (mode == "auto" and through_waist):
        from netsens.jacobian.waist import find_waist

        waist = find_waist(lin, y, reached, sum(p.passes for p in options[chosen]) if options else None, memory_limit)
        if waist is not None:
            costs["mixed"] = waist.cost
            if waist.cost <= min(costs.values()):
                return Plan(y, lin.wrt, "mixed", (), relations, size, f"all paths lead through {waist.size:,} numbers", costs, memory, waist)
        elif mode == "mixed":
            raise UsageError(f"There is no narrow waist between {', '.join(reached[:3])} and '{y}' to multiply two Jacobians through; use --mode auto.")
    parts = options[chosen]
    return Plan(y, lin.wrt, chosen, tuple(parts), relations, size, _why(mode, chosen, parts, costs), costs, memory)


def _forward_parts(lin: Linearizer, y: str, wrt: Sequence[str], columns: dict[str, Colouring], memory: int) -> list[Part]:
    """Tensors share a program where their seeds are small, and have one each where not."""
    if not wrt:
        return []
    passes = sum(columns[w].count for w in wrt)
    seeds = sum(prod(lin.shape(w)) for w in wrt) * 4
    if len(wrt) == 1 or passes * seeds <= min(TOGETHER_BYTES, memory) or (len(wrt) > MANY and seeds <= TOGETHER_BYTES):
        work, live = lin.work(True, wrt, y)
        return [Part(True, tuple(wrt), tuple(columns[w] for w in wrt), _chunk(passes, live, memory), work)]
    parts = []
    shared = lin.work(True, wrt, y) if len(wrt) > MANY else None
    for w in wrt:
        work, live = shared or lin.work(True, [w], y)
        parts.append(Part(True, (w,), (columns[w],), _chunk(columns[w].count, live, memory), work))
    return parts


def _reverse_parts(lin: Linearizer, y: str, wrt: Sequence[str], relations: dict[str, Relation], memory: int) -> list[Part]:
    if not wrt:
        return []
    rows = colour([relations[w].transposed() for w in wrt])
    work, live = lin.work(False, wrt, y)
    return [Part(False, tuple(wrt), (rows,), _chunk(rows.count, live, memory), work)]


def _both(lin: Linearizer, y: str, relations: dict[str, Relation], columns: dict[str, Colouring], memory: int) -> dict[str, list[Part]]:
    """The tensors with the fewest colours forward, the others in reverse, at the one or two splits that could pay."""
    order = sorted(relations, key=lambda w: columns[w].count)
    counts = [columns[w].count for w in order]
    total = prod(lin.shape(y))
    steps = [k for k in range(1, len(order)) if counts[k] > 2 * counts[k - 1] or counts[k] > total >= counts[k - 1]]
    best: tuple[float, list[Part]] | None = None
    for k in steps[-3:]:
        parts = _forward_parts(lin, y, order[:k], columns, memory) + _reverse_parts(lin, y, order[k:], relations, memory)
        cost = _cost(parts)
        if best is None or cost < best[0]:
            best = (cost, parts)
    return {"forward and reverse": best[1]} if best else {}


def _symmetric(lin: Linearizer, y: str, relations: dict[str, Relation], columns: dict[str, Colouring], memory: int) -> dict[str, list[Part]]:
    """Columns of a Hessian, each entry read on either side of the diagonal, where that takes fewer passes."""
    ((w, relation),) = relations.items()
    if columns[w].count < FEW:
        return {}
    found = symmetric(relation)
    if found is None or found[0].count >= columns[w].count:
        return {}
    work, live = lin.work(True, [w], y)
    return {"symmetric": [Part(True, (w,), (found[0],), _chunk(found[0].count, live, memory), work, {w: found[1]})]}


def _two_sided(lin: Linearizer, y: str, relations: dict[str, Relation], best: float, memory: int) -> dict[str, list[Part]]:
    """Dense rows backward and the rest forward, or dense columns forward and the rest backward, where that is cheaper than the `best` so far."""
    if len(relations) > MANY or sum(r.count for r in relations.values()) > LARGEST or all(not r.factors for r in relations.values()):
        return {}
    reverse, live = lin.work(False, tuple(relations), y)
    forward = {w: lin.work(True, [w], y) for w in relations}
    if best < FEW * min(reverse, *(work for work, _ in forward.values())):
        return {}
    found: list[list[Part]] = []
    for way in (dense_rows_backward, dense_columns_forward):
        sides: TwoSided | None = way(relations, {w: work for w, (work, _) in forward.items()}, reverse, best)
        if sides is None:
            continue
        parts = [
            Part(True, (w,), (colouring,), _chunk(colouring.count, forward[w][1], memory), forward[w][0], {w: recovery})
            for w, (colouring, recovery) in sides.columns.items() if colouring.count
        ]  # fmt: skip
        if sides.rows is not None and sides.rows.count:
            parts.append(Part(False, tuple(relations), (sides.rows,), _chunk(sides.rows.count, live, memory), reverse, sides.row_recoveries))
        found.append(parts)
    return {"rows and columns": min(found, key=_cost)} if found else {}


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}{'es' if word.endswith('s') else 's'}"


def _cost(parts: Sequence[Part]) -> float:
    return sum(p.passes * p.work for p in parts)


def _chunk(passes: int, live: int, memory: int) -> int:
    """How many passes at once: as many as fit, in chunks of even size."""
    most = max(1, min(memory, CHUNK_BYTES) // max(live, 1))
    return ceil(passes / ceil(passes / most)) if passes else 1


def _why(mode: str, chosen: str, parts: Sequence[Part], costs: dict[str, float]) -> str:
    if mode != "auto":
        return f"--mode {mode} was asked for"
    others = sorted((cost, name) for name, cost in costs.items() if name != chosen)
    coloured = any(c.count < prod(c.shape) for p in parts for c in p.colourings)
    reason = "structure lets positions share a pass" if coloured else "every position has a pass of its own"
    if chosen == "symmetric":
        reason = "an entry is read on either side of the diagonal"
    if chosen == "rows and columns":
        reason = "dense rows and dense columns travel apart"
    if not others:
        return reason
    return f"{reason}; {others[0][1]} would cost {others[0][0] / max(costs[chosen], 1):,.3g} x as much"
