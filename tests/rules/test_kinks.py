"""Where a function has no derivative, or one that a formula would turn into NaN, the gradient is PyTorch's."""

from __future__ import annotations

import re

import numpy as np
import pytest

from netsens.analyse.kinks import TABLE, markdown, on_kinks
from netsens.modes.gradient import append_vjp
from tests.rules.case import Case
from tests.rules.checks import run64

torch = pytest.importorskip("torch")

INF = np.inf
X = np.array([-1.5, 0.0, 0.0, 2.0])
TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, -1.0, -2.0]])
EDGES = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
IMAGE = np.array([[1.0, 1.0, 0.0, 2.0], [1.0, 0.0, 2.0, 2.0], [3.0, 3.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0]]).reshape(1, 1, 4, 4)
ZEROS = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])

KINKS = [
    ("y = Relu(x)", {"x": X}, lambda x: torch.relu(x)),
    ("r = Relu(x) y = Sqrt(r)", {"x": np.array([-1.0, -2.0, 4.0])}, lambda x: torch.sqrt(torch.relu(x))),
    ("y = Abs(x)", {"x": X}, lambda x: torch.abs(x)),
    ("y = Sqrt(x)", {"x": np.array([0.0, 1.0])}, lambda x: torch.sqrt(x)),
    ("y = LeakyRelu<alpha=0.25>(x)", {"x": X}, lambda x: torch.nn.functional.leaky_relu(x, 0.25)),
    ("y = LeakyRelu<alpha=-0.25>(x)", {"x": X}, lambda x: torch.nn.functional.leaky_relu(x, -0.25)),
    ("y = PRelu(x, s)", {"x": X, "s": np.array([0.25])}, lambda x, s: torch.nn.functional.prelu(x, s)),
    ("y = Elu<alpha=0.5>(x)", {"x": X}, lambda x: torch.nn.functional.elu(x, 0.5)),
    ("y = Celu<alpha=0.5>(x)", {"x": X}, lambda x: torch.nn.functional.celu(x, 0.5)),
    ("y = HardSwish(x)", {"x": EDGES}, lambda x: torch.nn.functional.hardswish(x)),
    ("y = HardSigmoid<alpha=0.5, beta=0.5>(x)", {"x": EDGES}, lambda x: torch.nn.functional.hardtanh(0.5 * x + 0.5, 0.0, 1.0)),
    ("y = ThresholdedRelu<alpha=0.5>(x)", {"x": EDGES}, lambda x: torch.nn.functional.threshold(x, 0.5, 0.0)),
    ("y = ThresholdedRelu<alpha=-0.5>(x)", {"x": EDGES}, lambda x: torch.nn.functional.threshold(x, -0.5, 0.0)),
    ("y = Shrink<lambd=0.5>(x)", {"x": EDGES}, lambda x: torch.nn.functional.hardshrink(x, 0.5)),
    ("y = Shrink<lambd=0.5, bias=0.5>(x)", {"x": EDGES}, lambda x: torch.nn.functional.softshrink(x, 0.5)),
    ("y = Softsign(x)", {"x": X}, lambda x: torch.nn.functional.softsign(x)),
    ("y = Clip(x, low, high)", {"x": EDGES, "low": np.array(-0.5), "high": np.array(1.0)}, lambda x, low, high: torch.clamp(x, low, high)),
    ("y = Clip(x, low, high)", {"x": EDGES, "low": np.array(1.0), "high": np.array(-0.7)}, lambda x, low, high: torch.clamp(x, low, high)),
    ("y = Clip(x, low)", {"x": EDGES, "low": np.array(0.0)}, lambda x, low: torch.clamp(x, min=low)),
    ("y = Max(a, b)", {"a": np.array([1.0, 2.0, INF]), "b": np.array([1.0, 3.0, INF])}, lambda a, b: torch.maximum(a, b)),
    ("y = Min(a, b)", {"a": np.array([1.0, 2.0, 0.0]), "b": np.array([1.0, 3.0, -0.0])}, lambda a, b: torch.minimum(a, b)),
    ("a = Constant<value = int64[1] {1}>() y = ReduceMax<keepdims=0>(x, a)", {"x": TIES}, lambda x: torch.amax(x, 1)),
    ("a = Constant<value = int64[1] {0}>() y = ReduceMin(x, a)", {"x": TIES}, lambda x: torch.amin(x, 0, keepdim=True)),
    ("y = ReduceMax(x)", {"x": TIES}, lambda x: torch.amax(x)),
    ("a = Constant<value = int64[1] {1}>() y = ReduceL1(x, a)", {"x": ZEROS}, lambda x: torch.linalg.vector_norm(x, 1, 1)),
    ("a = Constant<value = int64[1] {1}>() y = ReduceL2(x, a)", {"x": ZEROS}, lambda x: torch.linalg.vector_norm(x, 2, 1)),
    ("a = Constant<value = int64[1] {1}>() y = ReduceProd(x, a)", {"x": ZEROS}, lambda x: torch.prod(x, 1)),
    ("a = Constant<value = int64 {1}>() y = CumProd(x, a)", {"x": ZEROS}, lambda x: torch.cumprod(x, 1)),
    ("a = Constant<value = int64[1] {1}>() y = ReduceLogSumExp(x, a)", {"x": np.array([[-INF, 1.0], [2.0, 3.0]])}, lambda x: torch.logsumexp(x, 1)),
    ("y = LogSoftmax(x)", {"x": np.array([[-INF, 1.0, 0.5]])}, lambda x: torch.log_softmax(x, 1)),
    ("y = Softmax(x)", {"x": np.array([[-INF, 1.0, 0.5]])}, lambda x: torch.softmax(x, 1)),
    *(
        (f"e = Constant<value = double {{{e}}}>() y = Pow(x, e)", {"x": np.array([0.0, 1.0])}, lambda x, e=e: torch.pow(x, e))
        for e in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    ),
    ("y = Pow(x, e)", {"x": np.array([0.0, 0.0, 0.0, 0.0]), "e": np.array([0.0, 0.5, 1.0, 2.0])}, lambda x, e: torch.pow(x, e)),
    ("y = Pow(x, e)", {"x": np.array([-1.5, -2.0]), "e": np.array([2.0, 3.0])}, lambda x, e: torch.pow(x, e)),
    ("y = Selu<alpha=1.75, gamma=1.25>(x)", {"x": X}, lambda x: 1.25 * torch.nn.functional.elu(x, 1.75)),
    ("y = MaxPool<kernel_shape=[2, 2], strides=[1, 1]>(x)", {"x": IMAGE}, lambda x: torch.nn.functional.max_pool2d(x, 2, 1)),
    ("y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x)", {"x": IMAGE}, lambda x: torch.nn.functional.max_pool2d(x, 2)),
    ("y = GlobalMaxPool(x)", {"x": IMAGE}, lambda x: torch.nn.functional.adaptive_max_pool2d(x, 1)),
    ("y = Floor(x)", {"x": X}, lambda x: torch.floor(x)),
    ("y = Ceil(x)", {"x": X}, lambda x: torch.ceil(x)),
    ("y = Round(x)", {"x": EDGES}, lambda x: torch.round(x)),
    ("y = Mod<fmod=1>(a, b)", {"a": np.array([4.0, -4.0, 5.5]), "b": np.array([2.0, 2.0, -2.0])}, lambda a, b: torch.fmod(a, b)),
    ("y = Mod(a, b)", {"a": np.array([4.0, -4.0, 5.5]), "b": np.array([2.0, 2.0, -2.0])}, lambda a, b: torch.remainder(a, b)),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's evaluator divides by the zeros that are asked for here
@pytest.mark.parametrize(("text", "inputs", "function"), KINKS, ids=[f"{k}: {text}" for k, (text, _, _) in enumerate(KINKS)])
def test_kink_as_in_pytorch(text, inputs, function):
    opset = 28 if "Mod(" in text else 26 if "CumProd" in text else 22
    case = Case(text.split(" = ")[-1], text, inputs, opset=opset)
    reverse = append_vjp(case.graph(), "y", list(inputs))
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in inputs.items()}
    y = function(*tensors.values())
    seed = np.linspace(1.0, 2.0, y.numel()).reshape(y.shape)
    y.backward(torch.tensor(seed))
    names = list(reverse.results)
    (primal,) = run64(case.graph(), ["y"], inputs)
    found = run64(reverse.graph, [reverse.results[n] for n in names], {**inputs, reverse.seeds["y"]: seed.reshape(primal.shape)})
    for name in inputs:
        expected = tensors[name].grad.numpy() if tensors[name].grad is not None else np.zeros_like(inputs[name])
        given = found[names.index(name)] if name in names else np.zeros_like(inputs[name])
        np.testing.assert_allclose(given, expected, rtol=1e-12, atol=1e-12, err_msg=f"by {name}")


def test_every_row_of_the_table_is_tested_here():
    tested = {word for text, _, _ in KINKS for word in re.findall(r"([A-Z]\w+)[(<]", text)}
    assert {name for kink in TABLE for name in kink.operators.split()} <= tested


COUNTED = [
    ("y = Relu(x)", X, 2, 4),
    ("y = Abs(x)", X, 2, 4),
    ("y = ThresholdedRelu<alpha=0.5>(x)", EDGES, 1, 7),
    ("y = Shrink<lambd=0.5>(x)", EDGES, 2, 7),
    ("y = HardSwish(x)", EDGES, 2, 7),
    ("y = HardSigmoid<alpha=0.5, beta=0.5>(x)", EDGES, 2, 7),
    ("l = Constant<value = float {-0.5}>() h = Constant<value = float {1.0}>() y = Clip(x, l, h)", EDGES, 2, 7),
    ("z = Constant<value = float {0.0}>() y = Max(x, z)", X, 2, 4),
    ("a = Constant<value = int64[1] {1}>() y = ReduceMax<keepdims=0>(x, a)", TIES, 2, 3),
    ("y = ReduceMin(x)", TIES, 0, 1),
    ("a = Constant<value = int64[1] {1}>() y = ReduceL2(x, a)", ZEROS, 1, 4),
    ("y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x)", IMAGE, 4, 4),
    ("y = MaxPool<kernel_shape=[2, 2], strides=[1, 1]>(x)", IMAGE, 7, 9),
    ("y = GlobalMaxPool(x)", IMAGE, 1, 1),
    ("y = Round(x)", EDGES, 2, 7),
    ("t = Tanh(x) y = Mul(t, t)", X, 0, 0),
]


@pytest.mark.parametrize(("text", "x", "count", "of"), COUNTED, ids=[t for t, *_ in COUNTED])
def test_elements_on_a_kink_are_counted(text, x, count, of):
    case = Case(text.split(" = ")[-1], text, {"x": x})
    graph = case.graph(np.float32)
    found = on_kinks(graph, {"x": x.astype(np.float32)}, of="y", wrt=["x"])
    assert [(row.count, row.of) for row in found] == ([(count, of)] if count else [])


def test_the_table_as_markdown():
    lines = markdown().splitlines()
    assert len(lines) == len(TABLE) + 2
    assert all(line.count("|") == 4 for line in lines)


def test_nothing_but_minus_infinity():
    """A masked row: PyTorch says NaN, but the logarithm of a sum of nothing stays where it is."""
    case = Case("ReduceLogSumExp", "y = ReduceLogSumExp(x)", {"x": np.full((1, 3), -INF)})
    reverse = append_vjp(case.graph(), "y", ["x"])
    (found,) = run64(reverse.graph, [reverse.results["x"]], {"x": np.full((1, 3), -INF), reverse.seeds["y"]: np.ones((1, 1))})
    np.testing.assert_array_equal(found, np.zeros((1, 3)))
