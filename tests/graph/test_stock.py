"""What stock onnxruntime's optimiser breaks is spelled otherwise, with the same values."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import netsens
from netsens.graph.normal import load_graph
from netsens.graph.save import model_proto
from netsens.graph.stock import plainly_spelled


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 21]> g {text}')


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    return list(onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds))


@pytest.mark.parametrize("pads", ["1, 0, 2, 3", "0, 4, 0, 1"])
def test_pads_of_chosen_axes_are_given_for_all(pads: str) -> None:
    text = f"""(float[2,3,N] x) => (float[A,3,B] y, float[A,3,B] z) <int64[4] pads = {{{pads}}}, int64[2] axes = {{-1, 0}}> {{
        y = Pad (x, pads, , axes)
        doubled = Add (pads, pads)
        five = Constant <value_float = 5.0> ()
        z = Pad (x, doubled, five, axes)
    }}"""
    graph = plainly_spelled(load_graph(parsed(text)))
    assert all(len(n.inputs) < 4 for n in graph.nodes if n.op == "Pad")
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for plain, given in zip(run(model_proto(graph)[0], x=x), run(parsed(text), x=x), strict=True):
        np.testing.assert_array_equal(plain, given)


def test_second_names_of_constants_are_resolved() -> None:
    text = """(float[3] x) => (float[3] y, float[3] second) <float[3] w = {1, 2, 3}> {
        second = Identity (w)
        third = Identity (second)
        fourth = Identity (third)
        y = Mul (x, fourth)
    }"""
    graph = plainly_spelled(load_graph(parsed(text)))
    assert [n.inputs for n in graph.nodes] == [("w",), ("x", "w")]
    x = np.ones(3, np.float32)
    assert netsens.load(parsed(text)).grad(x, wrt=["x", "second", "third", "w"], of="y")["third"].tolist() == [1, 1, 1]


def test_gradient_of_a_gather_beside_transposes_runs() -> None:
    """onnxruntime moves the Transpose past the Pad that the gradient of Gather ends in."""
    text = """(float[1,5,3,2,4] x) => (float[1,2,5,4] y) <int64 one = {1}, int64 two = {2}> {
        t = Transpose <perm = [2, 0, 3, 1, 4]> (x)
        a = Gather <axis = 0> (t, one)
        b = Gather <axis = 0> (t, two)
        y = Mul (a, b)
    }"""
    x = np.random.default_rng(0).standard_normal((1, 5, 3, 2, 4)).astype(np.float32)
    expected = np.zeros_like(x)
    expected[:, :, 1], expected[:, :, 2] = x[:, :, 2], x[:, :, 1]
    np.testing.assert_allclose(netsens.load(parsed(text)).grad(x)["x"], expected)
