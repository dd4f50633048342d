"""The structure of operators that pick or place elements by indices, where the indices are constants."""

from __future__ import annotations

import numpy as np

from netsens.modes.pattern import pattern
from netsens.modes.structures.view import Link, StructureView, others, picked, rule


@rule("Gather")
def _gather(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    rank, wide = len(s.shapes[0]), len(s.shapes[1])
    axis = int(s["axis"]) % rank
    links: list[Link] = [(a if a < axis else a + wide - 1, a, None) for a in range(rank) if a != axis]
    indices = s.constant(1)
    if indices is not None and wide and indices.size:
        d = s.shapes[0][axis]
        links.append((tuple(range(axis, axis + wide)), axis, picked(indices.size, d, indices.reshape(-1) % d)))
    elif indices is not None and wide == 0:
        pass  # one position of the axis; a factor needs an output axis, so the axis stays unrestricted
    return links


@rule("GatherElements")
def _gather_elements(s: StructureView, k: int, j: int) -> list[Link]:
    return others(s, 0, 0, [int(s["axis"]) % len(s.shapes[0])]) if k == 0 else []


@rule("ScatterElements")
def _scatter_elements(s: StructureView, k: int, j: int) -> list[Link]:
    # An update lands at its own place in every axis but one, though the updates may be shorter than the data.
    if k == 0:
        return [(a, a, None) for a in range(len(s.shapes[0]))]
    axis = int(s["axis"]) % len(s.shapes[0])
    both = zip(s.shapes[0], s.shapes[2], strict=True)
    return [(a, a, pattern(n, d, np.arange(d), np.arange(d))) for a, (n, d) in enumerate(both) if a != axis] if k == 2 else []


@rule("GatherND")
def _gather_nd(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    batch, depth = int(s["batch_dims"]), s.shapes[1][-1]
    first = batch + depth
    shift = len(s.results[0]) - len(s.shapes[0])
    return [*((a, a, None) for a in range(batch)), *((a + shift, a, None) for a in range(first, len(s.shapes[0])))]


@rule("ScatterND")
def _scatter_nd(s: StructureView, k: int, j: int) -> list[Link]:
    if k == 0:
        return [(a, a, None) for a in range(len(s.shapes[0]))]
    depth, rank = s.shapes[1][-1], len(s.shapes[0])
    shift = rank - len(s.shapes[2])
    return [(a, a - shift, None) for a in range(depth, rank)] if k == 2 else []


@rule("Compress")
def _compress(s: StructureView, k: int, j: int) -> list[Link]:
    axis = s.node.attributes.get("axis")
    if k or axis is None:
        return []
    axis = int(axis) % len(s.shapes[0])
    links = others(s, 0, 0, [axis])
    chosen = s.constant(1)
    if chosen is not None:
        source = np.flatnonzero(chosen)
        links.append((axis, axis, picked(len(source), s.shapes[0][axis], source)))
    return links


@rule("TopK")
def _top_k(s: StructureView, k: int, j: int) -> list[Link]:
    return others(s, 0, j, [int(s["axis"]) % len(s.shapes[0])]) if k == 0 else []
