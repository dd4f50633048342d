"""Decompression: from the results of coloured passes to the entries of the Jacobian. A pass gives, for each row, the one entry of its colour."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from netsens.graph.graph import Array
from netsens.jacobian.colouring import Colouring
from netsens.modes.pattern import Relation

Ints = np.ndarray[Any, np.dtype[np.int64]]


class Decompressor:
    """Writes passes over coloured columns into a Jacobian [out..., in...]. For passes over rows give the transposed relation, and the
    Jacobian's transposed view.

    The axes in the relation's factors are gone through entry by entry, the others in blocks. With `per_sample` axis 0 of both
    tensors is the batch, whose samples don't meet, and the Jacobian has it once: [N, out..., in...] without the second N; `turned`
    says that `in_` comes first in it."""

    def __init__(self, relation: Relation, colouring: Colouring, per_sample: bool = False, turned: bool = False) -> None:
        assert relation.out is not None
        self.out, self.in_ = relation.out, relation.in_
        self.colouring = colouring
        self.per_sample = per_sample
        self.turned = turned
        out_axes: dict[int, Ints] = {}
        in_axes: dict[int, Ints] = {}
        size = 1
        for f in relation.factors:
            r, c = f.matrix.pairs()
            rows = np.unravel_index(r, [self.out[a] for a in f.outs]) if f.outs else ()
            columns = np.unravel_index(c, [self.in_[a] for a in f.ins]) if f.ins else ()
            out_axes = {a: np.repeat(v, r.size) for a, v in out_axes.items()}
            in_axes = {a: np.repeat(v, r.size) for a, v in in_axes.items()}
            out_axes |= {a: np.tile(v, size) for a, v in zip(f.outs, rows, strict=True)}
            in_axes |= {a: np.tile(v, size) for a, v in zip(f.ins, columns, strict=True)}
            size *= r.size
        for group in colouring.groups:
            for a in group.axes:
                if a not in in_axes:  # restricted by another relation that shares these passes
                    length = self.in_[a]
                    out_axes = {b: np.repeat(v, length) for b, v in out_axes.items()}
                    in_axes = {b: np.repeat(v, length) for b, v in in_axes.items()}
                    in_axes[a] = np.tile(np.arange(length), size)
                    size *= length
        number: Ints = np.zeros(size, np.int64)
        for group in colouring.groups:
            place = np.ravel_multi_index([in_axes[a] for a in group.axes], [self.in_[a] for a in group.axes])
            number = number * group.count + group.colours[place]
        order = np.argsort(number, kind="stable")
        self.number = number[order]
        self.out_places = {a: v[order] for a, v in sorted(out_axes.items())}
        self.in_places = {a: v[order] for a, v in sorted(in_axes.items())}
        self.free_out = [a for a in range(len(self.out)) if a not in out_axes]
        self.free_in = list(colouring.free)
        self._flat: tuple[Ints, Ints] | None = None

    @property
    def dense(self) -> bool:
        """Whether nothing is restricted, so that a pass is a whole column."""
        return not self.out_places and not self.in_places

    def write(self, jacobian: Array, passes: Array, start: int) -> None:
        """The passes number `start` and following, [n, *out], into the Jacobian [*out, *in] (or its per-sample form)."""
        stop = start + len(passes)
        if not jacobian.size:
            return
        if self.dense and not self.per_sample:
            self._write_dense(jacobian, passes, start, stop)
            return
        if not self.per_sample and prod(self._lengths()) == 1 and jacobian.flags.c_contiguous:
            self._write_flat(jacobian, passes, start, stop)
            return
        block = len(self.free_in)
        target = self._view(jacobian)  # [factor axes..., free_in..., free_out...]
        for first, last, low, high in self._segments(start, stop):
            entries = slice(*np.searchsorted(self.number, [low, high]))
            source = self._source(passes, start, first, last, low, high)  # [colours, factor out axes..., places, free_out...]
            values = source[(self.number[entries] - low, *(v[entries] for v in self.out_places.values()))]  # [n, places, free_out...]
            index = [v[entries] for v in self._target_places()]
            if first == 0 and last == prod(self.in_[a] for a in self.free_in):
                shaped = values.reshape(-1, *(self.in_[a] for a in self.free_in), *(self.out[a] for a in self.free_out))
                if index:
                    target[tuple(index)] = shaped
                else:
                    target[...] = shaped[0]
                continue
            places = np.unravel_index(np.arange(first, last), [self.in_[a] for a in self.free_in]) if block else ()
            target[(*(v[:, None] for v in index), *(p[None, :] for p in places))] = values

    def entries(self, passes: Array, start: int) -> tuple[Ints, Ints, Array]:
        """Rows, columns and values of the entries in these passes."""
        stop = start + len(passes)
        found: list[tuple[Ints, Ints, Array]] = []
        for first, last, low, high in self._segments(start, stop):
            part = slice(*np.searchsorted(self.number, [low, high]))
            source = self._source(passes, start, first, last, low, high)
            if self.out_places or self.in_places:
                values = source[(self.number[part] - low, *(v[part] for v in self.out_places.values()))]
            else:
                values = source  # one group of one colour
            n = values.shape[0]
            places = np.unravel_index(np.arange(first, last), [self.in_[a] for a in self.free_in]) if self.free_in else ()
            blocks = np.indices([self.out[a] for a in self.free_out]).reshape(len(self.free_out), -1) if self.free_out else np.zeros((0, 1), np.int64)
            rows = self._position(self.out, {a: v[part] for a, v in self.out_places.items()}, dict(zip(self.free_out, blocks, strict=True)), n)
            columns = self._position(self.in_, {a: v[part] for a, v in self.in_places.items()}, dict(zip(self.free_in, places, strict=True)), n)
            shape = (n, last - first, blocks.shape[1])
            found.append(
                (np.broadcast_to(rows[:, None, :], shape).ravel(), np.broadcast_to(columns[:, :, None], shape).ravel(), values.reshape(shape).ravel())
            )  # fmt: skip
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, passes.dtype)
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found]), np.concatenate([f[2] for f in found])

    @staticmethod
    def _position(shape: tuple[int, ...], by_entry: dict[int, Ints], by_block: dict[int, Ints], n: int) -> Ints:
        """Flat positions [n, blocks] of entries and blocks along their axes."""
        strides = [prod(shape[a + 1 :]) for a in range(len(shape))]
        entry: Ints = np.zeros(n, np.int64)
        for a, v in by_entry.items():
            entry = entry + v * strides[a]
        block: Ints = np.zeros(1, np.int64)
        for a, v in by_block.items():
            block = block + v * strides[a]
        return np.asarray(entry[:, None] + block[None, :])

    def _lengths(self) -> list[int]:
        return [*(self.in_[a] for a in self.free_in), *(self.out[a] for a in self.free_out)]

    def _target_places(self) -> list[Ints]:
        skip = self.per_sample
        return [*self.out_places.values(), *(v for a, v in self.in_places.items() if not (skip and a == 0))]

    def _view(self, jacobian: Array) -> Array:
        rank = len(self.out)
        axes = [*self.out_places, *(rank + a for a in self.in_places if not (self.per_sample and a == 0))]
        axes += [*(rank + a for a in self.free_in), *self.free_out]
        if self.per_sample:
            # [N, out, in] as [N, out, (no N), in]; turned, its first tensor is `in_`: [N, in, out].
            if self.turned:
                inner = len(self.in_) - 1
                position = {0: 0, **{a: inner + a for a in range(1, rank)}, **{rank + a: a for a in range(1, len(self.in_))}}
            else:
                position = {**{a: a for a in range(rank)}, **{rank + a: rank + a - 1 for a in range(1, len(self.in_))}}
            axes = [position[a] for a in axes]
        return jacobian.transpose(axes)

    def _segments(self, start: int, stop: int) -> list[tuple[int, int, int, int]]:
        """Passes start to stop as rectangles: places along the free axes, and colours of the groups."""
        grouped = self.colouring.grouped
        found = []
        while start < stop:
            place, low = divmod(start, grouped)
            if low or stop - start < grouped:
                high = min(grouped, low + stop - start)
                found.append((place, place + 1, low, high))
                start += high - low
            else:
                whole = (stop - start) // grouped
                found.append((place, place + whole, 0, grouped))
                start += whole * grouped
        return found

    def _source(self, passes: Array, start: int, first: int, last: int, low: int, high: int) -> Array:
        """The rectangle's passes as [colours, factor out axes..., places, free_out...]."""
        grouped = self.colouring.grouped
        begin = first * grouped + low - start
        part = passes[begin : begin + (last - first) * (high - low)].reshape(last - first, high - low, *self.out)
        return part.transpose([1, *(a + 2 for a in self.out_places), 0, *(a + 2 for a in self.free_out)])

    def _write_dense(self, jacobian: Array, passes: Array, start: int, stop: int) -> None:
        # [n, out] -> columns start to stop of [out, in]
        rows, columns = prod(self.out), prod(self.in_)
        if jacobian.flags.c_contiguous:
            jacobian.reshape(rows, columns)[:, start:stop] = passes.reshape(stop - start, rows).T
            return
        turned = jacobian.transpose([*range(len(self.out), jacobian.ndim), *range(len(self.out))])  # [in, out]
        if turned.flags.c_contiguous:
            turned.reshape(columns, rows)[start:stop] = passes.reshape(stop - start, rows)
            return
        places = np.unravel_index(np.arange(start, stop), self.in_)
        turned[places] = passes

    def _write_flat(self, jacobian: Array, passes: Array, start: int, stop: int) -> None:
        rows = prod(self.out)
        if self._flat is None:
            row = self._position(self.out, self.out_places, {}, self.number.size)[:, 0]
            column = self._position(self.in_, self.in_places, {}, self.number.size)[:, 0]
            self._flat = row * prod(self.in_) + column, self.number * rows + row
        to, source = self._flat
        if start == 0 and stop == self.colouring.count:
            jacobian.reshape(-1)[to] = passes.reshape(-1)[source]
            return
        part = slice(*np.searchsorted(self.number, [start, stop]))
        jacobian.reshape(-1)[to[part]] = passes.reshape(-1)[source[part] - start * rows]
