"""Products of matrices, Einsum, and the determinant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from netsens.errors import RuleError
from netsens.graph.dtypes import INT64
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Dim
from netsens.graph.shapes import broadcast, broadcast_dim, same_shape
from netsens.rules.placement import positions
from netsens.rules.words import NodeView, bilinear, jvp, transpose

# Products of matrices ------------------------------------------------------------------------------------------------------


def _swapped(op: Builder, x: Value) -> Value:
    """The last two axes exchanged."""
    return op.Transpose(x, perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2])


def _operands(n: NodeView) -> tuple[Value, Value]:
    a, b = n.inputs[:2]
    assert a is not None
    assert b is not None
    return a, b


def _as_matrices(op: Builder, n: NodeView, g: Value) -> tuple[Value, Value, Value]:
    """Both operands and the cotangent with a vector as a row (on the left) or a column (on the right)."""
    a, b = _operands(n)
    if b.rank == 1:
        b, g = op.Unsqueeze(b, [1]), op.Unsqueeze(g, [-1])
    if a.rank == 1:
        a, g = op.Unsqueeze(a, [0]), op.Unsqueeze(g, [-2])
    return a, b, g


def _matmul_left(op: Builder, n: NodeView, g: Value) -> Value:
    a, b, g = _as_matrices(op, n, g)
    # As fast as a Transpose before a MatMul, which onnxruntime would do for a weight while it loads, and keep a second copy.
    if a.rank == b.rank == 2:
        return op.reshape_like(op.Gemm(g, b, transB=1), n.x)
    if b.rank == 2 and b.constant is not None:
        rows = op.Reshape(g, op.vector([op.constant([-1]), op.dim(b, 1)]))
        return op.reshape_like(op.Gemm(rows, b, transB=1), n.x)
    return op.reshape_like(op.unbroadcast(op.MatMul(g, _swapped(op, b)), a), n.x)


def _matmul_right(op: Builder, n: NodeView, g: Value) -> Value:
    like = _operands(n)[1]
    a, b, g = _as_matrices(op, n, g)
    if b.rank == 2:
        # One product over all rows, not a sum of a batch of products: [.., C] -> [M, C]
        if a.rank > 2:
            a, g = op.Reshape(a, op.vector([op.constant([-1]), op.dim(b, 0)])), op.Reshape(g, op.vector([op.constant([-1]), op.dim(b, 1)]))
        return op.reshape_like(op.Gemm(a, g, transA=1), like)
    return op.reshape_like(op.unbroadcast(op.MatMul(_swapped(op, a), g), b), like)


bilinear("MatMul", _matmul_left, _matmul_right)


# Gemm: y = alpha A' B' + beta C, where ' transposes or doesn't ----------------------------------------------------------------


def _gemm_left(op: Builder, n: NodeView, g: Value) -> Value:
    b, alpha, ta, tb = _operands(n)[1], n["alpha"], n["transA"], n["transB"]
    return op.Gemm(b, g, alpha=alpha, transA=tb, transB=1) if ta else op.Gemm(g, b, alpha=alpha, transB=1 - tb)


def _gemm_right(op: Builder, n: NodeView, g: Value) -> Value:
    a, alpha, ta, tb = n.x, n["alpha"], n["transA"], n["transB"]
    return op.Gemm(g, a, alpha=alpha, transA=1, transB=ta) if tb else op.Gemm(a, g, alpha=alpha, transA=1 - ta)


def _gemm_bias(op: Builder, n: NodeView, g: Value) -> Value:
    c = n.inputs[2]
    assert c is not None
    summed = op.unbroadcast(g, c)
    return summed if n["beta"] == 1 else summed * float(n["beta"])


def _gemm_bias_tangent(op: Builder, n: NodeView, t: Value) -> Value:
    return op.expand_like(t if n["beta"] == 1 else t * float(n["beta"]), n.y)


bilinear("Gemm", _gemm_left, _gemm_right, _gemm_bias, bias=_gemm_bias_tangent)


# Einsum --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Equation:
    """An Einsum's letters for each operand and for the result, with letters of their own for what an ellipsis stands for."""

    terms: tuple[str, ...]
    result: str


def _equation(n: NodeView) -> _Equation:
    written = str(n["equation"]).replace(" ", "")
    left, arrow, result = written.partition("->")
    terms = left.split(",")
    if not arrow:
        # Letters that occur once, in alphabetical order, after the ellipsis.
        letters = left.replace(",", "").replace(".", "")
        result = ("..." if "..." in left else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    hidden = [x.rank - len(t.replace("...", "")) if "..." in t and x is not None else 0 for t, x in zip(terms, n.inputs, strict=True)]
    most = max(hidden, default=0)
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in written]
    if most > len(free):
        raise RuleError(f"{n.node.label} has no letter left for the axes of its ellipsis; write its equation with fewer letters.")
    extra = "".join(free[:most])
    full = tuple(t.replace("...", extra[most - h :]) for t, h in zip(terms, hidden, strict=True))
    return _Equation(full, result.replace("...", extra))


@jvp("Einsum")
def einsum(op: Builder, n: NodeView, *tangents: Value | None) -> Value | None:
    total: Value | None = None
    for k, t in enumerate(tangents):
        if t is not None:
            inputs = [*n.inputs[:k], t, *n.inputs[k + 1 :]]
            term = op.retyped(op.Einsum(*inputs, equation=n["equation"]), n.y.type.shape)
            total = term if total is None else total + term
    return total


@transpose("Einsum")
def einsum_transposed(op: Builder, n: NodeView, g: Value) -> list[Value | None]:
    equation = _equation(n)
    return [_einsum_back(op, n, equation, k, g) if w else None for k, w in enumerate(n.wanted)]


def _einsum_back(op: Builder, n: NodeView, equation: _Equation, k: int, g: Value) -> Value:
    """The cotangent of operand k: the other operands and g, contracted to its letters."""
    x = n.inputs[k]
    assert x is not None
    sizes = _sizes((v, t) for v, t in zip(n.inputs, equation.terms, strict=True) if v is not None)
    others = [(v, t) for j, (v, t) in enumerate(zip(n.inputs, equation.terms, strict=True)) if j != k and v is not None]
    factors = [_without_ones(op, v, t, sizes) for v, t in [(g, equation.result), *others]]
    term = equation.terms[k]
    letters = "".join(dict.fromkeys(term))
    found = "".join(c for c in letters if any(c in t for _, t in factors))
    if len(factors) == 1 and factors[0][1] == found:
        result = factors[0][0]
    else:
        equation_back = f"{','.join(t for _, t in factors)}->{found}"
        dims = _sizes(factors)
        result = op.retyped(op.Einsum(*(v for v, _ in factors), equation=equation_back), tuple(dims[c] for c in found))
    # A letter that stands in this operand alone was summed there.
    missing = [at for at, c in enumerate(letters) if c not in found]
    if missing:
        result = op.Unsqueeze(result, missing)
    repeated = [at for at, c in enumerate(term) if c in term[:at]]
    if repeated:
        result = _on_diagonal(op, op.Unsqueeze(result, repeated), x, term, repeated)
    if same_shape(result.shape, x.shape):
        return result
    # An axis that no factor fills is repeated; one that was broadcast is summed. Which it is may turn out only at run time.
    if any(d not in (r, 1) and not (isinstance(r, int) and r > 1) for d, r in zip(x.shape, result.shape, strict=True)):
        result = op.retyped(op.Expand(result, op.shape(x)), broadcast(result.shape, x.shape))
    return op.unbroadcast(result, x)


def _sizes(factors: Iterable[tuple[Value, str]]) -> dict[str, Dim]:
    """The length of each letter; 1 only where it is 1 everywhere."""
    sizes: dict[str, Dim] = {}
    for x, term in factors:
        for c, dim in zip(term, x.shape, strict=True):
            sizes[c] = broadcast_dim(sizes.get(c, 1), dim)
    return sizes


def _without_ones(op: Builder, x: Value, term: str, sizes: dict[str, Dim]) -> tuple[Value, str]:
    """The operand without the axes of length 1 that others broadcast."""
    ones = [at for at, (c, d) in enumerate(zip(term, x.shape, strict=True)) if d == 1 and sizes[c] != 1]
    return (op.Squeeze(x, ones), "".join(c for at, c in enumerate(term) if at not in ones)) if ones else (x, term)


def _on_diagonal(op: Builder, result: Value, x: Value, term: str, repeated: Sequence[int]) -> Value:
    """`result` repeated along the axes `repeated` of `x`, zero where an axis and the first of the same letter differ."""
    rank = len(term)
    for at in repeated:
        first = term.index(term[at])
        here, there = (op.Reshape(positions(op, op.dim(x, a)), [-1 if k == a else 1 for k in range(rank)]) for a in (at, first))
        result = result * op.Cast(op.Equal(here, there), to=result.dtype)
    return result


# The determinant -----------------------------------------------------------------------------------------------------------


@jvp("Det")
def determinant(op: Builder, n: NodeView, t: Value) -> Value:
    """Jacobi's formula with cofactors, so that it holds for singular matrices too."""
    moved = op.ReduceSum(t * _cofactors(op, n.x), [-2, -1], keepdims=0)
    return op.retyped(moved, n.y.type.shape)


def _cofactors(op: Builder, x: Value) -> Value:
    """The determinants of the matrices without row i and column j, with their signs: [.., n, n]"""
    size = x.shape[-1] if isinstance(x.shape[-1], int) else x.shape[-2]
    if size == 1:
        return op.full_like(x, 1.0)
    if size == 2:
        # [[a, b], [c, d]] -> [[d, -c], [-b, a]]
        turned = op.Gather(op.Gather(x, [1, 0], axis=x.rank - 1), [1, 0], axis=x.rank - 2)
        return turned * op.constant(np.asarray([[1, -1], [-1, 1]]), x)
    count = op.dim(x, -1)
    every, fewer = positions(op, count), positions(op, count - 1)
    # [n, n - 1]: for each i, the numbers but i
    column = op.Unsqueeze(every, [1])
    but_one = fewer + op.Cast(op.Not(op.Less(fewer, column)), to=INT64)
    # [.., n, n] -> [.., n, n - 1, n] -> [.., n, n - 1, n, n - 1] -> [.., n, n, n - 1, n - 1]
    r = x.rank
    rows = op.Gather(x, but_one, axis=r - 2)
    both = op.Gather(rows, but_one, axis=r)
    minors = op.Det(op.Transpose(both, perm=[*range(r - 2), r - 2, r, r - 1, r + 1]))
    odd = op.Mod(column + op.Unsqueeze(every, [0]), 2)
    return op.retyped(minors, x.type.shape) * (1.0 - 2.0 * op.Cast(odd, to=x.dtype))
