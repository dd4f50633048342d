"""The engine where values play two parts at once: read twice, input and output, parameter and output, inside and outside; and where sizes are 0, 1, or
not what their symbol says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import helper

import netsens

pytestmark = pytest.mark.filterwarnings("ignore::netsens.errors.NetsensWarning")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3)).astype(np.float32)
SQUARE = RNG.standard_normal((3, 3)).astype(np.float32)
MANY = RNG.standard_normal((4, 3)).astype(np.float32)


def load(text: str, **constants: Any) -> netsens.Model:
    made = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["":21]> g {text}')
    for name, value in constants.items():
        array = np.asarray(value)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name))
    return netsens.load(made)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_layer_is_an_input() -> None:
    model = load("(float[N,3] x) => (float[N,3] y) { y = Tanh(x) }")
    close(model.grad({"x": X}, of="x")["x"], np.ones((2, 3)))
    close(model.grad({"x": X}, of="x", target="[:,1]")["x"], [[0, 1, 0]] * 2)
    close(model.jacobian({"x": X}, of="x")["x"].reshape(6, 6), np.eye(6))


def test_the_layer_is_one_of_wrt() -> None:
    model = load("(float[N,3] x) => (float[N,3] y) { y = Tanh(x) }")
    found = model.grad({"x": X}, wrt=["x", "y"], of="y")
    close(found["y"], np.ones((2, 3)))
    close(found["x"], 1 - np.tanh(X) ** 2)


def test_an_output_that_is_an_input() -> None:
    model = load("(float[N,3] x) => (float[N,3] x, float[N,3] y) { y = Mul(x, x) }")
    close(model.grad({"x": X})["x"], np.ones((2, 3)))
    close(model.grad({"x": X}, of="y")["x"], 2 * X)


def test_inner_values_upstream_of_each_other() -> None:
    """By an inner value means: it moves, and what it is computed from doesn't."""
    model = load("(float[N,3] x) => (float[N,3] y) { a = Mul(x, x) b = Tanh(a) c = Mul(b, a) y = Add(c, x) }")
    found = model.grad({"x": X}, wrt=["x", "a", "b", "c"])
    a, b = X * X, np.tanh(X * X)
    by_a = b + a * (1 - b * b)
    for name, expected in {"c": np.ones_like(X), "b": a, "a": by_a, "x": by_a * 2 * X + 1}.items():
        close(found[name], expected)


@pytest.mark.parametrize(
    ("body", "x", "expected"),
    [
        ("(float[N,3] x) => (float[N,3] y) { s = Add(x, x) q = Mul(s, s) d = Div(q, q) m = Max(x, x) y = Sum(x, q, x, d, m) }", X, 8 * X + 3),
        ("(float[N,3] x) => (float[M,3] y) { c = Concat<axis=0>(x, x, x) y = Mul(c, c) }", X, 6 * X),
        ("(float[3,3] x) => (float[3,3] y) { y = MatMul(x, x) }", SQUARE, np.ones((3, 3)) @ SQUARE.T + SQUARE.T @ np.ones((3, 3))),
        ('(float[3,3] x) => (float y) { y = Einsum<equation="ij,ij->">(x, x) }', SQUARE, 2 * SQUARE),
        ("(float[3,3] x) => (float[3,3] y) { y = Gemm<transB=1>(x, x, x) }", SQUARE, 2 * np.ones((3, 3)) @ SQUARE + 1),
        ("(float[1,1,3,3] x) => (float[1,1,1,1] y) { y = Conv(x, x) }", SQUARE.reshape(1, 1, 3, 3), 2 * SQUARE.reshape(1, 1, 3, 3)),
        ("(float[N,3] x) => (float[N,3] y) { c = Greater(x, x) w = Where(c, x, x) y = Mul(w, w) }", X, 2 * X),
    ],
)
def test_one_value_twice_in_one_node(body: str, x: np.ndarray, expected: np.ndarray) -> None:
    close(load(body).grad({"x": x})["x"], expected)


def test_two_nodes_that_compute_the_same() -> None:
    """They are two values still."""
    model = load("(float[N,3] x) => (float[N,3] y) { a = Tanh(x) b = Tanh(x) i = Identity(b) y = Mul(a, i) }")
    found = model.grad({"x": X}, wrt=["a", "b", "i", "x"])
    t = np.tanh(X)
    for name, expected in {"a": t, "b": t, "i": t, "x": 2 * t * (1 - t * t)}.items():
        close(found[name], expected)


def test_a_parameter_that_is_an_output() -> None:
    model = load("(float[N,3] x) => (float[N,3] y, float[3] w) { y = Mul(x, w) }", w=np.full(3, 2.0))
    close(model.grad({"x": X}, wrt="w")["w"], X.sum(0))
    close(model.grad({"x": X}, wrt="w", of="w")["w"], np.ones(3))


@pytest.mark.parametrize("value", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div", "Pow"])
def test_a_parameter_of_a_value_that_formulas_leave_out(op: str, value: float) -> None:
    if op == "Div" and value == 0:
        return
    model = load(f"(float[N,3] x) => (float[N,3] y) {{ a = {op}(x, w) y = Mul(a, a) }}", w=value)
    x = np.abs(X) + 0.5
    wide = x.astype(np.float64)
    f = {"Mul": wide.__mul__, "Add": wide.__add__, "Sub": wide.__sub__, "Div": wide.__truediv__, "Pow": wide.__pow__}[op]
    close(model.grad({"x": x}, wrt="w")["w"], ((f(value + 1e-5) ** 2).sum() - (f(value - 1e-5) ** 2).sum()) / 2e-5)
    second = model.hessian({"x": x}, wrt="w", of=None, target="[1,2]")["w"]["w"]
    g = [f(value + h)[1, 2] ** 2 for h in (-1e-4, 0.0, 1e-4)]
    np.testing.assert_allclose(second, (g[0] - 2 * g[1] + g[2]) / 1e-8, rtol=1e-3, atol=1e-3)


def test_an_initializer_that_is_listed_as_an_input() -> None:
    model = load("(float[N,3] x, float[3] w) => (float[N,3] y) { y = Mul(x, w) }", w=np.full(3, 2.0))
    assert list(model.inputs) == ["x"]
    close(model.grad({"x": X}, wrt="all")["w"], X.sum(0))
    close(model.grad({"x": X, "w": np.full(3, 2.0, np.float32)})["x"], np.full((2, 3), 2.0))
    with pytest.raises(netsens.NetsensError, match="'w' is stored in the model"):
        model.grad({"x": X, "w": np.full(3, 5.0, np.float32)})


def test_an_empty_batch() -> None:
    model = load("(float[N,3] x) => (float[N,3] y) { a = MatMul(x, w) r = Relu(a) s = Softmax<axis=1>(r) y = Add(s, b) }", w=SQUARE, b=np.ones((1, 3)))
    none = np.zeros((0, 3), np.float32)
    found = model.grad({"x": none}, wrt="all", target="[:,0]")
    assert found["x"].shape == (0, 3)
    close(found["w"], np.zeros((3, 3)))
    close(found["b"], np.zeros((1, 3)))
    assert model.jacobian({"x": none})["x"].shape == (0, 3, 0, 3)


def test_an_empty_batch_of_images() -> None:
    """A sum over no samples is zero; what has no elements there is nothing to check."""
    k = np.random.default_rng(0).standard_normal((4, 2, 3, 3))
    body = "c = Conv<strides=[2, 2]>(x, k) r = Relu(c) p = MaxPool<kernel_shape=[2, 2]>(r) g = GlobalAveragePool(p) f = Flatten(g) y = MatMul(f, w)"
    model = load(f"(float[N,2,9,9] x) => (float[N,3] y) {{ {body} }}", k=k, w=np.ones((4, 3)))
    none = np.zeros((0, 2, 9, 9), np.float32)
    found = model.grad({"x": none}, wrt="all")
    assert {name: g.shape for name, g in found.items()} == {"x": none.shape, "k": k.shape, "w": (4, 3)}
    assert not found["k"].any()
    assert not found["w"].any()
    apart = model.grad({"x": none}, wrt="params", per_sample=True)
    assert {name: g.shape for name, g in apart.items()} == {"k": (0, *k.shape), "w": (0, 4, 3)}
    with pytest.raises(netsens.NetsensError, match="'y' has no elements"):
        model.check({"x": none})
    again = model.grad({"x": np.ones((2, 2, 9, 9))}, wrt="all")
    assert again["k"].any()
    assert again["w"].any()


def test_single_numbers() -> None:
    model = load("(float x, float z) => (float y) { a = Mul(x, z) b = Sin(a) y = Mul(b, x) }")
    found = model.grad({"x": np.float32(0.5), "z": np.float32(2)})
    assert found["x"].shape == ()
    close(found["x"], np.sin(1) + 0.5 * 2 * np.cos(1))
    close(found["z"], 0.25 * np.cos(1))


@pytest.mark.parametrize(("a", "b"), [(X[:1], MANY), (MANY, X[:1]), (MANY, MANY), (X[:1], X[1:])])
@pytest.mark.parametrize("symbols", ["NN", "NM"])
def test_sizes_that_turn_out_to_be_one(symbols: str, a: np.ndarray, b: np.ndarray) -> None:
    """Also where two inputs share a symbol and then don't share a size."""
    body = "s = Add(a, b) t = Transpose(s) u = Softmax<axis=0>(t) y = Transpose(u)"
    model = load(f"(float[{symbols[0]},3] a, float[{symbols[1]},3] b) => (float[K,3] y) {{ {body} }}")
    found = model.grad({"a": a, "b": b}, target="[:,0]")
    whole = model.jacobian({"a": a, "b": b})
    p = np.exp(a + b) / np.exp(a + b).sum(1, keepdims=True)
    expected = p[:, :1] * (np.eye(3)[:1] - p)
    for name, x in {"a": a, "b": b}.items():
        assert found[name].shape == x.shape
        close(found[name], expected.sum(0, keepdims=True) if len(x) < len(p) else expected)
        close(whole[name][:, 0].sum(0), found[name])


@pytest.mark.parametrize("training", [True, False])
def test_dropout_without_its_mask(training: bool) -> None:
    model = load("(float[N,64] x, bool t) => (float[N,64] y, float[N,64] d) { r = Constant<value = float {0.5}>() d = Dropout<seed=3>(x, r, t) y = Mul(d, d) }")
    x = RNG.standard_normal((2, 64)).astype(np.float32)
    found = model.grad({"x": x, "t": np.asarray(training)}, wrt="x")["x"]
    scale = np.unique(np.round(found / (2 * x), 4))
    assert set(scale.tolist()) == ({0.0, 4.0} if training else {1.0})


def test_outputs_of_one_name() -> None:
    close(load("(float[N,3] x) => (float[N,3] y, float[N,3] y) { y = Mul(x, x) }").grad({"x": X})["x"], 2 * X)


def test_a_tensor_named_twice() -> None:
    found = load("(float[N,3] x) => (float[N,3] y) { y = Mul(x, x) }").grad({"x": X}, wrt=["x", "x", "inputs"])
    assert list(found) == ["x"]
    close(found["x"], 2 * X)


def test_names_such_as_netsens_gives() -> None:
    nodes = [helper.make_node("Tanh", ["x"], ["grad/mul"]), helper.make_node("Mul", ["grad/mul", "grad/mul"], ["gradient/x"])]
    value = [helper.make_tensor_value_info(name, 1, ["N", 3]) for name in ("x", "gradient/x")]
    made = helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = netsens.load(made)
    close(model.grad({"x": X})["x"], 2 * np.tanh(X) * (1 - np.tanh(X) ** 2))
    names = [o.name for o in model.grad_model().graph.output]
    assert len(set(names)) == len(names) == 2


@pytest.mark.parametrize("branch", [True, False])
def test_a_value_read_inside_and_outside(branch: bool) -> None:
    model = load(
        "(float[N,3] x, bool c) => (float[N,3] y) { a = Mul(x, x) i = If<then_branch = t () => (float[N,3] p) { p = Mul(a, x) },"
        " else_branch = e () => (float[N,3] q) { q = Identity(a) }>(c) y = Add(i, a) }"
    )
    found = model.grad({"x": X, "c": np.asarray(branch)}, wrt=["x", "a"])
    close(found["a"], X + 1 if branch else np.full((2, 3), 2.0))
    close(found["x"], 3 * X * X + 2 * X if branch else 4 * X)


def test_second_derivatives_by_inputs_and_parameters_of_value_one() -> None:
    v = np.asarray([1, 2, 3], np.float32)
    model = load("(float[3] x) => (float y) { a = Identity(x) s = Mul(a, x) q = Mul(s, w) y = ReduceSum<keepdims=0>(q) }", w=np.ones(3))
    found = model.hessian({"x": v}, wrt=["x", "w"])
    close(found["x"]["x"], 2 * np.eye(3))
    close(found["x"]["w"], 2 * np.diag(v))
    close(found["w"]["w"], np.zeros((3, 3)))


def test_tiny_probabilities_keep_their_derivative() -> None:
    # onnxruntime's Sigmoid is 0 below -18, and of y (1 - y) only noise would be left before that.
    x = np.array([[-40, -16, -12], [-3, 8, 16]], np.float32)
    model = load("(float[N,3] x) => (float[3,N] y) { p = Sigmoid(x) y = Transpose(p) }")
    e = np.exp(-np.abs(x.astype(np.float64)))
    expected = e / (1 + e) ** 2
    np.testing.assert_allclose(model.grad({"x": x})["x"], expected, rtol=1e-5)
    for mode in ("forward", "reverse"):
        found = model.jacobian({"x": x}, mode=mode)["x"]
        np.testing.assert_allclose(np.einsum("jiij->ij", found), expected, rtol=1e-5)


def test_a_state_that_a_loop_only_writes_may_begin_as_anything() -> None:
    # Exporters carry every variable of a while loop; those that it sets anew each time begin as an empty scalar.
    text = """(float[N,3] x, int64 m) => (float[N,3] y) { start = Constant<value_float=0.0>()
        last, set = Loop (m, , x, start) <body = b (int64 i, bool go, float[N,3] s, float[A,3] unread) => (bool on, float[N,3] n, float[N,3] t) {
            on = Identity(go) n = Sin(s) t = Mul(n, s) }>
        y = Add(last, set) }"""
    x = torch.tensor(X, requires_grad=True)
    s = x
    for _ in range(3):
        s, t = torch.sin(s), torch.sin(s) * s
    (s + t).sum().backward()
    close(load(text).grad({"x": X, "m": 3}, wrt="x")["x"], x.grad)
