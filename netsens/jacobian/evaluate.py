"""Carries a plan out: runs its passes in chunks and puts the entries where they belong, in memory, in a file, or into figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.errors import UsageError
from netsens.graph.graph import Array
from netsens.jacobian.decompress import Decompressor
from netsens.jacobian.plan import Part, Plan
from netsens.jacobian.recovery import Recovery

if TYPE_CHECKING:
    from netsens.jacobian.linearize import Linearization

KEPT_BYTES = 16 << 20  # of all the seeds of a part that are kept from one point to the next
Allocate = Callable[[str, tuple[int, ...], Any], Array]
Progress = Callable[[int, int], None]


def zeros(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """A result in memory."""
    return np.zeros(shape, dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Passes:
    """Results of some passes: for the tensor `wrt`, numbers `start` and following. Forward they are columns [n, *of], otherwise rows [n, *wrt]."""

    wrt: str
    forward: bool
    start: int
    values: Array
    part: Part
    slot: int  # which of the part's colourings


def passes(linearization: Linearization, plan: Plan, progress: Progress | None = None) -> Iterator[Passes]:
    """Every pass of the plan, chunk by chunk."""
    done = 0
    for part in plan.parts:
        for start in range(0, part.passes, part.chunk):
            stop = min(start + part.chunk, part.passes)
            yield from _forward(linearization, plan, part, start, stop) if part.forward else _reverse(linearization, plan, part, start, stop)
            done += stop - start
            if progress is not None:
                progress(done, plan.passes)


def _forward(linearization: Linearization, plan: Plan, part: Part, start: int, stop: int) -> Iterator[Passes]:
    seeds, spans = _kept_seeds(part, (start, stop), lambda: _column_seeds(linearization, part, start, stop))
    found = linearization.push(seeds, [plan.of])[plan.of]
    for slot, w, first, low, high in spans:
        yield Passes(w, True, first, found[low:high], part, slot)


def _column_seeds(linearization: Linearization, part: Part, start: int, stop: int) -> tuple[dict[str, Array], list[tuple[int, str, int, int, int]]]:
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


def _reverse(linearization: Linearization, plan: Plan, part: Part, start: int, stop: int) -> Iterator[Passes]:
    dtype = linearization.linearizer.dtype(plan.of)
    seeds, _ = _kept_seeds(part, (start, stop), lambda: ({plan.of: part.colourings[0].seeds(start, stop, dtype)}, []))
    found = linearization.pull(seeds[plan.of], part.wrt, plan.of)
    for w in part.wrt:
        yield Passes(w, False, start, found[w], part, 0)


Seeds = tuple[dict[str, Array], list[tuple[int, str, int, int, int]]]


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
            alone = self.per_sample and by_sample(self.plan, found.wrt) and relation.in_[0] > 1
            self._known[found.wrt] = Decompressor(
                relation if found.forward else relation.transposed(), found.part.colourings[found.slot], alone, turned=not found.forward
            )  # fmt: skip
        return self._known[found.wrt]


def by_sample(plan: Plan, wrt: str) -> bool:
    """Whether each sample of `of` depends on its own sample of `wrt` alone (axis 0 of both)."""
    relation = plan.relations[wrt]
    return any(f.outs == (0,) and f.ins == (0,) and f.matrix.is_identity for f in relation.factors) or (
        relation.out is not None and relation.out[:1] == relation.in_[:1] == (1,)
    )


def evaluate(
    linearization: Linearization, plan: Plan, allocate: Allocate = zeros, *, per_sample: bool = False, progress: Progress | None = None,
    decompressors: Decompressors | None = None,
) -> dict[str, Array]:  # fmt: skip
    """The Jacobian by each tensor, [*of, *wrt]. With `per_sample`, by a tensor that goes along with the batch, [N, *of[1:], *wrt[1:]]."""
    lin = linearization.linearizer
    dtype = lin.dtype(plan.of)
    result: dict[str, Array] = {}
    out = lin.shape(plan.of)
    for w in plan.wrt:
        in_ = lin.shape(w)
        if per_sample and w in plan.relations and by_sample(plan, w):
            result[w] = allocate(w, out + in_[1:], dtype)
        else:
            if per_sample and w in lin.graph.inputs:
                raise UsageError(f"The samples of '{plan.of}' and of '{w}' don't go one with one, so --per-sample has no meaning for them; leave it out.")
            result[w] = allocate(w, out + in_, dtype)
    if plan.waist is not None:
        from netsens.jacobian.waist import through_waist

        through_waist(linearization, plan, result, progress)
        return result
    write = decompressors or Decompressors(plan, per_sample)
    for found in passes(linearization, plan, progress):
        d = write.of(found)
        target = result[found.wrt]
        if isinstance(d, Decompressor) and not d.per_sample:
            # Of a batch of one, the per-sample form is the same numbers in the same order.
            target = target.reshape(out + lin.shape(found.wrt))
            if not found.forward:
                target = target.transpose([*range(len(out), target.ndim), *range(len(out))])
        d.write(target, found.values, found.start)
    return result


def evaluate_sparse(linearization: Linearization, plan: Plan, progress: Progress | None = None) -> dict[str, Any]:
    """The Jacobian by each tensor as a SciPy CSR array, [elements of `of`, elements of `wrt`]; entries that are zero by chance are stored too."""
    from netsens.jacobian.extras import scipy_module

    sparse = scipy_module("scipy.sparse", "a sparse Jacobian")
    lin = linearization.linearizer
    blocks: dict[str, list[tuple[Array, Array, Array]]] = {w: [] for w in plan.wrt}
    if plan.waist is not None:
        raise UsageError("A product of two Jacobians through a waist is dense; leave --sparse out, or force --mode forward or reverse.")
    write = Decompressors(plan)
    for found in passes(linearization, plan, progress):
        rows, columns, values = write.of(found).entries(found.values, found.start)
        blocks[found.wrt].append((rows, columns, values) if found.forward else (columns, rows, values))
    result = {}
    for w, parts in blocks.items():
        shape = (int(np.prod(lin.shape(plan.of))), int(np.prod(lin.shape(w))))
        if not parts:
            result[w] = sparse.csr_array(shape, dtype=lin.dtype(plan.of))
            continue
        row, column, value = (np.concatenate([p[k] for p in parts]) for k in range(3))
        result[w] = sparse.csr_array((value, (row, column)), shape=shape)
    return result
