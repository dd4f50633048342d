"""Reverse rules of RNN, GRU and LSTM in their usual forms, for speed. The states before each step are known from the fused node's own output, so
the gates of all steps are computed at once; what is left to a Scan is the recurrence of the cotangents, with one product a step, and the
weights' gradients are one product each after it. Other forms are left to the derivative of the Scan in `recurrent.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netsens.graph.emit import Builder, Value
from netsens.rules.recurrent import Recurrence, scan
from netsens.rules.words import NodeView, vjp

Cotangents = tuple[Value | None, ...]


class _Pull:
    """What the three rules share, in the default layout: shapes [T, B, ..] everywhere, D directions."""

    def __init__(self, op: Builder, n: NodeView, gates: int, cotangents: Cotangents) -> None:
        self.op, self.n, self.gates = op, n, gates
        self.parts = Recurrence(op, n, gates)
        self.hidden = self.parts.hidden
        self.x = self.parts.x
        y = n.outputs[0]
        if y is None:
            # The node was not asked for its states at each step; the same node, asked for them.
            y = op.emit(n.node.op, n.inputs, dict(n.node.attributes), 2)[0]
        self.steps = self._directions(y, 1)
        self.g_steps = self._directions(cotangents[0], 1)
        self.g_last = [self._directions(g, 0) for g in cotangents[1:]]
        self.found: list[list[Value | None]] = []

    def _directions(self, x: Value | None, axis: int) -> list[Value | None]:
        """The parts of a value by direction, that axis gone."""
        op, count = self.op, self.parts.directions
        if x is None:
            return [None] * count
        return [op.Squeeze(p, [axis]) for p in ([x] if count == 1 else op.Split(x, axis=axis, num_outputs=2, outputs=2))]

    def flat(self, x: Value) -> Value:
        """[T, B, k] -> [T B, k]"""
        return self.op.Reshape(x, self.op.vector([self.op.constant([-1]), self.op.dim(x, 2)]))

    def steps_of(self, x: Value, width: int) -> Value:
        """[T B, k] -> [T, B, k]"""
        op = self.op
        shape = op.vector([op.dim(self.x, 0), op.dim(self.x, 1), width])
        return op.retyped(op.Reshape(x, shape), (*self.x.shape[:2], width))

    def before(self, d: int, steps: Value, first: Value) -> Value:
        """The state before each step: shifted by one, from the first state on."""
        op = self.op
        first = op.Unsqueeze(first, [0])
        if self.parts.backward[d]:
            parts = (op.Slice(steps, [1], [np.iinfo(np.int64).max], [0]), first)
        else:
            parts = (first, op.Slice(steps, [0], [-1], [0]))
        return op.retyped(op.Concat(*parts, axis=0), (*self.x.shape[:2], self.hidden))

    def arriving(self, d: int, k: int) -> Value:
        """The cotangent of the last state `k`, [B, H]."""
        g = self.g_last[k][d] if k < len(self.g_last) else None
        return self.op.zeros_like(self.parts.h0[d]) if g is None else g

    def at_steps(self, d: int, like: Value) -> Value:
        g = self.g_steps[d]
        return self.op.zeros_like(like) if g is None else g

    def gate_sums(self, d: int, before: Value, split_bias: bool = False) -> tuple[Value, Value]:
        """The input's and the recurrent part of the gates at all steps, [T B, G H]; the recurrent bias stands with the first unless `split_bias`."""
        op = self.op
        w, r, (first, second) = self.parts.w[d], self.parts.r[d], self.parts.biases(d)
        assert w is not None
        assert r is not None
        inputs = op.MatMul(self.flat(self.x), op.Transpose(w, perm=[1, 0]))
        states = op.MatMul(self.flat(before), op.Transpose(r, perm=[1, 0]))
        if first is not None and second is not None:
            inputs = inputs + (first if split_bias else first + second)
            states = states + second if split_bias else states
        return inputs, states

    def finish(self, d: int, before: Value, g_inputs: Value, g_states: Value, *rest: Value | None) -> None:
        """The cotangents of x, w, r, b from those of the two parts of the gates, [T B, G H]; `rest` are those of the initial states."""
        op, n = self.op, self.n
        w = self.parts.w[d]
        assert w is not None
        g_x = op.reshape_like(op.MatMul(g_inputs, w), self.x) if n.wanted[0] else None
        g_w = op.MatMul(op.Transpose(g_inputs, perm=[1, 0]), self.flat(self.x)) if n.wanted[1] else None
        g_r = op.MatMul(op.Transpose(g_states, perm=[1, 0]), self.flat(before)) if n.wanted[2] else None
        g_b = None
        if len(n.inputs) > 3 and n.wanted[3]:
            first = op.ReduceSum(g_inputs, [0], keepdims=0)
            second = first if g_states is g_inputs else op.ReduceSum(g_states, [0], keepdims=0)
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
    return plain and not n["clip"] and not n["layout"] and not n["input_forget"] and n.input(4) is None and n.input(7) is None


def _parts(op: Builder, x: Value, count: int) -> list[Value]:
    return list(op.Split(x, axis=-1, num_outputs=count, outputs=count))


@vjp("RNN")
def rnn_reverse(op: Builder, n: NodeView, *cotangents: Value | None) -> Any:
    """g' = (g + gY) (1 - y^2) R"""
    if not _usual(n, ["Tanh"]):
        return NotImplemented
    pull = _Pull(op, n, 1, cotangents)
    for d in range(pull.parts.directions):
        y, r = pull.steps[d], pull.parts.r[d]
        assert y is not None
        assert r is not None

        def step(body: Builder, states: list[Value], slices: list[Value], r: Value = r) -> tuple[list[Value], list[Value]]:
            g = (states[0] + slices[0]) * slices[1]
            return [body.MatMul(g, body.value(r.name))], [g]

        (last,), (g,) = scan(op, step, [pull.arriving(d, 0)], [pull.at_steps(d, y), 1.0 - y * y], not pull.parts.backward[d])
        g = pull.flat(g)
        pull.finish(d, pull.before(d, y, pull.parts.h0[d]), g, g, last)
    return pull.answer()


@vjp("GRU")
def gru_reverse(op: Builder, n: NodeView, *cotangents: Value | None) -> Any:
    """Every gate's cotangent is the state's, g, times a factor that is known beforehand; where the reset comes before the product, the reset's
    takes a product more."""
    if not _usual(n, ["Sigmoid", "Tanh"]):
        return NotImplemented
    after = bool(n["linear_before_reset"])
    pull = _Pull(op, n, 3, cotangents)
    hidden = pull.hidden
    two_one = op.constant(np.asarray([2 * hidden, hidden], np.int64))
    for d in range(pull.parts.directions):
        y, r, h0 = pull.steps[d], pull.parts.r[d], pull.parts.h0[d]
        assert y is not None
        assert r is not None
        before = pull.before(d, y, h0)
        flat_before = pull.flat(before)
        inputs, states = pull.gate_sums(d, before, split_bias=True)
        x_zr, x_n = op.Split(inputs, two_one, axis=-1, outputs=2)
        h_zr, h_n = op.Split(states, two_one, axis=-1, outputs=2)
        z, reset = _parts(op, op.Sigmoid(x_zr + h_zr), 2)
        r_zr, r_n = op.Split(r, two_one, axis=0, outputs=2)
        if not after:
            bias = pull.parts.biases(d)[1]
            h_n = op.MatMul(reset * flat_before, op.Transpose(r_n, perm=[1, 0]))
            if bias is not None:
                h_n = h_n + op.Split(bias, two_one, axis=0, outputs=2)[1]
        new = op.Tanh(x_n + reset * h_n if after else x_n + h_n)
        by_new = (1.0 - z) * (1.0 - new * new)
        by_z = (flat_before - new) * z * (1.0 - z)
        turn = reset * (1.0 - reset)
        if after:
            by_reset = by_new * h_n * turn
            # The cotangents of the recurrent part, [T, B, 3 H], are (g, g, g) times these.
            factors = op.Concat(by_z, by_reset, by_new * reset, axis=-1)

            def step(body: Builder, states: list[Value], slices: list[Value], r: Value = r) -> tuple[list[Value], list[Value]]:
                g = states[0] + slices[0]
                product = body.MatMul(body.Concat(g, g, g, axis=-1) * slices[1], body.value(r.name))
                return [product + g * slices[2]], [g]

            reads = [pull.at_steps(d, y), pull.steps_of(factors, 3 * hidden), pull.steps_of(z, hidden)]
            (last,), (g,) = scan(op, step, [pull.arriving(d, 0)], reads, not pull.parts.backward[d])
            g = pull.flat(g)
            g_states = op.Concat(g, g, g, axis=-1) * factors
            g_inputs = op.Concat(op.Slice(g_states, [0], [2 * hidden], [1]), g * by_new, axis=-1)
            pull.finish(d, before, g_inputs, g_states, last)
            continue

        by_reset = flat_before * turn

        def step_before(body: Builder, states: list[Value], slices: list[Value], r_zr: Value = r_zr, r_n: Value = r_n) -> tuple[list[Value], list[Value]]:
            g_y, by_new, by_z, by_reset, reset, z = slices
            g = states[0] + g_y
            g_new = g * by_new
            # The cotangent of (reset * state).
            g_kept = body.MatMul(g_new, body.value(r_n.name))
            g_zr = body.Concat(g * by_z, g_kept * by_reset, axis=-1)
            return [body.MatMul(g_zr, body.value(r_zr.name)) + g_kept * reset + g * z], [g_zr, g_new]

        reads = [pull.at_steps(d, y), *(pull.steps_of(v, hidden) for v in (by_new, by_z, by_reset, reset, z))]
        (last,), (g_zr, g_new) = scan(op, step_before, [pull.arriving(d, 0)], reads, not pull.parts.backward[d])
        g_inputs = op.Concat(pull.flat(g_zr), pull.flat(g_new), axis=-1)
        pull.finish(d, before, g_inputs, g_inputs, last)
        if n.wanted[2]:
            # The candidate's part of R meets the reset state, not the state.
            flat_zr, flat_new = pull.flat(g_zr), pull.flat(g_new)
            pull.found[-1][2] = op.Concat(
                op.MatMul(op.Transpose(flat_zr, perm=[1, 0]), flat_before), op.MatMul(op.Transpose(flat_new, perm=[1, 0]), reset * flat_before), axis=0
            )
    return pull.answer()


@vjp("LSTM")
def lstm_reverse(op: Builder, n: NodeView, *cotangents: Value | None) -> Any:
    """With the cotangents g of the state and s of the cell: s += g o (1 - tanh(c)^2), the gates' are s or g times factors known beforehand."""
    if not _usual(n, ["Sigmoid", "Tanh", "Tanh"]):
        return NotImplemented
    pull = _Pull(op, n, 4, cotangents)
    hidden = pull.hidden
    cells = pull.parts._states(n.input(6))
    for d in range(pull.parts.directions):
        y, r, h0, c0 = pull.steps[d], pull.parts.r[d], pull.parts.h0[d], cells[d]
        assert y is not None
        assert r is not None
        before = pull.before(d, y, h0)
        inputs, states = pull.gate_sums(d, before)
        iof, new = op.Split(inputs + states, op.constant(np.asarray([3 * hidden, hidden], np.int64)), axis=-1, outputs=2)
        iof, new = op.Sigmoid(iof), op.Tanh(new)
        i, o, forget = _parts(op, iof, 3)
        forget_steps = pull.steps_of(forget, hidden)

        def cell(body: Builder, states: list[Value], slices: list[Value]) -> tuple[list[Value], list[Value]]:
            c = states[0] * slices[0] + slices[1]
            return [c], [c]

        _, (cell_steps,) = scan(op, cell, [c0], [forget_steps, pull.steps_of(i * new, hidden)], pull.parts.backward[d])
        squashed = op.Tanh(pull.flat(cell_steps))
        cell_before = pull.flat(pull.before(d, cell_steps, c0))
        by_cell = o * (1.0 - squashed * squashed)
        # What s, g, s, s are multiplied by to give the cotangents of i, o, f and the candidate: [T B, 4 H]
        factors = op.Concat(op.Concat(new, squashed, cell_before, axis=-1) * iof * (1.0 - iof), i * (1.0 - new * new), axis=-1)

        def step(body: Builder, states: list[Value], slices: list[Value], r: Value = r) -> tuple[list[Value], list[Value]]:
            g_y, factors, by_cell, forget = slices
            g = states[0] + g_y
            s = states[1] + g * by_cell
            gates = body.Concat(s, g, s, s, axis=-1) * factors
            return [body.MatMul(gates, body.value(r.name)), s * forget], [gates]

        reads = [pull.at_steps(d, y), pull.steps_of(factors, 4 * hidden), pull.steps_of(by_cell, hidden), forget_steps]
        last, (gates,) = scan(op, step, [pull.arriving(d, 0), pull.arriving(d, 1)], reads, not pull.parts.backward[d])
        flat = pull.flat(gates)
        pull.finish(d, before, flat, flat, *last)
    return pull.answer()
