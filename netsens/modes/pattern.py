"""Which output positions depend on which input positions: boolean matrices between axes, and relations that are products of them.

A relation says for two tensors: position o of the one depends on position i of the other only if every factor allows it. A factor is a small
boolean matrix between some axes of the one and some axes of the other; axes that no factor mentions are unrestricted. A batch, a
convolution's window, a permutation, a band are each one factor, so their cost grows with the length of an axis and not with
the tensor. What cannot be said so is said wider, never narrower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

Codes = np.ndarray[Any, np.dtype[np.int64]]
LIMIT = 1 << 21  # entries of one boolean matrix; what would be larger becomes unrestricted


class TooLarge(Exception):
    """A boolean matrix would pass the limit; the caller leaves those axes unrestricted."""


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """A boolean matrix as the sorted codes `row * columns + column` of its true entries."""

    rows: int
    columns: int
    codes: Codes

    @property
    def count(self) -> int:
        return int(self.codes.size)

    @property
    def is_identity(self) -> bool:
        return self.rows == self.columns == self.count and bool((self.codes == np.arange(self.rows, dtype=np.int64) * (self.columns + 1)).all())

    def pairs(self) -> tuple[Codes, Codes]:
        """The rows and the columns of the true entries."""
        return np.divmod(self.codes, max(self.columns, 1))

    def transposed(self) -> Pattern:
        r, c = self.pairs()
        return pattern(self.columns, self.rows, c, r)

    def then(self, other: Pattern) -> Pattern:
        """The boolean product: row r reaches column c over some middle."""
        if self.is_identity:
            return other
        if other.is_identity:
            return self
        r, m = self.pairs()
        om, oc = other.pairs()
        starts = np.searchsorted(om, np.arange(other.rows + 1))
        lengths = (starts[1:] - starts[:-1])[m]
        total = int(lengths.sum())
        if total > 8 * LIMIT:
            raise TooLarge
        begin = np.repeat(starts[m] - np.concatenate([[0], np.cumsum(lengths)[:-1]]) if m.size else lengths, lengths)
        return pattern(self.rows, other.columns, np.repeat(r, lengths), oc[begin + np.arange(total)])

    def union(self, other: Pattern) -> Pattern:
        return Pattern(self.rows, self.columns, _distinct(np.concatenate([self.codes, other.codes])))


def _distinct(codes: Codes) -> Codes:
    """Sorted, each once. By sorting: `np.unique` hashes, which takes ten times as long here."""
    codes = np.sort(codes)
    return codes[np.diff(codes, prepend=-1) != 0]


def pattern(rows: int, columns: int, r: Any, c: Any) -> Pattern:
    """The matrix with these entries, in any order, repeats allowed."""
    codes = _distinct(np.asarray(r, np.int64) * columns + np.asarray(c, np.int64))
    if codes.size > LIMIT:
        raise TooLarge
    return Pattern(rows, columns, codes)


@cache
def identity(length: int) -> Pattern:
    return Pattern(length, length, np.arange(length, dtype=np.int64) * (length + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A boolean matrix between the positions along `outs` (output axes, the first slowest) and those along `ins`. Without `ins` it says which positions
    depend on anything at all, without `outs` which are depended on."""

    outs: tuple[int, ...]
    ins: tuple[int, ...]
    matrix: Pattern


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """The dependence of a tensor of shape `out` on one of shape `in_`; None for a shape that isn't known. No axis stands in two factors."""

    out: tuple[int, ...] | None
    in_: tuple[int, ...]
    factors: tuple[Factor, ...] = ()

    def then_from(self, other: Relation) -> Relation:
        """self after other: what `self.out` depends on among `other.in_`, through `self.in_ == other.out`."""
        return compose(self, other)

    def transposed(self) -> Relation:
        assert self.out is not None
        return Relation(self.in_, self.out, tuple(Factor(f.ins, f.outs, f.matrix.transposed()) for f in self.factors))

    def dense(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The whole boolean matrix [out..., in...]; for tests and small pictures."""
        assert self.out is not None
        result = np.ones(self.out + self.in_, bool)
        for f in self.factors:
            small = np.zeros((f.matrix.rows, f.matrix.columns), bool)
            small.reshape(-1)[f.matrix.codes] = True
            small = small.reshape([self.out[a] for a in f.outs] + [self.in_[a] for a in f.ins])
            axes = [*f.outs, *(len(self.out) + a for a in f.ins)]
            order = np.argsort(axes)
            shape = [1] * result.ndim
            for a in axes:
                shape[a] = result.shape[a]
            result &= small.transpose(order).reshape(shape)
        return result

    @property
    def count(self) -> int:
        """How many entries may be non-zero."""
        assert self.out is not None
        free_out = prod(d for a, d in enumerate(self.out) if not any(a in f.outs for f in self.factors))
        free_in = prod(d for a, d in enumerate(self.in_) if not any(a in f.ins for f in self.factors))
        return free_out * free_in * prod(f.matrix.count for f in self.factors)

    def row_counts(self) -> Codes:
        """How many entries of each row may be non-zero, for every position of `out` in order."""
        assert self.out is not None
        counts: Codes = np.full(self.out, prod(d for a, d in enumerate(self.in_) if not any(a in f.ins for f in self.factors)), np.int64)
        for f in self.factors:
            own = np.bincount(f.matrix.pairs()[0], minlength=f.matrix.rows).reshape([self.out[a] for a in f.outs])
            own = own.transpose(np.argsort(f.outs))
            counts = counts * own.reshape([d if a in f.outs else 1 for a, d in enumerate(self.out)])
        return counts.reshape(-1)


def aligned(shape: Sequence[int]) -> Relation:
    """Every position depends on itself alone."""
    return Relation(tuple(shape), tuple(shape), tuple(Factor((a,), (a,), identity(d)) for a, d in enumerate(shape) if d != 1))


def _project(matrix: Pattern, out_dims: Sequence[int], in_dims: Sequence[int], outs: Sequence[int], ins: Sequence[int]) -> Pattern:
    """The matrix over some of its digits, in the order given; the others are looked away from."""
    if list(outs) == list(range(len(out_dims))) and list(ins) == list(range(len(in_dims))):
        return matrix
    r, c = matrix.pairs()
    return pattern(prod(out_dims[k] for k in outs), prod(in_dims[k] for k in ins), _digits(r, out_dims, outs), _digits(c, in_dims, ins))


def _digits(numbers: Codes, dims: Sequence[int], keep: Sequence[int]) -> Codes:
    if list(keep) == list(range(len(dims))):
        return numbers
    each = np.unravel_index(numbers, tuple(dims)) if dims else ()
    result = np.zeros(numbers.shape, np.int64)
    for k in keep:
        result = result * dims[k] + each[k]
    return result


def _joined(factors: Sequence[Factor], out: Sequence[int], in_: Sequence[int]) -> Factor:
    """Factors over different axes as one."""
    first = factors[0]
    for second in factors[1:]:
        if first.matrix.count * second.matrix.count > LIMIT:
            raise TooLarge
        r1, c1 = first.matrix.pairs()
        r2, c2 = second.matrix.pairs()
        a, b = first.matrix, second.matrix
        rows = (r1[:, None] * b.rows + r2).ravel()
        columns = (c1[:, None] * b.columns + c2).ravel()
        first = Factor(first.outs + second.outs, first.ins + second.ins, pattern(a.rows * b.rows, a.columns * b.columns, rows, columns))
    return _over(first, sorted(first.outs), sorted(first.ins), out, in_)


def flattened(relation: Relation) -> Pattern:
    """The whole relation as one boolean matrix [elements of `out`, elements of `in_`]. Raises `TooLarge`."""
    assert relation.out is not None
    out, in_ = relation.out, relation.in_
    factors = list(relation.factors)
    for a in (a for a in range(len(out)) if not any(a in f.outs for f in relation.factors)):
        factors.append(Factor((a,), (), pattern(out[a], 1, np.arange(out[a]), np.zeros(out[a], np.int64))))
    for a in (a for a in range(len(in_)) if not any(a in f.ins for f in relation.factors)):
        factors.append(Factor((), (a,), pattern(1, in_[a], np.zeros(in_[a], np.int64), np.arange(in_[a]))))
    return _joined(factors, out, in_).matrix if factors else pattern(1, 1, [0], [0])


def _over(factor: Factor, outs: Sequence[int], ins: Sequence[int], out: Sequence[int], in_: Sequence[int]) -> Factor:
    """The factor over these of its axes, in this order."""
    matrix = _project(
        factor.matrix, [out[a] for a in factor.outs], [in_[a] for a in factor.ins], [factor.outs.index(a) for a in outs], [factor.ins.index(a) for a in ins]
    )  # fmt: skip
    return Factor(tuple(outs), tuple(ins), matrix)


def _apart(factor: Factor, out: Sequence[int], in_: Sequence[int]) -> list[Factor]:
    """The factor as a product of smaller ones wherever that is exact: a matrix lies within the product of its projections, and equals it where
    the counts agree."""
    if factor.matrix.count == factor.matrix.rows * factor.matrix.columns:
        return []
    if len(factor.outs) <= 1 and len(factor.ins) <= 1:
        return [factor]
    for a in factor.outs:
        rest = [o for o in factor.outs if o != a]
        if not rest:
            continue
        smaller = _over(factor, rest, factor.ins, out, in_)
        if smaller.matrix.count * out[a] == factor.matrix.count:
            return _apart(smaller, out, in_)
    for a in factor.ins:
        rest = [i for i in factor.ins if i != a]
        if not rest:
            continue
        smaller = _over(factor, factor.outs, rest, out, in_)
        if smaller.matrix.count * in_[a] == factor.matrix.count:
            return _apart(smaller, out, in_)
    if len(factor.outs) > 1 and len(factor.ins) > 1:
        for o in factor.outs:
            for i in factor.ins:
                one = _over(factor, [o], [i], out, in_)
                rest_factor = _over(factor, [x for x in factor.outs if x != o], [x for x in factor.ins if x != i], out, in_)
                if one.matrix.count * rest_factor.matrix.count == factor.matrix.count:
                    return _apart(one, out, in_) + _apart(rest_factor, out, in_)
    return [factor]


def _components(groups: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Which of the groups hang together by shared members: lists of their positions."""
    parent = list(range(len(groups)))

    def root(k: int) -> int:
        while parent[k] != k:
            k = parent[k]
        return k

    owner: dict[Any, int] = {}
    for k, group in enumerate(groups):
        for member in group:
            if member in owner:
                parent[root(k)] = root(owner[member])
            owner[member] = k
    found: dict[int, list[int]] = {}
    for k in range(len(groups)):
        found.setdefault(root(k), []).append(k)
    return list(found.values())


def compose(left: Relation, right: Relation) -> Relation:
    """What `left.out` depends on among `right.in_`."""
    if left.out is None or right.out is None or left.in_ != right.out:
        return Relation(left.out, right.in_)
    mid = right.out
    tagged = [("l", f) for f in left.factors] + [("r", f) for f in right.factors]
    factors: list[Factor] = []
    for component in _components([f.ins if side == "l" else f.outs for side, f in tagged]):
        ls = [tagged[k][1] for k in component if tagged[k][0] == "l"]
        rs = [tagged[k][1] for k in component if tagged[k][0] == "r"]
        if not ls or not rs:
            # What is in between is unrestricted on the other side; some positions may still reach nothing of it.
            for f in (*ls, *rs):
                reached = Factor(f.outs, (), _any(f.matrix, rows=True)) if ls else Factor((), f.ins, _any(f.matrix, rows=False))
                if (reached.outs or reached.ins) and reached.matrix.count < reached.matrix.rows * reached.matrix.columns:
                    factors.append(reached)
            continue
        if len(ls) == len(rs) == 1 and ls[0].ins == rs[0].outs:
            one, two = ls[0], rs[0]
            if one.matrix.is_identity and len(one.outs) == 1:
                factors.append(Factor(one.outs, two.ins, two.matrix))
                continue
            if two.matrix.is_identity and len(two.ins) == 1:
                factors.append(Factor(one.outs, two.ins, one.matrix))
                continue
        try:
            one, two = _joined(ls, left.out, mid), _joined(rs, mid, right.in_)
            common = [a for a in one.ins if a in two.outs]
            if not common:
                continue
            one, two = _over(one, one.outs, common, left.out, mid), _over(two, common, two.ins, mid, right.in_)
            factors += _apart(Factor(one.outs, two.ins, one.matrix.then(two.matrix)), left.out, right.in_)
        except TooLarge:
            continue
    return Relation(left.out, right.in_, tuple(factors))


def _any(matrix: Pattern, rows: bool) -> Pattern:
    """Which rows (or columns) have an entry, as a matrix of one column (or row)."""
    if matrix.is_identity:
        found = np.arange(matrix.rows, dtype=np.int64)
    else:
        found = np.unique(matrix.pairs()[0 if rows else 1])
    return Pattern(matrix.rows if rows else 1, 1 if rows else matrix.columns, found)


def _widened(factor: Factor, like: Factor, out: Sequence[int], in_: Sequence[int]) -> Factor:
    """A factor that is one-sided, over the other side's axes too."""
    for axes, dims, first in ((like.outs, out, True), (like.ins, in_, False)):
        if axes and not (factor.outs if first else factor.ins):
            size = prod(dims[a] for a in axes)
            if factor.matrix.count * size > LIMIT:
                raise TooLarge
            places = np.arange(size, dtype=np.int64)
            every = Factor(axes, (), Pattern(size, 1, places)) if first else Factor((), axes, Pattern(1, size, places))
            factor = _joined([factor, every], out, in_)
    return factor


def union(a: Relation, b: Relation) -> Relation:
    """What either allows, or wider."""
    if a.out is None or a.out != b.out:
        return Relation(a.out or b.out, a.in_)
    groups = [[("o", x) for x in f.outs] + [("i", x) for x in f.ins] for f in (*a.factors, *b.factors)]
    factors: list[Factor] = []
    for component in _components(groups):
        one = [a.factors[k] for k in component if k < len(a.factors)]
        two = [b.factors[k - len(a.factors)] for k in component if k >= len(a.factors)]
        if not one or not two:
            continue
        if len(one) == len(two) == 1 and one[0].outs == two[0].outs and one[0].ins == two[0].ins and one[0].matrix is two[0].matrix:
            factors.append(one[0])
            continue
        try:
            f, g = _joined(one, a.out, a.in_), _joined(two, a.out, a.in_)
            f, g = _widened(f, g, a.out, a.in_), _widened(g, f, a.out, a.in_)
            outs, ins = [x for x in f.outs if x in g.outs], [x for x in f.ins if x in g.ins]
            if not outs and not ins:
                continue
            f, g = _over(f, outs, ins, a.out, a.in_), _over(g, outs, ins, a.out, a.in_)
            matrix = f.matrix.union(g.matrix)
            if matrix.count > LIMIT:
                continue
            factors += _apart(Factor(tuple(outs), tuple(ins), matrix), a.out, a.in_)
        except TooLarge:
            continue
    return Relation(a.out, a.in_, tuple(factors))
