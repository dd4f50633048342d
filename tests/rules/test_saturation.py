"""A confident softmax keeps its gradient in float32, where 1 - y is rounding alone."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import netsens


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_gradient_of_the_likeliest_class(operator: str) -> None:
    text = f'<ir_version: 10, opset_import: ["":21]> g (float[N,4] x) => (float[N,4] y) {{ y = {operator}(x) }}'
    x = np.array([[20.0, 1.0, 2.0, 3.0]], np.float32)
    found = netsens.load(onnx.parser.parse_model(text)).grad(x, target=0)["x"]
    e = np.exp(x.astype(np.float64) - 20)
    y = e / e.sum()
    rest = y[0, 1:].sum()  # 1 - y[0], without the cancellation
    scale = y[0, 0] if operator == "Softmax" else 1.0
    expected = np.concatenate([[scale * rest], -scale * y[0, 1:]])[None]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
