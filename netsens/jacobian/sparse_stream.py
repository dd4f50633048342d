"""A sparse Jacobian that doesn't fit into memory: its entries go into SciPy's .npz form as the passes come in. The structure says beforehand how many
each row has, so that every entry has its place in the file from the start."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from netsens.graph.graph import Array
from netsens.jacobian.extras import scipy_module
from netsens.jacobian.linearize import Linearization
from netsens.jacobian.passes import Decompressors, Progress, passes
from netsens.jacobian.plan import Plan
from netsens.jacobian.stream import Archive, released

SORTED_AT_ONCE = 1 << 20  # entries


def stream_sparse(linearization: Linearization, plan: Plan, path: str | os.PathLike[str], zeros: Iterable[str], progress: Progress | None = None) -> Any:
    """The Jacobian by all tensors side by side (those of `zeros` last), as a CSR array that reads from the file, and the first column of each tensor:
    (array, {name: column})."""
    sparse = scipy_module("scipy.sparse", "a sparse Jacobian")
    lin = linearization.linearizer
    rows, dtype = prod(lin.shape(plan.of)), lin.dtype(plan.of)
    names = [*plan.wrt, *zeros]
    starts = np.cumsum([0, *(prod(lin.shape(w)) for w in names)])
    column_of = dict(zip(names, starts.tolist(), strict=False))
    counts = sum((plan.row_counts(w) for w in plan.relations), np.zeros(rows, np.int64))
    total = int(counts.sum())
    index = np.dtype(np.int32 if max(total, int(starts[-1])) < 2**31 else np.int64)
    files = Archive(path)
    try:
        files.check_space(total * (index.itemsize + dtype.itemsize) + (rows + 1) * index.itemsize, "The sparse Jacobian")
        for name, small in (
            ("format", np.asarray(b"csr")), ("shape", np.asarray((rows, int(starts[-1])))), ("names", np.asarray(names)), ("starts", starts),
            ("indptr", np.concatenate([[0], np.cumsum(counts)]).astype(index)),
        ):  # fmt: skip
            files.allocate(name, small.shape, small.dtype)[...] = small
        indices, data = files.allocate("indices", (total,), index), files.allocate("data", (total,), dtype)
        begin = np.cumsum(counts) - counts
        _fill(linearization, plan, indices, data, begin.copy(), column_of, progress)
        _sort(indices, data, np.append(begin, total))
        done = files.finish()
    finally:
        files.discard()
    whole = sparse.csr_array((rows, int(starts[-1])), dtype=dtype)
    whole.data, whole.indices, whole.indptr = done["data"], done["indices"], done["indptr"]
    return whole, column_of


def _fill(
    linearization: Linearization, plan: Plan, indices: Array, data: Array, next_place: Array, column_of: dict[str, int], progress: Progress | None
) -> None:
    """Each entry to the next free place of its row."""
    write = Decompressors(plan)
    for found in passes(linearization, plan, progress):
        one, other, values = write.of(found).entries(found.values, found.start)
        row, column = (one, other) if found.forward else (other, one)
        order = np.argsort(row, kind="stable")
        row, column, values = row[order], column[order], values[order]
        first = np.flatnonzero(np.diff(row, prepend=-1))
        lengths = np.diff(first, append=row.size)
        place = next_place[row] + np.arange(row.size) - np.repeat(first, lengths)
        indices[place] = column + column_of[found.wrt]
        data[place] = values
        next_place[row[first]] += lengths
        released(indices)
        released(data)


def _sort(indices: Array, data: Array, begin: Array) -> None:
    """The entries of each row in the order of their columns."""
    row = 0
    while row < len(begin) - 1:
        last = max(row + 1, int(np.searchsorted(begin, begin[row] + SORTED_AT_ONCE, side="right")) - 1)
        part = slice(int(begin[row]), int(begin[last]))
        order = np.lexsort((indices[part], np.repeat(np.arange(last - row), np.diff(begin[row : last + 1]))))
        indices[part], data[part] = indices[part][order], data[part][order]
        released(indices)
        released(data)
        row = last
