"""What RNN, GRU and LSTM share as a Scan over time: activations, layouts, directions, lengths, initial states. Their steps are in `recurrent_cells.py`.

The input's part of all gates is one product over all steps, outside the Scan; the Scan holds the recurrence alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import INT64
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node, TensorType
from netsens.rules.words import NodeView

Activation = Callable[[Builder, Value], Value]
Step = Callable[[Builder, list[Value], list[Value]], tuple[list[Value], list[Value]]]

# name: (how many of alpha and beta it takes, their defaults, the function)
_ACTIVATIONS: dict[str, tuple[int, tuple[float, float], Callable[[Builder, Value, float, float], Value]]] = {
    "relu": (0, (0, 0), lambda op, x, a, b: op.Relu(x)),
    "tanh": (0, (0, 0), lambda op, x, a, b: op.Tanh(x)),
    "sigmoid": (0, (0, 0), lambda op, x, a, b: op.Sigmoid(x)),
    "softsign": (0, (0, 0), lambda op, x, a, b: op.Softsign(x)),
    "softplus": (0, (0, 0), lambda op, x, a, b: op.Softplus(x)),
    "leakyrelu": (1, (0.01, 0), lambda op, x, a, b: op.LeakyRelu(x, alpha=a)),
    "thresholdedrelu": (1, (1, 0), lambda op, x, a, b: op.ThresholdedRelu(x, alpha=a)),
    "elu": (1, (1, 0), lambda op, x, a, b: op.Elu(x, alpha=a)),
    "affine": (2, (1, 0), lambda op, x, a, b: a * x + b),
    "scaledtanh": (2, (1, 1), lambda op, x, a, b: a * op.Tanh(b * x)),
    "hardsigmoid": (2, (0.2, 0.5), lambda op, x, a, b: op.HardSigmoid(x, alpha=a, beta=b)),
}


def activations(n: NodeView, defaults: Sequence[str], directions: int) -> list[list[Activation]]:
    """The functions of each direction. Alphas and betas go, in order, to those that take them."""
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in n["activations"] or list(defaults) * directions]
    alphas, betas = list(n["activation_alpha"] or []), list(n["activation_beta"] or [])
    found: list[Activation] = []

    def applied(function: Callable[[Builder, Value, float, float], Value], a: float, b: float) -> Activation:
        return lambda op, x: function(op, x, a, b)

    for name in names:
        if name.lower() not in _ACTIVATIONS:
            raise UnsupportedError(f"{n.node.label} uses the activation '{name}', which ONNX doesn't define.")
        takes, (a, b), function = _ACTIVATIONS[name.lower()]
        a = alphas.pop(0) if takes >= 1 and alphas else a
        b = betas.pop(0) if takes == 2 and betas else b
        found.append(applied(function, float(a), float(b)))
    size = len(defaults)
    return [found[d * size : (d + 1) * size] for d in range(directions)]


def scan(op: Builder, step: Step, states: Sequence[Value], reads: Sequence[Value], backward: bool = False) -> tuple[list[Value], list[Value]]:
    """A Scan along the first axis of `reads`; `step` gives the next states and what the step writes. The last states, and what was written, in
    the order of what was read."""
    body = Builder(Graph([], [], [], {}, {}, op.graph.opset, op.graph.domains, name="step"), op.prefix, parent=op)
    inner = [body.input(body.fresh("state"), s.type) for s in states]
    slices = [body.input(body.fresh("slice"), TensorType(r.dtype, r.shape[1:])) for r in reads]
    after, written = step(body, inner, slices)
    # An output of a body must be a node's, and each another.
    own = {o for node in body.graph.nodes for o in node.outputs}
    outputs: list[str] = []
    for value in [*after, *written]:
        name = value.name
        if name not in own or name in outputs:
            name = body.fresh("output")
            body.add(Node("Identity", (value.name,), (name,)), [value.type])
        outputs.append(name)
    body.graph.outputs = outputs
    attributes: dict[str, Any] = {"body": body.graph, "num_scan_inputs": len(reads)}
    if backward:
        attributes["scan_input_directions"] = [1] * len(reads)
        if written:
            attributes["scan_output_directions"] = [1] * len(written)
    fresh = tuple(op.fresh("scan") for _ in outputs)
    types = [s.type for s in states] + [TensorType(w.dtype, (reads[0].shape[0], *w.shape)) for w in written]
    op.add(Node("Scan", tuple(v.name for v in [*states, *reads]), fresh, attributes), types)
    values = [op.value(name) for name in fresh]
    return values[: len(states)], values[len(states) :]


@dataclass(frozen=True, slots=True)
class Steps:
    """A recurrence as a Scan: `cell(d)` is a direction's step, `first` are its states by kind and direction, `reads` the input's part of the gates by
    direction. `state` gives the state after every step from what the cell writes besides, where that is cheaper than to write it."""

    cell: Callable[[int], Step]
    first: Sequence[Sequence[Value]]
    reads: Sequence[Value]
    state: Callable[[Builder, Sequence[Value]], Value] | None = None


class Recurrence:
    """A recurrent node's operands, brought to the default layout, direction by direction."""

    def __init__(self, op: Builder, n: NodeView, gates: int) -> None:
        self.op, self.n, self.gates = op, n, gates
        x, w, r = n.inputs[:3]
        assert x is not None
        assert w is not None
        assert r is not None
        self.layout = int(n["layout"] or 0)
        # [B, T, I] -> [T, B, I]
        self.x = op.Transpose(x, perm=[1, 0, 2]) if self.layout else x
        self.hidden = int(n["hidden_size"] or _number(r, 2, n))
        direction = n["direction"] or "forward"
        direction = direction.decode() if isinstance(direction, bytes) else direction
        self.directions = 2 if direction == "bidirectional" else 1
        self.backward = [direction == "reverse", True][: self.directions]
        self.w = self.each(w)
        self.r = self.each(r)
        self.b = self.each(n.input(3))
        self.mask = self._mask(n.input(4))
        self.h0 = self.states(n.input(5))

    def each(self, x: Value | None) -> list[Value | None]:
        """[D, ...] -> D times [...]"""
        op = self.op
        if x is None:
            return [None] * self.directions
        parts = [x] if self.directions == 1 else op.Split(x, axis=0, num_outputs=2, outputs=2)
        return [op.Squeeze(part, [0]) for part in parts]

    def states(self, x: Value | None) -> list[Value]:
        """The initial states, [B, H] a direction."""
        op = self.op
        if x is None:
            zeros = op.Expand(op.constant(0.0, self.x), op.vector([op.dim(self.x, 1), self.hidden]))
            return [op.retyped(zeros, (self.x.shape[1], self.hidden))] * self.directions
        # [B, D, H] -> [D, B, H]
        each = self.each(op.Transpose(x, perm=[1, 0, 2]) if self.layout else x)
        return [op.retyped(e, (self.x.shape[1], self.hidden)) for e in each if e is not None]

    def _mask(self, lengths: Value | None) -> Value | None:
        """Whether a sample has this step, [T, B, 1]; None where all have every step."""
        op = self.op
        if lengths is None:
            return None
        steps = op.Range(op.constant(np.asarray(0, np.int64)), op.Squeeze(op.dim(self.x, 0), [0]), op.constant(np.asarray(1, np.int64)))
        return op.retyped(op.Less(op.Unsqueeze(steps, [1, 2]), op.Unsqueeze(op.Cast(lengths, to=INT64), [0, 2])), (*self.x.shape[:2], 1))

    def projected(self, d: int, bias: Value | None) -> Value:
        """The input's part of the gates, over all steps: [T, B, I] x [G H, I]' -> [T, B, G H]"""
        op, w = self.op, self.w[d]
        assert w is not None
        flat = op.Reshape(self.x, op.vector([op.constant([-1]), op.dim(self.x, 2)]))
        product = op.MatMul(flat, op.Transpose(w, perm=[1, 0]))
        if bias is not None:
            product = product + bias
        shape = op.vector([op.dim(self.x, 0), op.dim(self.x, 1), self.gates * self.hidden])
        return op.retyped(op.Reshape(product, shape), (*self.x.shape[:2], self.gates * self.hidden))

    def biases(self, d: int) -> tuple[Value | None, Value | None]:
        """Those of the input's and of the recurrent part."""
        b = self.b[d]
        if b is None:
            return None, None
        first, second = self.op.Split(b, axis=0, num_outputs=2, outputs=2)
        return first, second

    def recurrent(self, d: int) -> Value:
        """R' of a direction: [H, G H]"""
        r = self.r[d]
        assert r is not None
        return self.op.Transpose(r, perm=[1, 0])

    def clipped(self, op: Builder, x: Value) -> Value:
        bound = self.n["clip"]
        return op.Clip(x, -float(bound), float(bound)) if bound else x

    def run(self, steps: Steps, keeping: bool = False) -> tuple[list[Value | None], list[list[Value]]]:
        """Y and the last states of all directions; and, where it is `keeping` them, for each direction the state after every step, maybe other states, and what the
        cell writes besides, [T, B, ..]."""
        op, n = self.op, self.n
        told = steps.state if keeping and self.mask is None else None
        whole: list[list[Value]] = []
        finals: list[list[Value]] = []
        for d in range(self.directions):
            inner = steps.cell(d)

            def step(body: Builder, states: list[Value], slices: list[Value], inner: Step = inner) -> tuple[list[Value], list[Value]]:
                after, besides = inner(body, states, slices)
                written = after[0]
                if self.mask is not None:
                    # A sample that has ended keeps its states and writes zeros.
                    after = [body.Where(slices[1], new, old) for new, old in zip(after, states, strict=True)]
                    written = body.Where(slices[1], written, 0.0)
                if told is not None:
                    return after, besides
                if keeping:
                    return after, [written, *after[1:], *besides]
                return after, [written] if n.outputs[0] is not None else []

            reads = [steps.reads[d], *([self.mask] if self.mask is not None else [])]
            last, outputs = scan(op, step, [s[d] for s in steps.first], reads, self.backward[d])
            whole.append(outputs if told is None else [told(op, outputs), *outputs])
            finals.append(last)
        y = None if n.outputs[0] is None else self._all_steps([w[0] for w in whole])
        return [y, *(self._last([f[k] for f in finals], k) for k in range(len(steps.first)))], whole

    def _all_steps(self, parts: list[Value]) -> Value:
        """[T, B, H] a direction -> [T, D, B, H], or [B, T, D, H] in the other layout"""
        op = self.op
        parts = [op.Unsqueeze(p, [1]) for p in parts]
        y = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=1)
        return op.Transpose(y, perm=[2, 0, 1, 3]) if self.layout else y

    def _last(self, parts: list[Value], k: int) -> Value | None:
        """[B, H] a direction -> [D, B, H], or [B, D, H] in the other layout"""
        op = self.op
        if k + 1 >= len(self.n.outputs) or self.n.outputs[k + 1] is None:
            return None
        axis = 1 if self.layout else 0
        parts = [op.Unsqueeze(p, [axis]) for p in parts]
        return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=axis)


def _number(x: Value, axis: int, n: NodeView) -> int:
    dim = x.shape[axis]
    if not isinstance(dim, int):
        raise UnsupportedError(f"{n.node.label} doesn't say its hidden_size, and the shape of '{x.name}' doesn't either; set the attribute.")
    return dim


def in_parts(op: Builder, x: Value, count: int, axis: int = -1) -> list[Value]:
    return list(op.Split(x, axis=axis, num_outputs=count, outputs=count))
