"""Carries a plan out: its entries where they belong, dense (in memory or in a file) or sparse, and the product of two Jacobians where it has a waist."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from netsens.errors import UsageError
from netsens.graph.graph import Array
from netsens.jacobian.decompress import Decompressor
from netsens.jacobian.extras import scipy_module
from netsens.jacobian.linearize import Linearization
from netsens.jacobian.passes import Decompressors, Progress, passes
from netsens.jacobian.plan import Plan
from netsens.jacobian.stream import released

Allocate = Callable[[str, tuple[int, ...], Any], Array]


def zeros(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """A result in memory."""
    return np.zeros(shape, dtype)


def evaluate(
    linearization: Linearization, plan: Plan, allocate: Allocate = zeros, *, per_sample: bool = False, progress: Progress | None = None,
    decompressors: Decompressors | None = None, last: bool = False,
) -> dict[str, Array]:  # fmt: skip
    """The Jacobian by each tensor, [*of, *wrt]. With `per_sample`, by a tensor that goes along with the batch, [N, *of[1:], *wrt[1:]]. `last` as in
    `passes`."""
    if per_sample:
        for w in plan.wrt:
            if w in linearization.linearizer.graph.inputs and not (w in plan.relations and plan.by_sample(w)):
                raise UsageError(f"The samples of '{plan.of}' and of '{w}' don't go one with one, so --per-sample has no meaning for them; leave it out.")
    return _evaluated(linearization, plan, allocate, per_sample, progress, decompressors, last)


def _evaluated(
    linearization: Linearization, plan: Plan, allocate: Allocate, per_sample: bool, progress: Progress | None, decompressors: Decompressors | None, last: bool
) -> dict[str, Array]:
    """As `evaluate`; where samples don't go one with one `per_sample` changes nothing."""
    lin = linearization.linearizer
    dtype = lin.dtype(plan.of)
    result: dict[str, Array] = {}
    out = lin.shape(plan.of)
    for w in plan.wrt:
        in_ = lin.shape(w)
        result[w] = allocate(w, out + (in_[1:] if per_sample and w in plan.relations and plan.by_sample(w) else in_), dtype)
    if plan.waist is not None:
        _through_waist(linearization, plan, result, progress)
        return result
    write = decompressors or Decompressors(plan, per_sample)
    for found in passes(linearization, plan, progress, last):
        d = write.of(found)
        target = result[found.wrt]
        if isinstance(d, Decompressor) and not d.per_sample:
            # Of a batch of one, the per-sample form is the same numbers in the same order.
            target = target.reshape(out + lin.shape(found.wrt))
            if not found.forward:
                target = target.transpose([*range(len(out), target.ndim), *range(len(out))])
        d.write(target, found.values, found.start)
        released(target)
    return result


def evaluate_sparse(linearization: Linearization, plan: Plan, progress: Progress | None = None, last: bool = False) -> dict[str, Any]:
    """The Jacobian by each tensor as a SciPy CSR array, [elements of `of`, elements of `wrt`]; entries that are zero by chance are stored too."""
    sparse = scipy_module("scipy.sparse", "a sparse Jacobian")
    lin = linearization.linearizer
    blocks: dict[str, list[tuple[Array, Array, Array]]] = {w: [] for w in plan.wrt}
    if plan.waist is not None:
        raise UsageError("A product of two Jacobians through a waist is dense; leave --sparse out, or force --mode forward or reverse.")
    write = Decompressors(plan)
    for found in passes(linearization, plan, progress, last):
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


def _through_waist(linearization: Linearization, plan: Plan, result: dict[str, Array], progress: Progress | None) -> None:
    """The products, written into the results."""
    waist = plan.waist
    assert waist is not None
    out = linearization.linearizer.shape(plan.of)
    lin, second = waist.after
    told = _Told(progress, waist.passes)
    left = _evaluated(Linearization(lin, linearization.feeds), second, zeros, waist.by_sample, told, None, True)
    told.next()
    totals: dict[str, Array] = {}
    for name, (inner, first) in zip(waist.names, waist.before, strict=True):
        shape = inner.shape(name)
        sizes = (out[0], prod(shape[1:])) if waist.by_sample else (1, prod(shape))  # samples, and numbers of the waist in each
        right = _evaluated(Linearization(inner, linearization.feeds), first, zeros, waist.by_sample, told, None, True)
        told.next()
        for w in first.relations:
            a = left[name].reshape(sizes[0], -1, sizes[1])  # [N, of, waist]
            b = right[w].reshape(*sizes, -1)  # [N, waist, wrt]
            if waist.by_sample and first.by_sample(w) and not all(p.by_sample(w) for _, p in waist.before if w in p.relations):
                b = _among_all(b)
            size = (sizes[0], a.shape[1], b.shape[2])
            met = w in totals
            if not met:
                totals[w] = result[w].reshape(size) if result[w].size == prod(size) else np.zeros(size, result[w].dtype)
            waist.product.into(totals[w], a, b, add=met)
    for w, product in totals.items():
        target = result[w]
        if product.size == target.size:
            continue
        n = out[0]
        diagonal = np.arange(n)
        if product.size < target.size:  # [N, of, wrt] onto the diagonal of [N, of, N, wrt]
            blocks = product.reshape(n, *out[1:], *linearization.linearizer.shape(w)[1:])
            np.moveaxis(target, len(out), 1)[diagonal, diagonal] = blocks
        else:  # and back
            target[...] = product.reshape(n, prod(out[1:]), n, -1)[diagonal, :, diagonal].reshape(target.shape)


def _among_all(blocks: Array) -> Array:
    """A block a sample [N, waist, wrt] among zeros for the other samples, [N, waist, N * wrt]."""
    n, rows, columns = blocks.shape
    result = np.zeros((n, rows, n, columns), blocks.dtype)
    result[np.arange(n), :, np.arange(n)] = blocks
    return result.reshape(n, rows, n * columns)


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
