"""Dense rows that meet dense columns, and symmetric matrices: fewer passes than columns or rows alone would take, and the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, TensorType
from netsens.jacobian.answer import Point, Prepared, hessian
from netsens.jacobian.bicolouring import dense_columns_forward, dense_rows_backward, symmetric
from netsens.jacobian.evaluate import evaluate, evaluate_sparse
from netsens.jacobian.figures import figures
from netsens.jacobian.linearize import Linearization, Linearizer
from netsens.jacobian.planning import make_plan
from netsens.jacobian.question import Question, gradient_question
from netsens.modes.pattern import Factor, Relation, pattern
from tests.jacobian.drawn import DOUBLE, Runner64

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


def built(shape: tuple[int, ...], body) -> tuple[Graph, str]:
    graph = Graph([], ["x"], [], {}, {"x": TensorType(DOUBLE, shape)}, 21)
    op = Builder(graph, "n")
    y = body(op, op.value("x"))
    op.graph.outputs = [y.name]
    return op.graph, y.name


def arrow(op: Builder, x: Value) -> Value:
    """y[0] = sum of sin(x), y[i] = x[i]² x[0]: a dense row, a dense column, a diagonal."""
    first = op.ReduceSum(op.Sin(x), [0], keepdims=1)
    rest = op.Slice(x, [1], [1000], [0])
    return op.Concat(first, op.Mul(op.Mul(rest, rest), op.Slice(x, [0], [1], [0])), axis=0)


def columns(point: Linearization, w: str = "x") -> np.ndarray:
    shape = point.linearizer.shape(w)
    size = int(np.prod(shape))
    found = point.push({w: np.eye(size).reshape(size, *shape)})[point.of]
    return np.moveaxis(found, 0, -1).reshape(point.out_shape + shape)


@pytest.mark.parametrize("size", [12, 300])
def test_an_arrow_takes_three_passes(size: int) -> None:
    graph, y = built((size,), arrow)
    x = np.random.default_rng(0).standard_normal(size)
    lin = Linearizer(graph, (y,), ("x",), Runner64)
    point = Linearization(lin, {"x": x})
    plan = make_plan(lin)
    assert plan.mode == "rows and columns"
    assert plan.passes == 3
    expected = columns(point)
    np.testing.assert_allclose(evaluate(point, plan)["x"], expected, atol=1e-13)
    np.testing.assert_allclose(evaluate_sparse(point, plan)["x"].toarray(), expected, atol=1e-13)
    np.testing.assert_allclose(figures(point, plan)["x"].frobenius, np.linalg.norm(expected), rtol=1e-12)
    assert plan.row_counts("x").tolist() == [size] + [2] * (size - 1)


def scattered(op: Builder, x: Value) -> Value:
    """A single number whose Hessian is an arrow: each of x meets its own square and the first."""
    first = op.Slice(x, [0], [1], [0])
    return op.ReduceSum(op.Add(op.Mul(op.Sin(x), first), op.Mul(x, op.Mul(x, x))), [0], keepdims=0)


@pytest.mark.parametrize("size", [12, 3000])
def test_an_arrow_hessian_takes_two_or_three_passes(size: int) -> None:
    graph, y = built((size,), scattered)
    question, tensors = gradient_question(Question(graph, y, y, ("x",), {}, ()))
    prepared = Prepared(question, Linearizer(question.graph, (question.of,), question.wrt, Runner64, symmetric=True), tensors, ())
    x = np.random.default_rng(0).standard_normal(size)
    point = Point(prepared, {"x": x})
    plan = prepared.plan("auto", None)
    assert plan.mode == "symmetric"
    assert plan.passes <= 3
    found = hessian(point)["x"]["x"]
    exact = np.diag(-np.sin(x) * x[0] + 6 * x)
    exact[0, :] += np.cos(x)
    exact[:, 0] += np.cos(x)
    np.testing.assert_allclose(found, exact, atol=1e-12)
    np.testing.assert_allclose(hessian(point, sparse=True)["x"]["x"].toarray(), exact, atol=1e-12)
    np.testing.assert_allclose(hessian(point, mode="reverse")["x"]["x"], exact, atol=1e-12)


def relation_of(mask: np.ndarray) -> Relation:
    rows, cols = np.nonzero(mask)
    return Relation((mask.shape[0],), (mask.shape[1],), (Factor((0,), (0,), pattern(*mask.shape, rows, cols)),))


def restored(mask: np.ndarray, matrix: np.ndarray, colouring, recovery, turned: bool) -> np.ndarray:
    """The entries that passes over the true matrix give back."""
    seeds = colouring.seeds(0, colouring.count, float)
    passes = seeds @ (matrix if turned else matrix.T)
    result = np.zeros(mask.shape)
    for start in range(0, len(passes), 2):
        recovery.write(result, passes[start : start + 2], start)
    return result


@SETTINGS
@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(0.02, 0.5))
def test_a_symmetric_colouring_recovers_every_entry(seed: int, size: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((size, size)) < density * rng.random(size) ** 2
    mask = mask | mask.T | np.eye(size, dtype=bool)
    matrix = np.where(mask, rng.standard_normal((size, size)), 0)
    matrix += matrix.T
    found = symmetric(relation_of(mask))
    assert found is not None
    np.testing.assert_allclose(restored(mask, matrix, *found, turned=False), matrix, atol=1e-12)


@SETTINGS
@given(st.integers(0, 10_000), st.integers(3, 25), st.integers(3, 25), st.integers(0, 3), st.integers(0, 3))
def test_a_two_sided_colouring_gives_every_entry_once(seed: int, height: int, width: int, rows: int, cols: int) -> None:
    rng = np.random.default_rng(seed)
    masks = {}
    for w in ("a", "b"):
        mask = rng.random((height, width)) < 0.05
        mask[rng.integers(0, height, rows)] = True
        mask[:, rng.integers(0, width, cols)] = True
        masks[w] = mask
    matrices = {w: np.where(mask, rng.standard_normal(mask.shape), 0) for w, mask in masks.items()}
    relations = {w: relation_of(mask) for w, mask in masks.items()}
    for way in (dense_rows_backward, dense_columns_forward):
        sides = way(relations, {"a": 1.0, "b": 1.5}, 1.2, np.inf)
        if sides is None:
            continue
        total = {w: np.zeros(mask.shape) for w, mask in masks.items()}
        for w, (colouring, recovery) in sides.columns.items():
            total[w] += restored(masks[w], matrices[w], colouring, recovery, False)
        if sides.rows is not None:
            for w, recovery in sides.row_recoveries.items():
                total[w] += restored(masks[w], matrices[w], sides.rows, recovery, True)
        for w, matrix in matrices.items():
            np.testing.assert_allclose(total[w], matrix, atol=1e-12)
