"""Proof of second derivatives and of whole Jacobians, by the means that prove a gradient.

A Hessian's product with random numbers u is the gradient of <u, gradient>; so the gradient's own program, weighed by u, is checked as any layer is: against
differences of gradients, and forward over reverse against reverse over reverse. A Jacobian's columns and rows, as its plan (colours, waist,
chunks) gives them, are held against products with the same map that know of no structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from netsens.analyse.check import CheckReport, check_gradient
from netsens.analyse.difference import Told, values_of
from netsens.errors import NoPathError, UsageError
from netsens.graph.graph import Array, Graph
from netsens.jacobian.evaluate import evaluate
from netsens.jacobian.memory import working_memory
from netsens.jacobian.passes import Decompressors, passes
from netsens.jacobian.question import ask, gradient_question
from netsens.modes.target import Target
from netsens.run.runtime import RunOptions

if TYPE_CHECKING:
    from netsens.jacobian.linearize import Linearization
    from netsens.jacobian.plan import Plan

MATRIX_TOLERANCE = {8: 1e-9, 4: 1e-3, 2: 5e-2}  # of a product of the whole matrix against one without it, by the bytes of a number


def check_hessian(
    graph: Graph, feeds: Mapping[str, Array], *, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None,
    options: RunOptions = RunOptions(), directions: int = 3, tolerance: float | None = None, precision: str = "auto", seed: int = 0,  # noqa: B008  # frozen
    count_kinks: bool = False, progress: Told | None = None,
) -> CheckReport:  # fmt: skip
    """Compares the Hessian's product with random numbers, by each tensor of `wrt`, with finite differences of the gradient."""
    question = ask(graph, feeds, of, wrt, target, lambda observer: {name: y.shape for name, y in values_of(observer, feeds, observer.outputs, options).items()})
    if not question.wrt:
        raise NoPathError(f"'{question.layer}' has a zero gradient by everything asked for, so there is no Hessian to check.")
    second, names = gradient_question(question)
    there = second.graph.names()
    bending = [name for name in names if name in there]  # what the gradient doesn't read, it doesn't depend on
    if not bending:
        raise NoPathError(f"The gradient of '{question.layer}' depends on none of what was asked for: its Hessian is zero, so there is nothing to check.")
    report = check_gradient(
        second.graph, feeds, wrt=bending, of=second.of, options=options, directions=directions, tolerance=tolerance, precision=precision, seed=seed,
        count_kinks=count_kinks, progress=progress,
    )  # fmt: skip
    zeros = [name for name in names if name not in there]
    note = [f"the gradient does not depend on {', '.join(map(repr, zeros))}: zero second derivatives."] if zeros else []
    return replace(report, what="Hessian", notes=[*report.notes, *note])


@dataclass(frozen=True, slots=True)
class CheckedMatrix:
    """The Jacobian by one tensor: how far an element of J v is at most from a product by forward mode, and one of u' J from reverse mode, relative to what
    their elements come to (root mean square), so that a single entry astray is seen; and how far <u, J v> is from <J' u, v>. `verdict`: "pass" or
    "fail"."""

    name: str
    shape: tuple[int, ...]
    passes: int
    mode: str
    forward: float
    reverse: float
    adjoint: float
    verdict: str


def check_matrix(point: Linearization, plan: Plan, seed: int = 0) -> list[CheckedMatrix]:
    """The Jacobian as `plan` gives it, against products that have no part in its structure, its colours and its waist. It is never held whole, but for what
    goes through a waist."""
    generator = np.random.default_rng(seed)
    lin = point.linearizer
    out, dtype = lin.shape(plan.of), lin.dtype(plan.of)
    u = generator.standard_normal(out).astype(dtype)
    tangents = {w: generator.standard_normal(lin.shape(w)).astype(lin.dtype(w)) for w in plan.wrt}
    pulled = point.vjp(u)
    columns = {w: np.zeros(prod(out)) for w in plan.wrt}  # J v
    rows = {w: np.zeros(prod(lin.shape(w))) for w in plan.wrt}  # J' u
    flat, directions = u.reshape(-1).astype(np.float64), {w: v.reshape(-1).astype(np.float64) for w, v in tangents.items()}
    if plan.waist is not None:
        if plan.bytes > working_memory(None):
            raise UsageError("The Jacobian goes through a waist and doesn't fit into memory; check it with --mode forward or reverse.")
        for w, matrix in evaluate(point, plan).items():
            wide = matrix.reshape(prod(out), -1)
            columns[w] += wide @ directions[w]
            rows[w] += flat @ wide
    else:
        write = Decompressors(plan)
        for found in passes(point, plan):
            one, other, values = write.of(found).entries(found.values, found.start)
            row, column = (one, other) if found.forward else (other, one)
            w = found.wrt
            columns[w] += np.bincount(row, values * directions[w][column], prod(out))
            rows[w] += np.bincount(column, values * flat[row], rows[w].size)
    allowed = MATRIX_TOLERANCE[np.dtype(dtype).itemsize]
    report = []
    for w in plan.wrt:
        pushed = point.jvp({w: tangents[w]}).reshape(-1).astype(np.float64)
        back = pulled[w].reshape(-1).astype(np.float64)
        forward, reverse = _apart(columns[w], pushed), _apart(rows[w], back)
        lengths = float(np.linalg.norm(pushed) * np.linalg.norm(flat) + np.linalg.norm(back) * np.linalg.norm(directions[w])) / 2
        adjoint = abs(float(flat @ pushed - back @ directions[w])) / lengths if lengths else 0.0
        verdict = "pass" if max(forward, reverse, adjoint) <= allowed else "fail"
        report.append(CheckedMatrix(w, out + lin.shape(w), plan.passes, plan.mode, forward, reverse, adjoint, verdict))
    return report


def _apart(a: Array, b: Array) -> float:
    """The largest difference, relative to the elements' root mean square; infinite where something isn't finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    usual = max(float(np.linalg.norm(a)), float(np.linalg.norm(b))) / max(a.size, 1) ** 0.5
    return float(np.abs(a - b).max(initial=0.0)) / usual if usual else 0.0
