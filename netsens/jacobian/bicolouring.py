"""Colourings for a matrix with a few dense rows or columns, where rows and columns each alone would need a colour for nearly every position: dense rows
travel backward and the rest forward (or the other way about), and a symmetric matrix gives each entry twice, so that either place may yield it.

Star colouring, and what a colouring of a symmetric matrix recovers directly: Coleman and Moré, 1984; Gebremedhin, Manne and Pothen, What color is
your Jacobian?, 2005."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netsens.jacobian.colouring import Colouring, Group, Ints, colour_columns
from netsens.jacobian.recovery import Recovery
from netsens.modes.pattern import Pattern, Relation, TooLarge, flattened, pattern

LARGEST = 1 << 20  # entries of a matrix that is looked at entry by entry
STAR_STEPS = 1 << 22  # of the search for a star colouring
NO_COLOUR = -1


@dataclass(frozen=True, slots=True, eq=False)
class TwoSided:
    """Passes over columns of each tensor, and passes over rows of all of them, that together give every entry once."""

    columns: Mapping[str, tuple[Colouring, Recovery]]
    rows: Colouring | None
    row_recoveries: Mapping[str, Recovery]


def symmetric(relation: Relation) -> tuple[Colouring, Recovery] | None:
    """Columns of a symmetric matrix (the relation need not know that it is), such that every entry stands alone in its pass, or the entry across the
    diagonal does; None where that is out of reach."""
    matrix = _flat(relation)
    if matrix is None or matrix.rows != matrix.columns:
        return None
    across = matrix.transposed()
    matrix = Pattern(matrix.rows, matrix.columns, np.intersect1d(matrix.codes, across.codes))
    found = [c for c in (_star(matrix), _hubs(matrix)) if c is not None]
    for colours in sorted(found, key=lambda c: int(c.max(initial=0))):
        recovery = _recovered(relation, matrix, colours)
        if recovery is not None:
            return _colouring(relation.in_, colours), recovery
    return None


def _recovered(relation: Relation, matrix: Pattern, colours: Ints) -> Recovery | None:
    """Where each entry is read: in its own column's pass where no other column of that colour meets its row, else across the diagonal."""
    row, column = matrix.pairs()
    count = int(colours.max(initial=0)) + 1
    key, mirrored = row * count + colours[column], column * count + colours[row]
    keys, met = np.unique(key, return_counts=True)
    alone = keys[met == 1]
    own, other = np.isin(key, alone), np.isin(mirrored, alone)
    if not (own | other).all():
        return None
    return Recovery(relation, False, row, column, np.where(own, colours[column], colours[row]), np.where(own, row, column))


def _star(matrix: Pattern) -> Ints | None:
    """Colours such that neighbours differ and no path over four positions has two colours: greedy, positions with most neighbours first."""
    row, column = matrix.pairs()
    row, column = row[row != column], column[row != column]
    degrees = np.bincount(row, minlength=matrix.rows)
    if int((degrees * degrees).sum()) > STAR_STEPS:
        return None
    bounds = np.searchsorted(row, np.arange(matrix.rows + 1)).tolist()
    listed = column.tolist()
    near = [listed[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    colours = [NO_COLOUR] * matrix.rows
    for v in np.argsort(-degrees, kind="stable").tolist():
        taken = set()
        for w in near[v]:
            own = colours[w]
            taken.add(own)
            for x in near[w]:
                # v - w - x: x's colour would make a path of two colours, now or once w has one.
                if x != v and colours[x] not in taken and (own == NO_COLOUR or any(colours[y] == own and y != w for y in near[x])):
                    taken.add(colours[x])
        chosen = 0
        while chosen in taken:
            chosen += 1
        colours[v] = chosen
    return np.asarray(colours, np.int64)


def _hubs(matrix: Pattern) -> Ints | None:
    """Dense rows have columns of their own, by symmetry; the other columns are coloured without them."""
    row, column = matrix.pairs()
    dense = _densest(np.bincount(row, minlength=matrix.rows).astype(float), 1.0)
    if dense is None:
        return None
    kept = ~dense[row] & ~dense[column]
    colours = colour_columns(pattern(matrix.rows, matrix.columns, row[kept], column[kept]))
    colours[dense] = int(colours[~dense].max(initial=0)) + 1 + np.arange(int(dense.sum()))
    return colours


def dense_rows_backward(relations: Mapping[str, Relation], forward: Mapping[str, float], reverse: float, limit: float) -> TwoSided | None:
    """Dense rows by passes of their own, the others by columns. A pass forward costs `forward` (by tensor), a pass backward `reverse`; None where that would
    not come below `limit`."""
    found = {w: matrix for w, relation in relations.items() if (matrix := _flat(relation)) is not None}
    if len(found) < len(relations):
        return None
    weights = sum(np.bincount(m.pairs()[0], minlength=m.rows) * forward[w] for w, m in found.items())
    dense = _densest(np.asarray(weights, float), reverse, limit)
    if dense is None:
        return None
    columns, across = {}, []
    for w, m in found.items():
        row, column = m.pairs()
        kept = ~dense[row]
        colours = colour_columns(pattern(m.rows, m.columns, row[kept], column[kept]))
        colours[~np.isin(np.arange(m.columns), column[kept])] = NO_COLOUR  # no entry is left for such a column's pass
        columns[w] = _colouring(relations[w].in_, colours), Recovery(relations[w], False, row[kept], column[kept], colours[column[kept]], row[kept])
        across.append((row[~kept], column[~kept]))
    height = next(iter(found.values())).rows
    row_colours, recoveries = _other_side(height, dense, across, relations, turned=True)
    return TwoSided(columns, _colouring(next(iter(relations.values())).out or (), row_colours), recoveries)


def dense_columns_forward(relations: Mapping[str, Relation], forward: Mapping[str, float], reverse: float, limit: float) -> TwoSided | None:
    """Dense columns by passes of their own, the rest by rows of all tensors at once; as `dense_rows_backward`."""
    found = {w: matrix for w, relation in relations.items() if (matrix := _flat(relation)) is not None}
    if len(found) < len(relations):
        return None
    counts = [np.bincount(m.pairs()[1], minlength=m.columns) * reverse for m in found.values()]
    prices = np.concatenate([np.full(m.columns, forward[w]) for w, m in found.items()])
    dense = _densest(np.concatenate(counts).astype(float), prices, limit)
    if dense is None:
        return None
    columns, rows, across, start = {}, [], [], 0
    for w, m in found.items():
        own = dense[start : start + m.columns]
        start += m.columns
        row, column = m.pairs()
        kept = own[column]
        colours, recoveries = _other_side(m.columns, own, [(column[kept], row[kept])], {w: relations[w]}, turned=False)
        if recoveries[w].number.size:
            columns[w] = _colouring(relations[w].in_, colours), recoveries[w]
        rows.append(row[~kept])
        across.append(column[~kept] + start - m.columns)
    height = next(iter(found.values())).rows
    row_colours = colour_columns(pattern(start, height, np.concatenate(across), np.concatenate(rows)))
    row_colours[~np.isin(np.arange(height), np.concatenate(rows))] = NO_COLOUR
    recoveries, start = {}, 0
    for (w, m), row, column in zip(found.items(), rows, across, strict=True):
        recoveries[w] = Recovery(relations[w], True, row, column - start, row_colours[row], column - start)
        start += m.columns
    return TwoSided(columns, _colouring(next(iter(relations.values())).out or (), row_colours), recoveries)


def _other_side(
    length: int, dense: Ints, entries: Sequence[tuple[Ints, Ints]], relations: Mapping[str, Relation], turned: bool
) -> tuple[Ints, dict[str, Recovery]]:
    """Colours for the dense positions alone, and what their passes give; entries are (dense position, other position), a pair a tensor."""
    total, stacked = 0, []
    for one, other in entries:
        stacked.append((other + total, one))
        total += int(other.max(initial=0)) + 1
    colours = colour_columns(pattern(total, length, np.concatenate([s[0] for s in stacked]), np.concatenate([s[1] for s in stacked])))
    colours[~dense] = NO_COLOUR
    found = {}
    for w, (one, other) in zip(relations, entries, strict=True):
        row, column = (one, other) if turned else (other, one)
        found[w] = Recovery(relations[w], turned, row, column, colours[one], other)
    return colours, found


def _densest(weights: np.ndarray, price: float | np.ndarray, limit: float = np.inf) -> np.ndarray | None:
    """Which positions are better treated apart, at the price of a pass each: the densest, as many as make the passes cheapest that are left, by the weight
    of the densest one left. None where that pays little."""
    order = np.argsort(-weights, kind="stable")
    prices = np.broadcast_to(price, weights.shape)[order]
    left = np.append(weights[order], 0.0)
    costs = left + np.concatenate([[0.0], np.cumsum(prices)])
    best = int(np.argmin(costs))
    if best == 0 or costs[best] > 0.7 * min(costs[0], limit):
        return None
    dense = np.zeros(weights.size, bool)
    dense[order[:best]] = True
    return dense


def _colouring(shape: tuple[int, ...], colours: Ints) -> Colouring:
    return Colouring(shape, (), (Group(tuple(range(len(shape))), colours, int(colours.max(initial=NO_COLOUR)) + 1),))


def _flat(relation: Relation) -> Pattern | None:
    """The relation as one matrix, where that is small."""
    if relation.count > LARGEST:
        return None
    try:
        return flattened(relation)
    except TooLarge:
        return None
