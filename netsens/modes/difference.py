"""The local derivative of an operator that has no rule, by central differences inside the graph; the rest of the model stays exact.

The operator is evaluated twice for each element of its input, so the cost grows with the size of the tensors at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from netsens.graph.dtypes import INT64, numpy_dtype
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node, Shape, TensorType
from netsens.modes.activity import carries
from netsens.rules.words import NodeView, Rule

# What to make of the operator's outputs at the two ends of a step, and of the step's width.
Made = Callable[[Builder, Sequence[Value], Sequence[Value], Value], Value]


def difference_rule(node: Node) -> Rule:
    """A rule that finds the operator's derivative by central differences with a step of the cube root of the precision."""
    return Rule(node.op, node.domain, status="differenced", jvp=_jvp, vjp=_vjp)


def step_of(dtype: int) -> float:
    """The relative step that balances truncation and rounding in a central difference."""
    kind = numpy_dtype(dtype)
    precision = np.finfo(kind).eps if kind.kind == "f" else 2.0**-8
    return float(precision) ** (1 / 3)


def _vjp(op: Builder, n: NodeView, cotangents: Sequence[Value | None]) -> list[Value | None]:
    # For each input element k: sum over outputs of <g, (y(x + h e_k) - y(x - h e_k))> / 2h, a number; all of them are the cotangent.
    result: list[Value | None] = [None] * len(n.inputs)
    for position, x in enumerate(n.inputs):
        if x is None or not n.wanted[position] or not carries(x.type):
            continue

        def number(body: Builder, ahead: Sequence[Value], behind: Sequence[Value], width: Value) -> Value:
            total: Value | None = None
            for g, a, b in zip(cotangents, ahead, behind, strict=True):
                if g is not None:
                    term = body.ReduceSum(body.Mul(body.Sub(a, b), body.value(g.name)), keepdims=0)
                    term = body.Cast(term, to=width.dtype)
                    total = term if total is None else body.Add(total, term)
            assert total is not None
            return body.Div(total, width)

        flat = _scan(op, n, position, x, number, ())
        result[position] = op.retyped(op.Reshape(flat, op.shape(x)), x.type.shape)
    return result


def _jvp(op: Builder, n: NodeView, tangents: Sequence[Value | None]) -> list[Value | None]:
    # The Jacobian itself, [elements of x, elements of y], times the tangent.
    totals: list[Value | None] = [None] * len(n.outputs)
    for position, t in enumerate(tangents):
        x = n.input(position)
        if t is None or x is None:
            continue
        row = op.Reshape(t, [1, -1])
        for k, y in enumerate(n.outputs):
            if y is None or y.dtype != x.dtype:
                continue

            def column(body: Builder, ahead: Sequence[Value], behind: Sequence[Value], width: Value, k: int = k) -> Value:
                return body.Div(body.Reshape(body.Sub(ahead[k], behind[k]), [-1]), width)

            jacobian = _scan(op, n, position, x, column, (None,))
            term = op.retyped(op.Reshape(op.MatMul(row, jacobian), op.shape(y)), y.type.shape)
            known = totals[k]
            totals[k] = term if known is None else op.Add(known, term)
    return totals


def _scan(op: Builder, n: NodeView, position: int, x: Value, make: Made, each: Shape) -> Value:
    """`make`'s values over the elements of `x`, stacked: [elements, *each]."""
    indices = op.Range(op.constant(np.asarray(0, np.int64)), op.Size(x), op.constant(np.asarray(1, np.int64)))
    numbers = op.retyped(op.Reshape(indices, op.shape(x)), x.type.shape)
    steps = _steps(op, x)
    index = op.fresh("element")
    sub = Graph([], [index], [], {}, {index: TensorType(INT64, ())}, op.graph.opset, op.graph.domains, name=op.fresh("difference"))
    body = Builder(sub, op.prefix, op)
    here = body.Cast(body.Equal(body.value(numbers.name), body.value(index)), to=x.dtype)
    step = body.Mul(here, body.value(steps.name))
    plus, minus = body.Add(body.value(x.name), step), body.Sub(body.value(x.name), step)
    # What was really added, after rounding.
    width = body.ReduceSum(body.Sub(plus, minus), keepdims=0)
    result = make(body, _outputs(body, n, position, plus), _outputs(body, n, position, minus), width)
    out = body.fresh("difference")
    body.add(Node("Identity", (result.name,), (out,)), [TensorType(x.dtype, each)])
    sub.outputs.append(out)
    stacked = op.fresh("differences")
    size = int(np.prod(np.asarray(x.shape, np.int64))) if x.static else None
    op.add(Node("Scan", (indices.name,), (stacked,), {"body": sub, "num_scan_inputs": 1}), [TensorType(x.dtype, (size, *each))])
    return op.value(stacked)


def _steps(op: Builder, x: Value) -> Value:
    """A step for each element: relative to its own magnitude, or to the tensor's mean one where it is smaller (zero, say)."""
    sizes = op.Abs(x)
    mean = op.ReduceMean(sizes, keepdims=0)
    least = op.Where(op.Greater(mean, op.constant(0, x)), mean, op.constant(1, x))
    return op.Mul(op.Max(sizes, least), step_of(x.dtype))


def _outputs(body: Builder, n: NodeView, position: int, at: Value) -> list[Value]:
    inputs = [None if x is None else body.value(x.name) for x in n.inputs]
    inputs[position] = at
    result = body.emit(n.node.op, inputs, dict(n.node.attributes), len(n.outputs), n.node.domain)
    values = [result] if len(n.outputs) == 1 else list(result)
    return [body.retyped(v, y.type.shape) if y is not None else v for v, y in zip(values, n.outputs, strict=True)]
