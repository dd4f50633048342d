"""Cases of every operator with no size of a float input known beforehand, as onnxruntime runs their gradient: the same numbers as with all sizes known, or a clear
word on which size is needed."""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import onnx
import pytest

import netsens
from netsens.errors import NetsensWarning, RunError, UnsupportedError
from netsens.modes.gradient import append_vjp
from tests.rules.case import Case
from tests.rules.checks import run64
from tests.rules.test_cases import CASES

A_FEW = 5  # of each operator
_BY_OPERATOR: dict[str, list[Case]] = defaultdict(list)
for _case in CASES:
    if _case.float32:
        _BY_OPERATOR[_case.op].append(_case)
RUNNABLE = [case for cases in _BY_OPERATOR.values() for case in cases[-A_FEW:]]


def _unsized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a symbol of its own for every length of every float input."""
    for value in model.graph.input:
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            continue
        for k, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{k}"
    return model


@pytest.mark.parametrize("case", RUNNABLE, ids=[c.id for c in RUNNABLE])
def test_gradient_without_sizes(case: Case) -> None:
    arrays, wrt = case.arrays(), case.floats()
    narrow = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in arrays.items()}
    feeds = {k: v for k, v in narrow.items() if k not in case.constants}
    model = netsens.load(_unsized(case.model(np.float32)))
    try:
        y = model.value(case.of, feeds)
    except RunError:
        return  # onnxruntime itself wants to know a size
    u = np.random.default_rng(case.seed).standard_normal(y.shape).astype(np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NetsensWarning)
            found = model.grad(feeds, wrt, case.of, cotangent=u, method="autodiff")
    except UnsupportedError:
        return
    reverse = append_vjp(case.graph(), case.of, wrt)
    wide = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in narrow.items()}
    expected = run64(reverse.graph, list(reverse.results.values()), {**wide, reverse.seeds[case.of]: u.astype(np.float64)})
    for w, value in zip(reverse.results, expected, strict=True):
        assert found[w].shape == value.shape
        np.testing.assert_allclose(found[w], value, rtol=1e-3, atol=2e-4 * max(1, np.abs(value).max(initial=0)))


def test_slices_with_steps_along_axes_of_unknown_length() -> None:
    """The first axis is turned round, or spread out, before the second, whose places are known only then, is met."""
    for first in (2, -1):
        text = (
            '<ir_version: 10, opset_import: ["": 21]> g (float[5, N] x) => (float[A, B] y) { '
            f"s = Constant<value_ints=[{4 if first < 0 else 1}, 4]>() e = Constant<value_ints=[{-9 if first < 0 else 5}, 0]>() a = Constant<value_ints=[0, 1]>() "
            f"t = Constant<value_ints=[{first}, -2]>() z = Slice(x, s, e, a, t) y = Mul(z, z) }}"
        )
        x = np.arange(30, dtype=np.float32).reshape(5, 6)
        expected = np.zeros_like(x)
        rows = slice(4, None, -1) if first < 0 else slice(1, 5, 2)
        expected[rows, 4:0:-2] = 2 * x[rows, 4:0:-2]
        np.testing.assert_array_equal(netsens.load(onnx.parser.parse_model(text)).grad(x)["x"], expected)


@pytest.mark.parametrize("dims", ["5", "N"])
def test_a_slice_that_begins_before_its_axis_and_goes_down(dims: str) -> None:
    """It begins at the first element, as the specification says and onnxruntime does."""
    text = f"""<ir_version: 10, opset_import: ["": 21]> g (float[{dims}] x) => (float[A] y) {{ s = Constant<value_ints=[-9]>() e = Constant<value_ints=[-10]>()
        a = Constant<value_ints=[0]>() t = Constant<value_ints=[-1]>() y = Slice(x, s, e, a, t) }}"""
    np.testing.assert_array_equal(netsens.load(onnx.parser.parse_model(text)).grad(np.ones(5, np.float32))["x"], [1, 0, 0, 0, 0])


@pytest.mark.parametrize("call", ["GatherElements(x, i)", "Gather(x, i)", "GatherND(x, j)"])
def test_halves_that_meet_in_one_place_are_added(call: str) -> None:
    text = f'<ir_version: 10, opset_import: ["": 21]> g (float16[3] x, int64[4] i, int64[4, 1] j) => (float16[4] y) {{ y = {call} }}'
    i = np.array([2, 0, 2, -1])
    found = netsens.load(onnx.parser.parse_model(text)).grad({"x": np.ones(3, np.float16), "i": i, "j": i[:, None]}, wrt="x")["x"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, [1, 0, 3])


def test_indices_of_unknown_depth_are_named() -> None:
    model = netsens.load(
        onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 21]> g (float[3, 4] x, int64[N, D] j) => (float[N] y) { y = GatherND(x, j) }')
    )
    with pytest.raises(UnsupportedError, match="indices 'j'"):
        model.grad({"x": np.ones((3, 4), np.float32), "j": np.array([[0, 1]])}, wrt="x")


@pytest.mark.parametrize(("shape", "call"), [((2, 3, 6, 7), "MaxPool<kernel_shape=[3, 2], strides=[2, 1]>(x)"), ((2, 9, 1), "STFT(x, s, w)")])
def test_double_precision_without_sizes(shape: tuple[int, ...], call: str) -> None:
    """onnxruntime has kernels for these, and none for Col2Im, in float64."""
    names = ", ".join("NABC"[: len(shape)])
    constants = "s = Constant<value_int=2>() w = Constant<value=double[4] {1.0, 2.0, 0.5, 1.5}>()"
    model = f'<ir_version: 10, opset_import: ["": 21]> g (double[{names}] x) => (double[K] y) {{ {constants} z = {call} y = Mul(z, z) }}'
    x = np.random.default_rng(0).standard_normal(shape)
    sized = model.replace(f"[{names}]", f"[{', '.join(map(str, shape))}]")
    found, expected = (netsens.load(onnx.parser.parse_model(text)).grad(x)["x"] for text in (model, sized))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
