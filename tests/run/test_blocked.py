"""Masks computed in onnxruntime's blocks of channels choose exactly what Where chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import netsens
from netsens.run import session as sessions
from netsens.run.blocked import blocked_masks

rng = np.random.default_rng(0)
ACTIVATIONS = {"Relu": "y = Relu(c)", "ReLU6": "low = Constant<value_float = 0.0>() high = Constant<value_float = 6.0>() y = Clip(c, low, high)",
               "Clip": "low = Constant<value_float = -0.5>() high = Constant<value_float = 0.25>() y = Clip(c, low, high)"}  # fmt: skip


def chained(activation: str, batch: str = "n") -> onnx.ModelProto:
    """An activation between two 1x1 convolutions, the first of which hands its input on."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[{batch}, 16, 4, 4] x) => (float[{batch}, 16, 4, 4] z) {{ c = Conv(x, v) {activation} z = Conv(y, w) }}'
    )
    weights = {"v": np.eye(16, dtype=np.float32)[..., None, None], "w": rng.standard_normal((16, 16, 1, 1)).astype(np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, k) for k, a in weights.items())
    return model


def gradients(model: onnx.ModelProto, x: Any) -> Any:
    return netsens.load(model, provider="cpu").grad(x)["x"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_as_where_chooses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = np.array([0, -0.0, 1e-45, -1e-45, 1e-38, 1, 6, np.nextafter(np.float32(6), np.float32(0)), 7, -0.5, 0.25, 3e38, -3e38, 1e-20], np.float32)
    x = np.resize(edges, (2, 16, 4, 4))
    model = chained(ACTIVATIONS[name])
    monkeypatch.setattr(sessions, "BLOCKED", {sessions.platform.machine()})
    found = gradients(model, x)
    monkeypatch.setattr(sessions, "BLOCKED", set())
    np.testing.assert_array_equal(found != 0, gradients(model, x) != 0)
    np.testing.assert_allclose(found, gradients(model, x), rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_mask_is_left_outside(name: str) -> None:
    plan = netsens.load(chained(ACTIVATIONS[name])).plan()
    assert [n.op for n in plan.graph.nodes].count("Where") == 1
    written = [n.op for n in blocked_masks(plan.graph).nodes]
    assert "Where" not in written
    assert "Greater" not in written


def test_few_channels_stay_as_they_are() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[n, 3, 4, 4] x, float[3, 3, 1, 1] w) => (float[n, 3, 4, 4] z) { c = Conv(x, w) y = Relu(c) z = Conv(y, w) }'
    )
    graph = netsens.load(model).plan(wrt="x").graph
    assert blocked_masks(graph) is graph


def test_batches_of_other_lengths() -> None:
    model = netsens.load(chained(ACTIVATIONS["Relu"]))
    x = rng.standard_normal((3, 16, 4, 4)).astype(np.float32)
    whole = model.grad(x)["x"]
    np.testing.assert_allclose(model.grad(x[:2])["x"], whole[:2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.grad(x)["x"], whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.grad(x[:1])["x"], whole[:1], rtol=1e-5, atol=1e-6)
