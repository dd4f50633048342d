"""The whole gradient by finite differences, against the exact one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netsens.analyse.difference import finite_difference, scales
from netsens.errors import InputError, NetsensWarning, NoPathError, NotFoundError, UnsupportedError, UsageError
from tests.analyse.models import RNG, W, X, classifier, model

pytestmark = pytest.mark.filterwarnings("ignore::netsens.errors.NetsensWarning")


@pytest.mark.parametrize(
    "question",
    [
        {"wrt": "all"},
        {"wrt": "all", "target": 2},
        {"wrt": ["h", "x", "W"], "target": "argmax"},
        {"wrt": "all", "cotangent": RNG.standard_normal((3, 7))},
        {"wrt": "W", "of": "h"},
        {"wrt": "all", "of": "r", "per_sample": True, "cotangent": RNG.standard_normal((3, 7))},
        {"wrt": "all", "of": "r", "per_sample": True, "target": 1},
    ],
)
def test_agrees_with_the_exact_gradient(question: dict[str, Any]) -> None:
    exact = classifier().grad({"x": X}, **question)
    found = classifier().grad({"x": X}, method="finite-difference", **question)
    assert list(found) == list(exact)
    for name, wanted in exact.items():
        assert found[name].shape == wanted.shape
        assert found[name].dtype == wanted.dtype
        np.testing.assert_allclose(found[name], wanted, atol=1e-6)


def test_the_estimate_covers_the_error() -> None:
    exact = classifier().grad({"x": X}, "all", target=3)
    for precision, bound in (("float64", 1e-7), ("float32", 1e-2)):
        found = finite_difference(classifier().graph, {"x": X}, wrt="all", target=3, precision=precision)
        assert found.precision == precision
        assert found.uncertainty is not None
        assert found.uncertainty <= bound
        for name, wanted in exact.items():
            error = np.abs(found.gradients[name] - wanted).max() / np.abs(wanted).max()
            assert error <= 3 * found.uncertainty + 1e-6


def test_kinks_are_counted_and_said() -> None:
    x = X.copy()
    x[0, 0] = x[1, 2] = 0
    absolute = model("(float[N,5] x) => (float[N,5] y) { y = Abs(x) }")
    found = finite_difference(absolute.graph, {"x": x})
    assert found.kinks == 2
    np.testing.assert_allclose(found.gradients["x"], np.sign(x), atol=1e-6)
    with pytest.warns(NetsensWarning, match="2 elements lie at a kink"):
        absolute.grad({"x": x}, method="finite-difference")


def test_a_step_by_hand_sees_over_steps() -> None:
    stairs = model("(float[N,5] x) => (float[N,5] y) { y = Floor(x) }")
    np.testing.assert_allclose(stairs.grad({"x": X}, method="finite-difference", step=10.0)["x"], 1.0)
    np.testing.assert_array_equal(stairs.grad({"x": X}, method="finite-difference")["x"], 0.0)


def test_steps_follow_the_magnitude_of_each_element() -> None:
    x = np.asarray([[1e-4, 3.0, 2e5, 0.0, -40.0]], np.float32)
    square = model("(float[N,5] x) => (float[N,5] y) { y = Mul(x, x) }")
    np.testing.assert_allclose(square.grad({"x": x}, method="finite-difference")["x"], 2 * x, rtol=1e-5, atol=1e-6)
    sizes = scales(x)
    assert sizes[0, 2] == pytest.approx(2e5)
    assert 0 < sizes[0, 3] <= 1


def test_token_ids_are_taken_at_the_embedding() -> None:
    table = RNG.standard_normal((9, 4)).astype(np.float32)
    words = model("(int64[N,3] t) => (float[N,3,4] y) { e = Gather(E, t) y = Tanh(e) }", E=table)
    t = np.asarray([[1, 5, 2]], np.int64)
    found = words.grad({"t": t}, method="finite-difference")
    np.testing.assert_allclose(found["e"], 1 - np.tanh(table[t]) ** 2, atol=1e-6)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    classifier().grad({"x": X}, method="finite-difference", progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == len(told)
    assert all(done <= total for done, total in told)


def test_absurd_sizes_are_refused() -> None:
    wide = model("(float[N,4000000] x) => (float[N,4000000] y) { y = Tanh(x) }")
    with pytest.raises(UsageError, match="16,000,000 times"):
        wide.grad({"x": np.zeros((1, 4_000_000), np.float32)}, method="finite-difference")


@pytest.mark.parametrize(
    ("question", "error", "words"),
    [
        ({"step": -1.0}, UsageError, "positive"),
        ({"step": float("nan")}, UsageError, "positive"),
        ({"step": 1e-30}, UsageError, "lost in rounding"),
        ({"wrt": "nope"}, NotFoundError, "nope"),
        ({"of": "nope"}, NotFoundError, "nope"),
        ({"of": "h", "wrt": "r"}, None, ""),
        ({"target": 9}, UsageError, "9"),
        ({"cotangent": np.zeros((2, 7))}, InputError, "2x7"),
        ({"cotangent": np.zeros((3, 7)), "target": 1}, UsageError, "exclude"),
    ],
)
def test_bad_questions(question: dict[str, Any], error: type[Exception] | None, words: str) -> None:
    if error is None:  # what the layer does not depend on has a gradient of zero, as exact rules have it
        assert not classifier().grad({"x": X}, method="finite-difference", **question)["r"].any()
        return
    with pytest.raises(error, match=words):
        classifier().grad({"x": X}, method="finite-difference", **question)


def test_a_step_needs_the_method() -> None:
    with pytest.raises(UsageError, match="--method finite-difference"):
        classifier().grad({"x": X}, step=0.1)
    with pytest.raises(UsageError, match="not auto"):
        classifier().grad({"x": X}, method="magic")


def test_a_group_that_does_not_reach_the_layer() -> None:
    loose = model("(float[N,5] x, float[N,5] z) => (float[N,5] y) { y = Tanh(x) unused = Tanh(z) }")
    assert list(loose.grad({"x": X, "z": X}, method="finite-difference")) == ["x"]
    constant = model("(float[N,5] x) => (float[1] y) { y = Tanh(c) unused = Tanh(x) }", c=np.ones(1, np.float32))
    with pytest.raises(NoPathError, match="does not depend"):
        constant.grad({"x": X}, method="finite-difference")


def test_random_models_are_refused() -> None:
    noisy = model("(float[N,5] x) => (float[N,5] y) { n = RandomNormalLike(x) y = Add(x, n) }")
    with pytest.raises(UnsupportedError, match="RandomNormalLike"):
        noisy.grad({"x": X}, method="finite-difference")


def test_parameters_are_not_changed() -> None:
    loaded = classifier()
    before = loaded.graph.constants["W"].copy()
    loaded.grad({"x": X}, "params", method="finite-difference")
    np.testing.assert_array_equal(loaded.graph.constants["W"], before)
    np.testing.assert_array_equal(before, W)
