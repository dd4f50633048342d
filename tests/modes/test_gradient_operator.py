"""The standard's Gradient operator runs on a stock runtime once it is rewritten."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import netsens
from tests.rules.backend_cases import model_cases

TRAINING = "ai.onnx.preview.training"
CASES = [c for c in model_cases() if any(n.domain == TRAINING and n.op_type == "Gradient" for n in c.model.graph.node)]


def test_onnx_has_the_two_cases() -> None:
    assert len(CASES) == 2


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_backend_case(case) -> None:  # type: ignore[no-untyped-def]
    model = netsens.load(case.model)
    for inputs, outputs in case.data_sets:
        found = model.run(dict(zip(model.graph.inputs, inputs, strict=True)))
        for expected, got in zip(outputs, found.values(), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_derivative_at_another_point() -> None:
    """The node may bind `xs` to values other than those that the graph computes with."""
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"]), helper.make_node("Gradient", ["at"], ["g"], domain=TRAINING, xs=["x"], y="y")]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "at", "y", "g")]
    graph = helper.make_graph(nodes, "g", value[:2], value[2:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(TRAINING, 1)], ir_version=8)
    assert isinstance(proto, onnx.ModelProto)
    model = netsens.load(proto)
    found = model.run({"x": np.float32([1, 2]), "at": np.float32([3, 4])})
    np.testing.assert_allclose(found["g"], [6, 8])


def test_second_derivative() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["s"]),
        helper.make_node("Mul", ["s", "x"], ["y"]),
        helper.make_node("Gradient", ["x"], ["g"], domain=TRAINING, xs=["x"], y="y"),
        helper.make_node("Gradient", ["x"], ["h"], domain=TRAINING, xs=["x"], y="g"),
    ]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, [2])], [helper.make_tensor_value_info("h", 1, [2])])
    model = netsens.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(TRAINING, 1)], ir_version=8))
    np.testing.assert_allclose(model.run({"x": np.float32([1, 2])})["h"], [6, 12])
