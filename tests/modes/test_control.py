"""What the table of cases cannot say of If, Loop, Scan and the recurrent layers: bodies without declared shapes, reverse over reverse, PyTorch's gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

import netsens.rules  # noqa: F401  # declares the rules
from netsens.errors import UnsupportedError
from netsens.graph.graph import Graph, pruned
from netsens.graph.normal import load_graph
from netsens.graph.precision import in_precision
from netsens.graph.save import model_proto
from netsens.modes.activity import cuts_between
from netsens.modes.gradient import append_jvp, append_vjp
from netsens.rules import recurrent_reverse
from netsens.rules.words import RULES
from netsens.run.reference import reference_runner

Arrays = Mapping[str, np.ndarray]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, kind: int = FLOAT, shape: list[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def run64(graph: Graph, outputs: list[str], feeds: Arrays) -> list[np.ndarray]:
    graph = pruned(graph, outputs)
    return reference_runner(graph)({k: v for k, v in feeds.items() if k in graph.inputs})


def run32(graph: Graph, outputs: list[str], feeds: Arrays) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model_proto(pruned(graph, outputs))[0].SerializeToString(), options)
    needed = {i.name for i in session.get_inputs()}
    return list(session.run(outputs, {k: v for k, v in feeds.items() if k in needed}))


def loop_without_shapes() -> onnx.ModelProto:
    """h = tanh(h W + i) as PyTorch exports it: nothing in the body says a shape, and the number of turns is an input."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w"], ["hw"]),
            helper.make_node("Cast", ["i"], ["fi"], to=FLOAT),
            helper.make_node("Add", ["hw", "fi"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["next"]),
            helper.make_node("ReduceSum", ["next"], ["total"], keepdims=0),
            helper.make_node("Identity", ["going"], ["on"]),
        ],
        "body", [value("i", INT64, []), value("going", BOOL, []), value("h")], [value("on", BOOL, []), value("next"), value("total")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Loop", ["turns", "", "x"], ["last", "totals"], body=body),
        helper.make_node("Transpose", ["last"], ["turned"], perm=[1, 0]),
        helper.make_node("ReduceSum", ["totals"], ["all"], keepdims=0),
        helper.make_node("Mul", ["turned", "all"], ["y"]),
    ]
    inputs = [value("x", FLOAT, ["N", 3]), value("turns", INT64, []), value("w", FLOAT, [3, 3])]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", FLOAT, [3, "N"])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("turns", [0, 1, 4])
def test_a_loop_whose_body_says_no_shapes(turns: int) -> None:
    graph = load_graph(loop_without_shapes())
    derivative = append_vjp(graph, "y", ["x", "w"], ones=True)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3)), rng.standard_normal((3, 3))
    feeds = {"x": x.astype(np.float32), "w": w.astype(np.float32), "turns": np.asarray(turns, np.int64)}
    got = run32(derivative.graph, list(derivative.results.values()), feeds)

    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    h, total = tx, torch.zeros((), dtype=torch.float64)
    for i in range(turns):
        h = torch.tanh(h @ tw + i)
        total = total + h.sum()
    y = (h.T * total).sum()
    y.backward()
    for g, t in zip(got, (tx, tw), strict=True):
        expected = np.zeros(t.shape) if t.grad is None else t.grad.numpy()
        np.testing.assert_allclose(g, expected, rtol=1e-4, atol=1e-5)


def scan_text(steps: str) -> str:
    return f"""<ir_version: 10, opset_import: ["":21]> g (double[{steps},2,3] xs, double[2,3] h, double[3,3] w) => (double y) {{
    last, out = Scan <num_scan_inputs=1, body = b (double[2,3] s, double[2,3] x) => (double[2,3] n, double[2,3] o) {{
      u = MatMul(s, w) v = Add(u, x) n = Tanh(v) o = Mul(n, n) }}> (h, xs)
    total = ReduceSum<keepdims=0>(out) final = ReduceSum<keepdims=0>(last) y = Mul(total, final) }}"""


LOOP = """<ir_version: 10, opset_import: ["":21]> g (double[2,3] x, double[3,3] w, int64 m) => (double y) {
    last, out = Loop (m, , x) <body = b (int64 i, bool go, double[2,3] s) => (bool on, double[2,3] n, double[2,3] o) {
      on = Identity(go) u = MatMul(s, w) n = Sin(u) o = Mul(n, s) }>
    total = ReduceSum<keepdims=0>(out) final = ReduceSum<keepdims=0>(last) y = Mul(total, final) }"""
LSTM = """<ir_version: 10, opset_import: ["":21]> g (double[4,2,3] x, double[1,12,3] w, double[1,12,3] r) => (double y) {
    all, last, cell = LSTM <hidden_size=3> (x, w, r) s = ReduceSum<keepdims=0>(all) c = ReduceSum<keepdims=0>(cell) y = Mul(s, c) }"""


def scalar_model(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize(
    ("text", "feeds", "by"),
    [
        (scan_text("4"), {"xs": (4, 2, 3), "h": (2, 3), "w": (3, 3)}, "w"),
        (scan_text("T"), {"xs": (4, 2, 3), "h": (2, 3), "w": (3, 3)}, "xs"),
        (LOOP, {"x": (2, 3), "w": (3, 3), "m": np.asarray(3, np.int64)}, "w"),
        (LSTM, {"x": (4, 2, 3), "w": (1, 12, 3), "r": (1, 12, 3)}, "r"),
    ],
)
def test_reverse_over_reverse_is_forward_over_reverse(text: str, feeds: dict[str, object], by: str) -> None:
    rng = np.random.default_rng(1)
    at = {k: rng.uniform(-0.8, 0.8, v) if isinstance(v, tuple) else np.asarray(v) for k, v in feeds.items()}
    graph = load_graph(scalar_model(text))
    first = append_vjp(graph, "y", [by], ones=True)
    base = pruned(first.graph, [first.results[by]])
    along = rng.standard_normal(at[by].shape)
    reverse = append_vjp(base, first.results[by], [by])
    forward = append_jvp(base, [first.results[by]], [by])
    (pulled,) = run64(reverse.graph, [reverse.results[by]], {**at, reverse.seeds[first.results[by]]: along})
    (pushed,) = run64(forward.graph, [forward.results[first.results[by]]], {**at, forward.seeds[by]: along})
    assert np.abs(pushed).max() > 1e-3
    np.testing.assert_allclose(pulled, pushed, rtol=1e-9, atol=1e-11)  # a Hessian is symmetric


def recurrent_model(op: str, gates: int, directions: int, hidden: int, width: int) -> onnx.ModelProto:
    attributes = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}
    if op == "GRU":
        attributes["linear_before_reset"] = 1
    operands = ["x", "w", "r", "b", "", "h", *(["c"] if op == "LSTM" else [])]
    outputs = ["y", "last", *(["cell"] if op == "LSTM" else [])]
    shapes: dict[str, list[int | str]] = {
        "x": ["T", "N", width], "w": [directions, gates * hidden, width], "r": [directions, gates * hidden, hidden],
        "b": [directions, 2 * gates * hidden], "h": [directions, "N", hidden], "c": [directions, "N", hidden],
    }  # fmt: skip
    inputs = [value(k, FLOAT, shapes[k]) for k in operands if k]
    graph = helper.make_graph([helper.make_node(op, operands, outputs, **attributes)], "g", inputs, [value(o) for o in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("way", ["kept", "at once", "expansion"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_recurrent_gradients_are_pytorchs(op: str, directions: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rule of the usual form, its gates kept or computed at once, and through the Scan."""
    monkeypatch.setattr(recurrent_reverse, "_LITTLE", 0 if way == "kept" else 9999)
    gates, order = {"RNN": (1, [0]), "GRU": (3, [1, 0, 2]), "LSTM": (4, [0, 2, 3, 1])}[op]
    hidden, width, steps, batch = 4, 3, 5, 2
    if way == "expansion":
        from dataclasses import replace

        monkeypatch.setitem(RULES, ("", op), replace(RULES["", op], vjp=None))
    rng = np.random.default_rng(2)
    shapes = {
        "x": (steps, batch, width), "w": (directions, gates * hidden, width), "r": (directions, gates * hidden, hidden),
        "b": (directions, 2 * gates * hidden), "h": (directions, batch, hidden), "c": (directions, batch, hidden),
    }  # fmt: skip
    at = {k: rng.uniform(-0.9, 0.9, s) for k, s in shapes.items() if k != "c" or op == "LSTM"}
    network = getattr(torch.nn, op)(width, hidden, bidirectional=directions == 2, dtype=torch.float64)

    def reordered(a: np.ndarray) -> np.ndarray:
        parts = np.split(a, gates)
        return np.concatenate([parts[k] for k in order])

    tensors = {k: torch.tensor(at[k], requires_grad=True) for k in ("x", "h", *(["c"] if op == "LSTM" else []))}
    with torch.no_grad():
        for d in range(directions):
            end = "_l0_reverse" if d else "_l0"
            for name, array in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), (at["w"][d], at["r"][d], *np.split(at["b"][d], 2)), strict=True):
                getattr(network, name + end).copy_(torch.tensor(reordered(array)))
    y, _ = network(tensors["x"], (tensors["h"], tensors["c"]) if op == "LSTM" else tensors["h"])
    expected_y = y.detach().numpy().reshape(steps, batch, directions, hidden).transpose(0, 2, 1, 3)
    u = rng.standard_normal(expected_y.shape)
    y.backward(torch.tensor(u.transpose(0, 2, 1, 3).reshape(y.shape)))

    graph = in_precision(load_graph(recurrent_model(op, gates, directions, hidden, width)))
    derivative = append_vjp(graph, "y", list(at))
    results = list(derivative.results.values())
    got_y, *got = run64(derivative.graph, ["y", *results], {**at, derivative.seeds["y"]: u})
    np.testing.assert_allclose(got_y, expected_y, rtol=1e-12, atol=1e-13)
    found = dict(zip(derivative.results, got, strict=True))
    for k, tensor in tensors.items():
        np.testing.assert_allclose(found[k], tensor.grad.numpy(), rtol=1e-10, atol=1e-12)
    for d in range(directions):
        end = "_l0_reverse" if d else "_l0"
        first, second = np.split(found["b"][d], 2)
        for name, g in (("weight_ih", found["w"][d]), ("weight_hh", found["r"][d]), ("bias_ih", first), ("bias_hh", second)):
            np.testing.assert_allclose(reordered(g), getattr(network, name + end).grad.numpy(), rtol=1e-10, atol=1e-12)


def test_weights_inside_a_branch_are_parameters() -> None:
    """A weight that a branch holds is differentiated by, as one that stands outside is."""
    text = """<ir_version: 10, opset_import: ["":21]> g (double[2] x, bool c) => (double[2] y) {
      y = If (c) <then_branch = t () => (double[2] a) <double[2] w = {2, 3}> { a = Mul(x, w) }, else_branch = e () => (double[2] b) { b = Neg(x) }> }"""
    graph = load_graph(onnx.parser.parse_model(text))
    assert graph.parameters == ["w"]
    derivative = append_vjp(graph, "y", ["w", "x"], ones=True)
    for condition, by_w, by_x in ((True, [5, 7], [2, 3]), (False, [0, 0], [-1, -1])):
        got = run64(derivative.graph, [derivative.results[k] for k in ("w", "x")], {"x": np.asarray([5.0, 7.0]), "c": np.asarray(condition)})
        np.testing.assert_array_equal(got[0], by_w)
        np.testing.assert_array_equal(got[1], by_x)


def test_a_path_that_a_branch_cuts_is_named() -> None:
    text = """<ir_version: 10, opset_import: ["":21]> g (double[2] x, bool c) => (double[2] y) {
      y = If (c) <then_branch = t () => (double[2] a) { a = Floor(x) }, else_branch = e () => (double[2] b) { b = Sign(x) }> }"""
    graph = load_graph(onnx.parser.parse_model(text))
    assert not append_vjp(graph, "y", ["x"], ones=True).results
    assert {cut.node.op for cut in cuts_between(graph, "x", "y")} == {"Floor", "Sign"}


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("op", "gates", "little", "scans"), [("RNN", 1, 0, 1), ("GRU", 3, 0, 2), ("LSTM", 4, 0, 2), ("GRU", 3, 9999, 1), ("LSTM", 4, 9999, 2)])
def test_a_recurrence_runs_forward_once(op: str, gates: int, little: int, scans: int, directions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the model's fused node where the gradient needs its states alone, or the gates are little work at once; elsewhere as a Scan that keeps the gates, with the
    same outputs."""
    monkeypatch.setattr(recurrent_reverse, "_LITTLE", little)
    graph = load_graph(recurrent_model(op, gates, directions, 4, 3))
    outputs = [o for o in graph.nodes[0].outputs if o]
    derivative = append_vjp(graph, "y", ["x"], ones=True)
    result = derivative.results["x"]
    nodes = [n.op for n in pruned(derivative.graph, [*outputs, result]).nodes]
    assert nodes.count(op) == (op == "RNN" or little > 0)
    assert nodes.count("Scan") == scans * directions
    rng = np.random.default_rng(3)
    sizes = {"T": 5, "N": 2}
    at = {name: rng.uniform(-0.9, 0.9, [sizes.get(d, d) for d in graph.types[name].shape]) for name in graph.inputs}
    found = run64(in_precision(derivative.graph), outputs, at)
    for one, other in zip(found, run64(in_precision(graph), outputs, at), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_a_recurrence_between_others_reads_and_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place in the order is kept: what it reads comes from another, and its last state goes on beside its output."""
    monkeypatch.setattr(recurrent_reverse, "_LITTLE", 0)
    text = """<ir_version: 10, opset_import: ["":21]> g (double[T,2,3] x, double[1,12,3] w, double[1,12,3] r) => (double y) {
      all, last, cell = LSTM <hidden_size=3> (x, w, r) a = Squeeze(all, k) q, more = LSTM <hidden_size=3> (a, w, r, , , last, cell)
      b = Tanh(more) c = Mul(b, last) y = ReduceSum<keepdims=0>(c) }""".replace("{", "{ k = Constant<value_ints=[1]>()", 1)
    graph = load_graph(scalar_model(text))
    derivative = append_vjp(graph, "y", ["x", "w"], ones=True)
    rng = np.random.default_rng(4)
    at = {"x": rng.uniform(-1, 1, (4, 2, 3)), "w": rng.uniform(-1, 1, (1, 12, 3)), "r": rng.uniform(-1, 1, (1, 12, 3))}
    direction = {k: rng.standard_normal(at[k].shape) for k in ("x", "w")}
    got = run64(derivative.graph, [derivative.results[k] for k in direction], at)
    step = 1e-6
    ends = [run64(graph, ["y"], {k: a + s * direction.get(k, 0) for k, a in at.items()})[0] for s in (step, -step)]
    np.testing.assert_allclose(sum((g * d).sum() for g, d in zip(got, direction.values(), strict=True)), (ends[0] - ends[1]) / (2 * step), rtol=1e-7)
    assert not [n for n in pruned(derivative.graph, list(derivative.results.values())).nodes if n.op == "LSTM"]


def test_a_tensor_carried_in_a_sequence_is_refused_by_name() -> None:
    body = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["s"]), helper.make_node("SequenceInsert", ["q", "s"], ["r"]), helper.make_node("Identity", ["go"], ["on"])],
        "body", [value("i", INT64, []), value("go", BOOL, []), helper.make_tensor_sequence_value_info("q", FLOAT, None)],
        [value("on", BOOL, []), helper.make_tensor_sequence_value_info("r", FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("SequenceConstruct", ["x"], ["first"]),
        helper.make_node("Loop", ["m", "", "first"], ["list"], body=body),
        helper.make_node("ConcatFromSequence", ["list"], ["y"], axis=0),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, [2]), value("m", INT64, [])], [value("y", FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(UnsupportedError, match="sequence"):
        append_vjp(load_graph(model), "y", ["x"], ones=True)
