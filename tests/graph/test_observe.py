"""What a run tells of types that inference leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from netsens.errors import RunError
from netsens.graph.graph import Graph
from netsens.graph.observe import contradictions, observed, specialised, symbols_apart, unknown_ranks
from netsens.graph.save import model_proto
from tests.graph.test_types import graph


def run(g: Graph, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[Any]:
    proto, _ = model_proto(replace(g, outputs=list(outputs)))
    try:
        return list(onnxruntime.InferenceSession(proto.SerializeToString()).run(list(outputs), dict(feeds)))
    except Exception as error:
        raise RunError(str(error)) from error


X = np.ones((1, 3), np.float32)


def test_a_squeeze_of_whatever_is_one() -> None:
    g = graph("s = Squeeze(x) t = Tanh(s) y = Relu(t)", "float[N,T] x")
    assert unknown_ranks(g) == ["s", "t", "y"]
    seen = observed(g, {"x": X}, run)
    assert unknown_ranks(seen) == []
    assert seen.types["y"].rank == 1
    assert seen.nodes == g.nodes


BRANCHES = """y = If<then_branch = a () => (float[] u) { s = Squeeze(x) u = Neg(s) }, else_branch = b () => (float[] v) { w = Squeeze(x) v = Relu(w) }>(c)"""


def test_a_branch_is_seen_where_it_is_taken() -> None:
    g = graph(BRANCHES, "float[N,T] x, bool c")
    seen = observed(g, {"x": X, "c": np.array(True)}, run)
    assert unknown_ranks(seen) == ["w", "v"]
    assert seen.types["y"].rank == 1


@pytest.mark.parametrize(("taken", "operator"), [(True, "Neg"), (False, "Relu")])
def test_specialised_to_the_branch(taken: bool, operator: str) -> None:
    feeds = {"x": X, "c": np.array(taken)}
    g = specialised(graph(BRANCHES, "float[N,T] x, bool c"), feeds, run)
    assert [n.op for n in g.nodes] == ["Squeeze", operator, "Identity"]
    assert unknown_ranks(g) == []
    np.testing.assert_array_equal(run(g, ["y"], feeds)[0], (-X if taken else X)[0])


def test_symbols_that_contradict() -> None:
    g = graph("y = Concat<axis = 0>(x, z)", "float[N] x, float[N] z")
    feeds = {"x": np.ones(2, np.float32), "z": np.ones(3, np.float32)}
    assert contradictions(g, {**feeds, "z": feeds["x"]}) == []
    (sentence,) = contradictions(g, feeds)
    assert sentence == "The model calls two lengths 'N': 2 on axis 0 of 'x', and 3 on axis 0 of 'z'."
    apart = symbols_apart(g)
    assert apart.types["y"].shape == ("N + z[0]",)
    assert contradictions(apart, feeds) == []
