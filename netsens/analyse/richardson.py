"""Central differences of a function of one number: steps tried in turn, the best chosen by what they say of themselves, kinks told from curvature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

# Relative steps, in the order they are tried: first the one that balances truncation against rounding, then smaller ones, in case
# a kink lies within the step, then larger ones, in case rounding drowns the difference.
STEPS = {"float64": (1e-4, 1e-5, 1e-6, 1e-7, 1e-3, 1e-2), "float32": (1e-2, 3e-3, 3e-2, 1e-3, 1e-1, 3e-4, 3e-1)}
TINY = 1e-3  # of the smallest step: a distance over which a change is all rounding


@dataclass(frozen=True, slots=True)
class Slope:
    """A derivative by differences. `uncertainty` is how far it may be off by its own account, `rounding` the part of that which rounding has; `jump` is
    by how much the differences to the left and to the right would still disagree at a step of zero, and `kink` whether that is more than truncation and
    rounding explain."""

    value: float
    uncertainty: float
    step: float
    jump: float
    kink: bool
    rounding: float


class Change(Protocol):
    """By how much a function changes at a distance from the point, and by how much rounding may move that (known better the more it was called)."""

    @property
    def noise(self) -> float: ...

    def __call__(self, distance: float, /) -> float: ...


def slope_at(f: Change, steps: Sequence[float], goal: float, *, exhaustive: bool = False) -> Slope:
    """The derivative of `f` at the point, where it is 0. Stops at the first step whose uncertainty is within `goal`; otherwise the step with the least
    is taken, and its uncertainty is no less than what other steps contradict it by. `exhaustive` tries every step whatever the first ones say, and
    measures the noise of `f` instead of trusting an estimate."""
    measured = measured_noise(f, TINY * min(steps)) if exhaustive else 0.0
    tried: list[Slope] = []
    for h in steps:
        found = _slope(f, h, goal, measured)
        if not exhaustive and found.uncertainty <= goal and not found.kink:
            return found
        tried.append(found)
        if not exhaustive and _same_kink(tried):
            return found
    if len(tried) == 1:
        return tried[0]
    there = _kink_at_the_point(tried, lambda s: max(20 * goal, 40 * s.rounding))
    if there is not None:
        return there
    best = min(tried, key=lambda s: (s.kink, s.uncertainty if math.isfinite(s.uncertainty) else math.inf))
    return replace(best, kink=False, uncertainty=max(best.uncertainty, _contradiction(best, tried)))


def measured_noise(f: Change, distance: float) -> float:
    """How far rounding moves `f`: the standard deviation of its fourth differences over so small a distance that nothing else does (Moré and Wild,
    Estimating computational noise, 2011)."""
    values = [f(k * distance) for k in range(-4, 5)]
    for _ in range(4):
        values = [b - a for a, b in pairwise(values)]
    return math.sqrt(sum(v * v for v in values) / len(values) / 70)  # 70 = 8! / 4!², the variance of a fourth difference of unit noise


def _contradiction(best: Slope, tried: Sequence[Slope]) -> float:
    """By how much the other steps contradict the best: a smaller one, whatever rounding doesn't explain; a larger one, where it claims to be good too."""
    apart = [abs(best.value - s.value) - 3 * s.rounding for s in tried if s.step < best.step]
    larger = [s for s in tried if s.step > best.step and not s.kink and s.uncertainty <= 3 * best.uncertainty]
    apart += [abs(best.value - s.value) for s in larger]
    return max([0.0, *(a for a in apart if math.isfinite(a))])


def _kink_at_the_point(tried: Sequence[Slope], visible: Callable[[Slope], float]) -> Slope | None:
    """The smallest step that sees a kink which lies at the point itself: the next larger one sees the same, and no smaller one that could see it
    misses it. `visible` is the least jump that a step tells from rounding."""
    steps = sorted((s for s in tried if math.isfinite(s.jump)), key=lambda s: s.step)
    first = next((k for k, s in enumerate(steps) if s.kink), None)
    if first is None:
        return None
    found = steps[first]
    if any(2 * visible(s) < abs(found.jump) for s in steps[:first]):
        return None
    if first + 1 == len(steps):
        return found
    return found if abs(steps[first + 1].jump - found.jump) <= 0.3 * abs(found.jump) else None


def _same_kink(tried: Sequence[Slope]) -> bool:
    """Whether a step and one a tenth of it see one and the same kink, which then lies at the point itself."""
    if len(tried) < 2 or not (tried[-1].kink and tried[-2].kink and tried[-1].step < tried[-2].step):
        return False
    return abs(tried[-1].jump - tried[-2].jump) <= 0.01 * abs(tried[-2].jump)


def _slope(f: Change, h: float, goal: float, measured: float) -> Slope:
    """Richardson's extrapolation of the central differences over h and h/2."""
    ahead, behind, near_ahead, near_behind = f(h), f(-h), f(h / 2), f(-h / 2)
    wide, narrow = (ahead - behind) / (2 * h), (near_ahead - near_behind) / h
    # The gap between the one-sided differences halves with the step where f is smooth; what it would be at a step of zero is the kink.
    near_gap, gap = 2 * (near_ahead + near_behind) / h, (ahead + behind) / h
    jump = 2 * near_gap - gap
    rounding = max(f.noise, measured) / h
    kink = abs(jump) > max(20 * goal, 40 * rounding)
    return Slope(narrow + (narrow - wide) / 3, abs(narrow - wide) / 3 + rounding, h, jump, kink, rounding)
