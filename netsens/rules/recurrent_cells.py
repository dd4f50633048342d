"""RNN, GRU and LSTM step by step: from the states and the input's part of the gates to the next states, and the values on the way that a reverse rule
reads. In all their variants; this is what is differentiated."""

from __future__ import annotations

from netsens.graph.emit import Builder, Value
from netsens.rules.recurrent import Recurrence, Step, Steps, activations, in_parts
from netsens.rules.words import NodeView, expansion


@expansion("RNN")
def rnn(op: Builder, n: NodeView) -> list[Value | None]:
    """h' = f(x W' + h R' + b)"""
    parts = Recurrence(op, n, 1)
    functions = activations(n, ["Tanh"], parts.directions)

    def cell(d: int) -> Step:
        r = parts.recurrent(d)

        def step(body: Builder, states: list[Value], slices: list[Value]) -> tuple[list[Value], list[Value]]:
            return [functions[d][0](body, parts.clipped(body, slices[0] + body.MatMul(states[0], body.value(r.name))))], []

        return step

    reads = [parts.projected(d, _sum(*parts.biases(d))) for d in range(parts.directions)]
    return parts.run(Steps(cell, [parts.h0], reads))[0]


def _sum(a: Value | None, b: Value | None) -> Value | None:
    return None if a is None or b is None else a + b


@expansion("GRU")
def gru(op: Builder, n: NodeView) -> list[Value | None]:
    parts = Recurrence(op, n, 3)
    return parts.run(gru_steps(parts))[0]


def gru_steps(parts: Recurrence) -> Steps:
    """h' = (1 - z) g(x Wh' + (r h) Rh' + b) + z h, or with r (h Rh' + b) where linear_before_reset says so. On the way: z and r side by side, g, and in the
    latter form what r is multiplied by."""
    op, hidden = parts.op, parts.hidden
    functions = activations(parts.n, ["Sigmoid", "Tanh"], parts.directions)
    after = bool(parts.n["linear_before_reset"])

    def cell(d: int) -> Step:
        f, g = functions[d]
        r = parts.recurrent(d)
        bias = parts.biases(d)[1]
        # Where the reset comes after the product, the candidate's recurrent bias is reset too; elsewhere it joins the input's part.
        inner_bias = in_parts(op, bias, 3, 0)[2] if bias is not None and after else None
        # [H, 3 H] -> [H, 2 H], [H, H]
        gates, candidate = op.Split(r, op.constant([2 * hidden, hidden]), axis=1, outputs=2)

        def step(body: Builder, states: list[Value], slices: list[Value]) -> tuple[list[Value], list[Value]]:
            (h,) = states
            sizes = body.constant([2 * hidden, hidden])
            x_zr, x_h = body.Split(slices[0], sizes, axis=-1, outputs=2)
            if after:
                h_zr, h_h = body.Split(body.MatMul(h, body.value(r.name)), sizes, axis=-1, outputs=2)
                h_h = h_h if inner_bias is None else h_h + body.value(inner_bias.name)
            else:
                h_zr = body.MatMul(h, body.value(gates.name))
            zr = f(body, parts.clipped(body, x_zr + h_zr))
            z, reset = in_parts(body, zr, 2)
            inner = reset * h_h if after else body.MatMul(reset * h, body.value(candidate.name))
            new = g(body, parts.clipped(body, x_h + inner))
            return [new + z * (h - new)], [zr, new, *([h_h] if after else [])]

        return step

    reads = []
    for d in range(parts.directions):
        first, second = parts.biases(d)
        if second is not None and after:
            zr, _ = op.Split(second, op.constant([2 * hidden, hidden]), axis=0, outputs=2)
            second = op.Concat(zr, op.Expand(op.constant(0.0, zr), [hidden]), axis=0)
        reads.append(parts.projected(d, _sum(first, second)))
    return Steps(cell, [parts.h0], reads)


@expansion("LSTM")
def lstm(op: Builder, n: NodeView) -> list[Value | None]:
    parts = Recurrence(op, n, 4)
    return parts.run(lstm_steps(parts))[0]


def lstm_steps(parts: Recurrence) -> Steps:
    """c' = f c + i g(..), h' = o h(c'), with the gates i, o, f of x W' + h R' + b (and of the cell, through peepholes). On the way, in the usual form: i, o and f side by
    side, g(..), f c and h(c')."""
    functions = activations(parts.n, ["Sigmoid", "Tanh", "Tanh"], parts.directions)
    cells = parts.states(parts.n.input(6))
    peepholes = parts.each(parts.n.input(7))
    coupled = bool(parts.n["input_forget"])

    def cell(d: int) -> Step:
        f, g, h_of = functions[d]
        r, peep = parts.recurrent(d), peepholes[d]
        p = None if peep is None else in_parts(parts.op, peep, 3, 0)

        def step(body: Builder, states: list[Value], slices: list[Value]) -> tuple[list[Value], list[Value]]:
            h, c = states
            sums = slices[0] + body.MatMul(h, body.value(r.name))
            if p is None and not coupled:
                # [B, 4 H] -> [B, 3 H], [B, H]
                gates, new = body.Split(sums, body.constant([3 * parts.hidden, parts.hidden]), axis=-1, outputs=2)
                gates, new = f(body, parts.clipped(body, gates)), g(body, parts.clipped(body, new))
                i, o, forget = in_parts(body, gates, 3)
                held = forget * c
                c = held + i * new
                squashed = h_of(body, c)
                return [o * squashed, c], [gates, new, held, squashed]
            i, o, forget, new = in_parts(body, sums, 4)
            if p is not None:
                i, forget = i + body.value(p[0].name) * c, forget + body.value(p[2].name) * c
            i = f(body, parts.clipped(body, i))
            forget = 1.0 - i if coupled else f(body, parts.clipped(body, forget))
            new = g(body, parts.clipped(body, new))
            c = forget * c + i * new
            if p is not None:
                o = o + body.value(p[1].name) * c
            o = f(body, parts.clipped(body, o))
            return [o * h_of(body, c), c], []

        return step

    reads = [parts.projected(d, _sum(*parts.biases(d))) for d in range(parts.directions)]
    return Steps(cell, [parts.h0, cells], reads, lambda op, kept: in_parts(op, kept[0], 3)[1] * kept[3])
