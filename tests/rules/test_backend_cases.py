"""ONNX's backend node tests, differentiated: every case with a float input and a float output, by each float input, against central
differences in float64 on the case's own data."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from netsens.errors import NetsensError, RunError, UnsupportedError
from netsens.graph.dtypes import is_float
from netsens.graph.emit import Builder
from netsens.graph.graph import Graph, pruned
from netsens.graph.normal import load_graph
from netsens.graph.precision import in_precision
from netsens.modes.activity import active_values, carries
from netsens.modes.gradient import append_vjp
from netsens.run.reference import reference_runner
from tests.rules.backend_cases import backend_cases

STEPS = (1e-4, 1e-5, 1e-6)
Run = Callable[[Mapping[str, Any]], list[Any]]


def has_floats(case: Any) -> bool:
    """Whether the case maps floats to floats."""
    inputs, outputs = case.data_sets[0]
    return any(_is_float_array(a) for a in inputs) and any(_is_float_array(a) for a in outputs)


def _is_float_array(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype != object and is_float(a.dtype) and a.size > 0


# Cases whose names end so are the same models with their functions expanded; the functions are tested by themselves.
CASES = [c for c in backend_cases() if not c.name.endswith("_expanded") and "_expanded_ver" not in c.name and has_floats(c)]


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_backend_case(case: Any, record_property: Callable[[str, object], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases hold NaN and infinity on purpose
        found = judge_case(case)
    record_property("verdict", found.verdict)  # counted at the end of the run, by conftest.py
    record_property("beside", found.beside)
    for reason in dict.fromkeys(found.refused):
        record_property("refused", reason)
    if found.verdict == "refused":
        pytest.skip(f"refused: {found.refused[0]}")
    assert found.verdict != "fail", found.why


@dataclass
class Found:
    """What became of a case: pass, kink, flat, refused (by every input) or fail; why it failed; why inputs were refused; and whether the gradient agrees
    at each kink once the input is moved a little off it."""

    verdict: str = "flat"
    why: str = ""
    refused: list[str] = field(default_factory=list)
    beside: bool = False


def judge_case(case: Any) -> Found:
    """Each float output by each float input."""
    try:
        graph = in_precision(load_graph(case.model))
    except NetsensError as error:
        return Found("fail", str(error))
    inputs = [np.asarray(a) if isinstance(a, np.generic) else a for a in case.data_sets[0][0]]
    feeds = {name: a.astype(np.float64) if _is_float_array(a) else a for name, a in zip(graph.inputs, inputs, strict=False)}
    wrt = [name for name, a in feeds.items() if _is_float_array(a)]
    found, verdicts, agreed = Found(), [], []
    for of in [o for o in graph.outputs if o and carries(graph.types.get(o))]:
        try:
            function = Function(graph, of, feeds)
        except RunError as error:
            found.refused.append(f"the reference evaluator cannot run it: {error}")
            continue
        if function.u is None:
            continue
        for w in wrt:
            try:
                verdict, why = function.judge(w, feeds)
            except UnsupportedError as error:
                found.refused.append(str(error))
                continue
            if verdict == "kink":
                beside, why = function.judge_beside(w, feeds)
                verdict = "fail" if beside == "fail" else verdict
                agreed.append(beside == "pass")
            if verdict == "fail":
                return Found("fail", f"{of} by {w}: {why}")
            verdicts.append(verdict)
    found.beside = bool(agreed) and all(agreed)
    found.verdict = min(verdicts, key=["kink", "pass", "flat"].index, default="refused" if found.refused else "flat")
    return found


class Function:
    """One output of a case as a number: its finite elements, each times a weight."""

    def __init__(self, graph: Graph, of: str, feeds: Mapping[str, Any]) -> None:
        self.graph, self.of = graph, of
        self._run = _runner(graph, [of])
        y = np.asarray(self._run(feeds)[0])
        floats = _is_float_array(y) and np.isfinite(y).any()
        self.u = np.where(np.isfinite(y), np.random.default_rng(0).standard_normal(y.shape), 0.0) if floats else None
        self._gradients: dict[str, Any] = {}

    def value(self, feeds: Mapping[str, Any]) -> float:
        assert self.u is not None
        y = np.asarray(self._run(feeds)[0])
        if y.shape != self.u.shape:  # the number of elements may jump, as Range's
            return np.nan
        return float(np.vdot(self.u, np.where(self.u == 0, 0.0, y)))

    def gradient(self, w: str, feeds: Mapping[str, Any]) -> np.ndarray | None:
        """Of the number, by one input; None where no derivative leads there."""
        if self.of not in active_values(self.graph, [w]):
            return None
        if w not in self._gradients:
            op = Builder(self.graph.copy())
            op.derivative.finite_only = bool((self.u == 0).any())  # what isn't finite is not read
            reverse = append_vjp(op.graph, self.of, [w], op=op)
            self._gradients[w] = (reverse.seeds[self.of], _runner(reverse.graph, list(reverse.results.values()))) if reverse.results else None
        if self._gradients[w] is None:
            return None
        seed, run = self._gradients[w]
        return np.asarray(run({**feeds, seed: self.u})[0])

    def judge(self, w: str, feeds: Mapping[str, Any]) -> tuple[str, str]:
        """One input's gradient against differences along a random direction; a kink is where one-sided differences disagree."""
        x, gradient = feeds[w], self.gradient(w, feeds)
        moved = np.isfinite(x)  # what is NaN or infinite stays
        v = np.where(moved, np.random.default_rng(1).standard_normal(x.shape), 0.0)
        if gradient is not None and gradient.shape != x.shape:
            return "fail", f"the gradient has shape {gradient.shape}, not {x.shape}"
        if gradient is not None and not np.isfinite(gradient[moved]).all():
            return ("kink" if self.one_sided_disagree(w, feeds, v) else "fail"), "the gradient is not finite"
        got = 0.0 if gradient is None else float(np.vdot(np.where(moved, gradient, 0.0), v))

        def at(h: float) -> float:
            return self.value({**feeds, w: x + h * v})

        estimates = [(at(h) - at(-h)) / (2 * h) for h in STEPS]
        scale = max(abs(got), max(abs(e) for e in estimates), 1e-6)
        if min(abs(e - got) for e in estimates) <= 1e-5 * scale + 1e-8:
            return ("pass" if gradient is not None else "flat"), ""
        figures = f"got {got:.8g}, differences {', '.join(f'{e:.8g}' for e in estimates)}"
        return ("kink" if self.one_sided_disagree(w, feeds, v) else "fail"), figures

    def judge_beside(self, w: str, feeds: Mapping[str, Any]) -> tuple[str, str]:
        """The same with the input moved off its kink; "kink" where it lies on one there too, or where the function's shape or type hangs on the input."""
        why = ""
        for seed in range(3):
            x = feeds[w] + np.where(np.isfinite(feeds[w]), 1e-2 * np.random.default_rng(seed).standard_normal(feeds[w].shape), 0.0)
            try:
                if not np.isfinite(self.value({**feeds, w: x})):
                    continue
                verdict, why = self.judge(w, {**feeds, w: x})
            except RunError:
                continue
            if verdict in ("pass", "flat"):
                return "pass", ""
            if verdict == "fail":
                return "fail", f"beside a kink {why}"
        return "kink", why

    def one_sided_disagree(self, w: str, feeds: Mapping[str, Any], v: np.ndarray) -> bool:
        """Whether the function has a kink or a jump at the case's data: the two one-sided derivatives differ."""
        x = feeds[w]

        def at(h: float) -> float:
            return self.value({**feeds, w: x + h * v})

        here = at(0.0)
        sides = [((at(h) - here) / h, (here - at(-h)) / h) for h in STEPS]
        if all(abs(later[0]) > 5 * abs(earlier[0]) for earlier, later in itertools.pairwise(sides)):
            return True  # a jump: the quotients grow as the step shrinks
        return all(not np.isfinite([a, b]).all() or abs(a - b) > 1e-3 * max(abs(a), abs(b), 1e-3) for a, b in sides)


def _runner(graph: Graph, outputs: list[str]) -> Run:
    graph = pruned(graph, outputs)
    run = reference_runner(graph)
    return lambda feeds: run({k: v for k, v in feeds.items() if k in graph.inputs})
