"""onnxruntime's own operators where the case table cannot judge them: types against what onnxruntime computes, quantised products, and what
onnxruntime writes into the standard's domain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from netsens.errors import UnsupportedError
from netsens.graph.graph import Graph, TensorType, pruned
from netsens.graph.infer_microsoft import microsoft_types
from netsens.graph.normal import load_graph
from netsens.graph.precision import in_precision
from netsens.graph.save import model_proto
from netsens.modes.gradient import append_jvp, append_vjp
from netsens.rules.standard import not_standard, written_out
from netsens.rules.words import rule_of
from tests.rules.case import Case
from tests.rules.checks import run64
from tests.rules.families.microsoft import CASES as FUSED
from tests.rules.families.microsoft_experts import CASES as EXPERTS
from tests.rules.families.microsoft_standard import CASES as OTHERS
from tests.rules.families.microsoft_state import CASES as STATES

CASES = [*FUSED, *EXPERTS, *STATES, *OTHERS]
Arrays = dict[str, np.ndarray]


def in_onnxruntime(graph: Graph, feeds: Arrays) -> list[np.ndarray]:
    onnxruntime.set_default_logger_severity(3)
    proto, _ = model_proto(graph)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    needed = {i.name for i in session.get_inputs()}
    return session.run(None, {k: v for k, v in feeds.items() if k in needed})  # type: ignore[no-any-return]


def close(a: Any, b: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("case", [c for c in CASES if c.float32], ids=lambda c: c.id)
def test_types_are_what_onnxruntime_computes(case: Case) -> None:
    graph = Case.graph(case, np.float32)
    feeds = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in case.arrays().items()}
    for node in graph.nodes:
        if not_standard(node):
            names = [o for o in node.outputs if o]
            found = in_onnxruntime(pruned(graph, names), feeds)
            for name, array in zip(names, found, strict=True):
                type_ = graph.types[name]
                assert type_.dtype == onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                assert type_.shape is not None
                assert all(not isinstance(d, int) or d == n for d, n in zip(type_.shape, array.shape, strict=True))


def test_every_operator_written_out_has_types() -> None:
    for case in CASES:
        graph = Case.graph(case, np.float32)
        for node in graph.nodes:
            if node.domain == "com.microsoft":
                rule = rule_of(node)
                assert rule is not None
                assert rule.expansion is not None or rule.jvp is not None
                assert microsoft_types(node, [graph.types[i] if i else TensorType(0, ()) for i in node.inputs]) is not None


def model(text: str, inputs: Arrays, output: str = "float y", constants: tuple[str, ...] = ()) -> onnx.ModelProto:
    kinds = {np.dtype(np.float32): "float", np.dtype(np.uint8): "uint8", np.dtype(np.int8): "int8", np.dtype(np.int32): "int32"}
    given = ", ".join(f"{kinds[a.dtype]}[{','.join(map(str, a.shape))}] {k}" for k, a in inputs.items() if k not in constants)
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["":21, "com.microsoft":1]> g ({given}) => ({output}) {{ {text} }}')
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for name in constants:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(inputs[name], name))
    return proto


def passing(proto: onnx.ModelProto) -> Graph:
    """Its graph, rounding passed straight through."""
    return replace(load_graph(proto), straight_through=True)


def gradients(graph: Graph, feeds: Arrays, wrt: list[str], u: np.ndarray) -> list[np.ndarray]:
    found = append_vjp(graph, "y", wrt)
    assert list(found.results) == wrt
    return in_onnxruntime(pruned(found.graph, list(found.results.values())), {**feeds, found.seeds["y"]: u})


def test_product_quantised_as_it_comes() -> None:
    """Against the same in standard operators: DynamicQuantizeLinear, MatMulInteger and the scales."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {
        "x": rng.standard_normal((3, 6)).astype(np.float32), "w": rng.integers(0, 128, (6, 4)).astype(np.uint8),
        "s": rng.uniform(0.01, 0.02, 4).astype(np.float32),
        "z": rng.integers(50, 80, 4).astype(np.uint8), "b": rng.standard_normal(4).astype(np.float32),
    }  # fmt: skip
    constants = ("w", "s", "z", "b")
    fused = passing(model("y = com.microsoft.DynamicQuantizeMatMul(x, w, s, z, b)", arrays, constants=constants))
    plain = passing(model(
        "q, a, c = DynamicQuantizeLinear(x)  i = MatMulInteger(q, w, c, z)  f = Cast<to=1>(i)  t = Mul(a, s)  m = Mul(f, t)  y = Add(m, b)",
        arrays, constants=constants
    ))  # fmt: skip
    (y,), (expected,), (written,) = (in_onnxruntime(g, arrays) for g in (fused, plain, written_out(fused)))
    close(y, expected)
    close(written, expected)
    u = rng.standard_normal(y.shape).astype(np.float32)
    for a, b in zip(gradients(fused, arrays, ["x", "s", "b"], u), gradients(plain, arrays, ["x", "s", "b"], u), strict=True):
        close(a, b)


def test_channels_last_pooling_of_quantised_numbers() -> None:
    x = np.random.default_rng(1).permutation(2 * 5 * 4 * 3).reshape(2, 5, 4, 3).astype(np.uint8)
    graph = load_graph(model("y = com.microsoft.NhwcMaxPool<kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1]>(x)", {"x": x}, "uint8 y"))
    (y,), (written,) = in_onnxruntime(graph, {"x": x}), in_onnxruntime(written_out(graph), {"x": x})
    np.testing.assert_array_equal(y, written)
    assert graph.types["y"].shape == y.shape


@pytest.mark.parametrize(
    "text",
    ["y = SimplifiedLayerNormalization(x, s)", "y = SimplifiedLayerNormalization<axis=1, epsilon=0.1>(x, s)",
     "a, r = SimplifiedLayerNormalization(x, s)  y = Mul(a, r)", "y, r = SimplifiedLayerNormalization<axis=-1, stash_type=1>(x, s)"],
)  # fmt: skip
def test_the_standard_domain_as_onnxruntime_writes_it(text: str) -> None:
    """SimplifiedLayerNormalization is in no standard, and onnxruntime puts it there: against the same in plain operators, in float64."""
    rng = np.random.default_rng(2)
    shape = (3, 4) if "axis=1" in text else (4,)
    arrays: Arrays = {"x": rng.standard_normal((2, 3, 4)).astype(np.float32), "s": rng.standard_normal(shape).astype(np.float32)}
    graph = load_graph(model(text, arrays))
    axes, epsilon = ("[1, 2]", 0.1) if "axis=1" in text else ("[-1]", 1e-5)
    plain = load_graph(model(
        f"k = Constant<value_ints={axes}>()  e = Constant<value_float={epsilon}>()  q = Mul(x, x)  m = ReduceMean(q, k)  v = Add(m, e)  d = Sqrt(v)"
        f"  r = Reciprocal(d)  h = Mul(x, r)  {'a' if 'Mul' in text else 'y'} = Mul(h, s)  {'y = Mul(a, r)' if 'Mul' in text else ''}", arrays
    ))  # fmt: skip
    (y,), (expected,) = in_onnxruntime(graph, arrays), in_onnxruntime(plain, arrays)
    close(y, expected)
    u = rng.standard_normal(y.shape).astype(np.float32)
    wide = {k: v.astype(np.float64) for k, v in arrays.items()}
    exact = in_precision(plain)
    found = append_vjp(exact, "y", ["x", "s"])
    truth = run64(found.graph, list(found.results.values()), {**wide, found.seeds["y"]: u.astype(np.float64)})
    for a, b in zip(gradients(graph, arrays, ["x", "s"], u), truth, strict=True):
        close(a, b)
    along = {k: rng.standard_normal(v.shape).astype(np.float32) for k, v in arrays.items()}
    pushed = append_jvp(graph, ["y"], ["x", "s"])
    (tangent,) = in_onnxruntime(pruned(pushed.graph, [pushed.results["y"]]), {**arrays, **{pushed.seeds[k]: v for k, v in along.items()}})
    close(np.vdot(u, tangent), sum(np.vdot(g, along[k]) for g, k in zip(truth, ("x", "s"), strict=True)))


def test_layer_normalization_in_float32_twice() -> None:
    """In float32 the rule leans on a layer normalisation of its own, which is then differentiated in turn: against the float64 form."""
    rng = np.random.default_rng(3)
    arrays: Arrays = {
        "x": rng.standard_normal((2, 3, 5)).astype(np.float32),
        "s": rng.standard_normal(5).astype(np.float32),
        "b": rng.standard_normal(5).astype(np.float32),
    }
    single = load_graph(model("h = LayerNormalization(x, s, b)  y = Tanh(h)", arrays))
    u = rng.standard_normal((2, 3, 5))
    along = {k: rng.standard_normal(v.shape) for k, v in arrays.items()}

    def twice(graph: Graph) -> list[np.ndarray]:
        first = append_vjp(graph, "y", list(arrays))
        base = pruned(first.graph, list(first.results.values()))
        second = append_jvp(base, list(first.results.values()), list(arrays))
        wide = in_precision(second.graph)
        feeds = {**arrays, first.seeds["y"]: u, **{second.seeds[k]: v for k, v in along.items()}}
        return run64(wide, list(second.results.values()), {k: v.astype(np.float64) for k, v in feeds.items()})

    assert any(n.op == "LayerNormalization" and len(n.outputs) == 3 for n in append_vjp(single, "y", ["x"]).graph.nodes)
    for a, b in zip(twice(single), twice(in_precision(single)), strict=True):
        close(a, b, 1e-11)


@pytest.mark.parametrize(("call", "said"), [
    ("MoE<k=1>(x, r, u, , v, , u)", "a third weight"),
    ('MoE<k=1, activation_type="swiglu", swiglu_fusion=2>(x, r, u, , v)', "swiglu_fusion"),
    ("MoE<k=1, use_sparse_mixer=1>(x, r, u, , v)", "use_sparse_mixer"),
])  # fmt: skip
def test_mixtures_that_no_kernel_computes_are_refused(call: str, said: str) -> None:
    arrays: Arrays = {k: np.ones(s, np.float32) for k, s in {"x": (2, 3), "r": (2, 4), "u": (4, 5, 3), "v": (4, 3, 5)}.items()}
    graph = load_graph(model(f"y = com.microsoft.{call}", arrays, constants=("u", "v")))
    with pytest.raises(UnsupportedError, match=said):
        append_vjp(graph, "y", ["x"])
