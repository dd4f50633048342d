"""Models in float16 and bfloat16: their gradients are those of the float32 model within what half precision can say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import netsens
from tests.cli.shell import netsens as command

pytestmark = pytest.mark.filterwarnings("ignore::netsens.errors.NetsensWarning")
KINDS = {"float16": (onnx.TensorProto.FLOAT16, 2.0**-10), "bfloat16": (onnx.TensorProto.BFLOAT16, 2.0**-7)}
NETWORKS = {
    "cnn": ("""(float[N,3,9,8] x) => (float[N,4] y) {
        c = Conv<pads=[1,1,1,1]>(x, w1, b1)  n = BatchNormalization(c, g, h, m, v)  r = Relu(n)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        d = Conv<strides=[2,2]>(p, w2)  s = Sigmoid(d)  a = GlobalAveragePool(s)  f = Flatten(a)  y = Gemm(f, w3, b3) }""",
        {"w1": (6, 3, 3, 3), "b1": (6,), "g": (6,), "h": (6,), "m": (6,), "v": None, "w2": (5, 6, 2, 2), "w3": (5, 4), "b3": (4,)}, (2, 3, 9, 8)),
    "mlp": ("(float[N,12] x) => (float[N,5] y) { h = Gemm(x, w1, b1)  t = Tanh(h)  g = MatMul(t, w2)  e = Gelu(g)  y = LogSoftmax(e) }",
            {"w1": (12, 20), "b1": (20,), "w2": (20, 5)}, (4, 12)),
    "transformer": ("""(float[N,7,8] x) => (float[N,7,8] y) {
        l = LayerNormalization(x, g, b)  q = MatMul(l, wq)  k = MatMul(l, wk)  u = MatMul(l, wv)  kt = Transpose<perm=[0,2,1]>(k)
        z = MatMul(q, kt)  zs = Mul(z, half)  p = Softmax(zs)  o = MatMul(p, u)  a = Add(o, x)  i = MatMul(a, w1)  j = Erf(i)  y = MatMul(j, w2) }""",
        {"g": (8,), "b": (8,), "wq": (8, 8), "wk": (8, 8), "wv": (8, 8), "half": (), "w1": (8, 16), "w2": (16, 8)}, (2, 7, 8)),
    "recurrent": ("(float[6,2,4] x) => (float[6,1,2,5] y) { y = LSTM<hidden_size=5>(x, w, r, b) }",
                  {"w": (1, 20, 4), "r": (1, 20, 5), "b": (1, 40)}, (6, 2, 4)),
}  # fmt: skip


def network(name: str, kind: str | None = None) -> onnx.ModelProto:
    """The network in float32, its numbers such as bfloat16 can say; or the same in half precision."""
    text, shapes, _ = NETWORKS[name]
    rng = np.random.default_rng(len(name))
    made = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["":{20 if kind != "bfloat16" else 22}]> g {text}')
    for k, shape in shapes.items():
        fan = 1 if not shape else np.prod(shape[1:]) if len(shape) > 2 else 2 * shape[0]
        array = np.full(6, 0.5) if shape is None else rng.standard_normal(shape) / np.sqrt(fan)
        made.graph.initializer.append(onnx.numpy_helper.from_array(rounded(array), k))
    if kind is None:
        return made
    element = KINDS[kind][0]
    for tensor in made.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(element))
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = element
    return made


def rounded(array: np.ndarray) -> np.ndarray:
    """In float32, but with no more digits than bfloat16 has."""
    bfloat16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    return np.asarray(array).astype(bfloat16).astype(np.float32)


def question(name: str) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """The inputs, the gradients by everything in float32, and the cotangent."""
    rng = np.random.default_rng(1)
    x = rounded(rng.standard_normal(NETWORKS[name][2]))
    model = netsens.load(network(name))
    u = rounded(rng.standard_normal(model.run({"x": x})["y"].shape))
    return x, model.grad({"x": x}, wrt="all", cotangent=u), u


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_in_half_precision(name: str, kind: str) -> None:
    x, expected, u = question(name)
    element, rounding = KINDS[kind]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    model = netsens.load(network(name, kind))
    found = model.grad({"x": x.astype(dtype)}, wrt="all", cotangent=u.astype(dtype))
    assert set(found) == set(expected)
    for k, g in expected.items():
        assert found[k].dtype == dtype
        assert found[k].shape == g.shape
        distance = np.linalg.norm(found[k].astype(np.float64) - g)
        assert distance <= 20 * rounding * np.linalg.norm(g), f"{k}: {distance / np.linalg.norm(g):.2g}"
    jacobian = model.linearize({"x": x.astype(dtype)}, wrt=["x"])
    tangent = jacobian.jvp({"x": np.ones_like(x).astype(dtype)})
    pushed = float(np.vdot(u.astype(np.float64), np.asarray(next(iter(tangent.values())) if isinstance(tangent, dict) else tangent).astype(np.float64)))
    pulled = float(expected["x"].sum())
    assert abs(pushed - pulled) <= 40 * rounding * float(np.abs(expected["x"]).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_computed_in_float32_where_asked(name: str, kind: str) -> None:
    x, expected, u = question(name)
    found = netsens.load(network(name, kind), compute_dtype="float32").grad({"x": x}, wrt="all", cotangent=u)
    for k, g in expected.items():
        assert found[k].dtype == np.float32
        np.testing.assert_allclose(found[k], g, rtol=0, atol=2e-5 * max(1.0, np.abs(g).max()), err_msg=k)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_command_line(kind: str, tmp_path: Path) -> None:
    x, expected, _ = question("mlp")
    onnx.save(network("mlp", kind), tmp_path / "half.onnx")
    np.save(tmp_path / "x.npy", x)
    for more, tolerance in ((), 20 * KINDS[kind][1]), (("--compute-dtype", "float32"), 1e-4):
        done = command("grad", "half.onnx", "--input", "x.npy", "--wrt", "all", "--of", "g", "-o", "g.npz", *more, cwd=tmp_path)
        assert done.code == 0, done.err
        reference = netsens.load(network("mlp")).grad({"x": x}, wrt="all", of="g")
        with np.load(tmp_path / "g.npz") as arrays:
            for k in ("x", "w1", "b1", "w2"):
                got = arrays[k].astype(np.float64)
                assert np.linalg.norm(got - reference[k]) <= tolerance * np.linalg.norm(reference[k])
    assert set(expected) == {"x", "w1", "b1", "w2"}


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("activation", ["Erf", "Gelu", "Swish"])
def test_a_check_holds_derivatives_in_half_precision_to_float64(activation: str, kind: str) -> None:
    """Their numbers (the 2 / sqrt(pi) of an Erf) are rounded to half in the gradient that is delivered, not in the one that is judged."""
    text = f"<ir_version: 10, opset_import: ['': 24]> m ({kind}[2,3] x) => ({kind}[2,3] y) {{ y = {activation}(x) }}".replace("'", '"')
    model = netsens.load(onnx.parser.parse_model(text))
    x = np.linspace(-1.5, 2, 6).reshape(2, 3).astype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(kind.upper())))
    (row,) = model.check({"x": x}).rows
    assert (row.verdict, row.precision) == ("pass", "float64"), row.reason
