"""In which order of gates a recurrent node's weights are kept by what exported it: PyTorch's are cut and joined to ONNX's order by the model itself, and the
cotangents of its own order need neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netsens.graph.emit import Builder, Value


@dataclass(frozen=True, slots=True)
class GateOrder:
    """`pieces` are, in the node's order, the first gate and the number of gates of each piece of the weight that the model keeps."""

    pieces: tuple[tuple[int, int], ...]
    hidden: int

    @property
    def gates(self) -> list[int]:
        """The node's gates in the order of the weight that is kept."""
        places = [first + k for first, count in self.pieces for k in range(count)]
        return [places.index(k) for k in range(len(places))]

    def from_node(self, op: Builder, x: Value) -> Value:
        """[G H, ..] in the node's order -> in the kept order"""
        return self._moved(op, x, self.pieces, sorted(self.pieces))

    def to_node(self, op: Builder, x: Value) -> Value:
        """[G H, ..] in the kept order -> in the node's order"""
        return self._moved(op, x, sorted(self.pieces), self.pieces)

    def _moved(self, op: Builder, x: Value, old: Sequence[tuple[int, int]], new: Sequence[tuple[int, int]]) -> Value:
        if list(old) == list(new):
            return x
        sizes = op.constant(np.asarray([count * self.hidden for _, count in old], np.int64))
        parts = dict(zip(old, op.Split(x, sizes, axis=0, outputs=len(old)), strict=True))
        return op.Concat(*(parts[piece] for piece in new), axis=0)


def gate_order(op: Builder, weights: Sequence[Value], gates: int, hidden: int) -> GateOrder | None:
    """The order in which all of these weights, [G H, ..], are kept; None where they aren't joined of slices of others, or not in the same way."""
    found = {_pieces(op, w, gates, hidden) for w in weights}
    pieces = found.pop() if len(found) == 1 else None
    return None if pieces is None else GateOrder(pieces, hidden)


def _pieces(op: Builder, w: Value, gates: int, hidden: int) -> tuple[tuple[int, int], ...] | None:
    node = op.producer(w)
    if node is None or node.op != "Concat" or node.domain or int(node.attributes["axis"]) % w.rank:
        return None
    slices = [op.producer(op.value(i)) for i in node.inputs]
    if len({s.inputs[0] if s is not None and s.op == "Slice" and not s.domain else None for s in slices}) != 1:
        return None
    pieces = []
    for s in slices:
        ends = None if s is None else [op.value(i).constant if i else None for i in s.inputs[1:]]
        if ends is None or len(ends) < 3 or any(e is None or e.size != 1 for e in ends):
            return None
        begin, end, axis, *step = (int(e.reshape(-1)[0]) for e in ends if e is not None)
        if axis or step not in ([], [1]) or begin % hidden or end % hidden or not 0 <= begin < end <= gates * hidden:
            return None
        pieces.append((begin // hidden, (end - begin) // hidden))
    covered = sorted(first + k for first, count in pieces for k in range(count))
    return tuple(pieces) if covered == list(range(gates)) else None
