"""Runs graphs in the widest precision that can be had: float64 in onnxruntime, else in ONNX's reference evaluator, else float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netsens.errors import RunError, UnsupportedError, UsageError
from netsens.graph.dtypes import FLOATS, is_float
from netsens.graph.emitted import CHANCE
from netsens.graph.graph import Array, Graph
from netsens.graph.precision import in_precision
from netsens.run.reference import reference_runner
from netsens.run.runtime import RunOptions
from netsens.run.session import Session

DTYPES = {"float64": (11, np.float64), "float32": (1, np.float32)}
SLOWEST_REFERENCE = 0.05  # seconds of a forward pass in onnxruntime above which the reference evaluator would take minutes
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23}
LARGEST_COPY = 1 << 29  # bytes of weights above which no float64 copy of them is made


@dataclass(frozen=True, slots=True)
class Evaluator:
    """A graph that runs in one precision on one engine ("onnxruntime" or "onnx.reference")."""

    precision: str
    engine: str
    outputs: Sequence[str]
    _run: Callable[[Mapping[str, Array]], list[Any]]

    @property
    def epsilon(self) -> float:
        return EPSILON[self.precision]

    def cast(self, array: Array) -> Array:
        """Floating point numbers in this precision; others stay."""
        return array.astype(DTYPES[self.precision][1]) if is_float(array.dtype) else array

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array]:
        return [np.asarray(r) for r in self._run({k: self.cast(np.asarray(v)) for k, v in feeds.items()})]


@dataclass(frozen=True, slots=True)
class Engine:
    """A precision and what computes in it."""

    precision: str
    name: str

    def load(self, graph: Graph, options: RunOptions) -> Evaluator:
        """The graph, ready to run; `RunError` where this engine cannot."""
        wide = graph if _is_in(graph, self.precision) else in_precision(graph, DTYPES[self.precision][0])
        if self == NATIVE:  # fused kernels lose digits of float64: that of a simplified layer normalisation takes a larger epsilon than the model's
            options = replace(options, fused=False)
        try:
            run = _reference(wide) if self.name == "onnx.reference" else Session(wide, options).run
        except UnsupportedError as error:  # a kernel is missing, and what would stand in for it cannot be written out
            raise RunError(str(error)) from error
        return Evaluator(self.precision, self.name, graph.outputs, run)


def _reference(graph: Graph) -> Callable[[Mapping[str, Array]], list[Any]]:
    """The graph on ONNX's evaluator; it refuses what it doesn't know in several ways, while it is built."""
    try:
        return reference_runner(graph)
    except Exception as error:
        raise RunError(f"ONNX's reference evaluator cannot load the graph: {error}") from error


def _is_in(graph: Graph, precision: str) -> bool:
    """Whether the graph computes in this precision already, so that its weights need no copy."""
    code, dtype = DTYPES[precision]
    floats = all(a.dtype == dtype for a in graph.constants.values() if is_float(a.dtype))
    return floats and all(t.dtype == code for t in graph.types.values() if t.dtype in FLOATS)


NATIVE = Engine("float64", "onnxruntime")
REFERENCE = Engine("float64", "onnx.reference")
SINGLE = Engine("float32", "onnxruntime")


def check_precision(precision: str) -> str:
    if precision not in ("auto", *DTYPES):
        raise UsageError(f"The precision '{precision}' is not auto, float64 or float32.")
    return precision


def engines(graph: Graph, precision: str = "auto") -> list[Engine]:
    """What may compute the graph, the widest and fastest first. Weights too large to be copied stay in float32."""
    if precision == "float32":
        return [SINGLE]
    if precision == "float64":
        return [NATIVE, REFERENCE]
    if sum(a.nbytes for a in graph.constants.values()) > LARGEST_COPY:
        return [SINGLE]
    return [NATIVE, REFERENCE, SINGLE]


def first_that_runs(
    graph: Graph, feeds: Mapping[str, Array], options: RunOptions, precision: str = "auto", runs: int = 1, patience: float = 60.0
) -> tuple[Evaluator, list[Array]]:
    """The first engine that runs the graph on these inputs, and what it gave. The reference evaluator is passed over where so many `runs` on
    it would take more than `patience` seconds, unless float64 was asked for by name."""
    failure: RunError | None = None
    single: float | None = None
    for engine in engines(graph, precision):
        slow = engine == REFERENCE and precision == "auto"
        if slow and single is None:
            single = seconds_of_a_run(graph, feeds, options)
        if slow and single is not None and single > SLOWEST_REFERENCE:
            continue
        try:
            evaluator = engine.load(graph, options)
            started = time.perf_counter()
            values = evaluator(feeds)
        except RunError as error:
            failure = failure or error
            if engine == SINGLE:
                raise
            continue
        if slow and (time.perf_counter() - started) * runs > patience:
            continue
        return evaluator, values
    assert failure is not None
    raise failure


def seconds_of_a_run(graph: Graph, feeds: Mapping[str, Array], options: RunOptions) -> float | None:
    """How long one run in float32 takes; None where it does not run."""
    try:
        evaluator = SINGLE.load(graph, options)
        evaluator(feeds)
        started = time.perf_counter()
        evaluator(feeds)
    except RunError:
        return None
    return time.perf_counter() - started


def random_nodes(graph: Graph) -> list[str]:
    """The nodes whose output differs from run to run."""
    found = []
    for node in graph.nodes:
        if (node.op in CHANCE and not node.domain) or (node.op == "Dropout" and _trains(graph, node.inputs)):
            found.append(node.label)
        for _, inner in node.subgraphs():
            found.extend(random_nodes(inner))
    return found


def _trains(graph: Graph, inputs: Sequence[str]) -> bool:
    """Whether a Dropout's third input, its training mode, is or may be true."""
    if len(inputs) < 3 or not inputs[2]:
        return False
    mode = graph.constants.get(inputs[2])
    return mode is None or bool(np.any(mode))
