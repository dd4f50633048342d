"""Nodes that only give a value other axes: joined when a session is opened, and left to NumPy where an output ends with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

import netsens
from netsens.errors import RunError
from netsens.graph.graph import Graph
from netsens.run.last_reshapes import without_last_reshapes
from netsens.run.runtime import Opening, RunOptions
from netsens.run.session import Session
from netsens.run.views import joined_views

rng = np.random.default_rng(0)


def graph_of(body: str, inputs: str = "float[n, 3, 4] x", outputs: str = "float y") -> Graph:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => ({outputs}) {{ {body} }}')
    return netsens.load(model).graph


def results(graph: Graph, x: Any, lengths: dict[str, int]) -> list[Any]:
    return Session(graph, RunOptions(provider="cpu", fused=False), lengths=lengths).run({"x": x})


CHAINS = {
    "reshapes": "s = Constant<value_ints = [0, 12]>() t = Constant<value_ints = [0, 2, 6]>() a = Exp(x) b = Reshape(a, s) c = Reshape(b, t) y = Neg(c)",
    "a transpose of one": "s = Constant<value_ints = [0, -1]>() a = Exp(x) b = Transpose<perm = [1, 0, 2]>(a) c = Reshape(b, s) y = Neg(c)",
    "a sum over one": "s = Constant<value_ints = [0]>() a = Exp(x) b = ReduceSum<keepdims = 0>(a, s) c = Flatten<axis = 1>(b) y = Neg(c)",
    "squeezed": "s = Constant<value_ints = [0]>() a = Exp(x) b = Squeeze(a, s) c = Unsqueeze(b, s) d = Transpose<perm = [0, 2, 1]>(c) y = Neg(d)",
}


@pytest.mark.parametrize("name", CHAINS)
def test_joined(name: str) -> None:
    graph = graph_of(CHAINS[name])
    x = rng.standard_normal((1, 3, 4)).astype(np.float32)
    joined = joined_views(graph, {"n": 1})
    assert len(joined.nodes) < len(graph.nodes)
    (found,), (expected,) = results(joined, x, {"n": 1}), results(graph, x, {"n": 1})
    np.testing.assert_array_equal(found, expected)


def test_a_batch_of_any_length_is_transposed() -> None:
    graph = graph_of(CHAINS["a transpose of one"])
    assert joined_views(graph, {}) is graph
    assert joined_views(graph, {"n": 2}) is graph


def test_an_outputs_reshape_is_the_arrays() -> None:
    graph = graph_of("s = Constant<value_ints = [4, 3]>() a = Exp(x) b = Reshape(a, s) y = Identity(b)", "float[1, 3, 4] x", "float[4, 3] y")
    cut, shapes = without_last_reshapes(graph)
    assert [n.op for n in cut.nodes] == ["Exp"]
    assert shapes == {"y": (4, 3)}
    x = rng.standard_normal((1, 3, 4)).astype(np.float32)
    (found,) = Session(graph, RunOptions(provider="cpu"), arrays=True).run({"x": x})
    np.testing.assert_allclose(found, np.exp(x).reshape(4, 3), rtol=1e-6)


@pytest.mark.parametrize("body", [
    "s = Constant<value_ints = [4, 3]>() a = Exp(x) y = Reshape(a, s) z = Neg(y)",
    "s = Constant<value_ints = [4, 3]>() z = Exp(x) y = Reshape(z, s)",
    "s = Constant<value_ints = [-1]>() a = Exp(x) y = Reshape(a, s) z = Neg(a)",
])  # fmt: skip
def test_reshapes_that_are_read_stay(body: str) -> None:
    graph = graph_of(body, "float[1, 3, 4] x", "float y, float z")
    assert without_last_reshapes(graph) == (graph, {})


def test_an_output_that_has_other_elements_than_its_reshape() -> None:
    graph = graph_of("s = Constant<value_ints = [1, 12]>() a = Exp(x) y = Reshape(a, s)", outputs="float[1, 12] y")
    with pytest.raises(RunError, match="'y' has 24 elements, and the model reshapes it to 1x12"):
        Session(graph, RunOptions(provider="cpu"), arrays=True).run({"x": np.zeros((2, 3, 4), np.float32)})


def test_lengths_that_onnxruntime_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opening.open

    def refusing(opening: Opening, proto: bytes, arrays: Mapping[str, Any]) -> Any:
        if opening.lengths:
            raise ValueError("no such length")
        return opened(opening, proto, arrays)

    monkeypatch.setattr(Opening, "open", refusing)
    session = Session(graph_of(CHAINS["reshapes"]), RunOptions(provider="cpu"), lengths={"n": 1})
    for samples in (1, 2):  # no shape in it is of those lengths
        x = rng.standard_normal((samples, 3, 4)).astype(np.float32)
        np.testing.assert_allclose(session.run({"x": x})[0], -np.exp(x).reshape(samples, 2, 6), rtol=1e-6)
