"""The gradient of a value that is read in pieces puts their cotangents side by side; what was joined for an operator isn't cut again."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

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
