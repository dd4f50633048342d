"""A model's own functions, expanded in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from netsens.errors import UnsupportedError
from netsens.graph.normal import load_graph
from netsens.graph.save import model_proto

HEAD = '<ir_version: 10, opset_import: ["": 18, "own": 1]>'
MODELS = {
    "attributes and their defaults": """
        g (float[N,3] x) => (float[N,3] y) { h = own.scale <slope = 0.5> (x) y = own.scale (h) }
        <domain: "own", opset_import: ["": 18]> scale <slope: float = 0.25> (a) => (b) { b = LeakyRelu <alpha: float = @slope> (a) }""",
    "optional inputs": """
        g (float[N,3] x, float m) => (float[N,3] y) { h = own.clip (x) y = own.clip (h, , m) }
        <domain: "own", opset_import: ["": 18]> clip (a, low, high) => (b) { b = Clip (a, low, high) }""",
    "functions in functions": """
        g (float[N,3] x) => (float[N,3] y) { y = own.outer <k = 1> (x) }
        <domain: "own", opset_import: ["": 18, "own": 1]>
        outer <k> (a) => (b) { c = own.inner <axis: int = @k> (a) d = own.inner <axis = 0> (c) b = Add (c, d) }
        <domain: "own", opset_import: ["": 18]> inner <axis> (a) => (b) { t = Softmax <axis: int = @axis> (a) b = Mul (t, t) }""",
    "in branches, with a value of the same name outside": """
        g (float[N,3] x, bool c) => (float[N,3] y) {
            t = Neg (x)
            y = If (c) <
                then_branch = p () => (float[N,3] u) { u = own.twice (t) },
                else_branch = q () => (float[N,3] v) { w = own.twice (x) v = own.twice (w) }> }
        <domain: "own", opset_import: ["": 18]> twice (a) => (t) { t = Add (a, a) }""",
    "defaults within branches and functions": """
        g (float[N,3] x, bool c) => (float[N,3] y) {
            y = If (c) <then_branch = p () => (float[N,3] u) { u = own.scale (x) }, else_branch = q () => (float[N,3] v) { v = own.scale2 (x) }> }
        <domain: "own", opset_import: ["": 18]> scale <slope: float = 0.25> (a) => (b) { b = LeakyRelu <alpha: float = @slope> (a) }
        <domain: "own", opset_import: ["": 18, "own": 1]> scale2 (a) => (b) { b = own.scale (a) }""",
    "an older opset within two that call each other, whose values have no types": """
        g (float[N,3] x) => (float[N,3] y) { h = own.twice (x) y = own.wave (h) }
        <domain: "own", opset_import: ["": 17]> twice (a) => (b) { b = Add (a, a) }
        <domain: "own", opset_import: ["": 17]> wave (a) => (b) { b = Sin (a) }""",
    "an older opset within": """
        g (float[2,3] x) => (float[2,1] y) { y = own.total (x) }
        <domain: "own", opset_import: ["": 18]> total (a) => (b) { k = Constant <value_ints = [1]> () b = ReduceSum (a, k) }""",
}


@pytest.mark.parametrize("text", MODELS.values(), ids=MODELS)
def test_expanded(text: str) -> None:
    model = onnx.parser.parse_model(HEAD + text)
    graph = load_graph(model)
    assert {n.domain for n in graph.nodes} == {""}
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32), "c": np.array(False), "m": np.array(0.2, np.float32)}
    results = []
    for proto in (model, model_proto(graph)[0]):
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        results.append(session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})[0])
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_large_weights_stay_in_the_file(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(HEAD + MODELS["attributes and their defaults"].replace("h = own.scale <slope = 0.5> (x)", "h = MatMul (x, w)"))
    weight = np.random.default_rng(0).normal(size=(3, 3000)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    kept = load_graph(path).constants["w"]
    assert not kept.flags.owndata
    np.testing.assert_array_equal(kept, weight)


def test_an_older_opset_that_cannot_be_converted() -> None:
    text = """g (float[2,3] x) => (float[2] y) { h = own.twice (x) y = own.total (h) }
        <domain: "own", opset_import: ["": 17]> twice (a) => (b) { b = Add (a, a) }
        <domain: "own", opset_import: ["": 17]> total (a) => (b) { b = ReduceMax <axes = [1], keepdims = 0> (a) }"""
    with pytest.raises(UnsupportedError, match="'total' is written for another opset than the model, ReduceMax differs"):
        load_graph(onnx.parser.parse_model(HEAD + text))
