"""Models that onnxruntime optimised at its highest level for this machine, and saved: their channels lie in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import netsens
from netsens.graph.blocked_layout import BLOCKED

CHANNELS = 32
BODIES = {
    "activations and sums": """
      a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w3, b32) f = Relu(a)
      b = Conv<kernel_shape=[1,1]>(f, w32, b32) c = LeakyRelu<alpha=0.3>(b)
      d = Conv<kernel_shape=[1,1]>(c, v32, b32) e = Add(d, f) g = Relu(e)
      h = Conv<kernel_shape=[1,1]>(g, w20, b20) k = Clip(h, low, high)
      y = Conv<kernel_shape=[1,1]>(k, n20)""",
    "depthwise, pools and joined channels": """
      a = Conv<kernel_shape=[3,3]>(x, w3, b32) f = Sigmoid(a)
      d = Conv<kernel_shape=[3,3], group=32>(f, deep)
      p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d) q = AveragePool<kernel_shape=[2,2], strides=[2,2]>(d)
      j = Concat<axis=1>(p, q) k = Tanh(j)
      m = Conv<kernel_shape=[1,1]>(k, w64) y = GlobalAveragePool(m)""",
    "upsampled": """
      a = Conv<kernel_shape=[3,3], strides=[2,2]>(x, w3, b32)
      u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , scales)
      y = Conv<kernel_shape=[1,1]>(u, w20, b20)""",
}
WEIGHTS = {
    "w3": (CHANNELS, 3, 3, 3), "b32": (CHANNELS,), "w32": (CHANNELS, CHANNELS, 1, 1), "v32": (CHANNELS, CHANNELS, 1, 1), "w20": (20, CHANNELS, 1, 1),
    "b20": (20,), "n20": (4, 20, 1, 1), "deep": (CHANNELS, 1, 3, 3), "w64": (CHANNELS, 2 * CHANNELS, 1, 1),
}  # fmt: skip
CONSTANTS = {"low": np.float32(-0.5), "high": np.float32(0.7), "scales": np.asarray([1, 1, 2, 2], np.float32)}


def plain(body: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> m (float[2,3,9,8] x) => (float[N,C,H,W] y) {{ {body} }}')
    rng = np.random.default_rng(0)
    read = {i for node in model.graph.node for i in node.input}
    arrays = {k: (rng.standard_normal(s) / max(np.prod(s[1:]), 1) ** 0.5).astype(np.float32) for k, s in WEIGHTS.items()} | CONSTANTS
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in arrays.items() if k in read)
    return model


def optimised(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@pytest.mark.parametrize("name", BODIES)
def test_gradient_is_that_of_the_model_before(name: str, tmp_path: Path) -> None:
    before = plain(BODIES[name])
    after = optimised(before, tmp_path / "optimised.onnx")
    if not any(node.domain == BLOCKED for node in after.graph.node):
        pytest.skip("onnxruntime has no blocked layout on this machine")
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 8)).astype(np.float32)
    loaded, given = netsens.load(after), netsens.load(before)
    assert not any(node.domain for node in loaded.graph.every_node())
    session = onnxruntime.InferenceSession(after.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(loaded.run({"x": x})["y"], y, rtol=1e-5, atol=1e-6)
    u = np.random.default_rng(2).standard_normal(y.shape).astype(np.float32)
    expected, found = given.grad({"x": x}, wrt="all", cotangent=u), loaded.grad({"x": x}, wrt="all", cotangent=u)
    np.testing.assert_allclose(found["x"], expected["x"], rtol=1e-4, atol=1e-5)
    report = loaded.check({"x": x}, "all")
    assert report.ok, report.sentence
    assert report.precision == "float64"


def test_parameters_keep_the_order_of_the_file(tmp_path: Path) -> None:
    after = optimised(plain(BODIES["activations and sums"]), tmp_path / "optimised.onnx")
    if not any(node.domain == BLOCKED for node in after.graph.node):
        pytest.skip("onnxruntime has no blocked layout on this machine")
    loaded = netsens.load(after)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in after.graph.initializer}
    for name in loaded.graph.parameters:
        np.testing.assert_array_equal(loaded.graph.constants[name], stored[name])
