"""The structure of operators that work along some axes and leave the others alone: reductions, scans, normalisations, recurrent layers."""

from __future__ import annotations

import numpy as np

from netsens.modes.pattern import LIMIT, pattern
from netsens.modes.structures.layout import elementwise
from netsens.modes.structures.view import Link, StructureView, others, rule


@rule("ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp")
def _reduce(s: StructureView, k: int, j: int) -> list[Link]:
    rank = len(s.shapes[0])
    axes = s.ints(1) if s.has(1) else []
    if k or axes is None:
        return []
    if not axes:
        axes = [] if s["noop_with_empty_axes"] else list(range(rank))
    gone = {a % rank for a in axes} if rank else set()
    kept = [a for a in range(rank) if a not in gone]
    return [(a if s["keepdims"] else n, a, None) for n, a in enumerate(kept)]


@rule("CumSum")
def _cumsum(s: StructureView, k: int, j: int) -> list[Link]:
    axis = s.ints(1)
    if k or axis is None:
        return []
    at = axis[0] % len(s.shapes[0])
    d = s.shapes[0][at]
    links = others(s, 0, 0, [at])
    if d * (d + 1) // 2 <= LIMIT:
        lower = np.tril(np.ones((d, d), bool), -1 if s["exclusive"] else 0)
        rows, columns = np.nonzero(lower[::-1, ::-1] if s["reverse"] else lower)
        links.append((at, at, pattern(d, d, rows, columns)))
    return links


@rule("Softmax LogSoftmax Hardmax LpNormalization")
def _softmax(s: StructureView, k: int, j: int) -> list[Link]:
    return others(s, 0, 0, [int(s["axis"]) % max(len(s.shapes[0]), 1)])


@rule("LayerNormalization RMSNormalization")
def _layer_normalization(s: StructureView, k: int, j: int) -> list[Link]:
    rank = len(s.shapes[0])
    axis = int(s["axis"]) % rank
    if k == 0:
        return [(a, a, None) for a in range(axis) if s.results[j][a] == s.shapes[0][a]]
    return elementwise(s, k, j) if j == 0 else []


@rule("BatchNormalization")
def _batch_normalization(s: StructureView, k: int, j: int) -> list[Link]:
    channel = 0 if j else 1
    if k:
        return [(channel, 0, None)] if len(s.results[j]) > channel else []
    if s["training_mode"]:
        return [(channel, 1, None)] if len(s.shapes[0]) > 1 else []
    return [(a, a, None) for a in range(len(s.shapes[0]))] if j == 0 else []


@rule("InstanceNormalization")
def _instance_normalization(s: StructureView, k: int, j: int) -> list[Link]:
    return [(0, 0, None), (1, 1, None)] if k == 0 else [(1, 0, None)]


@rule("LRN")
def _local_response(s: StructureView, k: int, j: int) -> list[Link]:
    c, size = s.shapes[0][1], int(s["size"])
    rows = np.repeat(np.arange(c), size)
    source = rows + np.tile(np.arange(size) - (size - 1) // 2, c)
    inside = (source >= 0) & (source < c)
    return [*others(s, 0, 0, [1]), (1, 1, pattern(c, c, rows[inside], source[inside]))]


@rule("LSTM GRU RNN")
def _recurrent(s: StructureView, k: int, j: int) -> list[Link]:
    # X [T, N, I] and states [D, N, H] to Y [T, D, N, H] and states [D, N, H]; samples don't meet.
    if s["layout"] or k in (1, 2, 3, 4, 7):
        return []
    batch_out = 2 if j == 0 else 1
    links: list[Link] = [(batch_out, 1, None)]
    steps = s.shapes[0][0]
    if k == 0 and j == 0 and str(s["direction"] or "forward") == "forward" and steps * steps <= LIMIT:
        rows, columns = np.nonzero(np.tril(np.ones((steps, steps), bool)))
        links.append((0, 0, pattern(steps, steps, rows, columns)))
    return links
