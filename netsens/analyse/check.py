"""Proof of a gradient: against central differences along random directions, and forward mode against reverse mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from netsens.analyse.difference import Told, values_of
from netsens.analyse.evaluator import check_precision, random_nodes
from netsens.analyse.function import chosen_layer, fitted_cotangent, function_graph
from netsens.analyse.judge import ORDER, TOLERANCE, Checked, Judge
from netsens.analyse.kinks import on_kinks
from netsens.errors import InputError, NoPathError, UnsupportedError, UsageError
from netsens.graph.dtypes import HALVES
from netsens.graph.graph import Array, Graph, Node
from netsens.graph.precision import in_precision
from netsens.jacobian.gradient import plan_gradient
from netsens.jacobian.gradient_plan import GradientPlan
from netsens.modes.activity import carries, depends
from netsens.modes.target import Target
from netsens.rules.standard import not_standard, written_out
from netsens.rules.words import rule_of
from netsens.run.runtime import RunOptions

SAME = 1e-2  # as near as onnxruntime's own iterations and roundings come to what an operator is written out to


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The rows of a check. It holds where some tensor agreed (at the point, or beside a kink that the point lies on) and none failed; `tolerance` is the
    relative error allowed; `what` was checked, a gradient or a Hessian."""

    of: str
    rows: Sequence[Checked]
    tolerance: float
    precision: str
    engine: str
    notes: Sequence[str] = field(default=())
    what: str = "gradient"

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing failed."""
        return any(r.verdict == "pass" or r.beside for r in self.rows) and all(r.verdict != "fail" for r in self.rows)

    @property
    def sentence(self) -> str:
        """What came out, in one sentence."""
        count = {verdict: sum(r.verdict == verdict for r in self.rows) for verdict in ORDER}
        agree = f"{self.what} agrees" if len(self.rows) == 1 else f"{self.what}s agree"
        parts = [f"{count['pass']} of {len(self.rows)} {agree} with differences within {self.tolerance:g}, in {self.precision} ({self.engine})"]
        parts += [f"{count['fail']} {'does' if count['fail'] == 1 else 'do'} not"] if count["fail"] else []
        beside = sum(r.verdict == "kink" and r.beside for r in self.rows)
        parts += [f"{beside} {'agrees' if beside == 1 else 'agree'} beside a kink of the function, on which there is no derivative"] if beside else []
        parts += [f"{count['kink'] - beside} at a kink, where there is no derivative to compare"] if count["kink"] > beside else []
        parts += [f"for {count['unsure']} the differences are too rough to tell"] if count["unsure"] else []
        if not self.ok and not count["fail"]:
            parts.append("so nothing was proven; try another input")
        return ", ".join(parts) + "."


def check_gradient(
    graph: Graph, feeds: Mapping[str, Array], *, wrt: str | Sequence[str] = "all", of: str | None = None, target: Target = None, cotangent: object = None,
    options: RunOptions = RunOptions(), directions: int = 3, tolerance: float | None = None, precision: str = "auto", seed: int = 0,  # noqa: B008  # frozen
    count_kinks: bool = False, progress: Told | None = None, plan: GradientPlan | None = None,
) -> CheckReport:  # fmt: skip
    """Compares the gradient of `of` by each tensor of `wrt` with finite differences.

    The layer is weighed by `cotangent`, or by the sum of its `target`, or else by random numbers, so that an output whose sum is constant (a softmax)
    is tested too. Everything runs in float64 where it can (in onnxruntime, else in ONNX's reference evaluator where that is quick enough), else in
    float32. `tolerance` is relative (default 1e-6 in float64, 1e-2 in float32 and where an operator has no exact rule). `plan` is the gradient to
    judge, where it is built already."""
    if directions < 1:
        raise UsageError("A check needs at least one direction.")
    if tolerance is not None and not tolerance > 0:
        raise UsageError(f"The tolerance {tolerance} is not a positive number.")
    check_precision(precision)
    layer = chosen_layer(graph, of)
    wide = _judged_form(graph, feeds, layer, options)
    function = function_graph(wide, layer, target)
    if random := random_nodes(function):
        raise UnsupportedError(f"{random[0]} gives other numbers at each run, so there is no one gradient to check; choose a layer before it with --of.")
    plan = plan or plan_gradient(graph, of=layer, wrt=wrt, target=target, cotangent=target is None)
    judged = plan if wide is graph else plan_gradient(wide, of=layer, wrt=wrt, target=target, cotangent=target is None)
    names = [*plan.results, *(n for n in plan.zeros if depends(graph, n, layer))]
    generator = np.random.default_rng(seed)
    y = values_of(graph, feeds, [layer], options)[layer]
    if not y.size:
        raise InputError(f"'{layer}' has no elements at these inputs, so there is nothing to check; give inputs at which it has some.")
    u: Array | None = None
    if target is None:
        u = np.asarray(generator.standard_normal(y.shape) if cotangent is None else fitted_cotangent(cotangent, layer, y.shape))
        u = u.astype(y.dtype).astype(np.float64)
    if not names:
        raise NoPathError(f"Nothing of --wrt reaches '{layer}', so there is no gradient to check.")
    points = values_of(graph, feeds, names, options)
    judge = Judge(graph, function, judged, plan, feeds, points, u, options, precision, directions * len(names))
    rough = differenced(function)  # their steps suit float32, whatever they are judged in
    allowed = tolerance if tolerance is not None else TOLERANCE["float32" if rough else judge.precision]
    rows = []
    for position, name in enumerate(names):
        rows.append(judge.row(name, directions, allowed, generator, count_kinks))
        if progress is not None:
            progress(position + 1, len(names))
    kinks = [found.sentence for found in on_kinks(graph, feeds, of=layer, wrt=names, options=options)] if count_kinks else []
    return CheckReport(layer, rows, allowed, judge.precision, judge.engine, [*plan.notes, *judge.notes, *kinks])


def _judged_form(graph: Graph, feeds: Mapping[str, Array], layer: str, options: RunOptions) -> Graph:
    """The model as it is judged. Half precision becomes float64, so that the numbers in its derivative (the 2 / sqrt(pi) of an Erf, say) are not rounded
    to half. Operators that ONNX doesn't define as onnxruntime computes them, or not at all, are written out in those that run in float64, where that
    gives the same values."""
    wide = in_precision(graph) if any(t.dtype in HALVES for t in graph.types.values()) else graph
    if not any(_stands_for_others(node) for node in graph.every_node()):
        return wide
    out = written_out(graph, _stands_for_others)
    given, found = (values_of(g, feeds, [layer], options)[layer].astype(np.float64) for g in (graph, out))
    if not np.linalg.norm(found - given) <= SAME * np.linalg.norm(given):
        return wide
    return out if wide is graph else in_precision(out)


def _stands_for_others(node: Node) -> bool:
    rule = rule_of(node)
    return (not_standard(node) or node.domain == "ai.onnx.ml") and rule is not None and rule.expansion is not None


def differenced(graph: Graph) -> bool:
    """Whether an operator of the graph has no rule, so that its own derivative is a difference already."""
    return any(
        rule_of(node) is None and any(carries(graph.types.get(i)) for i in node.reads()) and any(o and carries(graph.types.get(o)) for o in node.outputs)
        for node in graph.nodes
    )


__all__ = ["CheckReport", "Checked", "check_gradient"]
