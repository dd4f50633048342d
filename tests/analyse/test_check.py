"""A check passes what is right, fails what is wrong, and never passes what it could not compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx.parser
import pytest

import netsens
from netsens.errors import InputError, NoPathError, NotFoundError, UnsupportedError, UsageError
from netsens.rules.words import RULES
from tests.analyse.models import RNG, X, classifier, model

pytestmark = pytest.mark.filterwarnings("ignore::netsens.errors.NetsensWarning")
SMOOTH = "(float[N,5] x) => (float[N,5] y) { a = Tanh(x) y = Sigmoid(a) }"


@pytest.fixture
def bent() -> Iterator[Callable[[float], None]]:
    """Scales the derivative of Tanh, for the length of a test."""
    kept = RULES["", "Tanh"]

    def bend(factor: float) -> None:
        RULES["", "Tanh"] = replace(kept, jvp=lambda op, n, ts: [op.Mul(ts[0], factor * (1 - n.y * n.y))], transpose=None, vjp=None)

    yield bend
    RULES["", "Tanh"] = kept


@pytest.mark.parametrize(
    "question",
    [{}, {"target": 2}, {"target": "argmax"}, {"cotangent": RNG.standard_normal((3, 7))}, {"wrt": ["h", "x"]}, {"wrt": "W", "of": "r"}, {"directions": 1}],
)
def test_right_gradients_pass(question: dict[str, Any]) -> None:
    report = classifier().check({"x": X}, **question)
    assert report.ok
    assert report.precision == "float64"
    assert report.tolerance == 1e-6
    for row in report.rows:
        assert row.verdict == "pass"
        assert row.error < 1e-7
        assert row.adjoint is not None
        assert row.adjoint < 1e-12
        assert row.rounding < 1e-5
        # A softmax's sum is constant: weighed by random numbers it is not, so there is something to compare.
        assert abs(row.difference) > 1e-6


def test_float32_by_name() -> None:
    report = classifier().check({"x": X}, precision="float32")
    assert report.ok
    assert (report.precision, report.tolerance) == ("float32", 1e-2)


def test_onnx_reference_where_onnxruntime_has_no_float64() -> None:
    weight = RNG.standard_normal((2, 1, 3, 3)).astype(np.float32)
    image = model("(float[N,1,6,6] x) => (float[N,2,4,4] y) { c = Conv(x, w) y = Tanh(c) }", w=weight)
    report = image.check({"x": RNG.standard_normal((1, 1, 6, 6)).astype(np.float32)})
    assert report.ok
    assert (report.precision, report.engine) == ("float64", "onnx.reference")


@pytest.mark.parametrize("factor", [1.00001, 1.01, -1.0, 0.5])
def test_wrong_gradients_fail(factor: float, bent: Callable[[float], None]) -> None:
    bent(factor)
    report = model(SMOOTH).check({"x": X})
    assert not report.ok
    assert [r.verdict for r in report.rows] == ["fail"]
    assert report.rows[0].error == pytest.approx(abs(factor - 1) * abs(report.rows[0].difference) / max(1, abs(factor)) / abs(report.rows[0].difference), rel=1)
    assert "does not" in report.sentence


def test_the_tolerance_is_the_users(bent: Callable[[float], None]) -> None:
    bent(1.001)
    assert model(SMOOTH).check({"x": X}, tolerance=1e-2).ok
    assert not model(SMOOTH).check({"x": X}, tolerance=1e-4).ok
    assert model(SMOOTH).check({"x": X}, tolerance=1e-4, precision="float32").rows[0].verdict != "pass"


def test_wrong_gradients_fail_in_float32(bent: Callable[[float], None]) -> None:
    bent(1.1)
    assert not model(SMOOTH).check({"x": X}, precision="float32").ok


def test_a_reverse_rule_that_differs_from_the_forward_one() -> None:
    kept = RULES["", "Tanh"]
    RULES["", "Tanh"] = replace(kept, vjp=lambda op, n, gs: [op.Mul(gs[0], 1.001 * (1 - n.y * n.y))])
    try:
        row = model(SMOOTH).check({"x": X}).rows[0]
    finally:
        RULES["", "Tanh"] = kept
    assert row.verdict == "fail"
    assert row.reason == "forward and reverse mode disagree"
    assert row.adjoint is not None
    assert 1e-5 < row.adjoint < 1e-2


def test_a_kink_is_no_pass_and_no_failure() -> None:
    x = X.copy()
    x[0, 0] = 0
    report = model("(float[N,5] x) => (float[N,5] y) { y = Relu(x) }").check({"x": x}, count_kinks=True)
    (row,) = report.rows
    assert (row.verdict, row.beside) == ("kink", True)
    assert row.kinks == (1, 15)
    assert report.ok  # since it agrees beside the kink
    assert "beside a kink" in report.sentence


def test_kinks_that_cancel() -> None:
    """relu(x) - relu(-x) is x: smooth at 0, where both of its parts are not."""
    report = model("(float[N,5] x) => (float[N,5] y) { a = Relu(x) n = Neg(x) b = Relu(n) y = Sub(a, b) }").check({"x": 0 * X})
    assert report.rows[0].verdict == "kink"
    assert report.rows[0].beside


def test_a_wrong_gradient_at_a_kink_still_fails(bent: Callable[[float], None]) -> None:
    bent(1.1)
    x = X.copy()
    x[0, 0] = 0
    report = model("(float[N,5] x) => (float[N,5] y) { a = Tanh(x) y = Relu(a) }").check({"x": x})
    assert report.rows[0].verdict == "fail"


def test_nothing_compared_is_no_pass() -> None:
    """A parameter alone, at a kink that no input can move it off."""
    held = model("(float[N,5] x) => (float[N,5] y) { r = Abs(b) y = Mul(x, r) }", b=np.zeros(5, np.float32))
    report = held.check({"x": X}, wrt="b")
    assert report.rows[0].verdict == "kink"
    assert not report.ok
    assert "nothing was proven" in report.sentence


def test_a_gradient_that_is_not_finite_fails() -> None:
    report = model("(float[N,5] x) => (float[N,5] y) { y = Sqrt(x) }").check({"x": 0 * X})
    assert report.rows[0].verdict == "fail"
    assert "not finite" in report.rows[0].reason


def test_a_gradient_that_is_zero_but_for_rounding() -> None:
    """A shift before a softmax changes nothing: its gradient is zero up to rounding, and that is right."""
    shifted = model("(float[N,5] x) => (float[N,5] y) { z = Add(x, b) y = Softmax<axis=1>(z) }", b=np.ones(1, np.float32))
    report = shifted.check({"x": X})
    assert {r.name: r.verdict for r in report.rows} == {"x": "pass", "b": "unsure"}
    assert report.ok
    assert not shifted.check({"x": X}, wrt="b").ok


def test_an_output_that_is_saturated_proves_nothing() -> None:
    deep = model("(float[N,5] x) => (float[N,5] y) { z = Mul(x, k) y = Softmax<axis=1>(z) }", k=np.float32(3000))
    report = deep.check({"x": X})
    assert all(r.verdict != "fail" for r in report.rows)
    assert report.ok == any(r.verdict == "pass" and r.difference == r.derivative == 0 for r in report.rows)


def test_a_cut_path_is_compared_as_zero() -> None:
    report = model("(float[N,5] x) => (float[N,5] y) { y = Floor(x) }").check({"x": X}, wrt="x")
    assert [(r.derivative, r.difference, r.verdict) for r in report.rows] == [(0.0, 0.0, "pass")]


def test_token_ids() -> None:
    words = model("(int64[N,3] t) => (float[N,3,4] y) { e = Gather(E, t) y = Tanh(e) }", E=RNG.standard_normal((9, 4)).astype(np.float32))
    report = words.check({"t": np.asarray([[1, 5, 2]], np.int64)})
    assert report.ok
    assert {r.name for r in report.rows} == {"e", "E"}
    assert any("integers" in note for note in report.notes)


def test_the_same_seed_gives_the_same_figures() -> None:
    first, again, other = (classifier().check({"x": X}, seed=s).rows[0].difference for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("question", "error", "words"),
    [
        ({"directions": 0}, UsageError, "direction"),
        ({"tolerance": -1.0}, UsageError, "tolerance"),
        ({"tolerance": float("nan")}, UsageError, "tolerance"),
        ({"precision": "float8"}, UsageError, "float8"),
        ({"of": "nope"}, NotFoundError, "nope"),
        ({"wrt": "nope"}, NotFoundError, "nope"),
        ({"target": 99}, UsageError, "99"),
        ({"cotangent": np.zeros(3)}, InputError, "shape"),
        ({"of": "h", "wrt": "r"}, NoPathError, "depend"),
    ],
)
def test_bad_questions(question: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        classifier().check({"x": X}, **question)


def test_random_models_are_refused() -> None:
    noisy = model("(float[N,5] x) => (float[N,5] y) { n = RandomNormalLike(x) y = Add(x, n) }")
    with pytest.raises(UnsupportedError, match="RandomNormalLike"):
        noisy.check({"x": X})


def test_operators_outside_the_standard_are_judged_in_float64() -> None:
    """Written out in those that run in float64: ONNX's evaluator knows neither onnxruntime's own operators nor onnxruntime's idea of a Normalizer."""
    body = 'a = com.microsoft.FastGelu(x)  y = ai.onnx.ml.Normalizer<norm="MAX">(a)'
    text = f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "ai.onnx.ml": 3]> m (float[2,3] x) => (float[2,3] y) {{ {body} }}'
    model = netsens.load(onnx.parser.parse_model(text))
    report = model.check({"x": np.asarray([[0.5, -2.0, 1.5], [-1.0, -0.3, -2.0]], np.float32)})
    assert (report.ok, report.precision) == (True, "float64"), report.sentence


@pytest.mark.parametrize("quantized", ["zero", "straight-through"])
def test_a_fine_staircase_is_no_failure(quantized: str) -> None:
    """In float32 differences step over many of its stairs, and so see a slope where the true derivative is zero."""
    body = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = Mul(d, d) y = ReduceSum(e)"
    text = f'<ir_version: 10, opset_import: ["": 21]> m (float[2000] x) => (float[1] y) <float s = {{0.00001}}, uint16 z = {{32768}}> {{ {body} }}'
    model = netsens.load(onnx.parser.parse_model(text), quantized=quantized)
    report = model.check({"x": np.linspace(0.05, 0.15, 2000, dtype=np.float32)}, "x", precision="float32")
    assert [row.verdict for row in report.rows] != ["fail"], report.rows
