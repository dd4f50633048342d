"""Runs a graph in float64 on ONNX's reference evaluator, which has every operator in every precision; slow, and for judging only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from netsens.errors import RunError
from netsens.graph.graph import Array, Graph
from netsens.graph.save import model_proto


@cache
def _operators() -> list[type[Any]]:
    """Operators that ONNX's evaluator gets wrong, or computes in less than the precision of their input, done over."""
    from onnx.reference.op_run import OpRun

    from netsens.run.reference.deformed import DeformConv
    from netsens.run.reference.indexing import OPERATORS as INDEXING
    from netsens.run.reference.loops import Loop, Scan
    from netsens.run.reference.normalization import OPERATORS as NORMALIZATION
    from netsens.run.reference.recurrent import GRU, LSTM, RNN
    from netsens.run.reference.resampling import OPERATORS as RESAMPLING
    from netsens.run.reference.windows import OPERATORS as WINDOWS

    class Erf(OpRun):
        def _run(self, x: Array) -> tuple[Array]:
            return (np.vectorize(math.erf, otypes=[x.dtype])(x),)

    class Gelu(OpRun):
        def _run(self, x: Array, approximate: str = "none") -> tuple[Array]:
            if approximate == "tanh":
                return (x * (0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
            return (x * (0.5 + 0.5 * np.vectorize(math.erf, otypes=[x.dtype])(x * math.sqrt(0.5))),)

    class Softsign(OpRun):  # ONNX's own fails on a single number
        def _run(self, x: Array) -> tuple[Array]:
            return (np.asarray(x / (1 + np.abs(x))),)

    class Mean(OpRun):  # ONNX's own adds in place, to the shape of the first
        def _run(self, *x: Array) -> tuple[Array]:
            return (np.asarray(sum(x[1:], start=x[0]) / len(x), x[0].dtype),)

    class LogSoftmax(OpRun):
        def _run(self, x: Array, axis: int = -1) -> tuple[Array]:
            shifted = x - x.max(axis, keepdims=True)
            return (shifted - np.log(np.exp(shifted).sum(axis, keepdims=True)),)

    class ReduceLogSumExp(OpRun):
        def _run(self, x: Array, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> tuple[Array]:
            along = tuple(int(a) for a in axes) if axes is not None and len(axes) else () if noop_with_empty_axes else tuple(range(x.ndim))
            top = x.max(along, keepdims=True)
            top = np.where(np.isfinite(top), top, 0)
            with np.errstate(divide="ignore"):
                y = np.log(np.exp(x - top).sum(along, keepdims=True)) + top
            return (np.asarray(y if keepdims else y.squeeze(along)),)

    class Dropout(OpRun):
        def _run(self, x: Array, ratio: Any = None, training_mode: Any = None, seed: Any = None) -> tuple[Array, ...]:
            share = 0.5 if ratio is None else ratio
            trains = training_mode is not None and np.asarray(training_mode).any()
            mask = np.asarray(np.random.RandomState(seed).uniform(size=x.shape) >= share) if trains else np.ones(x.shape, bool)
            y = np.asarray(x * mask / (1 - share) if trains else x, x.dtype)
            return (y, mask) if len(self.onnx_node.output) > 1 else (y,)

    class Inverse(OpRun):
        op_domain = "com.microsoft"

        def _run(self, x: Array) -> tuple[Array]:
            return (np.linalg.inv(x),)

    return [
        Inverse, Erf, Gelu, Mean, Softsign, LogSoftmax, ReduceLogSumExp, Dropout, DeformConv,
        Loop, Scan, RNN, GRU, LSTM, *INDEXING, *NORMALIZATION, *RESAMPLING, *WINDOWS,
    ]  # fmt: skip


def reference_runner(graph: Graph) -> Callable[[Mapping[str, Array]], list[Array]]:
    """A function from the graph's inputs to its outputs, in order."""
    from onnx.reference import ReferenceEvaluator

    proto, _ = model_proto(graph)
    evaluator = ReferenceEvaluator(proto, new_ops=_operators())
    outputs: Sequence[str] = graph.outputs

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        try:
            found = evaluator.run(list(outputs), dict(feeds))
            return [r if isinstance(r, list) else np.asarray(r) for r in found]  # type: ignore[misc]  # a sequence stays a list
        except Exception as error:  # the evaluator raises whatever its NumPy code does
            raise RunError(f"ONNX's reference evaluator could not run the graph: {error}") from error

    return run
