"""Each rewrite of an older form: the upgraded graph gives what onnxruntime gives for the model as it was written, or, where
onnxruntime no longer runs that form, what NumPy says it meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from netsens.errors import UnsupportedError
from netsens.graph.graph import Graph, Node
from netsens.graph.normal import load_graph
from netsens.graph.save import model_proto
from netsens.graph.upgrade import REWRITES, TARGET_OPSET

KINDS = {"float32": "float", "float64": "double", "int64": "int64", "bool": "bool", "float16": "float16", "int32": "int32"}


@dataclass(frozen=True)
class Old:
    """A graph's body as it was written at `opset`; every keyword is an input: a shape, or an array. `want` replaces onnxruntime."""

    opset: int
    text: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: str = "float y"
    want: Callable[..., Any] | None = None
    constants: tuple[str, ...] = ()
    symbolic: tuple[bool, ...] = (False, True)

    @property
    def id(self) -> str:
        return f"{self.opset}: {self.text}"

    def arrays(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        return {k: rng.normal(size=v).astype(np.float32) if isinstance(v, tuple) else np.asarray(v) for k, v in self.inputs.items()}

    def model(self, symbolic: bool) -> onnx.ModelProto:
        inputs = []
        for name, array in self.arrays().items():
            if name not in self.constants:
                dims = [f"{name}{k}" if symbolic else str(d) for k, d in enumerate(array.shape)]
                inputs.append(f"{KINDS[array.dtype.name]}[{','.join(dims)}] {name}" if dims else f"{KINDS[array.dtype.name]} {name}")
        head = f'<ir_version: 3, opset_import: ["": {self.opset}]> g ({", ".join(inputs)}) => ({self.outputs})'
        model = onnx.parser.parse_model(f"{head} {{ {self.text} }}")
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        for name in self.constants:
            model.graph.initializer.append(onnx.numpy_helper.from_array(self.arrays()[name], name))
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, model.graph.initializer[-1].data_type, self.arrays()[name].shape))
        return model


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


FLAT = (2, 3, 4, 5)
CASES = [
    # Softmax and its kin: the axes from `axis` on were one.
    Old(9, "y = Softmax(x)", {"x": (3, 5)}),
    Old(9, "y = Softmax(x)", {"x": FLAT}),
    Old(12, "y = Softmax<axis = -1>(x)", {"x": FLAT}),
    Old(12, "y = Softmax<axis = -2>(x)", {"x": FLAT}),
    Old(9, "y = Softmax<axis = 0>(x)", {"x": FLAT}),
    Old(9, "y = Softmax<axis = 3>(x)", {"x": FLAT}),
    Old(9, "y = Softmax(x)", {"x": (2, 7, 1, 1)}),
    Old(9, "y = Softmax<axis = 0>(x)", {"x": (4,)}),
    Old(9, "y = LogSoftmax(x)", {"x": FLAT}),
    Old(9, "y = Hardmax(x)", {"x": FLAT}),
    Old(9, "y = Hardmax<axis = 2>(x)", {"x": (2, 3, 4)}),
    # Attributes that became inputs.
    Old(9, "y = Squeeze<axes = [0, 2]>(x)", {"x": (1, 3, 1, 4)}, symbolic=(False,)),
    Old(9, "y = Squeeze(x)", {"x": (1, 3, 1, 4)}, symbolic=(False,)),
    Old(11, "y = Squeeze<axes = [-2]>(x)", {"x": (2, 3, 1, 4)}, symbolic=(False,)),
    Old(9, "y = Unsqueeze<axes = [3, 0]>(x)", {"x": (3, 4)}),
    *(Old(9, f"y = {op}<axes = [1, 2]>(x)", {"x": np.random.default_rng(0).uniform(0.5, 2, (2, 3, 4)).astype(np.float32)}) for op in
      ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare")),
    Old(9, "y = ReduceMean(x)", {"x": (2, 3)}),
    Old(11, "y = ReduceMax<axes = [-1], keepdims = 0>(x)", {"x": (2, 3)}),
    Old(17, "y = ReduceMean<axes = [-1]>(x)", {"x": (2, 3)}),
    Old(12, "y = ReduceSum<axes = [0], keepdims = 0>(x)", {"x": (2, 3)}),
    Old(13, "y = ReduceSum<keepdims = 0>(x, a)", {"x": (2, 3), "a": np.array([0])}),
    Old(9, "y = Slice<starts = [1, 0], ends = [3, -1]>(x)", {"x": (4, 5)}),
    Old(9, "y = Slice<axes = [1], starts = [-2], ends = [9223372036854775807]>(x)", {"x": (4, 5)}),
    Old(9, "y, i = TopK<k = 2>(x)", {"x": (3, 5)}, "float y, int64 i"),
    Old(9, "y, i = TopK<k = 2, axis = 0>(x)", {"x": (3, 5)}, "float y, int64 i"),
    Old(9, "y, z = Split<axis = 1>(x)", {"x": (2, 6)}, "float y, float z"),
    Old(9, "y, z = Split<axis = 1, split = [2, 4]>(x)", {"x": (2, 6)}, "float y, float z"),
    Old(13, "y, z = Split<axis = 1>(x)", {"x": (2, 6)}, "float y, float z"),
    Old(13, "y, z = Split<axis = 1>(x, s)", {"x": (2, 6), "s": np.array([1, 5])}, "float y, float z"),
    Old(9, "y = Clip<min = -0.5, max = 0.25>(x)", {"x": (3, 5)}),
    Old(9, "y = Clip<max = 0.25>(x)", {"x": (3, 5)}),
    Old(6, "y = Clip<min = 0.25>(x)", {"x": (3, 5)}),
    Old(9, "y = Clip(x)", {"x": (3, 5)}),
    Old(9, "y = Clip<min = 0.25>(x)", {"x": np.arange(4, dtype=np.float64)}, "double y", want=lambda x: np.maximum(x, 0.25)),
    Old(9, "y = Pad<pads = [0, 1, 2, 0]>(x)", {"x": (3, 5)}),
    Old(9, "y = Pad<pads = [0, 1, 2, 0], value = 3.5>(x)", {"x": (3, 5)}),
    Old(9, 'y = Pad<mode = "reflect", pads = [0, 1, 2, 0]>(x)', {"x": (3, 5)}),
    Old(1, "y = Pad<paddings = [0, 1, 2, 0], value = 1.5>(x)", {"x": (3, 5)}, want=lambda x: np.pad(x, ((0, 2), (1, 0)), constant_values=1.5)),
    Old(7, "y = Dropout<ratio = 0.25>(x)", {"x": (3, 5)}),
    Old(10, "y, m = Dropout<ratio = 0.25>(x)", {"x": (3, 5)}, "float y, bool m", want=lambda x: (x, np.ones_like(x, bool))),
    Old(7, "y, m = Dropout(x)", {"x": (3, 5)}, "float y, float m", want=lambda x: (x, np.ones_like(x))),
    Old(6, "y = Dropout<is_test = 1, ratio = 0.25>(x)", {"x": (3, 5)}, want=lambda x: x),
    Old(17, "y = DFT<axis = 1>(x)", {"x": (2, 4, 5, 1)}, symbolic=(False,)),
    Old(17, "y = DFT<axis = 2, onesided = 1>(x)", {"x": (2, 4, 5, 1)}, symbolic=(False,)),
    Old(1, "y = Reshape<shape = [5, -1]>(x)", {"x": (2, 5)}, want=lambda x: x.reshape(5, 2)),
    # Resizing.
    Old(7, 'y = Upsample<scales = [1.0, 1.0, 2.0, 3.0]>(x)', {"x": (1, 2, 3, 4)}),
    Old(7, 'y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 3.0]>(x)', {"x": (1, 2, 3, 4)}),
    Old(9, 'y = Upsample(x, s)', {"x": (1, 2, 3, 4), "s": np.array([1, 1, 2, 1.5], np.float32)}, constants=("s",)),
    Old(9, 'y = Upsample<mode = "linear">(x, s)', {"x": (1, 2, 3, 4), "s": np.array([1, 1, 2, 1.5], np.float32)}),
    Old(1, 'y = Upsample<mode = "nearest", height_scale = 2.0, width_scale = 3.0>(x)', {"x": (1, 2, 3, 4)}, want=lambda x: x.repeat(2, 2).repeat(3, 3)),
    *(Old(10, f'y = Resize<mode = "{mode}">(x, s)', {"x": (1, 2, 5, 7), "s": np.array([1, 1, *s], np.float32)}, constants=constants)
      for mode in ("nearest", "linear") for s in ((2, 1.5), (0.6, 0.5), (2, 0.6), (0.7, 1.7)) for constants in ((), ("s",))),
    Old(11, "y = Resize(x, r, s)", {"x": (1, 2, 5, 7), "r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 0.7], np.float32)}, constants=("r", "s")),
    Old(11, 'y = Resize<mode = "cubic", coordinate_transformation_mode = "align_corners">(x, r, e, z)',
        {"x": (1, 2, 5, 7), "r": np.zeros(0, np.float32), "e": np.zeros(0, np.float32), "z": np.array([1, 2, 8, 4])}, constants=("r", "e", "z")),
    *(Old(11, f'y = Resize<coordinate_transformation_mode = "tf_half_pixel_for_nn", nearest_mode = "{n}">(x, r, s)',
          {"x": (1, 2, 5, 7), "r": np.zeros(0, np.float32), "s": np.array([1, 1, *s], np.float32)}, constants=("r", "s"))
      for n in ("floor", "round_prefer_floor") for s in ((2, 3), (0.6, 0.5))),
    # Normalisation.
    *(Old(v, "y = BatchNormalization<epsilon = 0.01>(x, s, b, m, v)", {"x": FLAT, "s": (3,), "b": (3,), "m": (3,), "v": np.array([1, 2, 3], np.float32)})
      for v in (7, 9, 13)),
    Old(7, "y = BatchNormalization<spatial = 0>(x, s, b, m, v)",
        {"x": (2, 3, 4), "s": (3, 4), "b": (3, 4), "m": (3, 4), "v": np.arange(1, 13, dtype=np.float32).reshape(3, 4)},
        want=lambda x, s, b, m, v: (x - m) / np.sqrt(v + 1e-5) * s + b),
    Old(6, "y = BatchNormalization<is_test = 1>(x, s, b, m, v)",
        {"x": (2, 3, 4), "s": (3,), "b": (3,), "m": (3,), "v": np.array([1, 2, 3], np.float32)},
        want=lambda x, s, b, m, v: (x - m[:, None]) / np.sqrt(v[:, None] + 1e-5) * s[:, None] + b[:, None]),
    Old(18, "y = GroupNormalization<num_groups = 2>(x, s, b)", {"x": (2, 4, 3, 5), "s": (2,), "b": (2,)}, symbolic=(False,)),
    # Names and positions.
    Old(10, "y = Scatter<axis = 1>(x, i, u)", {"x": (3, 4), "i": np.array([[1, 0], [2, 3], [0, 1]]), "u": (3, 2)}),
    *(Old(16, f'y = GridSample<mode = "{mode}">(x, g)', {"x": (1, 2, 4, 5), "g": np.random.default_rng(2).uniform(-1, 1, (1, 3, 3, 2)).astype(np.float32)})
      for mode in ("bilinear", "nearest", "bicubic")),
    Old(16, "y = GridSample(x, g)", {"x": (1, 2, 4, 5), "g": np.random.default_rng(2).uniform(-1, 1, (1, 3, 3, 2)).astype(np.float32)}),
    Old(10, "y = RoiAlign<output_height = 2, output_width = 2, spatial_scale = 0.5>(x, r, i)",
        {"x": (1, 2, 8, 8), "r": np.array([[0, 0, 9, 9], [1, 2, 7, 8]], np.float32), "i": np.array([0, 0])}),
    Old(9, "y = MaxPool<kernel_shape = [2, 2]>(x)", {"x": (1, 2, 4, 4)}),
    Old(9, "y = AveragePool<kernel_shape = [2, 2], pads = [1, 1, 1, 1], strides = [2, 2]>(x)", {"x": (1, 2, 4, 4)}),
    Old(9, "y = Gemm<transB = 1>(x, w, b)", {"x": (2, 3), "w": (4, 3), "b": (4,)}, constants=("w", "b")),
    Old(9, "y = OneHot(i, d, v)", {"i": np.array([0, 2, 1]), "d": np.array([3]), "v": np.array([0, 5], np.float32)}, symbolic=(False,)),
    Old(9, "y = ArgMax(x)", {"x": (3, 4)}, "int64 y"),
    Old(8, "y = Max(a, b, c)", {"a": (3, 4), "b": (4,), "c": (3, 1)}),
    Old(7, "y = PRelu(x, s)", {"x": (2, 3, 4), "s": (3, 1)}),
    Old(11, "y = DepthToSpace<blocksize = 2>(x)", {"x": (1, 8, 2, 3)}),
    Old(7, "y, h = GRU<hidden_size = 3>(x, w, r)", {"x": (4, 2, 5), "w": (1, 9, 5), "r": (1, 9, 3)}, "float y, float h"),
    Old(7, "y, h, c = LSTM<hidden_size = 3>(x, w, r)", {"x": (4, 2, 5), "w": (1, 12, 5), "r": (1, 12, 3)}, "float y, float h, float c"),
    # Loops over a batch, as Scan was at opset 8.
    Old(8, "s, y = Scan<num_scan_inputs = 1, body = b (float[2] c, float[2] e) => (float[2] d, float[2] f) { d = Add(c, e)  f = Mul(d, d) }>(, h, x)",
        {"h": (3, 2), "x": (3, 5, 2)}, "float s, float y", symbolic=(False,)),
    # A rewrite inside a branch, over a value from outside.
    Old(11, "y = If<then_branch = t () => (float u) { u = Softmax<axis = 1>(x) }, else_branch = e () => (float w) { w = Clip(x) }>(k)",
        {"k": np.array(True), "x": FLAT}),
    # Before opset 7, which onnxruntime has dropped for most operators.
    Old(6, "y = Add<axis = 1, broadcast = 1>(x, b)", {"x": (2, 3, 4), "b": (3,)}, want=lambda x, b: x + b[:, None]),
    Old(6, "y = Div<broadcast = 1>(x, b)", {"x": (2, 3, 4), "b": (3, 4)}, want=lambda x, b: x / b),
    *(Old(6, f"y = {op}<axis = 0, broadcast = 1>(x, b)", {"x": np.array([[True, False, True], [False, True, True]]), "b": np.array([True, False])}, "bool y",
          want=lambda x, b, f=f: f(x, b[:, None])) for op, f in (("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor))),
    *(Old(6, f"y = {op}<axis = 0, broadcast = 1>(x, b)", {"x": (2, 3), "b": (2,)}, "bool y",
          want=lambda x, b, f=f: f(x, b[:, None])) for op, f in (("Less", np.less), ("Greater", np.greater))),
    Old(6, "y = Equal<axis = 0, broadcast = 1>(x, b)", {"x": np.arange(6).reshape(2, 3), "b": np.array([1, 4])}, "bool y", want=lambda x, b: x == b[:, None]),
    Old(6, "y = Pow<axis = 0, broadcast = 1>(x, b)", {"x": np.array([[1, 2], [3, 4]], np.float32), "b": (2,)}, want=lambda x, b: x ** b[:, None]),
    Old(6, "y = Sub<axis = 0, broadcast = 1>(x, b)", {"x": (2, 3), "b": (2,)}, want=lambda x, b: x - b[:, None]),
    Old(6, "y = Mul<axis = 0, broadcast = 1>(x, b)", {"x": (2, 3, 4), "b": (2, 3)}, want=lambda x, b: x * b[..., None]),
    Old(6, "y = PRelu(x, s)", {"x": (2, 3, 4), "s": (3,)}, want=lambda x, s: np.where(x > 0, x, x * s[:, None])),
    Old(6, "y = PRelu(x, s)", {"x": (2, 3, 4), "s": np.array([0.25], np.float32)}, want=lambda x, s: np.where(x > 0, x, x * s)),
    Old(6, "y = Gemm<broadcast = 1>(x, w, b)", {"x": (2, 3), "w": (3, 4), "b": (4,)}, want=lambda x, w, b: x @ w + b),
    Old(5, 'y = Cast<to = "INT64">(x)', {"x": (2, 3)}, "int64 y", want=lambda x: x.astype(np.int64)),
    Old(3, "y = Concat(a, b)", {"a": (2, 3), "b": (2, 4)}, want=lambda a, b: np.concatenate([a, b], 1)),
    Old(5, "y = Relu<consumed_inputs = [0]>(x)", {"x": (2, 3)}, want=relu),
    Old(5, "y = Selu(x)", {"x": (2, 3)}, want=lambda x: 1.0507 * np.where(x > 0, x, 1.6732 * np.expm1(x))),
    Old(5, "y = Tile(x, t, a)", {"x": (2, 3), "t": np.array([3]), "a": np.array([1])}, constants=("t", "a"), want=lambda x, t, a: np.tile(x, (1, 3))),
    Old(1, "y = GlobalLpPool<p = 3.0>(x)", {"x": (2, 3, 4)}, want=lambda x: (np.abs(x) ** 3).sum(2, keepdims=True) ** (1 / 3)),
    Old(1, "y = LpPool<kernel_shape = [2], p = 1.0>(x)", {"x": (2, 3, 4)}, want=lambda x: np.abs(x)[..., :-1] + np.abs(x)[..., 1:]),
    Old(6, "y, h = RNN<hidden_size = 3, output_sequence = 1>(x, w, r)", {"x": (1, 2, 5), "w": (1, 3, 5), "r": (1, 3, 3)}, "float y, float h",
        want=lambda x, w, r: (np.tanh(x[0] @ w[0].T)[None, None], np.tanh(x[0] @ w[0].T)[None])),
    # Operators that ONNX never kept.
    Old(7, "y = ImageScaler<scale = 0.5, bias = [1.0, 2.0, 3.0]>(x)", {"x": (2, 3, 4, 4)}, want=lambda x: x * 0.5 + np.array([1, 2, 3])[:, None, None]),
    Old(7, "y = Affine<alpha = 2.0, beta = 1.0>(x)", {"x": (2, 3)}, want=lambda x: 2 * x + 1),
    Old(7, "y = Scale<scale = 2.0>(x)", {"x": (2, 3)}, want=lambda x: 2 * x),
    Old(7, "y = ScaledTanh<alpha = 2.0, beta = 0.5>(x)", {"x": (2, 3)}, want=lambda x: 2 * np.tanh(x / 2)),
    Old(7, "y = ParametricSoftplus<alpha = 2.0, beta = 0.5>(x)", {"x": (2, 3)}, want=lambda x: 2 * np.log1p(np.exp(x / 2))),
]  # fmt: skip


@pytest.mark.parametrize(("case", "symbolic"), [(c, s) for c in CASES for s in c.symbolic], ids=lambda v: v.id if isinstance(v, Old) else str(v))
def test_means_the_same(case: Old, symbolic: bool) -> None:
    model, arrays = case.model(symbolic), case.arrays()
    graph = load_graph(model)
    assert graph.opset == TARGET_OPSET
    got = run(model_proto(graph)[0], arrays)
    want = run(model, arrays) if case.want is None else case.want(*arrays.values())
    for name, a, b in zip(graph.outputs, got, want if isinstance(want, (tuple, list)) else [want], strict=True):
        assert a.shape == b.shape, name
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_is_of_the_new_opset(case: Old) -> None:
    graph = load_graph(case.model(symbolic=False))
    arrays = run(model_proto(graph)[0], case.arrays())
    for name, array in zip(graph.outputs, arrays, strict=True):  # the checker wants the rank of an output, which run time may decide
        graph.types[name] = replace(graph.types[name], shape=array.shape)
    onnx.checker.check_model(model_proto(graph)[0], full_check=True)


def test_every_rewrite_has_a_case() -> None:
    written = {node.op for case in CASES for node in nodes_of(read(case))}
    assert set(REWRITES) - written == set()


def read(case: Old) -> Graph:
    from netsens.graph.read import graph_from_proto

    return graph_from_proto(case.model(False).graph, {}, case.opset, None)


def nodes_of(graph: Graph) -> list[Node]:
    inner = [sub for node in graph.nodes for _, sub in node.subgraphs()]
    return [*graph.nodes, *(n for g in inner for n in nodes_of(g))]


def test_newer_models_keep_their_opset() -> None:
    assert load_graph(Old(23, "y = Relu(x)", {"x": (2, 3)}).model(False)).opset == 23


def test_new_names_clash_with_nothing() -> None:
    graph = load_graph(Old(9, "upgrade_c = Squeeze<axes = [0]>(x) y = Unsqueeze<axes = [0]>(upgrade_c)", {"x": (1, 3)}).model(False))
    values = [*graph.inputs, *graph.constants, *(o for n in graph.nodes for o in n.outputs)]
    assert len(values) == len(set(values))


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (Old(9, "y, a, b, c, d = BatchNormalization(x, s, s, s, s)", {"x": (2, 3), "s": (3,)}), "BatchNormalization 'y'"),
        (Old(11, 'y = Resize<coordinate_transformation_mode = "tf_half_pixel_for_nn", mode = "linear">(x, s, s)', {"x": (2, 3), "s": (2,)}), "tf_half_pixel"),
        (Old(8, "y = Scan<num_scan_inputs = 1, body = b (float e) => (float f) { f = Relu(e) }>(l, x)", {"l": np.array([2]), "x": (1, 2)}), "sequence lengths"),
    ],
)
def test_refused_with_a_reason(case: Old, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        load_graph(case.model(False))
