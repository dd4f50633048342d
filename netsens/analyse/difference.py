"""The gradient of a whole model by finite differences, element by element, with an estimate of its error. It needs no rule of any operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from netsens.analyse.evaluator import Evaluator, first_that_runs, random_nodes
from netsens.analyse.function import Line, Weights, chosen_layer, fitted_cotangent, function_graph, groups, opened
from netsens.analyse.richardson import STEPS, slope_at
from netsens.analyse.thresholds import threshold_steps
from netsens.errors import NoPathError, UnsupportedError, UsageError
from netsens.graph.graph import Array, Graph, pruned
from netsens.graph.names import find_wrt
from netsens.graph.selectors import is_group
from netsens.jacobian.gradient import first_floats, stand_in_note
from netsens.modes.activity import carries, depends
from netsens.modes.target import Target
from netsens.run.runtime import RunOptions

MOST_EVALUATIONS = 10_000_000
GOAL = {"float64": 1e-7, "float32": 1e-3}  # relative uncertainty that no further steps are tried for
MASKED = 1e30  # a number above this stands for infinity (an attention mask's), and has no magnitude of its own
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Differences:
    """Gradients by finite differences, and how far off they say they may be: `uncertainty` is the largest of any element, relative to the largest
    element of its tensor; `kinks` counts elements at which the function has no derivative. None where the step was set by hand."""

    gradients: Mapping[str, Array]
    precision: str
    engine: str
    evaluations: int
    uncertainty: float | None
    kinks: int
    step: float | None = None
    notes: Sequence[str] = ()

    @property
    def sentence(self) -> str:
        """How it was done and how good it is, in one sentence."""
        where = f"{self.evaluations:,} runs in {self.precision} ({self.engine})"
        if self.uncertainty is None and self.step is None:
            return f"finite differences with steps from the trees' thresholds: {where}; no error estimate across their jumps."
        if self.uncertainty is None:
            return f"finite differences with a step of {self.step:g}: {where}; no error estimate with a step set by hand."
        kinks = f"; {self.kinks} elements lie at a kink, where a central difference is the mean of both sides" if self.kinks else ""
        return f"finite differences: {where}; the largest estimated relative error is {self.uncertainty:.1g}{kinks}."


def finite_difference(
    graph: Graph, feeds: Mapping[str, Array], *, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, cotangent: object = None,
    options: RunOptions = RunOptions(), step: float | None = None, precision: str = "auto", progress: Told | None = None,  # noqa: B008  # frozen
) -> Differences:  # fmt: skip
    """The gradient of the sum of `of` (of its `target`, or of its dot product with `cotangent`) by each tensor of `wrt`.

    Each element is moved both ways by a step that suits the precision and the element's magnitude (or by `step`, in the tensor's own units, then
    without an error estimate; where tree ensembles lie between, by half the usual gap between their thresholds).
    `progress` is told how many evaluations are done, and of how many. Raises `UsageError` above ten million."""
    if step is not None and not (np.isfinite(step) and step > 0):
        raise UsageError(f"The step {step} is not a positive number.")
    if target is not None and cotangent is not None:
        raise UsageError("A target and a cotangent exclude each other: put zeros in the cotangent where the target would not look.")
    layer = chosen_layer(graph, of)
    chosen, notes = movable(graph, wrt, layer)
    function = function_graph(graph, layer, target)
    if random := random_nodes(function):
        raise UnsupportedError(f"{random[0]} gives other numbers at each run, so differences between runs mean nothing; use --method autodiff.")
    points = values_of(graph, feeds, chosen, options)
    trees = {name: found for name in chosen if step is None and (found := threshold_steps(graph, name, points[name], layer, feeds, options))}
    notes += [found.sentence for found in trees.values()]
    per_element = 2 if step is not None or trees else 4
    total = per_element * sum(points[name].size for name in chosen)
    if total > MOST_EVALUATIONS:
        raise UsageError(f"Finite differences would run the model {total:,} times; narrow --wrt (at most {MOST_EVALUATIONS:,} runs), or use exact rules.")
    teller = _Teller(total, progress)
    gradients: dict[str, Array] = {}
    worst, kinks, evaluator = 0.0, 0, None
    for group in groups(graph, chosen):
        loose = opened(function, group)
        given = {**feeds, **{name: points[name] for name in group}}
        evaluator, (y,) = first_that_runs(loose, given, options, precision, runs=total)
        weights = Weights(None if cotangent is None else fitted_cotangent(cotangent, layer, y.shape))
        given = {name: evaluator.cast(np.asarray(array)) for name, array in given.items()}
        for name in group:
            moving = _Moving(evaluator, given, name, weights, y, teller)
            with np.errstate(all="ignore"):  # what is not finite is reported as that
                steps = trees[name].values if name in trees else step
                gradient, uncertainty, at_kinks = moving.refined() if steps is None else (moving.plain(steps), 0.0, 0)
                gradients[name] = gradient.astype(points[name].dtype)
            worst, kinks = max(worst, uncertainty), kinks + at_kinks
    assert evaluator is not None
    return Differences(
        {name: gradients[name] for name in chosen}, evaluator.precision, evaluator.engine, teller.done,
        None if step is not None or trees else worst, kinks, step, notes,
    )  # fmt: skip


def movable(graph: Graph, wrt: str | Sequence[str], layer: str) -> tuple[list[str], list[str]]:
    """The tensors to move, each integer input replaced by the first float tensors behind it, and notes on that. Of a group, what the layer does not
    depend on is left out."""
    selectors = [wrt] if isinstance(wrt, str) else list(wrt)
    found: dict[str, None] = {}
    notes = []
    named = find_wrt(graph, selectors)
    for name in named:
        if carries(graph.types.get(name)):
            if depends(graph, name, layer) or name == layer or not is_group(selectors):
                found[name] = None
            continue
        behind = first_floats(graph, name, layer)
        if behind:
            notes.append(stand_in_note(graph, name, behind))
        elif name not in graph.inputs or len(named) == 1:
            raise NoPathError(f"'{name}' holds no floating point numbers, and none that reach '{layer}' are computed from it alone.")
        found.update(dict.fromkeys(behind))
    if not found:
        raise NoPathError(f"'{layer}' does not depend on {', '.join(repr(n) for n in named[:4]) or 'anything that --wrt names'}.")
    return list(found), notes


def values_of(graph: Graph, feeds: Mapping[str, Array], names: Sequence[str], options: RunOptions) -> dict[str, Array]:
    """The tensors at these inputs: fed, constant, or computed."""
    from netsens.run.session import Session

    inner = [n for n in names if n not in feeds and n not in graph.constants]
    computed = Session(pruned(graph, inner), options).run(feeds) if inner else []
    known = dict(zip(inner, computed, strict=True))
    return {n: np.asarray(known[n] if n in known else feeds[n] if n in feeds else graph.constants[n]) for n in names}


def scales(point: Array) -> Array:
    """The magnitude that each element's steps are relative to: its own, or that of its tensor where it is smaller (zero, say)."""
    sizes: Array = np.abs(point.astype(np.float64))
    plain = sizes < MASKED
    present = sizes[(sizes > 0) & plain]
    least = min(float(np.median(present)), 1.0) if present.size else 1.0
    return np.maximum(np.where(plain, sizes, 1.0), least)


class _Teller:
    """Counts evaluations, and tells of them now and then."""

    def __init__(self, total: int, progress: Told | None) -> None:
        self.total = total
        self.done = 0
        self._progress = progress

    def one_more(self) -> None:
        self.done += 1
        if self._progress is not None:
            self._progress(self.done, max(self.total, self.done))


class _Moving:
    """The function with one element of one tensor moved."""

    def __init__(self, evaluator: Evaluator, given: Mapping[str, Array], name: str, weights: Weights, y: Array, teller: _Teller) -> None:
        self.evaluator = evaluator
        self.given = dict(given)
        self.name = name
        self.weights = weights
        self.teller = teller
        self.point = np.array(given[name], order="C")
        self.given[name] = self.point
        self.flat = self.point.reshape(-1)
        self.middle = y

    def line(self, index: int, unit: float = 1.0) -> Line:
        """How the function changes as the element moves by so many units."""

        def values(distance: float) -> Array:
            kept = self.flat[index]
            self.flat[index] = float(kept) + distance * unit
            try:
                (y,) = self.evaluator(self.given)
            finally:
                self.flat[index] = kept
            self.teller.one_more()
            return y

        return Line(values, self.middle, self.weights, self.evaluator.epsilon)

    def plain(self, steps: float | Array) -> Array:
        """Central differences over one step for all elements, or one for each."""
        slopes = np.zeros(self.flat.size)
        for k, step in enumerate(np.broadcast_to(steps, self.point.shape).reshape(-1).tolist()):
            kept = self.flat[k].astype(np.float64)
            ahead, behind = self.flat.dtype.type(kept + step).astype(np.float64), self.flat.dtype.type(kept - step).astype(np.float64)
            if ahead == behind:
                raise UsageError(f"The step {step} is lost in rounding beside an element of '{self.name}' that is {kept:g}; choose a larger one.")
            line = self.line(k)
            slopes[k] = (line(step) - line(-step)) / (ahead - behind)
        return slopes.reshape(self.point.shape)

    def refined(self) -> tuple[Array, float, int]:
        """Richardson's differences: all elements at the first step, then smaller and larger ones where that was not good enough. Also the largest
        uncertainty relative to the largest element, and how many elements lie at a kink."""
        steps = STEPS[self.evaluator.precision]
        size = scales(self.point).reshape(-1)
        slopes, unsure, kinks = np.zeros(self.flat.size), np.zeros(self.flat.size), np.zeros(self.flat.size, bool)

        def measure(k: int, tried: Sequence[float], goal: float) -> None:
            unit = float(size[k])
            found = slope_at(self.line(k, unit), tried, goal * unit)
            slopes[k], unsure[k], kinks[k] = found.value / unit, found.uncertainty / unit, found.kink

        for k in range(self.flat.size):
            measure(k, steps[:1], 0.0)
        largest = float(np.max(np.abs(slopes[np.isfinite(slopes)]), initial=0.0))
        goal = GOAL[self.evaluator.precision] * largest
        again = np.flatnonzero(~(unsure <= goal) | kinks)
        kinks[:] = False
        self.teller.total += 4 * len(again)
        for element in again:
            measure(int(element), steps, goal)
        good = np.isfinite(unsure)
        worst = float(np.max(unsure[good], initial=0.0)) / largest if largest else 0.0
        return slopes.reshape(self.point.shape), worst if good.all() else np.inf, int(kinks.sum())
