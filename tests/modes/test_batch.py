"""Programs with a leading axis of directions: folded where there is a rule, through Scan where there is none. The case table holds every
operator to it; here are the forms that the table may not reach."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from netsens.graph.graph import Graph
from netsens.graph.normal import load_graph
from netsens.modes.batch import batched
from netsens.run.reference import reference_runner
from netsens.run.session import Session


def graph_of(text: str, **inputs: np.ndarray) -> Graph:
    kinds = {"f": "float", "i": "int64", "b": "bool"}
    listed = ", ".join(f"{kinds[a.dtype.kind]}[{','.join(map(str, a.shape))}] {n}" for n, a in inputs.items())
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> g ({listed}) => (float y) {{ {text} }}')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return load_graph(model)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


LINEAR = [
    ("y = MatMul(t, w)", {"t": numbers(3), "w": numbers(3, 4)}),
    ("y = MatMul(t, w)", {"t": numbers(3), "w": numbers(2, 3, 4)}),
    ("y = MatMul(w, t)", {"t": numbers(3), "w": numbers(4, 3)}),
    ("y = MatMul(w, t)", {"t": numbers(3), "w": numbers(2, 4, 3)}),
    ("y = MatMul(w, t)", {"t": numbers(3), "w": numbers(3)}),
    ("y = MatMul(t, w)", {"t": numbers(2, 3), "w": numbers(5, 3, 4)}),
    ("y = MatMul(w, t)", {"t": numbers(3, 4), "w": numbers(5, 2, 3)}),
    ("y = MatMul(t, w)", {"t": numbers(5, 2, 3), "w": numbers(3)}),
    ("y = Gemm<transA=1,transB=1,alpha=2.0>(t, w)", {"t": numbers(3, 2), "w": numbers(4, 3)}),
    ("y = Gemm<transA=1,transB=1>(w, t)", {"t": numbers(4, 3), "w": numbers(3, 2)}),
    ("y = Mul(t, w)", {"t": numbers(3), "w": numbers(2, 4, 3)}),
    ("y = Conv<pads=[1,1,1,1],strides=[2,1]>(t, w)", {"t": numbers(2, 3, 5, 5), "w": numbers(4, 3, 3, 3)}),
    ("y = Conv<pads=[1,1,1,1],group=2>(x, t)", {"t": numbers(6, 2, 3, 3), "x": numbers(2, 4, 5, 5)}),
    ("y = Conv(x, t)", {"t": numbers(6, 4, 3), "x": numbers(2, 4, 5)}),
    ("y = ConvTranspose<strides=[2,2],group=2>(t, w)", {"t": numbers(2, 4, 3, 3), "w": numbers(4, 3, 2, 2)}),
    ("y = ConvTranspose<strides=[2,2],group=2>(x, t)", {"t": numbers(4, 3, 2, 2), "x": numbers(2, 4, 3, 3)}),
    ('y = Einsum<equation="ij,kj->ik">(w, t)', {"t": numbers(4, 3), "w": numbers(2, 3)}),
    ("y = Gather<axis=-1>(t, i)", {"t": numbers(2, 5), "i": np.array([[0, 4], [1, 1]])}),
    ("y = GatherND<batch_dims=1>(t, i)", {"t": numbers(2, 3, 4), "i": np.array([[2], [0]])}),
    ("y = GatherElements<axis=1>(t, i)", {"t": numbers(2, 5), "i": np.array([[0, 4], [1, 1]])}),
    ('y = ScatterND<reduction="add">(z, i, t)', {"t": numbers(2, 4), "z": np.zeros((3, 4), np.float32), "i": np.array([[2], [2]])}),
    ('y = ScatterElements<axis=1,reduction="add">(z, i, t)', {"t": numbers(2, 2), "z": np.zeros((2, 4), np.float32), "i": np.array([[3, 3], [0, 1]])}),
    ("y = Concat<axis=-1>(t, z)", {"t": numbers(2, 3), "z": np.zeros((2, 1), np.float32)}),
    ("a, b = Split<axis=-1,num_outputs=2>(t)  y = Sub(b, a)", {"t": numbers(3, 4)}),
    ("y = DepthToSpace<blocksize=2>(t)", {"t": numbers(2, 4, 2, 3)}),
    ("y = LpNormalization(x)  ", {"x": numbers(2, 3), "t": numbers(2, 3)}),
    ("f = Cast<to=9>(x)  y = Where(f, t, z)", {"t": numbers(3), "x": numbers(2, 3), "z": np.zeros(1, np.float32)}),
]


@pytest.mark.parametrize(("text", "inputs"), LINEAR, ids=[t for t, _ in LINEAR])
def test_directions_at_once_equal_one_by_one(text: str, inputs: dict[str, np.ndarray]) -> None:
    graph = graph_of(text, **inputs)
    together = batched(graph, ["t"])
    scans = [n for n in together.nodes if n.op == "Scan"]
    assert not scans, "a rule was expected, and there is a Scan"
    directions = np.stack([inputs["t"], 2 * inputs["t"], inputs["t"] - 1])
    one = reference_runner(graph)
    expected = np.stack([one({**inputs, "t": t})[0] for t in directions])
    given = {k: v for k, v in {**inputs, "t": directions}.items() if k in together.inputs}
    np.testing.assert_allclose(reference_runner(together)(given)[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(Session(together).run(given)[0], expected, rtol=1e-4, atol=1e-4)


def test_an_operator_without_a_rule_goes_through_scan() -> None:
    inputs = {"t": numbers(4, 3)}
    graph = graph_of("y = ReverseSequence<batch_axis=1,time_axis=0>(t, n)", **inputs, n=np.array([2, 4, 1]))
    together = batched(graph, ["t"])
    assert [n.op for n in together.nodes] == ["Scan"]
    directions = np.stack([inputs["t"], 3 * inputs["t"]])
    one = reference_runner(graph)
    expected = np.stack([one({"t": t, "n": np.array([2, 4, 1])})[0] for t in directions])
    np.testing.assert_allclose(Session(together).run({"t": directions, "n": np.array([2, 4, 1])})[0], expected)


def test_a_number_of_directions_that_is_known_is_a_constant() -> None:
    graph = graph_of("y = Mul(t, w)", t=numbers(3), w=numbers(3))
    together = batched(graph, ["t"], directions=5)
    assert together.types["t"].shape == (5, 3)
