"""Jacobians of models that read text as well as numbers."""

from __future__ import annotations

import numpy as np
import onnx

import netsens

MODEL = """
<ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 4]>
agraph (float[N, 2] x, string[N, 1] s) => (float[N, 2] y) {
  f = ai.onnx.ml.LabelEncoder <keys_strings = ["a", "b"], values_floats = [2.0, 3.0]> (s)
  squared = Mul (x, x)
  y = Mul (squared, f)
}
"""


def test_text_is_handed_to_every_part_of_the_derivative() -> None:
    model = netsens.load(onnx.parser.parse_model(MODEL), threads=1)
    x, s = np.asarray([[1.0, -2.0], [3.0, 0.5]], np.float32), np.asarray([["b"], ["a"]])
    exact = np.zeros((2, 2, 2, 2), np.float32)
    for n, factor in enumerate((3, 2)):
        exact[n, [0, 1], n, [0, 1]] = 2 * x[n] * factor
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(model.jacobian({"x": x, "s": s}, wrt="x", mode=mode)["x"], exact, rtol=1e-6)
    linear = model.linearize({"x": x, "s": s}, wrt="x")
    np.testing.assert_allclose(linear.jvp({"x": np.ones_like(x)}), 2 * x * [[3], [2]], rtol=1e-6)
    np.testing.assert_allclose(linear.vjp(np.ones_like(x))["x"], 2 * x * [[3], [2]], rtol=1e-6)
