"""Structures of known models, exactly: convolution windows, batches, filters, gathers, residual connections; and cost that doesn't grow with the tensor."""

from __future__ import annotations

import time

import numpy as np
import onnx.parser
import pytest

from netsens.graph.graph import Graph
from netsens.graph.normal import load_graph
from netsens.jacobian.colouring import colour
from netsens.modes.pattern import Relation, aligned, compose, union
from netsens.modes.structure import structure

HEAD = '<ir_version: 10, opset_import: ["": 21]>'


def graph_of(text: str, inputs: str, **constants: np.ndarray) -> Graph:
    model = onnx.parser.parse_model(f"{HEAD} g ({inputs}) => (float y) {{ {text} }}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return load_graph(model)


def relation(text: str, inputs: str, wrt: str = "x", **constants: np.ndarray) -> Relation:
    return structure(graph_of(text, inputs, **constants), ["y"], [wrt])["y", wrt]


def colours(r: Relation) -> tuple[int, int]:
    return colour([r]).count, colour([r.transposed()]).count


def weight(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("text", "inputs", "constants", "count", "forward", "reverse"),
    [
        ("y = Relu(x)", "float[4,5] x", {}, 20, 1, 1),
        ("y = Conv<pads=[1,1,1,1]>(x, w)", "float[1,1,28,28] x", {"w": weight(8, 1, 3, 3)}, 8 * (26 * 3 + 4) ** 2, 9, 72),
        ("y = Conv<strides=[2,2]>(x, w)", "float[1,1,28,28] x", {"w": weight(8, 1, 2, 2)}, 8 * 784, 4, 8),
        ("y = Conv<group=4>(x, w)", "float[2,4,6,6] x", {"w": weight(4, 1, 1, 1)}, 2 * 4 * 36, 1, 1),
        ("y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x)", "float[3,2,8,8] x", {}, 3 * 2 * 64, 4, 1),
        ("h = MatMul(x, w)  y = Tanh(h)", "float[128,7] x", {"w": weight(7, 3)}, 128 * 21, 7, 3),
        ("h = Tanh(x)  y = Add(x, h)", "float[50] x", {}, 50, 1, 1),
        ("y = Transpose<perm=[1,0]>(x)", "float[6,7] x", {}, 42, 1, 1),
        ("y = Softmax<axis=-1>(x)", "float[6,7] x", {}, 6 * 49, 7, 7),
        ("h = Flatten(x)  t = Tanh(h)  y = Reshape(t, s)", "float[2,3,4,5] x", {"s": np.array([2, 3, 20])}, 120, 1, 1),
        ("y = Gather<axis=1>(x, i)", "float[5,9] x", {"i": np.array([3, 0, 8])}, 15, 1, 1),
        ("y = CumSum(x, i)", "float[2,6] x", {"i": np.array(1)}, 2 * 21, 6, 6),
        ("y = Concat<axis=1>(x, x)", "float[4,3] x", {}, 24, 1, 2),
        ("y = Resize<mode=\"nearest\",coordinate_transformation_mode=\"asymmetric\",nearest_mode=\"floor\">(x, , s)", "float[1,1,4,4] x",
         {"s": np.array([1, 1, 2, 2], np.float32)}, 64, 1, 4),
        ("y = DepthToSpace<blocksize=2>(x)", "float[1,8,3,3] x", {}, 72, 1, 1),
        ("y = ConvTranspose<strides=[2,2]>(x, w)", "float[1,2,5,5] x", {"w": weight(2, 3, 2, 2)}, 3 * 100 * 2, 2, 12),
    ],
)  # fmt: skip
def test_known_structures(text: str, inputs: str, constants: dict[str, np.ndarray], count: int, forward: int, reverse: int) -> None:
    found = relation(text, inputs, **constants)
    assert found.count == count == found.dense().sum()
    assert colours(found) == (forward, reverse)


def test_a_filter_meets_its_own_output_channel_alone() -> None:
    found = relation("c = Conv<pads=[1,1,1,1]>(x, w)  y = Relu(c)", "float[1,1,28,28] x", "w", w=weight(8, 1, 3, 3))
    assert colours(found)[0] == 9


def test_a_shared_parameter_has_the_union_of_its_uses() -> None:
    found = relation("a = MatMul(x, w)  b = MatMul(a, w)  y = Add(a, b)", "float[4,3] x", "w", w=weight(3, 3))
    assert found.dense().all()
    found = relation("a = Mul(x, w)  b = Mul(a, w)  y = Add(a, b)", "float[4,3] x", "w", w=weight(3))
    assert found.count == 4 * 3


def test_the_cost_follows_the_axes_and_not_the_tensor() -> None:
    text = "a = Conv<pads=[1,1,1,1]>(x, w)  b = Relu(a)  c = Conv<pads=[1,1,1,1]>(b, v)  y = Tanh(c)"
    graph = graph_of(text, "float[64,3,2048,2048] x", w=weight(16, 3, 3, 3), v=weight(16, 16, 3, 3))
    structure(graph, ["y"], ["x"])
    start = time.perf_counter()
    found = structure(graph, ["y"], ["x"])["y", "x"]
    assert time.perf_counter() - start < 5  # minutes, were it by elements: no benchmark, a guard
    assert colour([found]).count == 75
    assert all(f.matrix.count <= 2048 * 5 for f in found.factors)


def test_what_is_not_known_is_unrestricted() -> None:
    found = relation("y = Gather<axis=0>(x, i)", "float[5,2] x, int64[3] i")
    assert found.count == 3 * 5 * 2
    assert colours(found) == (5, 3)


def test_relations_compose_and_unite_within_bounds() -> None:
    a = relation("y = Conv<pads=[1,0,1,0],strides=[2,1]>(x, w)", "float[1,2,6,5] x", w=weight(2, 2, 3, 2))
    b = relation("h = Reshape(x, s)  y = Softmax<axis=1>(h)", "float[1,2,3,4] x", s=np.array([2, 12]))
    both = compose(b, a)
    exact = np.tensordot(b.dense().astype(int), a.dense().astype(int), axes=4) > 0
    assert not (exact & ~both.dense()).any()
    one = aligned((4, 3))
    two = Relation((4, 3), (4, 3))
    assert (union(one, two).dense() >= (one.dense() | two.dense())).all()
