"""One gradient at one point, judged tensor by tensor: in which precision everything can run, along random directions, beside kinks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netsens.analyse.difference import scales
from netsens.analyse.evaluator import EPSILON, REFERENCE, SINGLE, SLOWEST_REFERENCE, Engine, Evaluator, engines, seconds_of_a_run
from netsens.analyse.function import Line, Weights, groups, opened
from netsens.analyse.richardson import STEPS, Slope, slope_at
from netsens.errors import NetsensError, RunError
from netsens.graph.dtypes import numpy_dtype
from netsens.graph.emit import Builder
from netsens.graph.graph import Array, Graph, pruned
from netsens.jacobian.gradient_plan import GradientPlan
from netsens.modes.activity import active_values
from netsens.modes.difference import difference_rule
from netsens.modes.gradient import append_jvp, kept
from netsens.rules.words import rule_of
from netsens.run.runtime import RunOptions
from netsens.run.session import Session

TOLERANCE = {"float64": 1e-6, "float32": 1e-2}
PATIENCE = 120.0  # seconds that a whole check may take on the reference evaluator before float32 is preferred
# A tensor that moves the function by less than this share of it, when moved by its own size, is held to that share: a gradient that is zero but for
# rounding (a bias before a softmax) has no digits to compare, so it is no failure; nor is it a pass. In float32 that holds between forward and
# reverse mode alone, since differences there are too rough to tell a small gradient from none.
LEAST = 1e-4
BESIDE = {"float64": 1e-3, "float32": 0.1}  # how far, of its own size, an input is moved to leave a kink by more than the steps of a difference
COUNTED = 256  # elements of a tensor that are looked at one by one for kinks
STAIRCASE = "on its way values are rounded to quantised integers, a staircase over which differences see a slope"
ORDER = ("pass", "kink", "unsure", "fail")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found for one tensor, in its worst direction. `derivative` is the gradient's, `difference` the finite difference's; `error` is how far
    they are apart, relative to the larger of them and to what a random direction of the gradient's length would give; `adjoint` is the same between
    forward and reverse mode (None: no forward mode); `rounding` is the relative L2 distance between the gradient that is delivered and the one of
    this precision. `verdict`: "pass"; "kink", the function has no derivative here; "unsure", the differences are too rough to tell; or "fail"."""

    name: str
    shape: tuple[int, ...]
    derivative: float
    difference: float
    error: float
    adjoint: float | None
    step: float
    precision: str
    verdict: str
    reason: str = ""
    beside: bool = False  # of a kink: the gradient agrees with the differences once the inputs are moved a little off it
    rounding: float = 0.0
    directions: int = 0
    kinks: tuple[int, int] | None = None  # elements at kinks, of how many looked at


class Judge:
    """The function, its gradient and its forward derivative, all in one precision, at one point."""

    def __init__(
        self, graph: Graph, function: Graph, plan: GradientPlan, as_built: GradientPlan, feeds: Mapping[str, Array], points: Mapping[str, Array], u: Array | None,
        options: RunOptions, precision: str, lines: int,
    ) -> None:  # fmt: skip
        self.graph, self.function, self.plan, self.u, self.options, self.notes = graph, function, plan, u, options, list[str]()
        self.as_built = as_built  # what is delivered; `plan` is the same in float64, where the model is in half precision
        self.points = {n: np.asarray(a) for n, a in points.items()}
        self.feeds = {**feeds, **({plan.cotangent: u} if plan.cotangent is not None and u is not None else {})}
        self.groups = groups(graph, list(points))
        self._choose(precision, lines)
        self.middle = self.gradients(self.feeds)
        self.weights = Weights(u)
        some = next(iter(self.lines))
        self.floor = LEAST * self.weights.size(self.value(some, self.feeds, self.points[some]))
        self.least = self.floor if self.precision == "float64" else 0.0
        if self.precision == "float32" and precision == "auto" and not _is_half(points):
            self.notes.append("float64 cannot be had here (no kernels in onnxruntime, too slow elsewhere): the differences are in float32.")
        self._delivered: dict[str, Array] | None = None

    # Loading -----------------------------------------------------------------------------------------------------------

    def _choose(self, precision: str, lines: int) -> None:
        """The widest precision in which the function and its derivatives all run, on one engine: two differ in their last digits."""
        failure: RunError | None = None
        for engine in engines(self.function, precision):
            if engine == REFERENCE and precision == "auto" and self._reference_is_slow(lines):
                continue
            try:
                self._load(engine)
            except RunError as error:
                failure = failure or error
                continue
            return
        assert failure is not None
        raise failure

    def _reference_is_slow(self, lines: int) -> bool:
        """Whether the reference evaluator would take longer than anyone waits: its time for the function alone, times what the derivatives cost more
        in onnxruntime."""
        single = seconds_of_a_run(self.function, self.feeds, self.options)
        if single is None or single > SLOWEST_REFERENCE:
            return True
        try:
            self._load(SINGLE)
            loaded = REFERENCE.load(self.function, self.options)
            function = _seconds(loaded, self.feeds)
        except RunError:
            return True
        others = [_seconds(self._gradient, self.feeds)] if self._gradient is not None else []
        pushed = []
        for loaded, seeds, _ in _apart(self.pushes.values()):
            pushed.append(_seconds(loaded, {**self.feeds, **{s: np.zeros_like(self.points[n]) for n, s in seeds.items()}}))
        many = lines * 12 * single + 3 * sum(others) + lines * max(pushed, default=0.0)
        return function / max(single, 1e-6) * many > PATIENCE

    def _load(self, engine: Engine) -> None:
        """Every graph on this engine."""
        self.lines: dict[str, tuple[Evaluator, list[str]]] = {}
        self.pushes: dict[str, tuple[Evaluator, Mapping[str, str], str]] = {}
        self._gradient = _ready(self.plan.graph, self.feeds, engine, self.options) if self.plan.results else None
        inner = [n for n in self.points if n not in self.feeds and n not in self.graph.constants]
        self._inner = _ready(pruned(self.graph, inner), self.feeds, engine, self.options) if inner else None
        self.points.update(self.inner(self.feeds))
        for group in self.groups:
            given = {**self.feeds, **{n: self.points[n] for n in group}}
            loaded = _ready(opened(self.function, group), given, engine, self.options)
            self.lines.update(dict.fromkeys(group, (loaded, group)))
        for group in self.groups:
            self._load_push(group, engine)
        self.precision, self.engine, self.epsilon = engine.precision, engine.name, EPSILON[engine.precision]

    def _load_push(self, group: Sequence[str], engine: Engine) -> None:
        """Forward mode by these tensors; without it the check goes on, and says so."""
        of = self.function.outputs[0]
        moving = [n for n in group if n in self.plan.results]
        if not moving:
            return
        try:
            op = Builder(self.function.copy())
            op.derivative.fallback = difference_rule
            derivative = append_jvp(op.graph, [of], moving, op=op)
            if of not in derivative.results:
                return
            zeros = {derivative.seeds[n]: np.zeros_like(self.points[n]) for n in moving}
            loaded = _ready(kept(derivative), {**self.feeds, **zeros}, engine, self.options)
        except NetsensError as error:
            if isinstance(error, RunError) and engine != SINGLE:
                raise  # another engine may have the kernels
            self.notes.append(f"forward mode was not compared: {error}")
            return
        self.pushes.update(dict.fromkeys(moving, (loaded, derivative.seeds, of)))

    # Values ------------------------------------------------------------------------------------------------------------

    def gradients(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The gradient by every tensor in this precision; zero where the path is cut."""
        found: dict[str, Array] = {}
        if self._gradient is not None:
            values = dict(zip(self._gradient.outputs, self._gradient(feeds), strict=True))
            found = {n: values[o].astype(np.float64) for n, o in self.plan.results.items()}
        return {n: found.get(n, np.zeros(p.shape)) for n, p in self.points.items()}

    def delivered(self, name: str) -> Array:
        """The gradient as the model's own precision gives it."""
        if self._delivered is None:
            given = {k: v.astype(self.points_dtype(k)) if v.dtype.kind == "f" else v for k, v in self.feeds.items()}
            built = self.as_built
            values = dict(zip(built.graph.outputs, Session(built.graph, self.options).run(given), strict=True)) if built.results else {}
            self._delivered = {n: np.asarray(values[o]).astype(np.float64) for n, o in built.results.items()}
        return self._delivered.get(name, np.zeros(self.points[name].shape))

    def points_dtype(self, name: str) -> Any:
        known = self.as_built.graph.types.get(name)
        return numpy_dtype(known.dtype) if known is not None and known.dtype else np.float32

    def inner(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The inner values among the tensors, computed as everything else is."""
        return dict(zip(self._inner.outputs, self._inner(feeds), strict=True)) if self._inner is not None else {}

    def value(self, name: str, feeds: Mapping[str, Array], point: Array) -> Array:
        """The function's values with one tensor at `point`."""
        loaded, group = self.lines[name]
        return loaded({**feeds, **{n: self.points[n] for n in group if n not in self.feeds}, name: point})[0]

    # Judging -----------------------------------------------------------------------------------------------------------

    def row(self, name: str, directions: int, allowed: float, generator: np.random.Generator, count_kinks: bool) -> Checked:
        """The worst of several directions, with what the directions cannot see: rounding of the delivered gradient, elements at kinks."""
        found = [self.direction(name, generator, allowed) for _ in range(directions)]
        worst = max(found, key=lambda r: (ORDER.index(r.verdict), not r.beside, r.error if math.isfinite(r.error) else math.inf))
        facts: dict[str, Any] = {"directions": directions}
        if self.precision == "float64":
            facts["rounding"] = rounding = self.rounding(name)
            if worst.verdict == "pass" and not rounding <= TOLERANCE["float32"]:
                near = self.is_rounded(name) or self.near_kink(name, generator)
                facts["verdict"], facts["beside"] = ("kink", True) if near else ("fail", False)
                facts["reason"] = (
                    "rounding takes the model across a kink, so the gradient delivered is another branch's" if near
                    else f"the gradient delivered is off by {rounding:.1g} from the one in float64"
                )  # fmt: skip
        if count_kinks:
            facts["kinks"] = self.elements_at_kinks(name, allowed, generator)
        return Checked(**{**{k: getattr(worst, k) for k in Checked.__slots__}, **facts})

    def direction(self, name: str, generator: np.random.Generator, allowed: float) -> Checked:
        """One random direction."""
        with np.errstate(all="ignore"):  # what is not finite is reported as that
            return self._direction(name, generator, allowed)

    def _direction(self, name: str, generator: np.random.Generator, allowed: float) -> Checked:
        point, gradient = self.points[name].astype(np.float64), self.middle[name]
        sizes = scales(point)
        v = generator.standard_normal(point.shape) * sizes
        derivative = float(np.vdot(gradient, v))
        spread = float(np.linalg.norm(gradient * sizes))  # what <g, v> comes to in a random direction
        slope = self.slope(name, self.feeds, point, v, spread, allowed)
        scale = max(abs(derivative), abs(slope.value), spread)
        if not _relative(derivative - slope.value, scale) <= allowed:  # before a gradient is blamed, every step is heard
            slope = self.slope(name, self.feeds, point, v, spread, allowed, exhaustive=True)
            scale = max(abs(derivative), abs(slope.value), spread)
        error, unsure = _relative(derivative - slope.value, scale), _relative(slope.uncertainty, scale)
        pushed = self.pushed(name, v)
        adjoint = None if pushed is None else _relative(derivative - pushed, max(abs(derivative), abs(pushed), spread, self.floor))
        verdict, reason, beside = "pass", "", False
        if not np.isfinite(gradient).all():
            verdict, reason = "fail", "the gradient is not finite"
        elif adjoint is not None and not adjoint <= allowed:
            # In float32 onnxruntime's kernels for integers round otherwise in one session than in another, and so land on another step.
            stepped = self.precision == "float32" and self.is_rounded(name)
            verdict, reason = ("unsure", STAIRCASE) if stepped else ("fail", "forward and reverse mode disagree")
        elif not error <= allowed or (slope.kink and self.precision == "float64"):  # steps in float32 are too wide to tell a kink from kinks nearby
            if scale < self.least and abs(derivative - slope.value) <= allowed * self.least:
                verdict, reason = "unsure", "the layer hardly depends on it, so rounding hides what a difference could show"
            else:
                verdict, reason, beside = self.excuse(name, slope, error, unsure, allowed, generator)
        return Checked(name, point.shape, derivative, slope.value, error, adjoint, slope.step, self.precision, verdict, reason, beside)

    def excuse(self, name: str, slope: Slope, error: float, unsure: float, allowed: float, generator: np.random.Generator) -> tuple[str, str, bool]:
        """Why a derivative differs from the difference, where that is not its fault; and whether it agrees beside the point."""
        if not math.isfinite(slope.value):
            return "fail", "beside the point the function is not finite, or its shape is another", False
        nearby = self.agrees_nearby(name, allowed, generator)
        if slope.kink:
            if nearby is False:
                if self.is_rounded(name):
                    return "unsure", STAIRCASE, False
                return "fail", "a kink lies at the point, and beside it too the gradient is wrong", False
            there = "; beside the point the gradient agrees" if nearby else ""
            return "kink", f"the differences to the left and to the right disagree{there}", bool(nearby)
        if error <= 3 * unsure:
            return "unsure", f"the differences are good to {unsure:.1g} alone", False
        if nearby:
            return "kink", "an operator inside is at its kink; beside the point the gradient agrees", True
        if self.is_rounded(name):
            return "unsure", STAIRCASE, False
        return "fail", "", False

    def is_rounded(self, name: str) -> bool:
        """Whether what a tensor moves is rounded to quantised integers."""
        active = active_values(replace(self.graph, straight_through=True), [name])
        rounding = (n for n in self.graph.nodes if (rule := rule_of(n)) is not None and rule.quantizes)
        return any(i in active for n in rounding for i in n.inputs)

    def slope(self, name: str, feeds: Mapping[str, Array], point: Array, v: Array, spread: float, allowed: float, exhaustive: bool = False) -> Slope:
        line = Line(lambda t: self.value(name, feeds, point + t * v), self.value(name, feeds, point), self.weights, self.epsilon)
        return slope_at(line, STEPS[self.precision], 0.1 * allowed * max(spread, self.least), exhaustive=exhaustive)

    def pushed(self, name: str, v: Array) -> float | None:
        """<u, Jv> by forward mode."""
        if name not in self.pushes:
            return None
        loaded, seeds, _ = self.pushes[name]
        tangents = {seed: v if n == name else np.zeros_like(self.points[n]) for n, seed in seeds.items()}
        return self.weights.of(loaded({**self.feeds, **tangents})[0])

    def agrees_nearby(self, name: str, allowed: float, generator: np.random.Generator) -> bool | None:
        """Whether gradient and difference agree once the inputs are moved a little, as they do where the point itself was the exception; None where
        that cannot be told (no input can move, or a kink lies there too)."""
        near = self.nearby(generator, BESIDE[self.precision])
        if near is None:
            return None
        gradient = self.gradients(near)[name]
        point = (near[name] if name in near else self.inner(near).get(name, self.points[name])).astype(np.float64)
        sizes = scales(point)
        v = generator.standard_normal(point.shape) * sizes
        derivative, spread = float(np.vdot(gradient, v)), float(np.linalg.norm(gradient * sizes))
        slope = self.slope(name, near, point, v, spread, allowed, exhaustive=True)
        scale = max(abs(derivative), abs(slope.value), spread, self.least)
        error = _relative(derivative - slope.value, scale)
        if error <= allowed and not (slope.kink and self.precision == "float64"):
            return True
        return None if slope.kink or error <= 3 * _relative(slope.uncertainty, scale) else False

    def nearby(self, generator: np.random.Generator, distance: float) -> dict[str, Array] | None:
        """The inputs moved a little at random; None where none can be."""
        near, moved = dict(self.feeds), False
        for name, array in self.feeds.items():
            if array.dtype.kind == "f" and name != self.plan.cotangent:
                wide = array.astype(np.float64)
                near[name] = wide + distance * scales(wide) * generator.standard_normal(wide.shape)
                moved = True
        return near if moved else None

    def rounding(self, name: str) -> float:
        given, wide = self.delivered(name), self.middle[name]
        if not np.isfinite(wide).all() or not np.isfinite(given).all():
            return math.inf
        sizes = scales(self.points[name].astype(np.float64))
        return _relative(float(np.linalg.norm((given - wide) * sizes)), max(float(np.linalg.norm(wide * sizes)), self.floor))

    def near_kink(self, name: str, generator: np.random.Generator) -> bool:
        """Whether moving the inputs by no more than float32 rounds changes the gradient as much as the delivered one is off."""
        distance = float(np.linalg.norm(self.delivered(name) - self.middle[name]))
        for _ in range(4):
            near = self.nearby(generator, 1e-6)
            if near is not None and float(np.linalg.norm(self.gradients(near)[name] - self.middle[name])) >= 0.1 * distance > 0:
                return True
        return False

    def elements_at_kinks(self, name: str, allowed: float, generator: np.random.Generator) -> tuple[int, int]:
        """How many elements the one-sided differences disagree at, of a sample of them."""
        point = self.points[name].astype(np.float64)
        chosen = np.arange(point.size) if point.size <= COUNTED else generator.choice(point.size, COUNTED, replace=False)
        sizes, gradient = scales(point).reshape(-1), self.middle[name].reshape(-1)
        spread = float(np.sqrt(np.mean((gradient * sizes) ** 2))) if point.size else 0.0
        count = 0
        for k in chosen:
            v = np.zeros(point.size)
            v[k] = sizes[k]
            count += self.slope(name, self.feeds, point, v.reshape(point.shape), spread, allowed).kink
        return count, len(chosen)


def _seconds(loaded: Evaluator, feeds: Mapping[str, Array]) -> float:
    """How long a run takes."""
    started = time.perf_counter()
    loaded(feeds)
    return time.perf_counter() - started


def _apart(pushes: Iterable[tuple[Evaluator, Mapping[str, str], str]]) -> list[tuple[Evaluator, Mapping[str, str], str]]:
    """Each program once; tensors that move together share one."""
    return list({id(push[0]): push for push in pushes}.values())


def _ready(graph: Graph, feeds: Mapping[str, Array], engine: Engine, options: RunOptions) -> Evaluator:
    """The graph on the engine, which has run it once on these inputs: kernels may be found missing then alone."""
    loaded = engine.load(graph, options)
    loaded(feeds)
    return loaded


def _is_half(points: Mapping[str, Array]) -> bool:
    """Whether the model computes in less than float32 itself, so that float32 is the wider precision already."""
    return all(np.asarray(p).dtype.itemsize == 2 for p in points.values())


def _relative(difference: float, scale: float) -> float:
    if not math.isfinite(difference) or not math.isfinite(scale):
        return math.inf
    return abs(difference) / scale if scale else 0.0 if difference == 0 else math.inf
