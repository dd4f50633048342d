"""Answers to whole questions: a Jacobian or a Hessian by every tensor asked for, in memory, sparse, or in files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from netsens.errors import InputError, OutputError, ToleranceError, UsageError
from netsens.graph.graph import Array, Graph
from netsens.jacobian.evaluate import evaluate, evaluate_sparse
from netsens.jacobian.extras import scipy_module
from netsens.jacobian.linearize import Linearization, Linearizer, Load, Runner
from netsens.jacobian.memory import free_memory, readable
from netsens.jacobian.passes import Decompressors, Progress
from netsens.jacobian.plan import Plan
from netsens.jacobian.planning import make_plan
from netsens.jacobian.question import Question, ask, gradient_question
from netsens.jacobian.sparse_stream import stream_sparse
from netsens.jacobian.stream import files_at
from netsens.modes.target import Target

SMALL = 1 << 26  # bytes that any machine has


@dataclass(slots=True)
class Prepared:
    """What doesn't depend on the inputs' values: the question, its programs, and plans and decompressors once they were made."""

    question: Question
    linearizer: Linearizer
    tensors: tuple[str, ...]  # of a Hessian: whose gradients the value that is differentiated holds
    notes: tuple[str, ...]
    layer: str = ""  # what the user asked for
    plans: dict[Any, Plan] = field(default_factory=dict)
    decompressors: dict[Any, Decompressors] = field(default_factory=dict)
    observer: Runner | None = None

    @property
    def subject(self) -> str:
        """What is computed, as a sentence begins."""
        return f"The {'Hessian' if self.tensors else 'Jacobian'} of '{self.layer}'"

    def at(self, feeds: Mapping[str, Array]) -> Point:
        return Point(self, feeds)

    def holds(self, feeds: Mapping[str, Array]) -> bool:
        """Whether these inputs, of the shapes that this was prepared for, bring about the shapes that depend on values, too."""
        if self.question.observer is None:
            return True
        if self.observer is None:
            self.observer = self.linearizer.load(self.question.observer)
        return _shapes(self.observer, feeds) == self.question.seen

    def plan(self, mode: str, memory_limit: int | None, whole: bool = True) -> Plan:
        """The plan, made once. One that isn't for a `whole` matrix in memory (sparse, or figures alone) takes no product through a waist."""
        key = (mode, memory_limit, whole)
        if key not in self.plans:
            self.plans[key] = make_plan(self.linearizer, mode=mode, memory_limit=memory_limit, through_waist=whole)
        return self.plans[key]

    def decompress(self, plan: Plan, per_sample: bool) -> Decompressors:
        key = (id(plan), per_sample)
        if key not in self.decompressors:
            self.decompressors[key] = Decompressors(plan, per_sample)
        return self.decompressors[key]


class Point(Linearization):
    """A linearization that knows the question it answers."""

    def __init__(self, prepared: Prepared, feeds: Mapping[str, Array]) -> None:
        super().__init__(prepared.linearizer, feeds)
        self.prepared = prepared

    def to_dense(self, mode: str = "auto", memory_limit: int | None = None) -> dict[str, Array]:
        """The whole Jacobian by each tensor of `wrt`, {name: array of `of.shape + wrt.shape`}."""
        return evaluate(self, self.prepared.plan(mode, memory_limit))

    def to_sparse(self, mode: str = "auto", memory_limit: int | None = None) -> dict[str, Any]:
        """The Jacobian by each tensor of `wrt` as a SciPy CSR array, [elements of `of`, elements of `wrt`]."""
        return evaluate_sparse(self, self.prepared.plan(mode, memory_limit, False))


def prepared(
    graph: Graph, feeds: Mapping[str, Array], of: str | None, wrt: str | Sequence[str], target: Target, load: Load, fallback: bool, second: bool
) -> Prepared:
    """Names resolved and programs ready to be built, for inputs of these shapes; `second` for the derivative of the gradient."""
    question = ask(graph, feeds, of, wrt, target, lambda observer: _shapes(load(observer), feeds))
    layer = question.layer
    tensors: tuple[str, ...] = ()
    notes = (*question.notes, *question.zeros.values())
    if second:
        if not question.wrt:
            raise UsageError(f"'{question.layer}' has a zero gradient by everything asked for, so its Hessian is zero.")
        question, tensors = gradient_question(question, fallback)
    symmetric = question.wrt == tensors and len(tensors) == 1
    return Prepared(question, Linearizer(question.graph, (question.of,), question.wrt, load, fallback, symmetric), tensors, notes, layer)


def _shapes(runner: Runner, feeds: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.numpy().shape) for name, value in runner.run_values(feeds).items()}


def jacobian(
    point: Linearization, *, mode: str = "auto", sparse: bool = False, per_sample: bool = False, memory_limit: int | None = None,
    folder: str | os.PathLike[str] | None = None, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The Jacobian by each tensor: dense arrays, SciPy CSR arrays, or arrays that read from files: one a tensor in `folder`, or the one .npy or
    .npz file that it names."""
    assert isinstance(point, Point)
    prepared, lin = point.prepared, point.linearizer
    question = prepared.question
    plan = prepared.plan(mode, memory_limit, not sparse)
    out, dtype = lin.shape(question.of), lin.dtype(question.of)
    if sparse:
        if per_sample:
            raise UsageError("--sparse and --per-sample exclude each other: a sparse Jacobian stores no zero blocks anyway.")
        if (limit := _exceeded(sparse_bytes(plan), memory_limit)) is not None:
            raise ToleranceError(
                f"{prepared.subject} has {plan.entries:,} entries, for which {readable(sparse_bytes(plan))} are needed, and {readable(limit)} may be used; "
                "write it to an .npz file (--sparse -o J.npz), or narrow it with --wrt or --target."
            )
        return evaluate_sparse(point, plan, progress, last=True) | {w: _empty(prod(out), prod(lin.shape(w)), dtype) for w in question.zeros}
    needed = result_bytes(prepared, plan, per_sample)
    if folder is None:
        if (limit := _exceeded(needed, memory_limit)) is not None:
            raise ToleranceError(
                f"{prepared.subject} takes {readable(needed)}, and {readable(limit)} may be used; "
                + (
                    "choose one tensor with --wrt, which can go to a file (-o H.npy)."
                    if len(prepared.tensors) > 1
                    else "write it to files (-o FOLDER/), take --sparse where it has structure, or narrow it with --wrt or --target."
                )
            )
        result = evaluate(point, plan, per_sample=per_sample, progress=progress, decompressors=prepared.decompress(plan, per_sample), last=True)
        return result | {w: np.zeros(out + lin.shape(w), dtype) for w in question.zeros}
    files = files_at(folder)
    if files is None:
        raise OutputError(f"'{folder}' can't be written piece by piece; a Jacobian that large goes into a folder, an .npz or an .npy file.")
    files.check_space(needed, prepared.subject)
    try:
        evaluate(point, plan, files.allocate, per_sample=per_sample, progress=progress, decompressors=prepared.decompress(plan, per_sample))
        for w in question.zeros:
            files.allocate(w, out + lin.shape(w), dtype)
        done = files.finish()
    finally:
        files.discard()
    return {w: done[w] for w in (*plan.wrt, *question.zeros)}


def sparse_file(
    point: Linearization, path: str | os.PathLike[str], *, mode: str = "auto", memory_limit: int | None = None, progress: Progress | None = None
) -> Any:
    """The Jacobian by all tensors side by side as one CSR array that reads from the .npz file it was written to, block by block; and where each
    tensor's columns start."""
    assert isinstance(point, Point)
    plan = point.prepared.plan(mode, memory_limit, False)
    return stream_sparse(point, plan, path, point.prepared.question.zeros, progress)


def _exceeded(needed: int, memory_limit: int | None) -> int | None:
    """The limit that so many bytes exceed, or None."""
    if memory_limit is None and needed <= SMALL:
        return None
    limit = memory_limit if memory_limit is not None else free_memory()
    return limit if needed > limit else None


def result_bytes(prepared: Prepared, plan: Plan, per_sample: bool) -> int:
    """What the dense result takes."""
    lin = prepared.linearizer
    out = lin.shape(plan.of)
    total = 0
    for w in (*plan.wrt, *prepared.question.zeros):
        in_ = lin.shape(w)
        alone = per_sample and w in plan.relations and plan.by_sample(w)
        total += prod(out) * prod(in_[1:] if alone else in_)
    return total * int(lin.dtype(plan.of).itemsize)


def sparse_bytes(plan: Plan) -> int:
    """What a sparse result takes at its worst moment: row, column and value of each entry, twice."""
    return plan.entries * 2 * (16 + 8)


def hessian(
    point: Linearization, *, mode: str = "auto", sparse: bool = False, memory_limit: int | None = None, folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The Jacobian of the gradient, apart by tensors: {row tensor: {column tensor: [*rows, *columns]}}. Into files (`folder`, as `jacobian` takes it) by a
    single tensor."""
    found = jacobian(point, mode=mode, sparse=sparse, memory_limit=memory_limit, folder=folder, progress=progress)
    assert isinstance(point, Point)
    lin, names = point.linearizer, point.prepared.tensors
    if len(names) == 1:
        return {names[0]: found}
    result: dict[str, dict[str, Any]] = {}
    start = 0
    for row in names:
        size = prod(lin.shape(row))
        part = slice(start, start + size)
        result[row] = {c: m[part] if sparse else m[part].reshape(lin.shape(row) + lin.shape(c)) for c, m in found.items()}
        start += size
    return result


def hvp(point: Linearization, vector: Any) -> dict[str, Array]:
    """The Hessian times a vector (or K of them)."""
    assert isinstance(point, Point)
    lin, names = point.linearizer, point.prepared.tensors
    if isinstance(vector, Mapping) and not vector:
        raise InputError("No vector was given.")
    product = point.jvp(vector)
    if len(names) == 1:
        return {names[0]: product}
    several = product.ndim == 2
    result, start = {}, 0
    for name in names:
        shape = lin.shape(name)
        part = product[..., start : start + prod(shape)]
        result[name] = part.reshape((len(product), *shape) if several else shape)
        start += prod(shape)
    return result


def _empty(rows: int, columns: int, dtype: Any) -> Any:
    return scipy_module("scipy.sparse", "a sparse Jacobian").csr_array((rows, columns), dtype=dtype)
