"""Inner values that are NaN or infinite and that the layer never reads: the gradient goes past them; one that is truly infinite stays infinite."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import netsens
from netsens.errors import NetsensWarning

INF = np.inf
X = np.array([0, 1, -4], np.float32)


def model(body: str, shape: str = "3") -> netsens.Model:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g (float[{shape}] x) => (float[{shape}] y) {{ zero = Constant<value_float=0.0>() {body} }}'
    return netsens.load(onnx.parser.parse_model(text))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("one = Constant<value_float=1.0>() at = Equal(x, zero) s = Sin(x) r = Div(s, x) y = Where(at, one, r)", [0, np.cos(1) - np.sin(1), None]),
        ("positive = Greater(x, zero) r = Log(x) y = Where(positive, r, zero)", [0, 1, 0]),
        ("positive = Greater(x, zero) r = Sqrt(x) y = Where(positive, r, zero)", [0, 0.5, 0]),
        ("positive = Greater(x, zero) h = Constant<value_float=0.5>() r = Pow(x, h) y = Where(positive, r, zero)", [0, 0.5, 0]),
        ("positive = Greater(x, zero) r = Reciprocal(x) y = Where(positive, r, zero)", [0, -1, 0]),
    ],
    ids=["sinc", "log", "sqrt", "pow", "reciprocal"],
)
def test_what_is_never_read_is_passed_over(body: str, expected: list[float | None]) -> None:
    with pytest.warns(NetsensWarning, match="not read them"):
        found = model(body).grad(X)["x"]
    assert np.isfinite(found).all()
    for got, wanted in zip(found, expected, strict=True):
        if wanted is not None:
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_matrix_product_with_unread_rows() -> None:
    body = (
        "l = Log(x) t = Transpose(x) m = MatMul(l, t) first = Constant<value_ints=[0]>() second = Constant<value_ints=[1]>() y = Slice(m, first, second, first)"
    )
    text = f'<ir_version: 10, opset_import: ["" : 21]> g (float[2,2] x) => (float[1,2] y) {{ {body} }}'
    x = np.array([[1, 2], [-1, 3]], np.float32)
    with pytest.warns(NetsensWarning, match="not read them"):
        found = netsens.load(onnx.parser.parse_model(text)).grad(x)["x"]
    log = np.log([1, 2])
    np.testing.assert_allclose(found[0], x.sum(0) / [1, 2] + log, rtol=1e-6)
    np.testing.assert_allclose(found[1], log, rtol=1e-6)


def test_an_infinite_gradient_stays_infinite() -> None:
    with pytest.warns(NetsensWarning, match="NaN or infinity"):
        found = model("y = Sqrt(x)").grad(np.array([0, 1, 4], np.float32))["x"]
    np.testing.assert_allclose(found, [INF, 0.5, 0.25])
