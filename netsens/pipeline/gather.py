"""Rows of different inputs in one run of the model: whether that is exact, which is proved before it is done, and how.

Each input has its own slot in a run of fixed shape, whatever became of its neighbours: an empty slot holds a copy of another. So the bytes of a result
depend on the input and its place in the list alone, and a run that was interrupted ends with the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netsens.errors import NetsensError
from netsens.graph.emitted import CHANCE
from netsens.graph.graph import Array
from netsens.modes.split import specialised
from netsens.modes.structure import structure
from netsens.modes.target import keeps_rows, parse_target
from netsens.pipeline.question import GradientQuestion
from netsens.report.inputs import Sample
from netsens.run.finite import all_finite

Signature = tuple[tuple[str, tuple[int, ...], str], ...]
SMALL_BYTES = 1 << 20  # what the rows of one run may hold by default
MOST_ROWS = 32
# These compute with the whole batch, or with chance, whatever their derivative says.
MIXING = {"DynamicQuantizeLinear", "NonZero", "Unique"} | CHANCE


@dataclass(frozen=True, slots=True)
class Gathering:
    """Inputs of this signature share runs, `slots` of them at a time, each with `rows` rows."""

    signature: Signature
    rows: int
    slots: int


def signature(sample: Sample) -> Signature:
    """Names, shapes and dtypes of a sample's arrays."""
    return tuple((name, array.shape, array.dtype.name) for name, array in sample.arrays.items())


def default_rows(sample: Sample) -> int:
    """How many rows one run takes where the user doesn't say."""
    rows = max((a.shape[0] for a in sample.arrays.values() if a.ndim), default=1)
    size = sum(a.nbytes for a in sample.arrays.values()) / max(rows, 1)
    return max(1, min(MOST_ROWS, int(SMALL_BYTES / max(size, 1))))


def gathering(question: Any, sample: Sample, batch_size: int | None, others: Sequence[Sample] = ()) -> tuple[Gathering | None, str]:
    """How inputs like `sample` can share runs of the model; or None, and why not."""
    if not isinstance(question, GradientQuestion):
        return None, "each input has a run of its own"
    counts = {a.shape[0] if a.ndim else 0 for a in sample.arrays.values()}
    if len(counts) != 1 or 0 in counts:
        return None, "the inputs don't share a first axis"
    (rows,) = counts
    slots = (batch_size or default_rows(sample)) // rows
    if slots < 2:
        return None, "one input fills a run"
    found = Gathering(signature(sample), rows, slots)
    try:
        why = _obstacle(question, sample, found) or _mixes(question, sample, found, [s for s in others if signature(s) == found.signature])
    except NetsensError as error:
        why = str(error)
    return (None, why) if why else (found, "")


def separable(question: Any, sample: Sample) -> str:
    """Why the rows of one input can't be computed apart from each other; empty where they can."""
    if not isinstance(question, GradientQuestion):
        return "only gradients are computed by rows"
    first = replace(sample, arrays={k: a[:1] for k, a in sample.arrays.items()})
    others = [
        replace(sample, arrays={k: a[n : n + 1] for k, a in sample.arrays.items()}) for n in range(1, 4) if all(len(a) > n for a in sample.arrays.values())
    ]
    return gathering(question, first, 4, others)[1]


def together(question: GradientQuestion, samples: Mapping[int, Sample], found: Gathering) -> dict[int, dict[str, Array]]:
    """The gradients of samples in their slots, in one run; one that isn't finite is asked for again alone, as it is where there are no neighbours."""
    filler = next(iter(samples.values()))
    filled = [samples.get(slot, filler) for slot in range(found.slots)]
    result = _run(question, {name: [s.arrays[name] for s in filled] for name, _, _ in found.signature}, found.slots)
    parts = {slot: {w: g[slot * found.rows : (slot + 1) * found.rows].copy() for w, g in result.items()} for slot in samples}
    for slot, part in parts.items():
        if not all_finite(part.values()):
            parts[slot] = question.gradient(samples[slot].arrays, question.cotangent)
    return parts


def _run(question: GradientQuestion, parts: Mapping[str, Sequence[Array]], slots: int) -> dict[str, Array]:
    cotangent = None if question.cotangent is None else np.concatenate([np.asarray(question.cotangent)] * slots)
    return question.gradient_of_strangers({name: np.concatenate(arrays) for name, arrays in parts.items()}, cotangent)


def _obstacle(question: GradientQuestion, sample: Sample, found: Gathering) -> str:
    """What in the question or in the model's structure forbids it."""
    model = question.model
    if question.per_sample or question.method == "finite-difference":
        return "--per-sample and finite differences take each input alone"
    for name, type_ in model.inputs.items():
        if type_.shape is None or not type_.shape or isinstance(type_.shape[0], int):
            return f"the first axis of input '{name}' is fixed"
    feeds = model.feeds({name: np.concatenate([array] * 2) for name, array in sample.arrays.items()})
    plan = model.plan(wrt=question.wrt, of=question.of, target=question.target, cotangent=question.cotangent is not None, feeds=feeds, method=question.method)
    graph = model.observed(feeds)
    named = [*plan.results, *plan.zeros]
    if any(w in graph.constants for w in named):
        return "a gradient by parameters is a sum over the rows of its input"
    mixing = next((n for n in graph.every_node() if n.op in MIXING and not n.domain), None)
    if mixing is not None:
        return f"{mixing.label} looks at the whole batch"
    fixed = specialised(graph, {k: v.shape for k, v in feeds.items()})
    rows = 2 * found.rows
    shape = fixed.types[plan.of].shape if plan.of in fixed.types else None
    if not shape or shape[0] != rows:
        return f"'{plan.of}' has no axis for the rows"
    if not keeps_rows(parse_target(question.target), len(shape)):
        return "the target chooses among the rows"
    relations = structure(fixed, [plan.of], list(plan.results))
    for w in plan.results:
        relation = relations.get((plan.of, w))
        if relation is None or not any(f.outs == (0,) and f.ins == (0,) and f.matrix.is_identity for f in relation.factors):
            return f"rows of '{plan.of}' may depend on each other's '{w}'"
    return ""


def _mixes(question: GradientQuestion, sample: Sample, found: Gathering, others: Sequence[Sample]) -> str:
    """The proof by trial, on the inputs themselves: a slot's result must not move by a bit when its neighbours are others, and must be what it is alone."""
    pool = [sample, *others]
    filled = [pool[k % len(pool)] for k in range(found.slots)]
    names = [name for name, _, _ in found.signature]
    plain = _run(question, {n: [s.arrays[n] for s in filled] for n in names}, found.slots)
    for parity in (0, 1):
        other = _run(question, {n: [_changed(s.arrays[n]) if k % 2 == parity else s.arrays[n] for k, s in enumerate(filled)] for n in names}, found.slots)
        for w, g in plain.items():
            if len(g) != found.slots * found.rows:
                return f"the gradient by '{w}' has no axis for the rows"
            kept = np.repeat(np.arange(found.slots) % 2 != parity, found.rows)
            if not np.array_equal(g[kept], other[w][kept], equal_nan=True):
                return f"rows of '{w}' change with their neighbours"
    alone = question.gradient(sample.arrays, question.cotangent)
    for w, g in alone.items():
        if not _close(plain[w][: found.rows], g):
            return f"the gradient by '{w}' depends on how many rows there are"
    return ""


def _changed(array: Array) -> Array:
    """Other numbers of the same kind, in a range that the model takes."""
    turned = array.reshape(-1)[::-1].reshape(array.shape)
    return turned * array.dtype.type(-1.75) if array.dtype.kind == "f" else turned


def _close(a: Array, b: Array) -> bool:
    if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return False
    wide_a, wide_b = (np.where(np.isfinite(v), v, 0).astype(np.float64) for v in (a, b))
    scale = max(np.abs(wide_b).max(initial=0), np.abs(wide_a).max(initial=0))
    tolerance = {2: 5e-2, 4: 1e-3}.get(b.dtype.itemsize, 1e-8)
    return bool(scale == 0 or np.abs(wide_a - wide_b).max(initial=0) <= tolerance * scale)
