"""Differences of functions whose derivatives are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from netsens.analyse.richardson import STEPS, Slope, slope_at


@dataclass
class Change:
    """A function's change from its value at 0."""

    f: Callable[[float], float]
    noise: float

    def __call__(self, distance: float) -> float:
        return self.f(distance) - self.f(0)


def slope(f: Callable[[float], float], noise: float, goal: float) -> Slope:
    return slope_at(Change(f, noise), STEPS["float64"], goal)


SMOOTH: list[tuple[str, Callable[[float], float], float]] = [
    ("exp", math.exp, 1.0),
    ("cubic", lambda t: (1 + t) ** 3, 3.0),
    ("fast", lambda t: math.sin(40 * t), 40.0),
    ("flat", lambda t: 5.0, 0.0),
]


@pytest.mark.parametrize(("name", "f", "wanted"), SMOOTH)
def test_smooth_functions(name: str, f: Callable[[float], float], wanted: float) -> None:
    found = slope(f, 1e-15, 1e-7 * max(wanted, 1))
    assert abs(found.value - wanted) <= max(found.uncertainty, 1e-12)
    assert abs(found.value - wanted) <= 1e-7 * max(wanted, 1)
    assert not found.kink


@pytest.mark.parametrize("f", [abs, lambda t: max(t, 0), lambda t: 3 * t + min(2 * t, 0)])
def test_a_kink_at_the_point(f: Callable[[float], float]) -> None:
    assert slope(f, 1e-16, 1e-7).kink


@pytest.mark.parametrize("distance", [3e-5, 4e-6, -7e-7])
def test_a_kink_beside_the_point_is_stepped_over(distance: float) -> None:
    def f(t: float) -> float:
        return max(t - distance, 0) + t

    found = slope(f, 1e-16, 1e-7)
    assert not found.kink
    assert found.value == pytest.approx(1.0 if distance > 0 else 2.0, abs=1e-6)


def test_rounding_is_owned_up_to() -> None:
    """A function with noise of 1e-3: no step can tell its slope to better than that over the step."""
    values = iter(range(10**6))

    def f(t: float) -> float:
        return t + 1e-3 * math.sin(1e4 * next(values))

    found = slope(f, 1e-3, 1e-6)
    assert abs(found.value - 1) <= 3 * found.uncertainty
    assert found.uncertainty > 1e-2


def test_what_is_not_finite_is_never_certain() -> None:
    found = slope(lambda t: math.nan, 1e-16, 1e-7)
    assert not found.uncertainty <= 1e9
