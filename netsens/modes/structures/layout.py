"""The structure of elementwise operators and of those that move elements about: layouts, slices, joins, paddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsens.modes.pattern import Relation, aligned, compose, pattern
from netsens.modes.structures.view import Link, Shape, StructureView, others, picked, relation_of, rule


@rule(
    "Add Sub Mul Div Neg Sum Mean Max Min Where Identity Cast CastLike Pow PRelu Clip Mod BitShift Relu Tanh Sigmoid Exp Log Sqrt Abs Reciprocal Erf Gelu "
    "Softplus Softsign Elu Selu Celu LeakyRelu HardSigmoid HardSwish Mish ThresholdedRelu Shrink Swish Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh "
    "Atanh Dropout Trilu"
)
def elementwise(s: StructureView, k: int, j: int) -> list[Link]:
    out, in_ = s.results[j], s.shapes[k]
    shift = len(out) - len(in_)
    if shift < 0:
        return []  # the operand that lends CastLike its dtype
    return [(a + shift, a, None) for a, d in enumerate(in_) if d == out[a + shift] and d != 1]


@rule("Expand")
def _expand(s: StructureView, k: int, j: int) -> list[Link]:
    return elementwise(s, k, j) if k == 0 else []


@rule("Transpose")
def _transpose(s: StructureView, k: int, j: int) -> list[Link]:
    perm = s["perm"] or list(range(len(s.shapes[0])))[::-1]
    return [(a, p, None) for a, p in enumerate(perm)]


@rule("Reshape Squeeze Unsqueeze Flatten")
def _reshape(s: StructureView, k: int, j: int) -> list[Link]:
    return reshaped(s.shapes[0], s.results[0]) if k == 0 else []


def reshaped(old: Shape, new: Shape) -> list[Link]:
    """Runs of axes that hold the same elements in both shapes."""
    links: list[Link] = []
    a = b = 0
    while a < len(old) or b < len(new):
        ins: list[int] = []
        outs: list[int] = []
        left = right = 1
        while True:
            if left == right and (ins or outs):
                break
            if a < len(old) and (left <= right or b >= len(new)):
                left *= old[a]
                ins.append(a)
                a += 1
            elif b < len(new):
                right *= new[b]
                outs.append(b)
                b += 1
            else:
                break
        ins, outs = [x for x in ins if old[x] != 1], [x for x in outs if new[x] != 1]
        if ins and outs:
            links.append((tuple(outs), tuple(ins), None))
    return links


@rule("Tile")
def _tile(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    return [(a, a, pattern(n, d, np.arange(n), np.arange(n) % d)) for a, (n, d) in enumerate(zip(s.results[0], s.shapes[0], strict=True)) if d > 1]


@rule("Slice")
def _slice(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    rank = len(s.shapes[0])
    axes = s.ints(3) if s.has(3) else None
    starts, ends = s.ints(1), s.ints(2)
    steps = s.ints(4) if s.has(4) else [1] * len(starts or ())
    if s.has(3) and axes is None:
        return []
    if axes is None:
        axes = list(range(s.shapes[1][0]))
    axes = [a % rank for a in axes]
    links = others(s, 0, 0, axes)
    if starts is None or ends is None or steps is None:
        return links
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        d = s.shapes[0][axis]
        source = range(d)[slice(start, None if step < 0 and end < -d else end, step)]
        if len(source) == s.results[0][axis]:
            links.append((axis, axis, picked(len(source), d, list(source))))
    return links


@rule("Concat")
def _concat(s: StructureView, k: int, j: int) -> list[Link]:
    axis = int(s["axis"]) % len(s.results[0])
    before = sum(shape[axis] for shape in s.shapes[:k])
    d = s.shapes[k][axis]
    return [*((a, a, None) for a in range(len(s.results[0])) if a != axis), (axis, axis, pattern(s.results[0][axis], d, before + np.arange(d), np.arange(d)))]


@rule("Split")
def _split(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    axis = int(s["axis"]) % len(s.shapes[0])
    before = sum(shape[axis] for shape in s.results[:j])
    n = s.results[j][axis]
    return [*others(s, 0, j, [axis]), (axis, axis, picked(n, s.shapes[0][axis], before + np.arange(n)))]


@rule("Pad")
def _pad(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    rank = len(s.shapes[0])
    pads = s.ints(1)
    axes = [a % rank for a in s.ints(3) or []] if s.has(3) else list(range(rank))
    if pads is None:
        return others(s, 0, 0, axes)
    links = others(s, 0, 0, axes)
    mode = str(s["mode"] or "constant")
    for n, axis in enumerate(axes):
        d, begin, end = s.shapes[0][axis], pads[n], pads[len(axes) + n]
        source = np.arange(d)[max(-begin, 0) : d - max(-end, 0)]
        width = (max(begin, 0), max(end, 0))
        if source.size == 0:
            continue
        filled = np.pad(source, width, constant_values=-1) if mode == "constant" else np.pad(source, width, mode=mode)  # type: ignore[call-overload]
        links.append((axis, axis, picked(len(filled), d, filled)))
    return links


@rule("DepthToSpace")
def _depth_to_space(s: StructureView, k: int, j: int) -> Relation:
    n, c, h, w = s.shapes[0]
    size = int(s["blocksize"])
    if str(s["mode"]) == "CRD":
        return _moves(s.shapes[0], [("r", (n, c // size**2, size, size, h, w)), ("t", (0, 1, 4, 2, 5, 3)), ("r", s.results[0])])
    return _moves(s.shapes[0], [("r", (n, size, size, c // size**2, h, w)), ("t", (0, 3, 4, 1, 5, 2)), ("r", s.results[0])])


@rule("SpaceToDepth")
def _space_to_depth(s: StructureView, k: int, j: int) -> Relation:
    n, c, h, w = s.shapes[0]
    size = int(s["blocksize"])
    order = (0, 1, 3, 5, 2, 4) if s["mode"] == "CRD" else (0, 3, 5, 1, 2, 4)
    return _moves(s.shapes[0], [("r", (n, c, h // size, size, w // size, size)), ("t", order), ("r", s.results[0])])


def _moves(shape: Shape, steps: Sequence[tuple[str, Shape]]) -> Relation:
    """Reshapes ("r", new shape) and transposes ("t", permutation) one after the other."""
    total = aligned(shape)
    for kind, to in steps:
        old = total.out or ()
        if kind == "r":
            total = compose(relation_of(to, old, reshaped(old, to)), total)
        else:
            total = compose(relation_of(tuple(old[p] for p in to), old, [(a, p, None) for a, p in enumerate(to)]), total)
    return total


@rule("ReverseSequence")
def _reverse_sequence(s: StructureView, k: int, j: int) -> list[Link]:
    return others(s, 0, 0, [int(s["time_axis"])]) if k == 0 else []
