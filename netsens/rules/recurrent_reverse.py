"""Reverse rules of RNN, GRU and LSTM in their usual forms, for speed. What is left to a Scan is the recurrence of the cotangents, with one product a
step; the factors in it are known beforehand for all steps, and the weights' gradients are one product each after it. Other forms are left to the derivative
of the Scan in `recurrent_cells.py`.

An RNN's factors follow from its output. The gates of a GRU and of an LSTM, which onnxruntime's fused node doesn't give out, are kept by a Scan that stands in
for that node, or computed for all steps at once from its output, where that is little work. Two LSTMs both ways, 64 steps, 256 states, one thread: 31 ms in place
of 31 and 32 at batch 16, 5.4 in place of 3.8 and 2.6 at batch 1. The whole gradient of one LSTM, at batch 1 with 16, 64, 128 and 192 states: 0.49, 0.60, 0.95
and 1.47 ms with the Scan, 0.32, 0.44, 0.83 and 1.49 at once; at batch 16 with 16, 64 and 128 states 0.65, 1.5 and 3.8, at once 0.60, 1.9 and 5.8.
With both directions in one Scan, a step's product takes 1.4 times as long at batch 1, 1.6 times at 16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netsens.graph.emit import Builder, Value
from netsens.rules.gate_order import GateOrder, gate_order
from netsens.rules.recurrent import Recurrence, Steps, in_parts, scan
from netsens.rules.recurrent_cells import gru_steps, lstm_steps
from netsens.rules.words import NodeView, vjp

Cotangents = tuple[Value | None, ...]
_LITTLE = 200_000  # products a step up to which the gates are computed at once, as measured


class _Pull:
    """What the three rules share, in the default layout: shapes [T, B, ..] everywhere, D directions."""

    def __init__(self, op: Builder, n: NodeView, gates: int, cotangents: Cotangents) -> None:
        self.op, self.n, self.gates = op, n, gates
        self.parts = Recurrence(op, n, gates)
        self.hidden = self.parts.hidden
        self.x = self.parts.x
        self.g_steps = self._directions(cotangents[0], 1)
        self.g_last = [self._directions(g, 0) for g in cotangents[1:]]
        self.found: list[list[Value | None]] = []

    def outputs(self) -> list[Value]:
        """The states after each step, [T, B, H] a direction, of the node itself."""
        y = self.n.outputs[0]
        if y is None:
            # The node was not asked for its states at each step; the same node, asked for them.
            y = self.op.emit(self.n.node.op, self.n.inputs, dict(self.n.node.attributes), 2)[0]
        return [part for part in self._directions(y, 1) if part is not None]

    def kept(self, steps: Steps) -> list[list[Value]]:
        """The state after each step, maybe other states, and the values on the way there, [T, B, ..], by direction."""
        if self.parts.mask is None and self._products() < _LITTLE:
            return [self._at_once(steps, d, y) for d, y in enumerate(self.outputs())]
        outputs, kept = self.parts.run(steps, keeping=True)
        self.op.stand_for(self.n.node, outputs)
        return kept

    def _products(self) -> int:
        """How many numbers a step multiplies; of an unknown batch, that of two samples."""
        (batch, width), hidden = self.x.shape[1:], self.hidden
        return (batch if isinstance(batch, int) else 2) * self.gates * hidden * (hidden + (width if isinstance(width, int) else hidden))

    def _at_once(self, steps: Steps, d: int, y: Value) -> list[Value]:
        """A direction's cell over all steps, whose states before are known from the node's output; the gates read no other."""
        op = self.op
        before = self.before(d, y, self.parts.h0[d])
        _, kept = steps.cell(d)(op, [before] * len(steps.first), [steps.reads[d]])
        if len(steps.first) == 1:
            return [y, *kept]
        gates, new, *_ = kept
        i, _, forget = in_parts(op, gates, 3)

        def cell(body: Builder, states: list[Value], slices: list[Value]) -> tuple[list[Value], list[Value]]:
            c = states[0] * slices[0] + slices[1]
            return [c], [c]

        first = steps.first[1][d]
        _, (cells,) = scan(op, cell, [first], [forget, i * new], self.parts.backward[d])
        return [y, gates, new, forget * self.before(d, cells, first), op.Tanh(cells)]

    def _directions(self, x: Value | None, axis: int) -> list[Value | None]:
        """The parts of a value by direction, that axis gone."""
        op, count = self.op, self.parts.directions
        if x is None:
            return [None] * count
        return [op.Squeeze(p, [axis]) for p in ([x] if count == 1 else op.Split(x, axis=axis, num_outputs=2, outputs=2))]

    def flat(self, x: Value) -> Value:
        """[T, B, k] -> [T B, k]"""
        return self.op.Reshape(x, self.op.vector([self.op.constant([-1]), self.op.dim(x, 2)]))

    def before(self, d: int, steps: Value, first: Value) -> Value:
        """The state before each step: shifted by one, from the first state on."""
        op = self.op
        first = op.Unsqueeze(first, [0])
        if self.parts.backward[d]:
            parts = (op.Slice(steps, [1], [np.iinfo(np.int64).max], [0]), first)
        else:
            parts = (first, op.Slice(steps, [0], [-1], [0]))
        shifted = op.retyped(op.Concat(*parts, axis=0), (*self.x.shape[:2], self.hidden))
        if self.parts.mask is None or not self.parts.backward[d]:
            return shifted
        # Backward, a sample begins at its own last step: [T, B, 1], the steps that another came before.
        ended = op.Expand(op.constant(np.asarray(False)), op.vector([1, op.dim(self.x, 1), 1]))
        begun = op.Concat(op.Slice(self.parts.mask, [1], [np.iinfo(np.int64).max], [0]), ended, axis=0)
        return op.retyped(op.Where(begun, shifted, first), shifted.shape)

    def arriving(self, d: int, k: int) -> Value:
        """The cotangent of the last state `k`, [B, H]."""
        g = self.g_last[k][d] if k < len(self.g_last) else None
        return self.op.zeros_like(self.parts.h0[d]) if g is None else g

    def at_steps(self, d: int, like: Value) -> Value:
        """The cotangents of the states at the steps, [T, B, H]."""
        g = self.g_steps[d]
        return self.op.zeros_like(like) if g is None else self.running(g)

    def running(self, x: Value, ended: float = 0.0) -> Value:
        """A factor at all steps, [T, B, ..], with another number where a sample has ended and keeps its states."""
        mask = self.parts.mask
        return x if mask is None else self.op.retyped(self.op.Where(mask, x, ended), x.shape)

    def keeping(self) -> list[Value]:
        """What the state's cotangent is multiplied by to pass a step at which a sample has ended, [T, B, 1], as one more thing to read; none where there are no
        such steps."""
        mask = self.parts.mask
        return [] if mask is None else [self.op.Cast(self.op.Not(mask), to=self.x.dtype)]

    def finish(self, d: int, before: Value, g_inputs: Value, g_states: Value, *rest: Value | None, order: GateOrder | None = None) -> None:
        """The cotangents of x, w, r, b from those of the two parts of the gates, [T B, G H], which come in `order`; `rest` are those of the initial states."""
        op, n = self.op, self.n
        w = self.parts.w[d]
        assert w is not None

        def to_node(g: Value) -> Value:
            return g if order is None else order.to_node(op, g)

        by_x = w if order is None else order.from_node(op, w)
        g_x = op.reshape_like(op.MatMul(g_inputs, by_x), self.x) if n.wanted[0] else None
        g_w = to_node(op.MatMul(op.Transpose(g_inputs, perm=[1, 0]), self.flat(self.x))) if n.wanted[1] else None
        g_r = to_node(op.MatMul(op.Transpose(g_states, perm=[1, 0]), self.flat(before))) if n.wanted[2] else None
        g_b = None
        if len(n.inputs) > 3 and n.wanted[3]:
            first = to_node(op.ReduceSum(g_inputs, [0], keepdims=0))
            second = first if g_states is g_inputs else to_node(op.ReduceSum(g_states, [0], keepdims=0))
            g_b = op.Concat(first, second, axis=0)
        self.found.append([g_x, g_w, g_r, g_b, None, *rest])

    def answer(self) -> list[Value | None]:
        """The cotangents of the node's inputs: x's summed over directions, the others' joined."""
        op = self.op
        result: list[Value | None] = []
        for k, x in enumerate(self.n.inputs):
            parts = [found[k] if k < len(found) else None for found in self.found]
            if x is None or not self.n.wanted[k] or any(p is None for p in parts):
                result.append(None)
            elif k == 0:
                result.append(parts[0] if len(parts) == 1 else op.Add(*parts))
            else:
                joined = [op.Unsqueeze(p, [0]) for p in parts]
                result.append(op.retyped(joined[0] if len(joined) == 1 else op.Concat(*joined, axis=0), x.type.shape))
        return result


def _usual(n: NodeView, activations: Sequence[str]) -> bool:
    """Whether the node is of the form that these rules cover."""
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in n["activations"] or activations]
    plain = all(name.lower() == activations[k % len(activations)].lower() for k, name in enumerate(names))
    return plain and not n["clip"] and not n["layout"] and not n["input_forget"] and n.input(7) is None


def _passed(body: Builder, g: Value, arriving: Value, keeping: Sequence[Value]) -> Value:
    """The cotangent of the state before a step, and of samples that have ended the one after it."""
    return g + arriving * keeping[0] if keeping else g


@vjp("RNN")
def rnn_reverse(op: Builder, n: NodeView, *cotangents: Value | None) -> Any:
    """g' = (g + gY) (1 - y^2) R"""
    if not _usual(n, ["Tanh"]):
        return NotImplemented
    pull = _Pull(op, n, 1, cotangents)
    for d, y in enumerate(pull.outputs()):
        r = pull.parts.r[d]
        assert r is not None

        def step(body: Builder, states: list[Value], slices: list[Value], r: Value = r) -> tuple[list[Value], list[Value]]:
            arriving = states[0] + slices[0]
            g = arriving * slices[1]
            return [_passed(body, body.MatMul(g, body.value(r.name)), arriving, slices[2:])], [g]

        reads = [pull.at_steps(d, y), pull.running(1.0 - y * y), *pull.keeping()]
        (last,), (g,) = scan(op, step, [pull.arriving(d, 0)], reads, not pull.parts.backward[d])
        g = pull.flat(g)
        pull.finish(d, pull.before(d, y, pull.parts.h0[d]), g, g, last)
    return pull.answer()


@vjp("GRU")
def gru_reverse(op: Builder, n: NodeView, *cotangents: Value | None) -> Any:
    """Every gate's cotangent is the state's, g, times a factor that is known beforehand; where the reset comes before the product, the reset's
    takes a product more."""
    if not _usual(n, ["Sigmoid", "Tanh"]):
        return NotImplemented
    pull = _Pull(op, n, 3, cotangents)
    hidden = pull.hidden
    for d, (y, zr, new, *inner) in enumerate(pull.kept(gru_steps(pull.parts))):
        r = pull.parts.r[d]
        assert r is not None
        before = pull.before(d, y, pull.parts.h0[d])
        z, reset = in_parts(op, zr, 2)
        by_new = pull.running((1.0 - z) * (1.0 - new * new))
        by_z = pull.running((before - new) * z * (1.0 - z))
        turn = reset * (1.0 - reset)
        z = pull.running(z, 1.0)
        if inner:
            by_reset = by_new * inner[0] * turn
            # The cotangents of the recurrent part, [T, B, 3 H], are (g, g, g) times these.
            factors = op.Concat(by_z, by_reset, by_new * reset, axis=-1)

            def step(body: Builder, states: list[Value], slices: list[Value], r: Value = r) -> tuple[list[Value], list[Value]]:
                g = states[0] + slices[0]
                product = body.MatMul(body.Concat(g, g, g, axis=-1) * slices[1], body.value(r.name))
                return [product + g * slices[2]], [g]

            (last,), (g,) = scan(op, step, [pull.arriving(d, 0)], [pull.at_steps(d, y), factors, z], not pull.parts.backward[d])
            g_states = op.Concat(g, g, g, axis=-1) * factors
            g_inputs = op.Concat(op.Slice(g_states, [0], [2 * hidden], [2]), g * by_new, axis=-1)
            pull.finish(d, before, pull.flat(g_inputs), pull.flat(g_states), last)
            continue

        r_zr, r_n = op.Split(r, op.constant(np.asarray([2 * hidden, hidden], np.int64)), axis=0, outputs=2)

        def step_before(body: Builder, states: list[Value], slices: list[Value], r_zr: Value = r_zr, r_n: Value = r_n) -> tuple[list[Value], list[Value]]:
            g_y, by_new, by_z, by_reset, reset, z = slices
            g = states[0] + g_y
            g_new = g * by_new
            # The cotangent of (reset * state).
            g_kept = body.MatMul(g_new, body.value(r_n.name))
            g_zr = body.Concat(g * by_z, g_kept * by_reset, axis=-1)
            return [body.MatMul(g_zr, body.value(r_zr.name)) + g_kept * reset + g * z], [g_zr, g_new]

        reads = [pull.at_steps(d, y), by_new, by_z, before * turn, reset, z]
        (last,), (g_zr, g_new) = scan(op, step_before, [pull.arriving(d, 0)], reads, not pull.parts.backward[d])
        g_inputs = op.Concat(pull.flat(g_zr), pull.flat(g_new), axis=-1)
        pull.finish(d, before, g_inputs, g_inputs, last)
        if n.wanted[2]:
            # The candidate's part of R meets the reset state, not the state.
            flat_zr, flat_new = pull.flat(g_zr), pull.flat(g_new)
            by_zr = op.MatMul(op.Transpose(flat_zr, perm=[1, 0]), pull.flat(before))
            pull.found[-1][2] = op.Concat(by_zr, op.MatMul(op.Transpose(flat_new, perm=[1, 0]), pull.flat(reset * before)), axis=0)
    return pull.answer()


@vjp("LSTM")
def lstm_reverse(op: Builder, n: NodeView, *cotangents: Value | None) -> Any:
    """With the cotangents g of the state and s of the cell: s += g o (1 - tanh(c)^2), the gates' are s or g times factors known beforehand."""
    if not _usual(n, ["Sigmoid", "Tanh", "Tanh"]):
        return NotImplemented
    pull = _Pull(op, n, 4, cotangents)
    steps = lstm_steps(pull.parts)
    for d, (y, *_, gates, new, held, squashed) in enumerate(pull.kept(steps)):
        w, r = pull.parts.w[d], pull.parts.r[d]
        assert w is not None
        assert r is not None
        order = gate_order(op, [w, r], 4, pull.hidden) if n.wanted[1] or n.wanted[2] else None
        places = range(4) if order is None else order.gates
        i, o, forget = in_parts(op, gates, 3)
        by_cell = pull.running(o * (1.0 - squashed * squashed))
        # What s, g, s, s are multiplied by to give the cotangents of i, o, f and the candidate: [T, B, 4 H]
        factors = [new * i * (1.0 - i), squashed * o * (1.0 - o), held * (1.0 - forget), i * (1.0 - new * new)]
        kept_r = r if order is None else order.from_node(op, r)

        def step(body: Builder, states: list[Value], slices: list[Value], r: Value = kept_r, places: Sequence[int] = places) -> tuple[list[Value], list[Value]]:
            g_y, factors, by_cell, forget, *keeping = slices
            g = states[0] + g_y
            s = states[1] + g * by_cell
            arriving = (s, g, s, s)
            gates = body.Concat(*(arriving[k] for k in places), axis=-1) * factors
            return [_passed(body, body.MatMul(gates, body.value(r.name)), g, keeping), s * forget], [gates]

        joined = pull.running(op.Concat(*(factors[k] for k in places), axis=-1))
        reads = [pull.at_steps(d, y), joined, by_cell, pull.running(forget, 1.0), *pull.keeping()]
        last, (g,) = scan(op, step, [pull.arriving(d, 0), pull.arriving(d, 1)], reads, not pull.parts.backward[d])
        flat = pull.flat(g)
        pull.finish(d, pull.before(d, y, pull.parts.h0[d]), flat, flat, *last, order=order)
    return pull.answer()
