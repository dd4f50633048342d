"""Graphs in onnxruntime's blocks of channels give what they give in the ordinary layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

import netsens
from netsens.graph.blocked_layout import BLOCKED, DEPTHWISE_WEIGHT
from netsens.graph.graph import Graph
from netsens.run import loading
from netsens.run.blocks import in_blocks
from netsens.run.channel_block import block_probe, shown_block
from tests.run.drawn_convolutions import drawn

rng = np.random.default_rng(0)
pytestmark = pytest.mark.skipif(shown_block(block_probe()) < 8, reason="onnxruntime has no blocked layout here")
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


def gradients(model: onnx.ModelProto, x: Any, wrt: str | list[str] = "inputs") -> dict[str, Any]:
    return netsens.load(model, provider="cpu").grad(x, wrt=wrt)


def blocked(graph: Graph) -> Graph:
    return in_blocks(graph, 16, {})


def both(model: onnx.ModelProto, x: Any, wrt: str | list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gradients in blocks and in the ordinary layout."""
    monkeypatch.setattr(loading, "BLOCKED", {loading.platform.machine()})
    found = gradients(model, x, wrt)
    monkeypatch.setattr(loading, "BLOCKED", set())
    return found, gradients(model, x, wrt)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_masks_choose_as_where_chooses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = np.array([0, -0.0, 1e-45, -1e-45, 1e-38, 1, 6, np.nextafter(np.float32(6), np.float32(0)), 7, -0.5, 0.25, 3e38, -3e38, 1e-20], np.float32)
    x = np.resize(edges, (2, 16, 4, 4))
    found, expected = both(chained(ACTIVATIONS[name]), x, "inputs", monkeypatch)
    np.testing.assert_array_equal(found["x"] != 0, expected["x"] != 0)
    np.testing.assert_allclose(found["x"], expected["x"], rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_mask_is_left_outside(name: str) -> None:
    plan = netsens.load(chained(ACTIVATIONS[name])).plan()
    assert [n.op for n in plan.graph.nodes].count("Where") == 1
    written = blocked(plan.graph).nodes
    assert "Where" not in [n.op for n in written]
    assert [n.op for n in written].count("ReorderInput") <= 2
    assert [n.op for n in written].count("ReorderOutput") == 1


@pytest.mark.parametrize("wrt", ["inputs", "params"])
@pytest.mark.parametrize("batch", [2, "n"])
@pytest.mark.parametrize("seed", range(24))
def test_as_in_the_ordinary_layout(seed: int, batch: int | str, wrt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = drawn(seed, batch)
    found, expected = both(model, x, wrt, monkeypatch)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=2e-4 * (np.abs(array).max() + 1e-6), err_msg=name)


def test_nothing_to_gain() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[n, 3, h, w] x, float[3, 3, 1, 1] w) => (float[n, 3, h, w] z) { c = Conv(x, w) y = Relu(c) z = Conv(y, w) }'
    )
    graph = netsens.load(model).plan(wrt="x").graph
    assert blocked(graph) is graph


def test_exported_gradients_are_standard() -> None:
    plan = netsens.load(drawn(1)[0]).plan(wrt="params")
    assert all(not n.domain and n.op != DEPTHWISE_WEIGHT for n in plan.graph.nodes)
    assert any(n.domain == BLOCKED for n in blocked(plan.graph).nodes)


def test_batches_of_other_lengths() -> None:
    model = netsens.load(chained(ACTIVATIONS["Relu"]))
    x = rng.standard_normal((3, 16, 4, 4)).astype(np.float32)
    whole = model.grad(x)["x"]
    np.testing.assert_allclose(model.grad(x[:2])["x"], whole[:2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.grad(x)["x"], whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.grad(x[:1])["x"], whole[:1], rtol=1e-5, atol=1e-6)


# What an infinity, an edge or an axis more could change -----------------------------------------------------------------

BETWEEN = {
    "infinite under a mask": "r = Relu(c) y = Sqrt(r)",
    "infinite under a mask of channels": "b = Sub(c, steps) r = Relu(b) q = Mul(r, r) m = GlobalAveragePool(q) y = Sqrt(m)",
    "no logarithm under a mask": "m = Greater(c, zero) l = Log(c) y = Where(m, l, zero)",
    "infinite where blocks are filled": "b = Add(c, hundreds) m = Greater(b, zero) y = Where(m, b, least)",
    "a window over the edge of the padding": "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2], ceil_mode = 1, count_include_pad = 1>(c)",
    "a number of five axes": "f = Add(c, five) q = Squeeze(f, first) y = Relu(q)",
    "ends counted from the other side": "p = Pad(c, pads) d = SpaceToDepth<blocksize = 2>(p) y = Slice(d, starts, ends, axes)",
}  # fmt: skip


@pytest.mark.parametrize("channels", [16, 20])
@pytest.mark.parametrize("name", BETWEEN)
def test_between_convolutions(name: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    body = BETWEEN[name]
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[n, 16, 8, 8] x) => (float[n, 16, h, w] z) {{ c = Conv<pads = [1, 1, 1, 1]>(x, v) {body} s = Conv(y, w) z = Mul(s, s) }}'
    )
    random = np.random.default_rng(3)
    constants: dict[str, Any] = {
        "v": 0.3 * random.standard_normal((channels, 16, 3, 3)), "w": random.standard_normal((16, channels, 1, 1)), "zero": 0, "least": -np.inf,
        "five": np.ones((1, 1, 1, 1, 1)), "hundreds": np.full((channels, 1, 1), 100), "steps": np.where(np.arange(channels) % 3, 0, 100).reshape(-1, 1, 1),
    }  # fmt: skip
    numbers = {"first": [0], "pads": [0, 0, 0, 1, 0, 0, 2, 3], "starts": [3 * channels, 1, 1], "ends": [4 * channels, -1, 4], "axes": [1, 2, 3]}
    arrays = {**{k: np.asarray(v, np.float32) for k, v in constants.items()}, **{k: np.asarray(v, np.int64) for k, v in numbers.items()}}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, k) for k, a in arrays.items() if k in "vw" or k in body)
    x = random.standard_normal((2, 16, 8, 8)).astype(np.float32)
    for wrt in ("inputs", ["v", "w"]):
        found, expected = both(model, x, wrt, monkeypatch)
        for key, array in expected.items():
            assert np.isfinite(array).all()
            np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=1e-4 * np.abs(array).max(), err_msg=key)


def test_long_sums_keep_their_digits() -> None:
    """A bias and a normalisation's scale get sums over 16,384 places, which one after the other would be 2e-6 off."""
    body = "c = Conv<pads = [1, 1, 1, 1]>(x, v) n = BatchNormalization(c, s, b, m, r) y = Sigmoid(n) d = Conv(y, w) e = Sigmoid(d) z = Conv(e, w)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g (float[1, 16, 128, 128] x) => (float[1, 16, 128, 128] z) {{ {body} }}')
    ones = np.ones(16, np.float32)
    weights = {"v": rng.random((16, 16, 3, 3)), "w": rng.random((16, 16, 1, 1)), "s": ones, "b": ones / 3, "m": ones / 7, "r": ones}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), k) for k, a in weights.items())
    x = rng.random((1, 16, 128, 128)).astype(np.float32) / 100
    found = gradients(model, x, "params")
    slope = torch.tensor(x, dtype=torch.float64)
    given = {k: torch.tensor(a.astype(np.float32), dtype=torch.float64, requires_grad=True) for k, a in weights.items()}
    c = torch.nn.functional.conv2d(slope, given["v"], padding=1)
    n = torch.nn.functional.batch_norm(c, given["m"].detach(), given["r"].detach(), given["s"], given["b"], eps=1e-5)
    d = torch.nn.functional.conv2d(torch.sigmoid(n), given["w"])
    torch.nn.functional.conv2d(torch.sigmoid(d), given["w"]).sum().backward()
    for name in ("s", "b"):
        np.testing.assert_allclose(found[name], given[name].grad.numpy(), rtol=7e-7, err_msg=name)


@pytest.mark.parametrize("places", [(7, 1), (1, 7), (7, 3), (1, 1)])
def test_gradients_of_images_of_one_line_or_column(places: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[2, 16, {places[0]}, {places[1]}] x) => (float[N, 16, A, B] y) {{ y = Conv<group=16, pads=[1, 0, 1, 0]>(x, w, b) }}'
    )
    weights = {"w": rng.standard_normal((16, 1, 3, 1)).astype(np.float32), "b": rng.standard_normal(16).astype(np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, k) for k, a in weights.items())
    found, expected = both(model, rng.standard_normal((2, 16, *places)).astype(np.float32), ["x", "w", "b"], monkeypatch)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
