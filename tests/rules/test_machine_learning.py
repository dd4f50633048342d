"""Classical models: what netsens differentiates is what onnxruntime computes, and the derivative is its difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from netsens.graph.emit import Builder
from netsens.graph.graph import Graph, pruned
from netsens.graph.normal import load_graph
from netsens.graph.precision import in_precision
from netsens.modes.gradient import append_vjp
from netsens.rules.words import RULES, view
from netsens.run.reference import reference_runner

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3))
VECTORS, PAIRS = RNG.standard_normal((6, 3)), RNG.standard_normal((2, 6))

CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "scaler": ("Scaler", {"offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, -1.0]}, "y"),
    "imputer": ("Imputer", {"imputed_value_floats": [1.0, 2.0, 3.0], "replaced_value_float": float("nan")}, "y"),
    **{f"normalizer {norm}": ("Normalizer", {"norm": norm}, "y") for norm in ("MAX", "L1", "L2")},
    **{f"regressor {t}": ("LinearRegressor", {"coefficients": list(RNG.random(6)), "intercepts": [0.1, 0.2], "targets": 2, "post_transform": t}, "y")
       for t in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")},
    "regressor of one target ignores its transform": ("LinearRegressor", {"coefficients": [0.3, 0.1, 0.2], "targets": 1, "post_transform": "LOGISTIC"}, "y"),
    **{f"classifier {t} {k}": ("LinearClassifier", {"coefficients": list(RNG.standard_normal(3 * k)), "intercepts": [0.1] * k,
                                                   "classlabels_ints": list(range(max(k, 2))), "post_transform": t}, "scores")
       for t in ("NONE", "LOGISTIC", "SOFTMAX") for k in (1, 2, 3)},
    **{f"svr {kernel}": ("SVMRegressor", {"coefficients": [0.5, -0.2, 0.3, 0.4, -0.5, 0.1], "support_vectors": list(VECTORS.ravel()), "n_supports": 6,
                                          "rho": [0.2], "kernel_type": kernel, "kernel_params": [0.3, 0.1, 2.0]}, "y")
       for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID")},
    **{f"svc {kernel} {'proba' if p else ''}": ("SVMClassifier", {
        "coefficients": list(PAIRS.ravel()), "support_vectors": list(VECTORS.ravel()), "vectors_per_class": [2, 3, 1], "rho": [0.1, -0.2, 0.3],
        "classlabels_ints": [0, 1, 2], "kernel_type": kernel, "kernel_params": [0.3, 0.1, 2.0], **({"prob_a": [-1.0, -2.0, -1.5], "prob_b": [0.1, 0.2, 0.0]} if p else {})},
        "scores") for kernel in ("RBF", "POLY") for p in (False, True)},
    "svc of two classes": ("SVMClassifier", {
        "coefficients": list(PAIRS[0]), "support_vectors": list(VECTORS.ravel()), "vectors_per_class": [2, 4], "rho": [0.1],
        "classlabels_ints": [0, 1], "kernel_type": "RBF", "kernel_params": [0.3, 0.1, 2.0]}, "scores"),
}  # fmt: skip


def model(op: str, attributes: dict[str, Any], of: str) -> Any:
    outputs = ["label", "scores"] if of == "scores" else ["y"]
    node = helper.make_node(op, ["x"], outputs, domain="ai.onnx.ml", **attributes)
    values = [helper.make_tensor_value_info(o, 7 if o == "label" else 1, None) for o in outputs]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", 1, ["N", 3])], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=9)


def rewritten(graph: Graph, of: str) -> Graph:
    """The graph with its one node replaced by the node's expansion."""
    (node,) = graph.nodes
    rule = RULES[node.domain, node.op]
    op = Builder(Graph([], graph.inputs, [], {}, dict(graph.types), graph.opset, dict(graph.domains)))
    assert rule.expansion is not None
    outputs = rule.expansion(op, view(op, node, [True]))
    value = outputs[list(node.outputs).index(of)]
    assert value is not None
    return pruned(op.graph, [value.name])


@pytest.mark.parametrize("name", CASES)
def test_expansion_computes_what_onnxruntime_computes(name: str) -> None:
    op, attributes, of = CASES[name]
    proto = model(op, attributes, of)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run([of], {"x": X.astype(np.float32)})
    (got,) = reference_runner(in_precision(rewritten(load_graph(proto), of)))({"x": X})
    # Coupled probabilities are where onnxruntime's iteration goes; it stops within 0.005 / 3.
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-3 if "proba" in name else 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_difference(name: str) -> None:
    op, attributes, of = CASES[name]
    graph = in_precision(rewritten(load_graph(model(op, attributes, of)), of))
    run = reference_runner(graph)
    reverse = append_vjp(graph, graph.outputs[0], ["x"])
    (y,) = run({"x": X})
    u, v, h = RNG.standard_normal(y.shape), RNG.standard_normal(X.shape), 1e-6
    (gradient,) = reference_runner(pruned(reverse.graph, list(reverse.results.values())))({"x": X, reverse.seeds[graph.outputs[0]]: u})
    difference = np.vdot(u, run({"x": X + h * v})[0] - run({"x": X - h * v})[0]) / (2 * h)
    assert abs(np.vdot(gradient, v) - difference) <= 1e-7 * max(1.0, abs(difference))
