"""Newer opsets than the runtime's: stamped down where nothing changed, refused by name otherwise."""

from __future__ import annotations

import pytest

from netsens.errors import UnsupportedError
from netsens.graph.graph import Graph, Node, TensorType
from netsens.graph.opset import runnable_opset


def graph(node: Node, opset: int, dtype: int = 1) -> Graph:
    return Graph([node], ["x"], ["y"], {}, {"x": TensorType(dtype, ("N", 4, 2, 2))}, opset)


def test_the_same_form_takes_the_older_stamp() -> None:
    assert runnable_opset(graph(Node("Relu", ("x",), ("y",)), 28), 26).opset == 26
    assert runnable_opset(graph(Node("Celu", ("x",), ("y",)), 28), 26).opset == 26  # only took more dtypes since
    assert runnable_opset(graph(Node("Relu", ("x",), ("y",)), 21), 26).opset == 21


def test_a_new_attribute_at_its_default_is_left_out() -> None:
    node = Node("SpaceToDepth", ("x",), ("y",), {"blocksize": 2, "mode": "DCR"})
    assert runnable_opset(graph(node, 28), 26).nodes[0].attributes == {"blocksize": 2}


@pytest.mark.parametrize(
    ("node", "opset", "maximum", "dtype"),
    [
        (Node("SpaceToDepth", ("x",), ("y",), {"blocksize": 2, "mode": "CRD"}), 28, 26, 1),  # a form that came later
        (Node("Swish", ("x",), ("y",)), 24, 23, 1),  # an operator that came later
        (Node("Celu", ("x",), ("y",)), 28, 26, 16),  # a dtype that came later
        (Node("If", ("c",), ("y",), {"then_branch": graph(Node("CumProd", ("x", "a"), ("y",)), 26)}), 26, 25, 1),
    ],
    ids=lambda v: v.op if isinstance(v, Node) else str(v),
)
def test_refused_by_name(node: Node, opset: int, maximum: int, dtype: int) -> None:
    with pytest.raises(UnsupportedError, match="CumProd" if node.op == "If" else node.op):
        runnable_opset(graph(node, opset, dtype), maximum)
