"""Files whose nodes are not in the order in which they run; onnxruntime takes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import netsens

ORDERED = """<ir_version: 8, opset_import: ["": 17]>
m (float[3] x, bool c) => (float[3] y) <float[3] w = {1, 2, 3}> {
  a = Mul(x, w)
  b = Exp(a)
  d = If(c) <then_branch = t () => (float[3] p) { p = Add(a, b) }, else_branch = e () => (float[3] q) { q = Mul(b, b) }>
  y = Sin(d)
}"""


@pytest.mark.parametrize("seed", range(4))
def test_nodes_in_any_order(seed: int) -> None:
    model = onnx.parser.parse_model(ORDERED)
    feeds = {"x": np.asarray([0.1, -0.2, 0.3], np.float32), "c": np.asarray(True)}
    expected = netsens.load(model).grad(feeds, wrt=["x", "w"])
    nodes = [model.graph.node[k] for k in np.random.default_rng(seed).permutation(len(model.graph.node))]
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(model)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    loaded = netsens.load(shuffled)
    assert [n.op for n in loaded.graph.nodes] == ["Mul", "Exp", "If", "Sin"]
    found = loaded.grad(feeds, wrt=["x", "w"])
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
