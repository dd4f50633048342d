"""The passes of a plan, run chunk by chunk on one point, each chunk with what places its entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from netsens.graph.graph import Array
from netsens.jacobian.decompress import Decompressor
from netsens.jacobian.linearize import Linearization
from netsens.jacobian.plan import Part, Plan
from netsens.jacobian.recovery import Recovery

KEPT_BYTES = 16 << 20  # of all the seeds of a part that are kept from one point to the next
Progress = Callable[[int, int], None]
Seeds = tuple[dict[str, Array], list[tuple[int, str, int, int, int]]]


@dataclass(frozen=True, slots=True, eq=False)
class Passes:
    """Results of some passes: for the tensor `wrt`, numbers `start` and following. Forward they are columns [n, *of], otherwise rows [n, *wrt]."""

    wrt: str
    forward: bool
    start: int
    values: Array
    part: Part
    slot: int  # which of the part's colourings


def passes(linearization: Linearization, plan: Plan, progress: Progress | None = None, last: bool = False) -> Iterator[Passes]:
    """Every pass of the plan, chunk by chunk. `last`: nothing else is asked at this point, so a part of one chunk is one run with its forward pass."""
    done = 0
    for part in plan.parts:
        once = last and part.chunk >= part.passes
        for start in range(0, part.passes, part.chunk):
            stop = min(start + part.chunk, part.passes)
            yield from (_forward if part.forward else _reverse)(linearization, plan, part, start, stop, once)
            done += stop - start
            if progress is not None:
                progress(done, plan.passes)


def _forward(linearization: Linearization, plan: Plan, part: Part, start: int, stop: int, once: bool) -> Iterator[Passes]:
    seeds, spans = _kept_seeds(part, (start, stop), lambda: _column_seeds(linearization, part, start, stop))
    found = linearization.push(seeds, [plan.of], once)[plan.of]
    for slot, w, first, low, high in spans:
        yield Passes(w, True, first, found[low:high], part, slot)


def _column_seeds(linearization: Linearization, part: Part, start: int, stop: int) -> Seeds:
    """The tangents of the passes start to stop; and which of them each tensor has: (slot, tensor, its first colour, first pass, last pass)."""
    lin = linearization.linearizer
    seeds: dict[str, Array] = {}
    spans = []
    begin = 0
    for slot, (w, colouring) in enumerate(zip(part.wrt, part.colourings, strict=True)):
        low, high = max(start, begin), min(stop, begin + colouring.count)
        if low < high:
            own = colouring.seeds(low - begin, high - begin, lin.dtype(w))
            if high - low < stop - start:
                whole = np.zeros((stop - start, *colouring.shape), own.dtype)
                whole[low - start : high - start] = own
                own = whole
            seeds[w] = own
            spans.append((slot, w, low - begin, low - start, high - start))
        elif len(part.wrt) > 1:
            seeds[w] = np.zeros((stop - start, *colouring.shape), lin.dtype(w))
        begin += colouring.count
    return seeds, spans


def _reverse(linearization: Linearization, plan: Plan, part: Part, start: int, stop: int, once: bool) -> Iterator[Passes]:
    dtype = linearization.linearizer.dtype(plan.of)
    seeds, _ = _kept_seeds(part, (start, stop), lambda: ({plan.of: part.colourings[0].seeds(start, stop, dtype)}, []))
    found = linearization.pull(seeds[plan.of], part.wrt, plan.of, once)
    for w in part.wrt:
        yield Passes(w, False, start, found[w], part, 0)


def _kept_seeds(part: Part, key: tuple[int, int], make: Callable[[], Seeds]) -> Seeds:
    """The seeds of these passes, which are the same at every point: small ones are kept with the part."""
    if key not in part.kept:
        made = make()
        if sum(s.nbytes for s in made[0].values()) * part.passes > KEPT_BYTES * (key[1] - key[0]):
            return made
        part.kept[key] = made
    return part.kept[key]


class Decompressors:
    """One for each tensor of a plan, built once."""

    def __init__(self, plan: Plan, per_sample: bool = False) -> None:
        self.plan = plan
        self.per_sample = per_sample
        self._known: dict[str, Decompressor] = {}

    def of(self, found: Passes) -> Decompressor | Recovery:
        if found.part.recoveries is not None:
            return found.part.recoveries[found.wrt]
        if found.wrt not in self._known:
            relation = self.plan.relations[found.wrt]
            alone = self.per_sample and self.plan.by_sample(found.wrt) and relation.in_[0] > 1
            self._known[found.wrt] = Decompressor(
                relation if found.forward else relation.transposed(), found.part.colourings[found.slot], alone, turned=not found.forward
            )  # fmt: skip
        return self._known[found.wrt]
