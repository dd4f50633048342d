"""Sequences resolved into tensors: what goes away, what stays, and that the model computes the same."""

import numpy as np
import onnx
import onnx.parser
import pytest

import netsens
from netsens.graph.graph import Graph
from netsens.graph.normal import load_graph
from netsens.graph.sequences import holds_sequences
from netsens.run.reference import reference_runner

X = np.arange(12.0).reshape(4, 3)
MATRIX = "double[4,3]"
COUNT, TRUE = np.asarray(3, np.int64), np.asarray(True)
# A loop that collects an element more in every turn, and then (of what, from which sequence)
LOOP = """e = SequenceEmpty<dtype=11>() one = Constant<value = int64 {1}>() {INSERT}
 h, s = Loop (m, c, x, start) <body = b (int64 i, bool go, double[4,3] h, seq(double[4,3]) before)
 => (bool on, double[4,3] after, seq(double[4,3]) grown) { on = Identity(go) after = Sin(h) {TURN} }>"""


def graph(body: str, inputs: str = f"{MATRIX} x", outputs: str = "double y") -> tuple[Graph, onnx.ModelProto]:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["":21]> g ({inputs}) => ({outputs}) {{ {body} }}')
    for output in model.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    return load_graph(model), model


def same(found: Graph, model: onnx.ModelProto, **feeds: np.ndarray) -> None:
    """As onnxruntime computes the model; ONNX's evaluator stacks the sequence in an optional."""
    import onnxruntime

    expected = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    for a, b in zip(reference_runner(found)(feeds), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    "body",
    [
        "s = SplitToSequence(x) i = Constant<value = int64 {2}>() y = SequenceAt(s, i)",
        "s = SplitToSequence<axis=1, keepdims=0>(x) y = ConcatFromSequence<axis=1, new_axis=1>(s)",
        "s = SequenceConstruct(x, x) t = Identity(s) u = SequenceInsert(t, x) y = ConcatFromSequence<axis=0>(u)",
        "s = SequenceConstruct(x, x) o = Optional(s) t = OptionalGetElement(o) y = ConcatFromSequence<axis=0>(t)",
        "k = Constant<value = int64 {3}>() s = SplitToSequence(x, k) i = Constant<value = int64 {-1}>() y = SequenceAt(s, i)",
        "k = Constant<value = int64 {3}>() s = SplitToSequence(x, k) i = Constant<value = int64 {0}>() y = SequenceAt(s, i)",
        "k = Constant<value = int64 {3}>() s = SplitToSequence(x, k) n = SequenceLength(s) y = Cast<to=11>(n)",
        "k = Constant<value = int32 {2}>() s = SplitToSequence(x, k) y = ConcatFromSequence<axis=0>(s)",
        "k = Constant<value = int64 {2}>() s = SplitToSequence(x, k) y = ConcatFromSequence<axis=2, new_axis=1>(s)",
        """d = Shape<start=0, end=1>(x) two = Constant<value = int64[1] {2}>() first = Div(d, two) rest = Sub(d, first) k = Concat<axis=0>(first, rest)
        s = SplitToSequence(x, k) i = Constant<value = int64 {1}>() y = SequenceAt(s, i)""",
        """s = SplitToSequence(x) t = SequenceMap(s) <body = b (double[1,3] e) => (double[1,3] o) { o = Exp(e) }>
        y = ConcatFromSequence<axis=0>(t)""",
        """s = SplitToSequence<axis=1, keepdims=0>(x) w = Neg(x)
        t = SequenceMap(s, s, w) <body = b (double[N] e, double[N] f, double[N,3] v) => (double[N,3] o)
        { one = Constant<value = int64[1] {1}>() p = Mul(e, f) q = Unsqueeze(p, one) o = Add(q, v) }> y = ConcatFromSequence<axis=0, new_axis=1>(t)""",
    ],
)
@pytest.mark.parametrize("rows", ["4", "N"])
def test_known_sequences_go_away(body: str, rows: str) -> None:
    found, model = graph(body, f"double[{rows},3] x")
    assert not holds_sequences(found)
    same(found, model, x=X)


def test_an_index_known_only_at_run_time_picks_among_equal_shapes_alone() -> None:
    found, model = graph("z = Neg(x) s = SequenceConstruct(x, z) y = SequenceAt(s, i)", f"{MATRIX} x, int64 i")
    assert not holds_sequences(found)
    same(found, model, x=X, i=np.array(1))
    found, model = graph("z = Concat<axis=0>(x, x) s = SequenceConstruct(x, z) y = SequenceAt(s, i)", f"{MATRIX} x, int64 i")
    assert holds_sequences(found)
    same(found, model, x=X, i=np.array(1))


def test_a_sequence_that_is_an_output_stays() -> None:
    found, _ = graph("s = SequenceConstruct(x, x) i = Constant<value = int64 {0}>() y = SequenceAt(s, i)", outputs="double y, seq(double) s")
    assert [n.op for n in found.nodes] == ["SequenceConstruct", "Identity"]


def loop(turn: str, after: str, start: str = "start = Identity(e)") -> tuple[Graph, onnx.ModelProto]:
    body = LOOP.replace("{INSERT}", start).replace("{TURN}", turn) + " " + after
    return graph(body, f"int64 m, bool c, {MATRIX} x")


@pytest.mark.parametrize("after", ["y = ConcatFromSequence<axis=0>(s)", "y = ConcatFromSequence<axis=2, new_axis=1>(s)", "y = SequenceAt(s, one)"])
def test_a_loop_that_collects_becomes_one_that_stacks(after: str) -> None:
    found, model = loop("grown = SequenceInsert(before, after)", after)
    assert not holds_sequences(found)
    same(found, model, m=COUNT, c=TRUE, x=X)


@pytest.mark.parametrize(
    ("turn", "start"),
    [
        ("grown = SequenceInsert(before, after)", "start = SequenceInsert(e, x)"),  # begins with an element
        ("mid = SequenceInsert(before, after) grown = SequenceInsert(mid, after)", "start = Identity(e)"),  # two a turn
        ("k = Constant<value = int64 {0}>() mid = SequenceInsert(before, after) grown = SequenceInsert(mid, h, k)", "start = Identity(e)"),  # at the front
    ],
)
def test_other_loops_stay(turn: str, start: str) -> None:
    found, model = loop(turn, "y = ConcatFromSequence<axis=0>(s)", start)
    assert holds_sequences(found)
    same(found, model, m=COUNT, c=TRUE, x=X)


def test_a_collected_sequence_that_something_unresolved_reads_stays() -> None:
    found, model = loop("grown = SequenceInsert(before, after)", "t = SequenceErase(s) y = ConcatFromSequence<axis=0>(t)")
    assert holds_sequences(found)
    same(found, model, m=COUNT, c=TRUE, x=X)


def test_both_branches_may_append() -> None:
    text = """m = Constant<value = int64 {4}>() c = Constant<value = bool {1}>() e = SequenceEmpty<dtype=11>()
    s = Loop(m, c, e) <body = b (int64 i, bool go, seq(double[3]) q) => (bool on, seq(double[3]) grown) {
      on = Identity(go) row = Gather(x, i) total = ReduceSum<keepdims=0>(row) zero = Constant<value = double {6.0}>() big = Greater(total, zero)
      grown = If(big) <then_branch = t () => (seq(double[3]) a) { up = Exp(row) a = SequenceInsert(q, up) },
                       else_branch = f () => (seq(double[3]) d) { down = Neg(row) d = SequenceInsert(q, down) }>
    }> y = ConcatFromSequence<axis=0, new_axis=1>(s)"""
    found, model = graph(text, f"{MATRIX} x")
    assert not holds_sequences(found)
    same(found, model, x=X)


def test_a_sequence_map_that_stays_is_refused_and_not_passed_by() -> None:
    """Its body is no part of the graph around it, so its outputs once seemed not to depend on the input."""
    text = """k = Constant<value = int64 {3}>() s = SplitToSequence(x, k) t = SequenceMap(s) <body = b (double[a,3] e) => (double[a,3] o) { o = Exp(e) }>
    y = ConcatFromSequence<axis=0>(t)"""
    _, model = graph(text, "double[N,3] x")
    with pytest.raises(netsens.NetsensError, match="known only while the model runs"):
        netsens.load(model).grad({"x": X})


def test_an_output_that_is_a_sequence_names_the_tensors_in_it() -> None:
    """As scikit-learn's classifiers of several outputs have it."""
    _, model = graph("a = Exp(x) b = Neg(x) y = SequenceConstruct(a, b)", f"{MATRIX} x", "seq(double[4,3]) y")
    loaded = netsens.load(model)
    with pytest.raises(netsens.NetsensError, match="choose one of them with --of: 'a', 'b'"):
        loaded.grad({"x": X})
    np.testing.assert_allclose(loaded.grad({"x": X}, of="a")["x"], np.exp(X))
