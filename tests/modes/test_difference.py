"""An operator without any rule: its own derivative is found by differences, and the rest of the model stays exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import netsens
from netsens.errors import NetsensWarning, UnsupportedError
from netsens.rules.words import RULES

HEAD = '<ir_version: 10, opset_import: ["":21, "com.microsoft":1]> g '
Array = np.ndarray[Any, Any]


@pytest.fixture
def without() -> Iterator[Any]:
    """Takes rules away for the length of a test."""
    kept: dict[tuple[str, str], Any] = {}

    def take(op: str, domain: str = "") -> None:
        if (domain, op) in RULES:
            kept[domain, op] = RULES.pop((domain, op))

    yield take
    RULES.update(kept)


def model(text: str, **constants: Array) -> netsens.Model:
    proto = onnx.parser.parse_model(HEAD + text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    return netsens.load(proto)


def both(text: str, feeds: dict[str, Array], without: Any, ops: list[tuple[str, str]], constants: dict[str, Array] | None = None, **question: Any) -> None:
    """Gradients by the rules, and by differences of these operators alone, agree to float32's 1e-2; one note names the operators."""
    exact = model(text, **(constants or {})).grad(feeds, **question)
    for domain, op in ops:
        without(op, domain)
    with pytest.warns(NetsensWarning, match="no exact rule for") as said:
        found = model(text, **(constants or {})).grad(feeds, **question)
    notes = [str(w.message) for w in said if "no exact rule" in str(w.message)]
    assert len(notes) == 1
    assert all(op in notes[0] for _, op in ops)
    for name, wanted in exact.items():
        assert np.isfinite(wanted).all()
        assert np.abs(wanted).max() > 0
        np.testing.assert_allclose(found[name], wanted, rtol=1e-2, atol=1e-2 * float(np.abs(wanted).max()), err_msg=name)


X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
B = np.random.default_rng(1).standard_normal(4).astype(np.float32)


def test_an_operator_of_another_domain(without: Any) -> None:
    both("(float[3,4] x) => (float[3,4] y) { a = Tanh(x) b = com.microsoft.FastGelu(a) y = Mul(b, x) }", {"x": X}, without, [("com.microsoft", "FastGelu")])


def test_a_symbolic_batch_and_two_batch_sizes(without: Any) -> None:
    text = "(float[N,4] x) => (float[N,4] y) { a = Tanh(x) y = com.microsoft.FastGelu(a) }"
    both(text, {"x": X}, without, [("com.microsoft", "FastGelu")])
    loaded = model(text)
    with pytest.warns(NetsensWarning):
        whole, first = loaded.grad({"x": X})["x"], loaded.grad({"x": X[:1]})["x"]
    np.testing.assert_allclose(whole[:1], first, rtol=1e-4)


def test_two_inputs_one_of_them_a_parameter(without: Any) -> None:
    text = "(float[N,4] x) => (float[N,4] y) { a = com.microsoft.FastGelu(x, b) y = Sigmoid(a) }"
    both(text, {"x": X}, without, [("com.microsoft", "FastGelu")], {"b": B}, wrt="all")


def test_a_second_input_that_is_held(without: Any) -> None:
    both("(float[N,4] x) => (float[N,4] y) { a = com.microsoft.FastGelu(x, b) y = Sigmoid(a) }", {"x": X}, without, [("com.microsoft", "FastGelu")], {"b": B})


def test_several_outputs_one_of_them_integers(without: Any) -> None:
    text = "(float[3,4] x, int64[1] k) => (float[3,2] y) { v, i = TopK<axis=1>(x, k) y = Tanh(v) }"
    both(text, {"x": X, "k": np.asarray([2], np.int64)}, without, [("", "TopK")], wrt="x")


def test_two_outputs_both_of_which_count(without: Any) -> None:
    text = "(float[3,4] x) => (float[3,2] y) { a, b = Split<axis=1, num_outputs=2>(x) c = Tanh(b) y = Mul(a, c) }"
    both(text, {"x": X}, without, [("", "Split")])


def test_an_optional_input_that_is_left_out(without: Any) -> None:
    text = "(float[3,4] x, float hi) => (float[3,4] y) { a = Clip(x, , hi) y = Mul(a, x) }"
    both(text, {"x": X, "hi": np.float32(0.35)}, without, [("", "Clip")], wrt="x")


def test_small_numbers_and_zeros_get_small_steps(without: Any) -> None:
    small = 0.01 * X
    small[0, 0] = 0
    both("(float[3,4] x) => (float[3,4] y) { c = Sin(x) y = Mul(c, c) }", {"x": 100 * small}, without, [("", "Sin")])
    with pytest.warns(NetsensWarning):
        found = model("(float[3,4] x) => (float[3,4] y) { y = Sin(x) }").grad({"x": small})["x"]
    np.testing.assert_allclose(found, np.cos(small), rtol=1e-2)


def test_a_single_number(without: Any) -> None:
    both("(float x) => (float y) { a = Sin(x) y = Mul(a, x) }", {"x": np.float32(0.7)}, without, [("", "Sin")])


def test_forward_mode_agrees_with_reverse_mode(without: Any) -> None:
    without("FastGelu", "com.microsoft")
    loaded = model("(float[N,4] x) => (float[N,4] y) { a = com.microsoft.FastGelu(x, b) y = Sigmoid(a) }", b=B)
    report = loaded.check({"x": X})
    assert report.ok, report
    assert all(row.adjoint is not None and row.adjoint < 1e-4 for row in report.rows)


def test_without_differences_it_is_refused(without: Any) -> None:
    without("FastGelu", "com.microsoft")
    loaded = model("(float[3,4] x) => (float[3,4] y) { y = com.microsoft.FastGelu(x) }")
    with pytest.raises(UnsupportedError, match=r"FastGelu.*--method auto"):
        loaded.grad({"x": X}, method="autodiff")
