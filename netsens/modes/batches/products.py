"""Many directions through sums along axes and matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsens.modes.batches.view import BatchView, lifted, moved_axis, require, rule


@rule("ReduceSum ReduceMean")
def _reduce(b: BatchView) -> Any:
    axes = b.ints(1) if b.x(1) is not None else []
    require(axes is not None)
    if not axes:
        if b["noop_with_empty_axes"]:
            return b.t
        axes = list(range(b.rank()))
    if b.rank() == 0:
        return b.t
    return b.op.emit(b.node.op, [b.t, [moved_axis(a, b.rank()) for a in axes]], {"keepdims": b["keepdims"]})


@rule("CumSum")
def _cumsum(b: BatchView) -> Any:
    axis = b.ints(1)
    require(axis is not None)
    return b.same(b.t, b.op.constant(np.asarray(moved_axis((axis or [0])[0], b.rank()), np.int64)))


@rule("MatMul")
def _matmul(b: BatchView) -> Any:
    op, left, right = b.op, b.xs[0], b.xs[1]
    assert left is not None
    assert right is not None
    a, c = b.rank(0), b.rank(1)
    if a >= 2 and c >= 2:
        rank = max(a, c)
        return op.MatMul(lifted(b, 0, rank), lifted(b, 1, rank))
    if b.moving[0] and a == 1 and c > 2:
        # [K, D] @ [.., D, E]: K becomes a matrix of its own, since MatMul would take it for a batch axis.
        ones = list(range(1, c))
        return op.Squeeze(op.MatMul(op.Unsqueeze(left, ones), right), [-2])
    if b.moving[1] and c == 1:
        if a == 1:
            return op.MatMul(right, left)
        # [.., M, D] @ [K, D]: [K, 1.., D, 1] -> [K, .., M, 1] -> [K, .., M]
        column = op.Unsqueeze(right, [*range(1, a - 1), a])
        return op.Squeeze(op.MatMul(left, column), [-1])
    return op.MatMul(left, right)


@rule("Gemm")
def _gemm(b: BatchView) -> Any:
    op = b.op
    parts = []
    if b.moving[0] or b.moving[1]:
        require(not (b.moving[0] and b.moving[1]))
        left, right = b.xs[0], b.xs[1]
        assert left is not None
        assert right is not None
        if b["transA"]:
            left = op.Transpose(left, perm=[0, 2, 1] if b.moving[0] else [1, 0])
        if b["transB"]:
            right = op.Transpose(right, perm=[0, 2, 1] if b.moving[1] else [1, 0])
        product = op.MatMul(left, right)
        parts.append(product * float(b["alpha"]) if b["alpha"] != 1 else product)
    if b.x(2) is not None:
        # A C that stands still beside moving factors would not be linear; it is a zero that the rule put there.
        c = lifted(b, 2, 2)
        parts.append(c * float(b["beta"]) if b["beta"] != 1 else c)
        if len(parts) == 1:
            rows, columns = b.result_shape()
            return op.Expand(parts[0], [1, rows, columns])
    return parts[0] if len(parts) == 1 else op.Add(*parts)


@rule("Einsum")
def _einsum(b: BatchView) -> Any:
    equation = str(b["equation"]).replace(" ", "")
    require("->" in equation)
    letter = next(c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in equation)
    terms, result = equation.split("->")
    new = [letter + term if moving else term for term, moving in zip(terms.split(","), b.moving, strict=True)]
    return b.op.Einsum(*b.xs, equation=f"{','.join(new)}->{letter}{result}")
