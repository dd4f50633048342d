"""Which layers hold a batch whose samples never meet, and gradients that are found part by part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import netsens
from netsens.graph.graph import Array
from netsens.graph.normal import load_graph
from netsens.jacobian import gradient_plan
from netsens.jacobian.gradient_plan import Samples
from netsens.modes.samplewise import batch_of
from netsens.run import parts
from netsens.run.parts import rows_at_a_time
from netsens.run.runtime import RunOptions

pytestmark = pytest.mark.filterwarnings("ignore:.*left out")


def _constant(name: str, *shape: int) -> str:
    numbers = np.random.default_rng(len(name) + sum(shape)).standard_normal(int(np.prod(shape)))
    return f"float{list(shape)} {name} = {{{','.join(f'{v:.3f}' for v in numbers)}}}"


WEIGHTS = ", ".join([_constant("w", 8, 3, 3, 3), _constant("b", 8), _constant("d", 8, 5), _constant("s", 8)])
HEAD = "c = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(c)"
TAIL = "g = GlobalAveragePool(r) f = Flatten(g) y = MatMul(f, d)"


def _model(body: str, inputs: str = "float[N, 3, 8, 8] x", constants: str = WEIGHTS) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> m ({inputs}) => (float[M, K] y) <{constants}> {{ {body} }}')


APART = {
    "a network": f"{HEAD} {TAIL}",
    "a residual, a pool, a normalisation": "c = Conv<pads=[1,1,1,1]>(x, w, b) n = BatchNormalization(c, s, b, b, s2) r = Relu(n) q = Add(r, c)"
    " p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(q) g = GlobalAveragePool(p) f = Flatten(g) y = MatMul(f, d)",
    "a reshape by the shape of the batch": f"{HEAD} g = GlobalAveragePool(r) h = Shape<start=0, end=1>(x) k = Constant<value_ints=[8]>()"
    " t = Concat<axis=0>(h, k) f = Reshape(g, t) y = MatMul(f, d)",
    "parts side by side": f"{HEAD} j = Concat<axis=1>(r, c) a, e = Split<axis=1, num_outputs=2>(j) m = Mul(a, e) g = GlobalAveragePool(m) f = Flatten(g) y = MatMul(f, d)",
    "weights computed from weights": "u = Mul(b, b) v = Tanh(u) c = Conv<pads=[1,1,1,1]>(x, w, v) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) y = MatMul(f, d)",
}
MEETING = {
    "a mean over the batch": f"{HEAD} z = Constant<value_ints=[0]>() m = ReduceMean<keepdims=1>(r, z) r2 = Sub(r, m) g = GlobalAveragePool(r2) f = Flatten(g) y = MatMul(f, d)",
    "a softmax over the batch": f"{HEAD} g = GlobalAveragePool(r) f = Flatten(g) q = Softmax<axis=0>(f) y = MatMul(q, d)",
    "statistics of the batch": "c = Conv<pads=[1,1,1,1]>(x, w, b) n, o1, o2 = BatchNormalization<training_mode=1>(c, s, b, b, s2) r = Relu(n) "
    "g = GlobalAveragePool(r) f = Flatten(g) y = MatMul(f, d)",
    "the batch's length as a number": f"{HEAD} g = GlobalAveragePool(r) f = Flatten(g) h = Shape<start=0, end=1>(x) t = Cast<to=1>(h) q = Div(f, t) y = MatMul(q, d)",
    "samples against samples": f"{HEAD} g = GlobalAveragePool(r) f = Flatten(g) t = Transpose(f) y = MatMul(f, t)",
    "the batch among the channels": f"{HEAD} g = GlobalAveragePool(r) k = Constant<value_ints=[1, -1]>() f = Reshape(g, k) y = Tanh(f)",
    "places counted through the batch": "c = Conv<pads=[1,1,1,1]>(x, w, b) p, i = MaxPool<kernel_shape=[2,2]>(c) t = Cast<to=1>(i) q = Mul(p, t) g = GlobalAveragePool(q)"
    " f = Flatten(g) y = MatMul(f, d)",
    "chance": f"{HEAD} e = RandomNormalLike(r) r2 = Mul(r, e) g = GlobalAveragePool(r2) f = Flatten(g) y = MatMul(f, d)",
    "chance shaped by weights": f"e = RandomNormalLike(b) c = Conv<pads=[1,1,1,1]>(x, w, e) r = Relu(c) {TAIL}",
    "chance of its own": f"e = RandomNormal<shape=[8]>() c = Conv<pads=[1,1,1,1]>(x, w, e) r = Relu(c) {TAIL}",
    "a layer that isn't the batch's": f"{HEAD} z = Constant<value_ints=[0]>() g = GlobalAveragePool(r) f = Flatten(g) y = ReduceSum<keepdims=1>(f, z)",
    "nothing convolved": "k = Constant<value_ints=[0, -1]>() f = Reshape(x, k) y = Tanh(f)",
}
MORE = WEIGHTS + ", float[8] s2 = {1,2,1,2,1,2,1,2}"


@pytest.mark.parametrize("body", APART.values(), ids=APART.keys())
def test_samples_that_never_meet_are_found(body: str) -> None:
    batch = batch_of(load_graph(_model(body, constants=MORE)), "y")
    assert batch is not None
    assert {"x", "y"} <= batch.rows
    assert "w" in batch.shared
    assert batch.sample_bytes >= 8 * 8 * 8 * 4


@pytest.mark.parametrize("body", MEETING.values(), ids=MEETING.keys())
def test_samples_that_may_meet_are_left_together(body: str) -> None:
    assert batch_of(load_graph(_model(body, constants=MORE)), "y") is None


def test_a_fixed_batch_is_left_together() -> None:
    assert batch_of(load_graph(_model(APART["a network"], "float[4, 3, 8, 8] x")), "y") is None


def _in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if caches were tiny: one sample at a time by inputs, and by parameters as many as weigh them up."""
    monkeypatch.setattr(gradient_plan, "TOGETHER_BYTES", 1)


QUESTIONS = [{"wrt": "inputs"}, {"wrt": "params"}, {"wrt": "all"}, {"wrt": ["r", "w"]}, {"wrt": "all", "target": 2}, {"wrt": "inputs", "target": "[:,1]"}]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
@pytest.mark.parametrize("body", APART.values(), ids=APART.keys())
@pytest.mark.parametrize("imposed", [False, True])
def test_parts_make_the_whole(body: str, question: dict[str, str], imposed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if imposed and "target" in question:
        return
    x = np.random.default_rng(5).standard_normal((6, 3, 8, 8)).astype(np.float32)
    g = np.random.default_rng(6).standard_normal((6, 5)).astype(np.float32) if imposed else None
    proto = _model(body, constants=MORE)
    whole = netsens.load(proto).grad(x, cotangent=g, **question)
    _in_parts(monkeypatch)
    asked: list[int] = []
    run = netsens.run.session.Session.run
    monkeypatch.setattr(netsens.run.session.Session, "run", lambda self, feeds, *more: (asked.append(len(feeds["x"])), run(self, feeds, *more))[1])
    in_parts = netsens.load(proto).grad(x, cotangent=g, **question)
    assert max(asked) < 6
    assert list(in_parts) == list(whole)
    for name, expected in whole.items():
        assert in_parts[name].dtype == expected.dtype
        np.testing.assert_allclose(in_parts[name], expected, rtol=2e-5, atol=2e-5)


def test_an_input_for_all_samples_gets_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = _model(f"{HEAD} g = GlobalAveragePool(r) f = Flatten(g) q = Mul(f, scale) y = MatMul(q, d)", "float[N, 3, 8, 8] x, float[1, 8] scale")
    feeds = {"x": np.random.default_rng(5).standard_normal((4, 3, 8, 8)).astype(np.float32), "scale": np.linspace(-1, 1, 8, dtype=np.float32)[None]}
    whole = netsens.load(proto).grad(feeds)
    _in_parts(monkeypatch)
    in_parts = netsens.load(proto).grad(feeds)
    for name in whole:
        np.testing.assert_allclose(in_parts[name], whole[name], rtol=2e-5, atol=2e-5)


def test_a_question_from_the_cache_is_answered_in_the_same_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETSENS_CACHE", str(tmp_path / "kept"))
    _in_parts(monkeypatch)
    onnx.save(_model(APART["a network"]), tmp_path / "m.onnx")
    x = np.random.default_rng(5).standard_normal((6, 3, 8, 8)).astype(np.float32)

    def asked() -> dict[str, Array]:
        return netsens.load(tmp_path / "m.onnx", cache=True).grad(x, wrt="all")

    first, second = asked(), asked()
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("wrt", ["inputs", "all"])
def test_within_a_limit_a_batch_goes_in_parts_before_anything_is_computed_again(wrt: str) -> None:
    proto = _model(APART["a residual, a pool, a normalisation"], "float[N, 3, 32, 32] x", MORE)
    x = np.random.default_rng(5).standard_normal((8, 3, 32, 32)).astype(np.float32)
    model = netsens.load(proto, provider="cpu")
    whole, limited = model.grad(x, wrt=wrt), model.grad(x, wrt=wrt, memory_limit=1_200_000)
    for name, expected in whole.items():
        np.testing.assert_allclose(limited[name], expected, rtol=2e-5, atol=2e-5)
    (plan,) = model._plans._within.values()
    assert plan.samples is not None
    assert 1 <= plan.samples.at_a_time < 8
    g = np.random.default_rng(6).standard_normal((8, 5)).astype(np.float32)
    imposed = model.grad(x, wrt=wrt, cotangent=g)
    for name, value in model.grad(x, wrt=wrt, cotangent=g, memory_limit=1_200_000).items():
        np.testing.assert_allclose(value, imposed[name], rtol=2e-5, atol=2e-5)
    with pytest.raises(netsens.NetsensError, match=r"limit is 146\.5 KiB; take a smaller batch"):
        model.grad(x, wrt=wrt, memory_limit=150_000)


def test_a_gpu_takes_the_whole_batch_unless_a_limit_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "providers", lambda choice: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    batch = {"x": np.zeros((16, 3, 8, 8), np.float32)}
    assert rows_at_a_time(Samples(["x"], [], 1 << 23, 0), batch, RunOptions()) is None
    assert rows_at_a_time(Samples(["x"], [], 1 << 23, 0, at_a_time=4), batch, RunOptions()) == 4


@pytest.mark.parametrize(
    ("count", "sample", "parameters", "rows"),
    [
        (16, 1 << 23, 0, 1),
        (16, 1 << 21, 0, 4),
        (16, 1 << 18, 0, 16),
        (12, 1 << 21, 0, 4),
        (17, 1 << 21, 0, 1),
        (17, 1 << 20, 0, 17),
        (16, 1 << 23, 1 << 26, 4),
        (0, 1, 0, 0),
    ],
)
def test_rows_fit_the_caches_and_outweigh_the_parameters(count: int, sample: int, parameters: int, rows: int) -> None:
    assert Samples(["x"], [], sample, parameters).rows(count, 1) == rows
