"""RNN, GRU and LSTM for ONNX's reference evaluator, whose own know few of the variants: step by step, sample by sample, as the specification writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from netsens.graph.graph import Array

Activation = Callable[[Array], Array]

# name: (how many of alpha and beta it takes, their defaults, the function)
_FUNCTIONS: dict[str, tuple[int, tuple[float, float], Callable[[Array, float, float], Array]]] = {
    "relu": (0, (0, 0), lambda x, a, b: np.maximum(x, 0)),
    "tanh": (0, (0, 0), lambda x, a, b: np.tanh(x)),
    "sigmoid": (0, (0, 0), lambda x, a, b: 1 / (1 + np.exp(-x))),
    "softsign": (0, (0, 0), lambda x, a, b: x / (1 + np.abs(x))),
    "softplus": (0, (0, 0), lambda x, a, b: np.logaddexp(x, 0)),
    "leakyrelu": (1, (0.01, 0), lambda x, a, b: np.where(x > 0, x, a * x)),
    "thresholdedrelu": (1, (1, 0), lambda x, a, b: np.where(x > a, x, 0)),
    "elu": (1, (1, 0), lambda x, a, b: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0)))),
    "affine": (2, (1, 0), lambda x, a, b: a * x + b),
    "scaledtanh": (2, (1, 1), lambda x, a, b: a * np.tanh(b * x)),
    "hardsigmoid": (2, (0.2, 0.5), lambda x, a, b: np.clip(a * x + b, 0, 1)),
}


def _activations(names: list[str], alphas: list[float] | None, betas: list[float] | None) -> list[Activation]:
    """The functions of all directions. Alphas and betas are handed out in order to those that take them."""
    alpha, beta = list(alphas or []), list(betas or [])
    found: list[Activation] = []

    def applied(function: Callable[[Array, float, float], Array], a: float, b: float) -> Activation:
        return lambda x: function(x, a, b)

    for name in names:
        takes, (a, b), function = _FUNCTIONS[name.lower()]
        a = alpha.pop(0) if takes >= 1 and alpha else a
        b = beta.pop(0) if takes == 2 and beta else b
        found.append(applied(function, a, b))
    return found


class _Recurrent(OpRun):
    """What the three share: directions, layouts, sequence lengths and initial states."""

    gates: int
    defaults: list[str]
    states: int

    def _run(self, x: Array, w: Array, r: Array, b: Array | None = None, lengths: Array | None = None, *rest: Any, **options: Any) -> tuple[Array, ...]:
        layout = options.get("layout") or 0
        direction = options.get("direction") or "forward"
        first = [None if s is None else np.swapaxes(s, 0, 1) if layout else s for s in [*rest, None, None][: self.states]]
        peepholes = rest[2] if len(rest) > 2 else None
        x = np.swapaxes(x, 0, 1) if layout else x
        count, hidden = w.shape[0], r.shape[2]
        names = options.get("activations") or self.defaults * count
        functions = _activations(names, options.get("activation_alpha"), options.get("activation_beta"))
        y = np.zeros((x.shape[0], count, x.shape[1], hidden), x.dtype)
        last = [np.zeros((count, x.shape[1], hidden), x.dtype) for _ in range(self.states)]
        for d in range(count):
            bias = np.zeros(2 * self.gates * hidden, x.dtype) if b is None else b[d]
            peep = np.zeros(3 * hidden, x.dtype) if peepholes is None else peepholes[d]
            chosen = functions[d * len(self.defaults) : (d + 1) * len(self.defaults)]
            for n in range(x.shape[1]):
                steps = range(x.shape[0] if lengths is None else int(lengths[n]))
                state = [np.zeros(hidden, x.dtype) if s is None else s[d, n] for s in first]
                for t in reversed(steps) if direction == "reverse" or d == 1 else steps:
                    state = self._step(x[t, n], state, w[d], r[d], bias, peep, chosen, options)
                    y[t, d, n] = state[0]
                for slot, s in zip(last, state, strict=True):
                    slot[d, n] = s
        if layout:
            return (y.transpose(2, 0, 1, 3), *(np.swapaxes(s, 0, 1) for s in last))[: len(self.onnx_node.output)]
        return (y, *last)[: len(self.onnx_node.output)]

    def _step(self, x: Array, state: list[Array], w: Array, r: Array, b: Array, p: Array, f: list[Activation], options: Any) -> list[Array]:
        raise NotImplementedError


def _clipped(x: Array, options: Any) -> Array:
    bound = options.get("clip")
    return x if not bound else np.clip(x, -bound, bound)


class RNN(_Recurrent):
    """One gate, one state."""

    gates, defaults, states = 1, ["Tanh"], 1

    def _step(self, x: Array, state: list[Array], w: Array, r: Array, b: Array, p: Array, f: list[Activation], options: Any) -> list[Array]:
        h = state[0].size
        return [f[0](_clipped(w @ x + r @ state[0] + b[:h] + b[h:], options))]


class GRU(_Recurrent):
    """Gates z, r, h; one state."""

    gates, defaults, states = 3, ["Sigmoid", "Tanh"], 1

    def _step(self, x: Array, state: list[Array], w: Array, r: Array, b: Array, p: Array, f: list[Activation], options: Any) -> list[Array]:
        (old,) = state
        wz, wr, wh = np.split(w @ x, 3)
        rz, rr, rh = np.split(r, 3)
        bz, br, bh, cz, cr, ch = np.split(b, 6)
        z = f[0](_clipped(wz + rz @ old + bz + cz, options))
        reset = f[0](_clipped(wr + rr @ old + br + cr, options))
        inner = reset * (rh @ old + ch) if options.get("linear_before_reset") else rh @ (reset * old) + ch
        new = f[1](_clipped(wh + inner + bh, options))
        return [(1 - z) * new + z * old]


class LSTM(_Recurrent):
    """Gates i, o, f, c; peepholes i, o, f; two states."""

    gates, defaults, states = 4, ["Sigmoid", "Tanh", "Tanh"], 2

    def _step(self, x: Array, state: list[Array], w: Array, r: Array, b: Array, p: Array, f: list[Activation], options: Any) -> list[Array]:
        old, cell = state
        i, o, forget, c = np.split(w @ x + r @ old + b[: b.size // 2] + b[b.size // 2 :], 4)
        pi, po, pf = np.split(p, 3)
        i = f[0](_clipped(i + pi * cell, options))
        forget = 1 - i if options.get("input_forget") else f[0](_clipped(forget + pf * cell, options))
        cell = forget * cell + i * f[1](_clipped(c, options))
        o = f[0](_clipped(o + po * cell, options))
        return [o * f[2](cell), cell]
