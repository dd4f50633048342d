"""Types of graphs with open dimensions: what they promise is what comes out, for several lengths, and they promise as much as they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from netsens.graph.dtypes import numpy_dtype
from netsens.graph.graph import Graph
from netsens.graph.normal import load_graph
from tests.graph.agreement import disagreements

LENGTHS = [{"N": 3, "T": 4, "H": 9, "W": 6}, {"N": 1, "T": 5, "H": 8, "W": 8}, {"N": 2, "T": 2, "H": 7, "W": 11}, {"N": 4, "T": 1, "H": 6, "W": 6}]


def graph(text: str, inputs: str, opset: int = 21, outputs: str = "float y", **constants: Any) -> Graph:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}, "ai.onnx.ml": 3]> g ({inputs}) => ({outputs}) {{ {text} }}')
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return load_graph(model)


def feeds(g: Graph, lengths: dict[str, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    result = {}
    for name in g.inputs:
        shape = tuple(lengths.get(d, 3) if isinstance(d, str) else d for d in g.types[name].shape or ())
        dtype = numpy_dtype(g.types[name].dtype)
        result[name] = (rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(dtype)
    return result


X = "float[N,T,8] x"
IMAGE = "float[N,3,H,W] x"
SHAPE = "s = Shape(x) n = Gather(s, zero) t = Gather(s, one)"
NUMBERS = {"zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "first": np.array([0]), "minus": np.array([-1]), "eight": np.array([8])}
CASES = [
    # Reshapes by arithmetic on shapes.
    ("y = Reshape(x, z)", X, {"z": np.array([0, 0, 2, 4])}, ("N", "T", 2, 4)),
    ("y = Reshape(x, z)", X, {"z": np.array([-1, 8])}, ("N*T", 8)),
    ("y = Reshape(x, z)", X, {"z": np.array([0, -1])}, ("N", "8*T")),
    ("s = Shape<start = 0, end = 2>(x) z = Concat<axis = 0>(s, w) y = Reshape(x, z)", X, {"w": np.array([2, 4])}, ("N", "T", 2, 4)),
    (f"{SHAPE} m = Mul(n, t) u = Unsqueeze(m, first) z = Concat<axis = 0>(u, eight) y = Reshape(x, z)", X, {}, ("N*T", 8)),
    (f"{SHAPE} a = Unsqueeze(n, first) z = Concat<axis = 0>(a, minus, w) y = Reshape(x, z)", X, {"w": np.array([2])}, ("N", "4*T", 2)),
    (f"{SHAPE} m = Mul(n, t) u = Unsqueeze(m, first) z = Concat<axis = 0>(u, eight) f = Reshape(x, z) y = Reshape(f, s)", X, {}, ("N", "T", 8)),
    ("f = Flatten<axis = 2>(x) y = Identity(f)", X, {}, ("N*T", 8)),
    (f"{SHAPE} d = Div(t, two) y = Cast<to = 1>(d)", X, {}, ()),
    # PyTorch's expand: where(shape == -1, 1, shape).
    ("k = ConstantOfShape<value = int64[1] {1}>(three) e = Mul(k, neg) q = Equal(z, e) w = Where(q, k, z) y = Expand(x, w)",
     "float[1,8] x", {"three": np.array([2]), "neg": np.int64(-1), "z": np.array([4, -1])}, (4, 8)),
    ("s = Shape(x) u = Unsqueeze(x, first) z = Concat<axis = 0>(w, s) y = Expand(u, z)", X, {"w": np.array([5])}, (5, "N", "T", 8)),
    # Slices, and what they add up to.
    ("y = Slice(x, one_, big, one_)", X, {"one_": np.array([1]), "big": np.array([2**62])}, ("N", "max(0, T - 1)", 8)),
    ("y = Slice(x, first, minus, one_)", X, {"one_": np.array([1])}, ("N", "max(0, T - 1)", 8)),
    ("a = Slice(x, one_, big, one_) b = Slice(x, first, one_, one_) y = Concat<axis = 1>(a, b)", X, {"one_": np.array([1]), "big": np.array([2**62])}, ("N", "T", 8)),
    ("a = Slice(x, minus, big, one_) b = Slice(x, first, minus, one_) y = Concat<axis = 1>(a, b)", X, {"one_": np.array([1]), "big": np.array([2**62])}, ("N", "T", 8)),
    ("y = Slice(x, minus, small, one_, minus)", X, {"one_": np.array([1]), "small": np.array([-(2**62)])}, ("N", "T", 8)),
    (f"{SHAPE} h = Sub(t, one) e = Unsqueeze(h, first) y = Slice(x, first, e, one_)", X, {"one_": np.array([1])}, ("N", "max(0, T - 1)", 8)),
    (f"{SHAPE} h = Div(t, two) e = Unsqueeze(h, first) a = Slice(x, first, e, one_) b = Slice(x, e, big, one_) y = Concat<axis = 1>(a, b)",
     X, {"one_": np.array([1]), "big": np.array([2**62])}, None),
    # Windows.
    ("y = Conv<pads = [1, 1, 1, 1]>(x, w)", IMAGE, {"w": np.ones((5, 3, 3, 3), np.float32)}, ("N", 5, "H", "W")),
    ("y = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w)", IMAGE, {"w": np.ones((5, 3, 3, 3), np.float32)}, ("N", 5, "(H + 1)//2", "(W + 1)//2")),
    ('y = Conv<strides = [2, 2], auto_pad = "SAME_UPPER">(x, w)', IMAGE, {"w": np.ones((5, 3, 3, 3), np.float32)}, ("N", 5, "(H + 1)//2", "(W + 1)//2")),
    ('y = Conv<dilations = [2, 1], auto_pad = "VALID">(x, w)', IMAGE, {"w": np.ones((5, 3, 3, 3), np.float32)}, ("N", 5, "H - 4", "W - 2")),
    ("a = Conv<pads = [1, 1, 1, 1]>(x, w) y = Add(a, x)", IMAGE, {"w": np.ones((3, 3, 3, 3), np.float32)}, ("N", 3, "H", "W")),
    ("y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)", IMAGE, {}, ("N", 3, "(H)//2", "(W)//2")),
    ("y, i = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(x)", IMAGE, {}, None),
    ("y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)", IMAGE, {}, ("N", 3, "H", "W")),
    ("y = ConvTranspose<strides = [2, 2], output_padding = [1, 0]>(x, w)", IMAGE, {"w": np.ones((3, 5, 3, 3), np.float32)}, ("N", 5, "2*H + 2", "2*W + 1")),
    ("y = ConvTranspose<strides = [2, 2], group = 3, pads = [1, 0, 1, 1], dilations = [2, 1]>(x, w)", IMAGE, {"w": np.ones((3, 2, 3, 3), np.float32)},
     ("N", 6, "2*H + 1", "2*W")),
    ('y = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric">(x, , s)', IMAGE, {"s": np.array([1, 1, 2, 3], np.float32)}, ("N", 3, "2*H", "3*W")),
    ('y = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric">(x, , s)', IMAGE, {"s": np.array([1, 1, 0.5, 1.7], np.float32)}, None),
    ("s = Shape<start = 2>(x) d = Mul(s, two) f = Shape<end = 2>(x) z = Concat<axis = 0>(f, d) y = Resize(x, , , z)", IMAGE, {}, ("N", 3, "2*H", "2*W")),
    ("s = Shape<start = 2>(x) g = Cast<to = 1>(s) h = Mul(g, c) k = Floor(h) d = Cast<to = 7>(k) f = Shape<end = 2>(x) z = Concat<axis = 0>(f, d) y = Resize(x, , , z)",
     IMAGE, {"c": np.float32(2)}, ("N", 3, "2*H", "2*W")),
    ("s = Shape<start = 2>(x) g = Cast<to = 1>(s) h = Div(g, c) k = Floor(h) d = Cast<to = 7>(k) f = Shape<end = 2>(x) z = Concat<axis = 0>(f, d) y = Resize(x, , , z)",
     IMAGE, {"c": np.float32(2)}, None),
    ("y = DepthToSpace<blocksize = 2>(x)", "float[N,8,H,W] x", {}, ("N", 2, "2*H", "2*W")),
    # Everything else that counts.
    ("y = Pad(x, p)", X, {"p": np.array([0, 1, 0, 0, 2, 3])}, ("N", "T + 3", 11)),
    ("y = Tile(x, r)", X, {"r": np.array([2, 3, 1])}, ("2*N", "3*T", 8)),
    (f"{SHAPE} r = Range(zero, t, one) y = Cast<to = 1>(r)", X, {}, ("T",)),
    (f"{SHAPE} m = Mod(t, two) u = Sub(t, m) r = Range(zero, u, one) y = Cast<to = 1>(r)", X, {}, ("2*(T)//2",)),
    (f"{SHAPE} m = Max(t, two) r = Range(zero, m, one) y = Cast<to = 1>(r)", X, {}, ("max(0, T - 2) + 2",)),
    ("y = ReduceMean<keepdims = 0>(x, one_)", X, {"one_": np.array([1])}, ("N", 8)),
    ("a, b = Split<axis = 1>(x, p) y = Relu(b)", "float[N,8] x", {"p": np.array([3, 5])}, ("N", 5)),
    ("a = Add(x, b) y = Mul(a, a)", "float[N,T,8] x, float[T,8] b", {}, ("N", "T", 8)),
    ("y = STFT(x, p, w)", "float[N,64] x", {"p": np.int64(4), "w": np.ones(16, np.float32)}, ("N", 13, 9, 2)),
    ("i = NonZero(x) y = Cast<to = 1>(i)", "float[N,T] x", {}, None),
    ("y = Compress<axis = 0>(x, k)", "float[N,T] x, bool[N] k", {}, ("y[0]", "T")),
    # Control flow.
    ("q = Equal(w, one) y = If<then_branch = a () => (float u) { u = Relu(x) }, else_branch = b () => (float v) { v = Flatten(x) }>(q)",
     X, {"w": np.int64(1)}, ("N", "T", 8)),
    (f"{SHAPE} q = Greater(t, two) y = If<then_branch = a () => (float u) {{ u = Relu(x) }}, else_branch = b () => (float v) {{ v = Neg(x) }}>(q)",
     X, {}, ("N", "T", 8)),
    (f"{SHAPE} q = Greater(t, two) y = If<then_branch = a () => (float u) {{ u = Relu(x) }}, else_branch = b () => (float v) {{ v = Concat<axis = 0>(x, x) }}>(q)",
     X, {}, ("y[0]", "T", 8)),
    ("y = Loop<body = b (int64 i, bool c, float[N,T,8] h) => (bool d, float[N,T,8] k) { d = Identity(c) k = Tanh(h) }>(two, , x)", X, {}, ("N", "T", 8)),
    ("y = Loop<body = b (int64 i, bool c, float[N,T,8] h) => (bool d, float[N,T,8] k) { d = Identity(c) k = Concat<axis = 1>(h, x) }>(two, , x)", X, {}, ("N", "y[1]", 8)),
    ("h, y = Loop<body = b (int64 i, bool c, float[N,T,8] h) => (bool d, float[N,T,8] k, float[N,T,8] o) { d = Identity(c) k = Tanh(h) o = Relu(k) }>(two, , x)",
     X, {}, (2, "N", "T", 8)),
    ("h, y = Scan<num_scan_inputs = 1, scan_input_axes = [1], body = b (float[N,8] h, float[N,8] e) => (float[N,8] k, float[N,8] o) { k = Add(h, e) o = Relu(k) }>(g, x)",
     "float[N,T,8] x, float[N,8] g", {}, ("T", "N", 8)),
    # Weak declarations: what names nothing says nothing.
    ("y = Relu(x)", "float[?,?] x", {}, ("x[0]", "x[1]")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "inputs", "constants", "want"), CASES, ids=[c[0] + " " + c[1] for c in CASES])
def test_types(text: str, inputs: str, constants: dict[str, Any], want: tuple[Any, ...] | None) -> None:
    used = {k: v for k, v in {**NUMBERS, **constants}.items() if k in text}
    g = graph(text, inputs, **used)
    if want is not None:
        assert g.types["y"].shape == want
    for lengths in LENGTHS:
        assert disagreements(g, feeds(g, lengths)) == []


def test_shape_arithmetic_over_numbers_leaves_no_nodes() -> None:
    g = graph(f"{SHAPE} m = Mul(n, t) u = Unsqueeze(m, first) z = Concat<axis = 0>(u, eight) y = Reshape(x, z)", "float[2,3,8] x",
              **{k: NUMBERS[k] for k in ("zero", "one", "first", "eight")})  # fmt: skip
    assert [n.op for n in g.nodes] == ["Reshape"]
    assert g.constants["z"].tolist() == [6, 8]


def test_an_output_that_is_a_shape_stays() -> None:
    g = graph("y = Shape(x)", "float[2,3] x", outputs="int64 y")
    assert [n.op for n in g.nodes] == ["Shape"]


def test_a_decided_branch_takes_its_constants_along() -> None:
    g = graph("q = Equal(w, w) y = If<then_branch = a () => (float u) <float[2] c = {1.0, 2.0}> { u = Add(x, c) }, else_branch = b () => (float v) { v = Neg(x) }>(q)",
              "float[2] x", w=np.int64(1))  # fmt: skip
    assert {n.op for n in g.nodes} == {"Add", "Identity"}
    assert disagreements(g, feeds(g, {})) == []


def test_sequences_and_strings_break_nothing() -> None:
    text = "s = SequenceConstruct(x, x) i = Constant<value_int = 0>() z = SequenceAt(s, i) y = Relu(z) t = StringNormalizer(w)"
    g = graph(text, "float[N,2] x, string[3] w", outputs="float y, string t")
    assert g.types["y"].shape == ("N", 2)


def test_dictionaries_break_nothing() -> None:
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 17, "ai.onnx.ml": 1]> g (float[N,3] x) => (float p) { p = Softmax<axis = 1>(x) }')
    node = onnx.helper.make_node("ZipMap", ["p"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    model.graph.node.append(node)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("m"))
    assert load_graph(model).types["p"].shape == ("N", 3)
