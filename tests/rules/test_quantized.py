"""Quantised models: onnxruntime's operators against their kernels and against the same between QuantizeLinear and DequantizeLinear; models that
onnxruntime's quantiser made, whose straight-through gradients are close to those of the float model, and whose true ones are zero."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import netsens
from netsens.graph.graph import Graph, pruned
from netsens.graph.names import parameters
from netsens.graph.normal import load_graph
from netsens.modes.gradient import append_jvp, append_vjp
from netsens.rules.standard import written_out
from netsens.run.session import Session

Arrays = dict[str, np.ndarray]
RNG = np.random.default_rng(5)
IMAGE = RNG.uniform(-1, 1, (2, 4, 6, 5)).astype(np.float32)
ROWS = RNG.uniform(-1, 1, (3, 8)).astype(np.float32)
WEIGHT = RNG.integers(0, 255, (3, 4, 3, 3)).astype(np.uint8)
MATRIX = RNG.integers(-60, 60, (8, 5)).astype(np.int8)  # 7 bits: without VNNI, products of 8 bits overflow
HEAD = '<ir_version: 10, opset_import: ["":17, "com.microsoft":1]> g '
SCALES = (
    "s = Constant<value = float {0.008}>()  z = Constant<value = uint8 {128}>()  t = Constant<value = float {0.02}>()  o = Constant<value = uint8 {110}>()"
    " q = QuantizeLinear(x, s, z)  r = QuantizeLinear(v, s, z) "
)

# The operator between quantised q (and r) of real x (and v), and the same for the real numbers a (and b).
OPERATORS: dict[str, tuple[str, str, Arrays]] = {
    "QLinearAdd": ("QLinearAdd(q, s, z, r, s, z, t, o)", "Add(a, b)", {"x": IMAGE, "v": IMAGE[:1]}),
    "QLinearMul": ("QLinearMul(q, s, z, r, s, z, t, o)", "Mul(a, b)", {"x": IMAGE, "v": IMAGE[:, :1]}),
    "QLinearSigmoid": ("QLinearSigmoid(q, s, z, t, o)", "Sigmoid(a)", {"x": IMAGE}),
    "QLinearLeakyRelu": ("QLinearLeakyRelu<alpha=0.2>(q, s, z, t, o)", "LeakyRelu<alpha=0.2>(a)", {"x": IMAGE}),
    "QLinearSoftmax": ("QLinearSoftmax<axis=1, opset=13>(q, s, z, t, o)", "Softmax<axis=1>(a)", {"x": ROWS}),
    "QLinearAveragePool": ("QLinearAveragePool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1]>(q, s, z, t, o)",
                           "AveragePool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1]>(a)", {"x": IMAGE}),
    "QLinearGlobalAveragePool": ("QLinearGlobalAveragePool(q, s, z, t, o)", "GlobalAveragePool(a)", {"x": IMAGE}),
    "QLinearGlobalAveragePool channels last": ("QLinearGlobalAveragePool<channels_last=1>(q, s, z, t, o)", "ReduceMean<axes=[1, 2]>(a)", {"x": IMAGE}),
    "QLinearReduceMean": ("QLinearReduceMean<axes=[1, 3], keepdims=0>(q, s, z, t, o)", "ReduceMean<axes=[1, 3], keepdims=0>(a)", {"x": IMAGE}),
    "QLinearConcat": ("QLinearConcat<axis=1>(t, o, q, s, z, r, s, z)", "Concat<axis=1>(a, b)", {"x": IMAGE, "v": IMAGE[:, 1:3] * 0.5}),
    "QLinearWhere": ("QLinearWhere(c, q, s, z, r, s, z, t, o)", "Where(c, a, b)", {"x": ROWS, "v": ROWS[:1], "c": ROWS > 0.1}),
    "QGemm": ("QGemm<alpha=0.5>(q, s, z, w, ws, wz, wb, t, o)", "Gemm<alpha=0.5>(a, wr, br)", {
        "x": ROWS, "w": MATRIX, "ws": np.float32(0.01), "wz": np.int8(3), "wb": RNG.integers(-9000, 9000, 5).astype(np.int32)}),
    "QGemm of floats": ("QGemm(q, s, z, w, ws, wz, )", "Gemm(a, wr)", {
        "x": ROWS, "w": MATRIX, "ws": RNG.uniform(0.01, 0.02, 5).astype(np.float32), "wz": np.zeros(5, np.int8)}),
    "standard QLinearConv": ("QLinearConv<pads=[1,1,1,1], strides=[2,1]>(q, s, z, w, ws, wz, t, o)", "Conv<pads=[1,1,1,1], strides=[2,1]>(a, wr)", {
        "x": IMAGE, "w": WEIGHT, "ws": np.float32(0.003), "wz": np.uint8(130)}),
    "standard QLinearMatMul": ("QLinearMatMul(q, s, z, w, ws, wz, t, o)", "MatMul(a, wr)", {"x": ROWS, "w": MATRIX, "ws": np.float32(0.01), "wz": np.int8(3)}),
    "standard MaxPool": ("MaxPool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1]>(q)",
                         "MaxPool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1]>(a)", {"x": IMAGE}),
    "standard Reshape": ("Reshape(q, shape)", "Reshape(a, shape)", {"x": IMAGE, "shape": np.asarray([2, -1])}),
    "standard Transpose": ("Transpose<perm=[1,3,0,2]>(q)", "Transpose<perm=[1,3,0,2]>(a)", {"x": IMAGE}),
    "standard Concat": ("Concat<axis=1>(q, r)", "Concat<axis=1>(a, b)", {"x": IMAGE, "v": IMAGE[:, :2]}),
    "standard Gather": ("Gather<axis=1>(q, i)", "Gather<axis=1>(a, i)", {"x": IMAGE, "i": np.asarray([2, 0, 2])}),
    "standard Pad": ("Pad(q, p, z)", "Pad(a, p)", {"x": ROWS, "p": np.asarray([0, 1, 2, 0])}),
    "standard Slice": ("Slice(q, i, j)", "Slice(a, i, j)", {"x": IMAGE, "i": np.asarray([0, 1]), "j": np.asarray([2, 3])}),
}  # fmt: skip
FLOATS = ("QGemm of floats",)
KEPT = ("MaxPool", "Reshape", "Transpose", "Concat", "Gather", "Pad", "Slice")  # whose output is in the units of their input


def operator_model(name: str, fused: bool, quantised_output: bool = False) -> onnx.ModelProto:
    call, real, arrays = OPERATORS[name]
    kinds = {"f": "float", "i": "int64", "b": "bool", "u": "uint8"}
    inputs = ", ".join(f"{kinds[a.dtype.kind]}[{','.join(map(str, a.shape))}] {k}" for k, a in arrays.items() if k in ("x", "v", "c"))
    text = SCALES if "v" in arrays else SCALES.rpartition(" r =")[0]
    own = name.startswith("standard")
    scale, zero = ("s", "z") if name.removeprefix("standard ") in KEPT else ("t", "o")
    if fused:
        call = call if own else f"com.microsoft.{call}"
        last = f"y = {call}" if name in FLOATS else f"n = {call}  y = DequantizeLinear(n, {scale}, {zero})"
    else:
        text += " a = DequantizeLinear(q, s, z) "
        text += " b = DequantizeLinear(r, s, z) " if "v" in arrays else ""
        text += f" wr = DequantizeLinear<axis={0 if 'Conv' in name else 1}>(w, ws, wz) " if "w" in arrays else ""
        text += " bs = Mul(s, ws) half = Constant<value = float {0.5}>() bh = Mul(bs, half) bf = Cast<to=1>(wb) br = Mul(bf, bh) " if "wb" in arrays else ""
        last = f"y = {real}" if name in FLOATS else f"m = {real} n = QuantizeLinear(m, {scale}, {zero}) y = DequantizeLinear(n, {scale}, {zero})"
        if "wb" in arrays:  # the bias is added after the factor alpha
            last = last.replace("Gemm<alpha=0.5>(a, wr, br)", "Gemm<alpha=0.5>(a, wr) m2 = Add(m, br)").replace("QuantizeLinear(m,", "QuantizeLinear(m2,")
    output = ("uint8" if quantised_output else "float") + (" n" if quantised_output else " y")
    made = onnx.parser.parse_model(f"{HEAD} ({inputs}) => ({output}) {{ {text} {last} }}")
    made.graph.output[0].type.tensor_type.ClearField("shape")
    made.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in arrays.items() if k not in ("x", "v", "c"))
    return made


def passing(proto: onnx.ModelProto) -> Graph:
    return replace(load_graph(proto), straight_through=True)


def fed(name: str) -> Arrays:
    return {k: a for k, a in OPERATORS[name][2].items() if k in ("x", "v", "c")}


@pytest.mark.parametrize("name", OPERATORS)
def test_written_out_as_onnxruntime_computes(name: str) -> None:
    if name in FLOATS:
        graph = load_graph(operator_model(name, True))
    else:
        graph = load_graph(operator_model(name, True, quantised_output=True))
    plain = written_out(graph, lambda node: node.op == "QGemm" or node.op.startswith("QLinear"))
    (y,), (again,) = Session(graph).run(fed(name)), Session(plain).run(fed(name))
    assert y.shape == again.shape
    assert y.dtype == again.dtype
    # onnxruntime computes a few of them through tables or in integers, and rounds once more.
    assert np.abs(y.astype(np.float64) - again.astype(np.float64)).max() <= (1e-4 if name in FLOATS else 1)
    known = graph.types[graph.outputs[0]]
    assert known.shape == y.shape
    assert known.dtype == onnx.helper.np_dtype_to_tensor_dtype(y.dtype)


@pytest.mark.parametrize("name", OPERATORS)
def test_straight_through_as_between_quantize_and_dequantize(name: str) -> None:
    fused, plain = passing(operator_model(name, True)), passing(operator_model(name, False))
    wrt = [k for k in fed(name) if k != "c"]
    (y,) = Session(fused).run(fed(name))
    u = RNG.standard_normal(y.shape).astype(np.float32)
    found = []
    for graph in (fused, plain):
        reverse = append_vjp(graph, "y", wrt)
        assert list(reverse.results) == wrt
        found.append(Session(pruned(reverse.graph, list(reverse.results.values()))).run({**fed(name), reverse.seeds["y"]: u}))
    for k, a, b in zip(wrt, *found, strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4 * np.abs(b).max(), err_msg=f"by {k}")
    along = {k: RNG.standard_normal(fed(name)[k].shape).astype(np.float32) for k in wrt}
    forward = append_jvp(fused, ["y"], wrt)
    (tangent,) = Session(pruned(forward.graph, [forward.results["y"]])).run({**fed(name), **{forward.seeds[k]: v for k, v in along.items()}})
    pulled = sum(float(np.vdot(g.astype(np.float64), along[k])) for k, g in zip(wrt, found[0], strict=True))
    assert float(np.vdot(u.astype(np.float64), tangent)) == pytest.approx(pulled, rel=1e-3, abs=1e-3)


def test_saturated_numbers_pass_nothing() -> None:
    made = onnx.parser.parse_model(
        HEAD + "(float[5] x) => (float[5] y) { s = Constant<value = float {0.01}>()  z = Constant<value = uint8 {100}>()"
        " q = QuantizeLinear(x, s, z)  m = Identity(q) y = DequantizeLinear(m, s, z) }"
    )
    model = netsens.load(made, quantized="straight-through")
    with pytest.warns(netsens.NetsensWarning, match="straight through"):
        g = model.grad({"x": np.asarray([-1.2, -0.9, 0.0, 1.4, 1.7], np.float32)})["x"]
    np.testing.assert_allclose(g, [0, 1, 1, 1, 0], rtol=1e-6)


# Models that onnxruntime's quantiser made ----------------------------------------------------------------------------------------

NETWORKS = {
    "cnn": ("""(float[N,3,8,8] x) => (float[N,4] y) {
        c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)  r1 = Relu(c1)  p1 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r1)
        c2 = Conv<pads=[1,1,1,1]>(p1, w2, b2)  s2 = Sigmoid(c2)  a2 = Add(s2, p1)  l2 = LeakyRelu<alpha=0.1>(a2)
        k = Concat<axis=1>(l2, p1)  v = AveragePool<kernel_shape=[2,2]>(k)  t = Transpose<perm=[0,2,3,1]>(v)  f = Flatten(t)  y = Gemm(f, w3, b3) }""",
        {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 3, 3), "b2": (6,), "w3": (108, 4), "b3": (4,)}, (2, 3, 8, 8)),
    "mlp": ("(float[N,12] x) => (float[N,5] y) { h = Gemm(x, w1, b1)  r = Relu(h)  g = MatMul(r, w2)  t = LeakyRelu(g)  m = Mul(t, r)  y = Gemm(m, w3, b3) }",
            {"w1": (12, 20), "b1": (20,), "w2": (20, 20), "w3": (20, 5), "b3": (5,)}, (4, 12)),
}  # fmt: skip


def network(name: str) -> onnx.ModelProto:
    text, shapes, _ = NETWORKS[name]
    made = onnx.parser.parse_model(HEAD.replace(', "com.microsoft":1', "") + text)
    rng = np.random.default_rng(len(name))
    for k, shape in shapes.items():
        fan = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        made.graph.initializer.append(onnx.numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32), k))
    return made


class Samples:
    """What the quantiser calibrates on."""

    def __init__(self, samples: Sequence[np.ndarray]) -> None:
        self.left = [{"x": s} for s in samples]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


HOW: dict[str, dict[str, Any] | None] = {
    "QDQ": {"quant_format": "QDQ"}, "QOperator": {"quant_format": "QOperator"},
    "QOperator by channel": {"quant_format": "QOperator", "per_channel": True, "reduce_range": True},
    "QOperator of int8": {"quant_format": "QOperator", "activation_type": "QInt8", "weight_type": "QInt8", "reduce_range": True}, "dynamic": None,
}  # fmt: skip


def quantised(name: str, how: str, folder: Path) -> tuple[Path, np.ndarray]:
    from onnxruntime import quantization

    float_path, path = folder / "float.onnx", folder / "quantised.onnx"
    onnx.save(network(name), float_path)
    rng = np.random.default_rng(3)
    samples = [rng.standard_normal(NETWORKS[name][2]).astype(np.float32) for _ in range(4)]
    settings = HOW[how]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if settings is None:
            quantization.quantize_dynamic(float_path, path, weight_type=quantization.QuantType.QUInt8)
        else:
            chosen = {
                k: quantization.QuantFormat[v] if k == "quant_format" else quantization.QuantType[v] if k.endswith("type") else v for k, v in settings.items()
            }
            quantization.quantize_static(float_path, path, Samples([1.5 * s for s in samples]), **chosen)  # wide enough that x saturates nothing
    return path, samples[0]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_a_quantised_network(name: str, how: str, tmp_path: Path) -> None:
    path, x = quantised(name, how, tmp_path)
    weights = [k for k in NETWORKS[name][1] if k.startswith("w")]
    u = RNG.standard_normal((x.shape[0], 4 if name == "cnn" else 5)).astype(np.float32)
    expected = netsens.load(network(name)).grad({"x": x}, wrt=["x", *weights], cotangent=u)
    model = netsens.load(path, quantized="straight-through")
    stored = {w: next(p for p in parameters(model.graph) if p in (w, f"{w}_DequantizeLinear_Output")) for w in weights}
    found = model.grad({"x": x}, wrt=["x", *stored.values()], cotangent=u)
    assert set(stored.values()) <= set(model.grad({"x": x}, wrt="params", cotangent=u))
    for k, g in expected.items():
        assert cosine(found[stored.get(k, k)], g) > 0.95, k
        assert np.linalg.norm(found[stored.get(k, k)]) == pytest.approx(np.linalg.norm(g), rel=0.2)
    # What is stored is the weight to within its scale.
    initial = {t.name: onnx.numpy_helper.to_array(t) for t in network(name).graph.initializer}
    for w, real in stored.items():
        assert np.abs(model.value(real, {"x": x}) - initial[w]).max() <= 0.02 * np.abs(initial[w]).max()
    true = netsens.load(path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        zero = true.grad({"x": x}, wrt="x", cotangent=u)["x"]
    assert not zero.any()
    assert any("QuantizeLinear" in str(w.message) and "is zero" in str(w.message) for w in said)
    np.testing.assert_allclose(true.run({"x": x})["y"], netsens.load(network(name)).run({"x": x})["y"], atol=0.3)


def test_a_recurrent_layer_of_quantised_weights() -> None:
    rng = np.random.default_rng(0)
    weights = {k: rng.integers(60, 200, s).astype(np.uint8) for k, s in {"w": (1, 4, 12), "r": (1, 3, 12)}.items()}
    arrays = {**weights, "b": rng.standard_normal((1, 24)).astype(np.float32) * 0.1, "ws": np.full(1, 0.01, np.float32), "wz": np.full(1, 128, np.uint8)}
    call = "com.microsoft.DynamicQuantizeLSTM<hidden_size=3>(x, w, r, b, , , , , ws, wz, ws, wz)"
    made = onnx.parser.parse_model(f"{HEAD} (float[5,2,4] x) => (float[5,1,2,3] y) {{ y = {call} }}")
    made.graph.initializer.extend(onnx.numpy_helper.from_array(a, k) for k, a in arrays.items())
    x = rng.standard_normal((5, 2, 4)).astype(np.float32)
    graph = load_graph(made)
    assert graph.types["y"].shape == (5, 1, 2, 3)
    (y,), (again,) = Session(graph).run({"x": x}), Session(written_out(graph, lambda node: node.op == "DynamicQuantizeLSTM")).run({"x": x})
    np.testing.assert_allclose(y, again, atol=0.03)
    plain = onnx.parser.parse_model(HEAD.replace(', "com.microsoft":1', "") + "(float[5,2,4] x) => (float[5,1,2,3] y) { y = LSTM<hidden_size=3>(x, w, r, b) }")
    real = {k: np.ascontiguousarray(((v.astype(np.float32) - 128) * 0.01).transpose(0, 2, 1)) for k, v in weights.items()}
    plain.graph.initializer.extend(onnx.numpy_helper.from_array(a, k) for k, a in {**real, "b": arrays["b"]}.items())
    expected = netsens.load(plain).grad({"x": x})["x"]
    found = netsens.load(made).grad({"x": x})["x"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
