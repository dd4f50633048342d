"""Small random models that Hypothesis draws, and a runner in float64, so that every way to a Jacobian can be held against every other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, TensorType
from netsens.run.reference import reference_runner

DOUBLE = 11


class Value64:
    """A value that the reference evaluator gave out."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def numpy(self) -> np.ndarray:
        return self.array


class Runner64:
    """ONNX's reference evaluator as a runner of the halves of a derivative."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.run = reference_runner(graph)

    def run_values(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        given = {k: v.array if isinstance(v, Value64) else v for k, v in feeds.items() if k in self.graph.inputs}
        return {k: Value64(v) for k, v in zip(self.graph.outputs, self.run(given), strict=True)}


class Drawn:
    """A graph under construction: parameters are constants that it may use twice."""

    def __init__(self, draw: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 1000)))
        self.graph = Graph([], ["x"], [], {}, {"x": TensorType(DOUBLE, shape)}, 21)
        self.op = Builder(self.graph, "n")
        self.x = self.rng.standard_normal(shape)

    def parameter(self, *shape: int) -> Value:
        """A new parameter, or one of this shape that is there already."""
        same = [k for k in self.graph.parameters if self.graph.constants[k].shape == shape]
        if same and self.draw(st.booleans()):
            return self.op.value(same[0])
        name = f"p{len(self.graph.parameters)}"
        self.graph.constants[name] = self.rng.standard_normal(shape)
        self.graph.types[name] = TensorType(DOUBLE, shape)
        self.graph.parameters.append(name)
        return self.op.value(name)


def _conv(d: Drawn, v: Value) -> Value:
    c, h, w = (int(s) for s in v.shape[1:])
    group = d.draw(st.sampled_from([g for g in (1, 2, c) if c % g == 0]))
    kernel, stride, dilation = d.draw(st.sampled_from([1, 2, 3])), d.draw(st.sampled_from([1, 2])), d.draw(st.sampled_from([1, 2]))
    if (kernel - 1) * dilation + 1 > min(h + 2, w):
        kernel = 1
    weight = d.parameter(group * d.draw(st.sampled_from([1, 2])), c // group, kernel, kernel)
    bias = d.parameter(int(weight.shape[0])) if d.draw(st.booleans()) else None
    pads = [1, 0, 1, 0] if kernel > 1 else None
    both = {"strides": [stride, stride], "dilations": [dilation, dilation], "kernel_shape": [kernel, kernel]}
    return d.op.Conv(v, weight, bias, pads=pads, group=group, **both)


def _pool(d: Drawn, v: Value) -> Value:
    kernel = min(2, *(int(s) for s in v.shape[2:]))
    return d.op.AveragePool(v, kernel_shape=[kernel, kernel], strides=[d.draw(st.sampled_from([1, 2]))] * 2)


def _skip(d: Drawn, v: Value) -> Value:
    return d.op.Add(v, d.op.Tanh(v))


def _concat(d: Drawn, v: Value) -> Value:
    return d.op.Concat(v, d.op.Mul(v, v), axis=d.draw(st.integers(0, v.rank - 1)))


def _slice(d: Drawn, v: Value) -> Value:
    axis = d.draw(st.integers(0, v.rank - 1))
    return d.op.Slice(v, [0], [max(1, int(v.shape[axis] or 1) - 1)], [axis], [d.draw(st.sampled_from([1, 2]))])


def _turn(d: Drawn, v: Value) -> Value:
    return d.op.Transpose(v, perm=d.draw(st.permutations(range(v.rank))))


def _reshape(d: Drawn, v: Value) -> Value:
    shape = [int(s) for s in v.shape]
    at = d.draw(st.integers(0, v.rank - 2))
    return d.op.Reshape(v, [*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]])


def _apart(d: Drawn, v: Value) -> Value:
    shape = [int(s) for s in v.shape]
    at = d.draw(st.integers(0, v.rank - 1))
    factor = next((f for f in (2, 3) if shape[at] % f == 0), 1)
    return d.op.Reshape(v, [*shape[:at], shape[at] // factor, factor, *shape[at + 1 :]])


def _matmul(d: Drawn, v: Value) -> Value:
    return d.op.MatMul(v, d.parameter(int(v.shape[-1] or 1), d.draw(st.sampled_from([1, 2, 3]))))


def _scale(d: Drawn, v: Value) -> Value:
    return d.op.Mul(v, d.parameter(int(v.shape[-1] or 1)))


def _sum(d: Drawn, v: Value) -> Value:
    return d.op.ReduceSum(d.op.Mul(v, v), [d.draw(st.integers(0, v.rank - 1))], keepdims=1)


def _gather(d: Drawn, v: Value) -> Value:
    axis = d.draw(st.integers(0, v.rank - 1))
    length = int(v.shape[axis] or 1)
    return d.op.Gather(v, d.op.constant(np.asarray([length - 1, 0])), axis=axis)


def _pad(d: Drawn, v: Value) -> Value:
    pads = [0] * (2 * v.rank)
    pads[d.draw(st.integers(0, 2 * v.rank - 1))] = 1
    return d.op.Pad(v, pads)


def _cumsum(d: Drawn, v: Value) -> Value:
    return d.op.CumSum(v, d.op.constant(np.asarray(d.draw(st.integers(0, v.rank - 1)))))


def _tanh(d: Drawn, v: Value) -> Value:
    return d.op.Tanh(v)


def _first(d: Drawn, v: Value) -> Value:
    """Everything meets the first place along an axis, and the first meets everything: dense rows, columns, a diagonal."""
    axis = d.draw(st.integers(0, v.rank - 1))
    first = d.op.Slice(v, [0], [1], [axis])
    return d.op.Concat(d.op.ReduceSum(d.op.Tanh(v), [axis], keepdims=1), d.op.Mul(d.op.Slice(v, [1], [100], [axis]), first), axis=axis)


STEPS: list[Callable[[Drawn, Value], Value]] = [_skip, _concat, _slice, _turn, _reshape, _apart, _matmul, _scale, _sum, _gather, _pad, _cumsum, _tanh, _first]


@st.composite
def models(draw: Callable[[Any], Any]) -> tuple[Graph, np.ndarray]:
    """A graph from `x` to `y` with parameters, and an `x`."""
    d = Drawn(draw, draw(st.sampled_from([(2, 2, 4, 4), (1, 2, 5, 4), (3, 4), (2, 3, 4), (6,)])))
    v = d.op.value("x")
    for _ in range(draw(st.integers(1, 5))):
        choices = list(STEPS) if v.rank > 1 else [_tanh, _scale, _gather, _skip, _concat, _slice, _pad, _cumsum, _first]
        if v.rank == 4:
            choices += [_conv, _conv, _pool]
        if v.rank > 4:
            choices = [c for c in choices if c is not _apart]
        size = int(np.prod([int(s) for s in v.shape]))
        if size > 60:
            choices = [c for c in choices if c not in (_concat, _pad)]
        v = draw(st.sampled_from(choices))(d, v)
    v = d.op.Tanh(v)
    d.graph.outputs = [v.name]
    return d.graph, d.x
