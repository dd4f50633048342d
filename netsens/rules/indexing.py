"""Gathering and scattering by indices, and the operators that choose elements by condition or by size."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Array
from netsens.rules.placement import added_along, added_at, lengths, picked_back, positions, product
from netsens.rules.words import NodeView, expansion, jvp, linear, transpose


def _two(n: NodeView) -> tuple[Value, Value]:
    data, indices = n.inputs[:2]
    assert data is not None
    assert indices is not None
    return data, indices


# Gathering -----------------------------------------------------------------------------------------------------------------


def _ungathered(op: Builder, n: NodeView, g: Value) -> Value:
    """Constant indices that follow each other are put back as a slice is; others are added where they point."""
    x, indices = _two(n)
    axis, size = int(n["axis"]) % x.rank, x.shape[int(n["axis"])]
    dims = lengths(op, x)
    known = indices.constant
    if known is not None and isinstance(size, int):
        picked = np.asarray(known, np.int64).reshape(-1)
        picked = np.where(picked < 0, picked + size, picked)
        count = op.constant(np.asarray([len(picked)]))
        row = [*dims[:axis], count, *dims[axis + 1 :]]
        one = g if indices.rank == 1 else op.Unsqueeze(g, [axis]) if indices.rank == 0 else op.Reshape(g, op.vector(list(row)), allowzero=1)
        placed = picked_back(op, one, picked, axis, row, size)
        if placed is not None:
            return op.retyped(placed, x.type.shape)
    return op.retyped(added_along(op, g, indices, axis, dims), x.type.shape)


linear("Gather", _ungathered)
linear("GatherElements", lambda op, n, g: added_at(op, op.zeros_like(n.x), n.inputs[1], op.retyped(g, n.inputs[1].type.shape), int(n["axis"])))


def _depth(indices: Value) -> int:
    """How many axes each index of GatherND or ScatterND goes along."""
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise UnsupportedError(f"The indices '{indices.name}' of a GatherND or ScatterND have a last axis of unknown length; give that input a shape.")
    return depth


def _numbered(op: Builder, data: Value, indices: Value, batch: int) -> tuple[Value, Value, Value, Value]:
    """GatherND's and ScatterND's indices as numbers of rows, a vector; how many they are; and how many rows the data has, of which length."""
    dims, depth = lengths(op, data), _depth(indices)
    rows, row = dims[: batch + depth], product(op, dims[batch + depth :])
    count = product(op, lengths(op, indices)[:-1])
    # [B.., I.., depth], with negative indices counted from the end
    extents = op.vector(list(rows[batch:]))
    wide = op.Cast(indices, to=extents.dtype)
    within = op.Where(wide < 0, wide + extents, wide)
    strides = op.vector([product(op, rows[batch + k + 1 :]) for k in range(depth)])
    flat = op.ReduceSum(within * strides, [-1], keepdims=0)
    if batch:
        # Each batch begins a whole block of rows later: [B.., I..] -> [B, I]
        number, block = product(op, rows[:batch]), product(op, rows[batch:])
        starts = op.Unsqueeze(positions(op, number) * block, [1])
        flat = op.Reshape(flat, op.vector([number, product(op, lengths(op, indices)[batch:-1])]), allowzero=1) + starts
    return op.Reshape(flat, [-1]), count, product(op, rows), row


def _added_at(op: Builder, data: Value, indices: Value, g: Value, batch: int) -> Value:
    """Zeros of the shape of `data` with `g`, of the shape that GatherND gives, added where the indices point."""
    flat, count, total, row = _numbered(op, data, indices, batch)
    rows = op.Reshape(g, op.vector([count, row]), allowzero=1)
    return op.retyped(op.Reshape(added_along(op, rows, flat, 0, [total, row]), op.shape(data), allowzero=1), data.type.shape)


linear("GatherND", lambda op, n, g: _added_at(op, *_two(n), g, int(n["batch_dims"])))


@expansion("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(op: Builder, n: NodeView) -> Value:
    x, indices = _two(n)
    picked = op.Gather(x, op.Reshape(indices, [-1]), axis=-1)
    return op.Unsqueeze(picked, [0]) if x.rank == 1 else picked


# Scattering ----------------------------------------------------------------------------------------------------------------


class _Scatter:
    """ScatterElements or ScatterND at hand, by the two ways that lead along its indices: `at` reads, `add` sums."""

    def __init__(self, op: Builder, n: NodeView) -> None:
        self.op, self.n = op, n
        self.data, self.indices = _two(n)
        updates = n.inputs[2]
        assert updates is not None
        self.updates = updates
        self.by_element = n.node.op == "ScatterElements"
        self.reduction = n["reduction"]

    def at(self, x: Value) -> Value:
        """The elements of `x`, of the shape of the data, that the indices point at."""
        op = self.op
        read = op.GatherElements(x, self.indices, axis=self.n["axis"]) if self.by_element else op.GatherND(x, self.indices)
        return op.retyped(read, self.updates.type.shape)

    def add(self, u: Value) -> Value:
        """Zeros with `u`, of the shape of the updates, added where the indices point."""
        op = self.op
        if self.by_element:
            zeros = op.expand_like(op.constant(0, self.data), self.data)
            return added_at(op, zeros, self.indices, u, int(self.n["axis"]))
        return _added_at(op, self.data, self.indices, u, 0)

    def put(self, x: Value, u: Value, reduction: str | None = None) -> Value:
        attributes = {"axis": self.n["axis"]} if self.by_element else {}
        return self.op.emit(self.n.node.op, [x, self.indices, u], {**attributes, "reduction": reduction})

    def kept(self, g: Value) -> Value:
        """`g`, of the shape of the updates, with zeros for updates that a later one overwrites. ONNX leaves open which of them stays; exporters write
        such indices all the same, and onnxruntime keeps the last."""
        op, indices = self.op, self.indices
        # Each update element (or row, at an index of ScatterND) writes its number; those that are still there are kept.
        if self.by_element:
            dims, places = lengths(op, self.updates), op.shape(self.data)
        else:
            depth = _depth(indices)
            dims, places = lengths(op, indices)[:-1], op.vector(list(lengths(op, self.data)[:depth]))
        known, size = indices.constant, places.constant
        if known is not None and size is not None:
            written = _last_written(np.asarray(known), size.tolist(), int(self.n["axis"]) if self.by_element else None)
            stays = written.reshape(written.shape + (1,) * (g.rank - written.ndim))
            return g if stays.all() else op.Where(op.constant(stays), g, 0.0)
        numbers = op.Reshape(positions(op, product(op, dims)), op.vector(list(dims)), allowzero=1)
        nowhere = op.Expand(op.constant(np.asarray(0)), places)
        if self.by_element:
            axis = self.n["axis"]
            written = op.GatherElements(op.ScatterElements(nowhere, indices, numbers, axis=axis), indices, axis=axis)
        else:
            written = op.GatherND(op.ScatterND(nowhere, indices, numbers), indices)
        stays = op.Equal(written, numbers)
        row = g.rank - len(dims)
        return op.Where(op.Unsqueeze(stays, list(range(len(dims), g.rank))) if row else stays, g, 0.0)

    def shares(self) -> tuple[Value, Value]:
        """What each element of the data and of the updates weighs in a minimum or maximum, which ties split evenly; or in a product."""
        op, data, updates = self.op, self.data, self.updates
        if self.reduction != "mul":
            y = self.n.y
            mine, theirs = (op.Cast(op.Equal(a, b), to=data.dtype) for a, b in ((data, y), (updates, self.at(y))))
            count = mine + self.add(theirs)
            return mine / count, theirs / self.at(count)
        # The product of the updates is P Q, P that of those other than 0 and Q that of the zeros, a polynomial in them so that second derivatives
        # hold: 1, z1, or z1 z2 = ((z1 + z2)^2 - z1^2 - z2^2) / 2; with three or more, two derivatives are 0.
        is_zero = op.Equal(updates, 0.0)
        factors, z = op.Where(is_zero, 1.0, updates), op.Where(is_zero, updates, 0.0)
        zeros = self.add(op.Cast(is_zero, to=data.dtype))
        p = self.put(op.full_like(data, 1.0), factors, "mul")
        s = self.add(z)
        two = 0.5 * (s * s - self.add(z * z))
        q = op.Where(op.Equal(zeros, 0.0), 1.0, op.Where(op.Equal(zeros, 1.0), s, op.Where(op.Equal(zeros, 2.0), two, 0.0)))
        met = self.at(zeros)
        others = op.Where(op.Equal(met, 1.0), 1.0, op.Where(op.Equal(met, 2.0), self.at(s) - z, 0.0))
        return p * q, self.at(data) * op.Where(is_zero, self.at(p) * others, self.at(p * q) / factors)


def _last_written(indices: Array, shape: Sequence[int], axis: int | None) -> Array:
    """Which updates no later one overwrites: of ScatterElements along an axis, or of ScatterND's rows."""
    if axis is None:
        place, count = tuple(np.moveaxis(indices, -1, 0)), indices.shape[:-1]
    else:
        place, count = tuple(np.indices(indices.shape)), indices.shape
        place = (*place[: axis % len(shape)], indices, *place[axis % len(shape) + 1 :])
    flat = np.ravel_multi_index([np.where(p < 0, p + d, p) for p, d in zip(place, shape, strict=True)], tuple(shape)) if shape else np.zeros(count, int)
    last = np.full(prod(shape), -1)
    last[flat.reshape(-1)] = np.arange(flat.size)  # NumPy, too, keeps the last
    return np.asarray(last[flat] == np.arange(flat.size).reshape(count))


@jvp("ScatterElements ScatterND")
def scatter(op: Builder, n: NodeView, t: Value | None, indices: None = None, u: Value | None = None) -> Value | None:
    s = _Scatter(op, n)
    if s.reduction in (None, "none"):
        if t is None and u is None:
            return None
        put = s.put(op.zeros_like(n.x) if t is None else t, op.zeros_like(s.updates) if u is None else u)
        return op.retyped(put, n.y.type.shape)
    if s.reduction == "add":
        parts = [t, None if u is None else s.add(u)]
    else:
        of_data, of_updates = s.shares()
        parts = [None if t is None else t * of_data, None if u is None else s.add(u * of_updates)]
    found = [p for p in parts if p is not None]
    return None if not found else found[0] if len(found) == 1 else found[0] + found[1]


@transpose("ScatterElements ScatterND")
def scatter_transposed(op: Builder, n: NodeView, g: Value) -> list[Value | None]:
    s = _Scatter(op, n)
    to_data, to_updates = n.wanted[0], n.wanted[2]
    if s.reduction in (None, "none"):
        # What was overwritten didn't matter.
        return [s.put(g, op.zeros_like(s.updates)) if to_data else None, None, s.kept(s.at(g)) if to_updates else None]
    if s.reduction == "add":
        return [g if to_data else None, None, s.at(g) if to_updates else None]
    of_data, of_updates = s.shares()
    return [g * of_data if to_data else None, None, s.at(g) * of_updates if to_updates else None]


@expansion("TensorScatter")
def tensor_scatter(op: Builder, n: NodeView) -> Value:
    """A write into a cache: batch b's updates go to places write_indices[b] and following."""
    cache, updates = n.x, n.inputs[1]
    assert updates is not None
    axis, rank = int(n["axis"]) % cache.rank, cache.rank
    begins = n.input(2)
    steps = op.Reshape(positions(op, op.dim(updates, axis)), [-1 if k == axis else 1 for k in range(rank)])
    places = steps if begins is None else op.Reshape(begins, [-1] + [1] * (rank - 1)) + steps
    if n["mode"] == "circular":
        places = op.Mod(places, op.dim(cache, axis))
    return op.ScatterElements(cache, op.Expand(places, op.shape(updates)), updates, axis=axis)


# Choosing ------------------------------------------------------------------------------------------------------------------


def _uncompressed(op: Builder, n: NodeView, g: Value) -> Value:
    x, condition = _two(n)
    dims = lengths(op, x)
    if n["axis"] is None:
        count = product(op, dims)
        flat = added_along(op, g, op.Compress(positions(op, count), condition, axis=0), 0, [count], once=True)
        return op.retyped(op.Reshape(flat, op.shape(x), allowzero=1), x.type.shape)
    axis = int(n["axis"]) % x.rank
    places = op.Compress(positions(op, dims[axis]), condition, axis=0)
    return op.retyped(added_along(op, g, places, axis, dims, once=True), x.type.shape)


linear("Compress", _uncompressed)


@jvp("TopK")
def top_k(op: Builder, n: NodeView, t: Value, k: None = None) -> Value:
    places = n.outputs[1] if len(n.outputs) > 1 else None
    if places is None:
        places = op.emit("TopK", list(n.inputs), dict(n.node.attributes), 2)[1]
    return op.retyped(op.GatherElements(t, places, axis=n["axis"]), n.y.type.shape)


@jvp("Unique")
def unique(op: Builder, n: NodeView, t: Value) -> Value:
    """An element that occurs several times stands for its first occurrence."""
    places = n.outputs[1] if len(n.outputs) > 1 else None
    if places is None:
        places = op.emit("Unique", [n.x], dict(n.node.attributes), 2)[1]
    if n["axis"] is None:
        return op.Gather(op.Reshape(t, [-1]), places, axis=0)
    return op.Gather(t, places, axis=n["axis"])
