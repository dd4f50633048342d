"""Which values lead to a layer, asked from either end; and shapes that stay plain where a length is symbolic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

import netsens
from netsens.modes.activity import active_values, depends, leading_to, needed_for
from tests.rules.case import Case
from tests.rules.families import control, indexing, sequences
from tests.rules.families import microsoft_standard as microsoft

CASES = [*control.CASES, *indexing.CASES, *sequences.CASES, *microsoft.CASES]


@pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])
def test_either_end_tells_the_same(case: Case) -> None:
    """What active values lead to, one by one, is what leads to the output; inside of branches and loops, and through integers too."""
    for straight_through in (False, True):
        graph = replace(case.graph(), straight_through=straight_through)
        names = {*graph.inputs, *graph.constants, *(o for n in graph.nodes for o in (*n.inputs, *n.outputs))} - {""}
        for of in graph.outputs:
            leading, needed = leading_to(graph, of), needed_for(graph, of)
            for name in names:
                assert (name in leading) == (of in active_values(graph, [name])), name
                assert (name in needed) == depends(graph, name, of), name


def test_a_quantised_chain_from_either_end() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x, float s, int8 z) => (float[N,4] y, float[N,4] u) <int64[2] t = {-1, 4}> {
        q = QuantizeLinear(x, s, z)
        r = Reshape(q, t)
        y = DequantizeLinear(r, s, z)
        f = Floor(x)
        u = Add(f, x)
    }"""
    graph = netsens.load(onnx.parser.parse_model(text)).graph
    for straight_through in (False, True):
        marked = replace(graph, straight_through=straight_through)
        for of in ("y", "u", "f"):
            for name in ("x", "s", "q", "r", "f", "z"):
                assert (name in leading_to(marked, of)) == (of in active_values(marked, [name])), (name, of)
    assert "x" not in leading_to(graph, "y")
    assert "x" in leading_to(replace(graph, straight_through=True), "y")


def test_a_symbolic_length_that_stays_is_copied_by_reshape() -> None:
    """So that onnxruntime can tell the shape, and give a buffer's memory to the next; of no rows at all too."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x, float[8] w) => (float[N,2,4] y) <int64[3] t = {0, 2, 4}> {
        a = Tanh(x)
        b = Mul(a, w)
        c = Reshape(b, t)
        y = Softmax(c)
    }"""
    model = netsens.load(onnx.parser.parse_model(text))
    plan = model.plan(wrt=["x"], of="y", target="[:,0,1]", method="autodiff")
    assert not {"Shape", "Concat"} & {n.op for n in plan.graph.nodes if "Reshape" in {r.op for o in n.outputs for r in plan.graph.consumers().get(o, [])}}
    random = np.random.default_rng(0)
    w = random.standard_normal(8).astype(np.float32)
    for rows in (3, 1, 0, 5):
        x = random.standard_normal((rows, 8)).astype(np.float32)
        found = model.grad({"x": x, "w": w}, of="y", target="[:,0,1]")["x"]
        a = np.tanh(x) * w
        e = np.exp(a.reshape(rows, 2, 4)[:, 0])
        y = e / e.sum(-1, keepdims=True)
        wanted = np.zeros((rows, 2, 4), np.float32)
        wanted[:, 0] = y[:, 1:2] * (np.eye(4, dtype=np.float32)[1] - y)
        wanted = wanted.reshape(rows, 8) * w * (1 - np.tanh(x) ** 2)
        assert found.shape == x.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
