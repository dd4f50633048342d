"""Many directions through operators that work element by element, or move elements about."""

from __future__ import annotations

from typing import Any

from netsens.graph.emit import Value
from netsens.graph.shapes import known
from netsens.modes.batches.view import BatchView, all_moving, lifted, moved_axis, require, reshaped, rule


@rule("Add Sub Mul Div Sum Mean Where Neg Identity Cast")
def _elementwise(b: BatchView) -> Any:
    rank = max(b.rank(k) for k in range(len(b.xs)))
    return b.same(*(lifted(b, k, rank) for k in range(len(b.xs))))


@rule("Transpose")
def _transpose(b: BatchView) -> Any:
    perm = b["perm"] or list(range(b.rank()))[::-1]
    return b.op.Transpose(b.t, perm=[0, *(p + 1 for p in perm)])


@rule("Reshape Squeeze Unsqueeze Flatten")
def _reshape(b: BatchView) -> Any:
    require(b.moving[0])
    if known(b.results[0].shape):
        return reshaped(b, b.t, b.result_shape())
    require(b.node.op == "Reshape")
    # A 0 copies the dimension at its own place, and both sides move by one place.
    target = b.x(1)
    return b.op.Reshape(b.t, b.op.vector([b.count, target]), allowzero=b.node.attributes.get("allowzero"))


@rule("Expand")
def _expand(b: BatchView) -> Any:
    require(b.moving[0])
    if known(b.results[0].shape):
        shape = b.result_shape()
        return b.op.Expand(lifted(b, 0, len(shape)), [1, *shape])
    target = b.x(1)
    assert target is not None
    length = target.shape[0]
    require(isinstance(length, int))
    return b.op.Expand(lifted(b, 0, int(length or 0)), b.op.vector([1, target]))


@rule("Tile")
def _tile(b: BatchView) -> Any:
    return b.op.Tile(b.t, b.op.vector([1, b.x(1)]))


@rule("Slice")
def _slice(b: BatchView) -> Any:
    starts, ends, axes, steps = (b.x(k) for k in (1, 2, 3, 4))
    if axes is None:
        assert starts is not None
        length = starts.shape[0]
        require(isinstance(length, int))
        chosen = list(range(int(length or 0)))
    else:
        listed = b.ints(3)
        require(listed is not None)
        chosen = listed or []
    return b.op.Slice(b.t, starts, ends, [moved_axis(a, b.rank()) for a in chosen], steps)


@rule("Concat")
def _concat(b: BatchView) -> Any:
    return b.op.Concat(*(all_moving(b, k) for k in range(len(b.xs))), axis=moved_axis(b["axis"], b.rank()))


@rule("Split")
def _split(b: BatchView) -> Any:
    return b.same(b.t, b.x(1), axis=moved_axis(b["axis"], b.rank()))


@rule("Pad")
def _pad(b: BatchView) -> Any:
    pads, axes = b.ints(1), b.ints(3) if b.x(3) is not None else list(range(b.rank()))
    require(b.moving[0], axes is not None)
    rank = b.rank()
    chosen = [moved_axis(a, rank) for a in axes or []]
    if pads is not None:
        begins, ends = [0] * (rank + 1), [0] * (rank + 1)
        for k, axis in enumerate(chosen):
            begins[axis], ends[axis] = pads[k], pads[len(chosen) + k]
        return b.same(b.t, [*begins, *ends], b.x(2))
    return b.same(b.t, b.x(1), b.x(2), chosen)


@rule("Gather")
def _gather(b: BatchView) -> Any:
    require(b.moving[0])
    return b.op.Gather(b.t, b.x(1), axis=moved_axis(b["axis"], b.rank()))


@rule("GatherElements")
def _gather_elements(b: BatchView) -> Any:
    require(b.moving[0])
    return b.op.GatherElements(b.t, all_moving(b, 1), axis=moved_axis(b["axis"], b.rank()))


@rule("ScatterElements")
def _scatter_elements(b: BatchView) -> Any:
    require(not b.moving[1])
    return b.same(all_moving(b, 0), all_moving(b, 1), all_moving(b, 2), axis=moved_axis(b["axis"], b.rank()))


def _last(b: BatchView, position: int) -> Value:
    """[K, ...] -> [..., K]"""
    rank = b.rank(position)
    return b.op.Transpose(all_moving(b, position), perm=[*range(1, rank + 1), 0])


def _first(b: BatchView, t: Value) -> Value:
    """[..., K] -> [K, ...]"""
    return b.op.Transpose(t, perm=[t.rank - 1, *range(t.rank - 1)])


@rule("GatherND")
def _gather_nd(b: BatchView) -> Any:
    # Indices run over leading axes, so the directions go behind.
    require(b.moving[0])
    result = b.same(_last(b, 0), b.x(1))
    require(result.type.shape is not None)
    return _first(b, result)


@rule("ScatterND")
def _scatter_nd(b: BatchView) -> Any:
    require(not b.moving[1])
    return _first(b, b.same(_last(b, 0), b.x(1), _last(b, 2)))


@rule("Compress")
def _compress(b: BatchView) -> Any:
    require(b.moving[0])
    axis = b.node.attributes.get("axis")
    if axis is None:
        size = 1
        for d in b.shape():
            size *= d
        return b.op.Compress(reshaped(b, b.t, [size]), b.x(1), axis=1)
    return b.op.Compress(b.t, b.x(1), axis=moved_axis(axis, b.rank()))


@rule("Trilu")
def _trilu(b: BatchView) -> Any:
    return b.same(b.t, b.x(1))
