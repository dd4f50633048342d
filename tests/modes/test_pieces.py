"""The gradient of a value that is read in pieces puts their cotangents side by side; what was joined for an operator isn't cut again."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import netsens
from netsens.graph.graph import Graph


def _gradient(text: str, wrt: list[str], **constants: np.ndarray) -> Graph:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["":21]> g {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return netsens.load(model).plan(wrt=wrt, method="autodiff").graph


def test_slices_that_tile_a_weight_give_one_concat() -> None:
    ends = {f"e{k}": np.asarray([2 * k]) for k in range(4)}
    text = """(float[2,6] x) => (float[2,20] y) { p = Slice(w, e0, e1) q = Slice(w, e1, e2) r = Slice(w, e2, e3)
        whole = Concat<axis=0>(r, p, q) y = MatMul(x, whole) }"""
    found = [n.op for n in _gradient(text, ["w"], w=np.ones((6, 20), np.float32), **ends).nodes]
    assert "Pad" not in found
    assert "Add" not in found
    assert found.count("Concat") == 1


def test_directions_joined_for_an_lstm_are_not_cut_again() -> None:
    shapes = {"w": (1, 8, 3), "r": (1, 8, 2), "w_back": (1, 8, 3), "r_back": (1, 8, 2)}
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    text = """(float[5,1,3] x) => (float[5,2,1,2] y) { both = Concat<axis=0>(w, w_back) recurrent = Concat<axis=0>(r, r_back)
        y = LSTM<hidden_size=2, direction="bidirectional">(x, both, recurrent) }"""
    graph = _gradient(text, list(weights), **weights)
    joined = {o for n in graph.nodes if n.op == "Concat" for o in n.outputs}
    assert not [n for n in graph.nodes if n.op == "Split" and n.inputs[0] in joined]


def _lstm(kept: dict[str, np.ndarray], cut: str) -> onnx.ModelProto:
    text = f"(float[5,2,12] x) => (float[5,1,2,2] y) {{ {cut} w = Unsqueeze(wo, e0) r = Unsqueeze(ro, e0) y = LSTM<hidden_size=2>(x, w, r) }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["":21]> g {text}')
    ends = {f"e{k}": np.asarray([k]) for k in (0, 2, 4, 6, 8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in (kept | ends).items())
    return model


@pytest.mark.parametrize("same", [True, False], ids=["one-order", "two-orders"])
def test_an_lstms_gradient_is_in_the_order_of_its_weights(same: bool) -> None:
    """PyTorch's gates i, f, g, o are cut and joined to ONNX's i, o, f, g by the model; the gradient is computed in PyTorch's order, where both weights have it."""
    rng = np.random.default_rng(0)
    kept = {"wk": rng.uniform(-1, 1, (8, 12)).astype(np.float32), "rk": rng.uniform(-1, 1, (8, 2)).astype(np.float32)}
    x = rng.uniform(-1, 1, (5, 2, 12)).astype(np.float32)
    cut = """i = Slice(wk, e0, e2, e0) fg = Slice(wk, e2, e6, e0) o = Slice(wk, e6, e8, e0) wo = Concat<axis=0>(i, o, fg)"""
    order = [0, 1, 6, 7, 2, 3, 4, 5]
    other = list(order)
    if same:
        cut += " ri = Slice(rk, e0, e2, e0) rfg = Slice(rk, e2, e6, e0) ro_ = Slice(rk, e6, e8, e0) ro = Concat<axis=0>(ri, ro_, rfg)"
    else:
        cut += " ra = Slice(rk, e0, e4, e0) rb = Slice(rk, e4, e8, e0) ro = Concat<axis=0>(rb, ra)"
        other = [4, 5, 6, 7, 0, 1, 2, 3]
    model = netsens.load(_lstm(kept, cut))
    plain = netsens.load(_lstm({"wo": kept["wk"][order], "ro": kept["rk"][other]}, ""))
    found = model.grad({"x": x}, wrt=["wk", "rk", "x"])
    expected = plain.grad({"x": x}, wrt=["wo", "ro", "x"])
    np.testing.assert_allclose(found["wk"][order], expected["wo"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["rk"][other], expected["ro"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["x"], expected["x"], rtol=1e-5, atol=1e-6)
    nodes = model.plan(wrt=["wk"], method="autodiff").graph.nodes
    last = next(n for n in nodes if n.outputs[0] == "gradient/wk")
    assert next(n.op for n in nodes if last.inputs[0] in n.outputs) == ("MatMul" if same else "Concat")
