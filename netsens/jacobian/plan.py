"""What a plan of a Jacobian says: which passes answer the question, forward or backward, how many, how many at once, and why. Who makes one: `planning`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from netsens.jacobian.colouring import Colouring, Ints
from netsens.jacobian.linearize import Linearizer
from netsens.jacobian.memory import readable
from netsens.jacobian.product import Product
from netsens.jacobian.recovery import Recovery
from netsens.modes.pattern import Relation


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
    """How the Jacobian of `of` by each of `wrt`, a matrix of this `shape`, is computed. `cost` counts elements touched; `considered` are the costs of the
    ways that were weighed."""

    of: str
    wrt: tuple[str, ...]
    mode: str
    parts: tuple[Part, ...]
    relations: dict[str, Relation]
    shape: tuple[int, int]
    bytes: int
    asked: str  # the mode that was asked for
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

    @property
    def why(self) -> str:
        """The reason for this way, and what the next best would cost."""
        if not self.relations:
            return "there is nothing to compute" if not self.bytes else "no path leads to it from what it is taken by"
        if self.asked != "auto":
            return f"--mode {self.asked} was asked for"
        others = sorted((cost, name) for name, cost in self.considered.items() if name != self.mode)
        if not others:
            return self._reason()
        times = others[0][0] / max(self.cost, 1)
        return f"{self._reason()}; {others[0][1]} would cost {'as much' if times < 1.005 else f'{times:,.3g} x as much'}"

    def _reason(self) -> str:
        if self.waist is not None:
            return f"all paths lead through {self.waist.size:,} numbers"
        if self.mode == "symmetric":
            return "an entry is read on either side of the diagonal"
        if self.mode == "rows and columns":
            return "dense rows and dense columns travel apart"
        coloured = any(c.count < prod(c.shape) for p in self.parts for c in p.colourings)
        return "structure lets positions share a pass" if coloured else "every position has a pass of its own"

    def by_sample(self, wrt: str) -> bool:
        """Whether each sample of `of` depends on its own sample of `wrt` alone (axis 0 of both)."""
        relation = self.relations[wrt]
        return any(f.outs == (0,) and f.ins == (0,) and f.matrix.is_identity for f in relation.factors) or (
            relation.out is not None and relation.out[:1] == relation.in_[:1] == (1,)
        )

    def row_counts(self, wrt: str) -> Ints:
        """How many entries of each row of the Jacobian by this tensor the passes give."""
        apart = [p.recoveries[wrt] for p in self.parts if p.recoveries is not None and wrt in p.recoveries]
        if not apart:
            return self.relations[wrt].row_counts()
        return np.bincount(np.concatenate([r.row for r in apart]), minlength=prod(self.relations[wrt].out or ()))

    def line(self, what: str | None = None) -> str:
        """What is computed and how, in one line; `what` it is, in the user's own words. The reason is `why`."""
        rows, columns = self.shape
        share = self.entries / max(rows * columns, 1)
        filled = "" if share > 0.999 else f", {100 * share:.{2 if share < 0.99 else 3}g}% filled"
        chunk = f", {self.chunk} at a time" if 0 < self.chunk < self.passes else ""
        subject = what or f"Jacobian of '{self.of}'"
        if not self.relations:
            return f"{subject}, {rows:,} x {columns:,} ({readable(self.bytes)}): all zero, no passes."
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


@dataclass(frozen=True, slots=True, eq=False)
class Waist:
    """The values that all paths lead through, with the plans of the two Jacobians: of each value by `wrt`, and of `of` by the values."""

    names: tuple[str, ...]
    size: int
    before: tuple[tuple[Linearizer, Plan], ...]
    after: tuple[Linearizer, Plan]
    product: Product
    by_sample: bool  # whether the second Jacobian keeps the samples of a batch apart, so that a product a sample is enough
    cost: float

    @property
    def passes(self) -> int:
        return sum(plan.passes for _, plan in self.before) + self.after[1].passes


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}{'es' if word.endswith('s') else 's'}"
