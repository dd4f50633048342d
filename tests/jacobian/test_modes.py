"""Every way to a Jacobian gives the same numbers, on random models in float64: forward, reverse, coloured, chunked, mixed, sparse, in files; and the
structure that they rely on contains the non-zeros."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from netsens.errors import UsageError
from netsens.graph.graph import Graph
from netsens.jacobian.evaluate import evaluate, evaluate_sparse
from netsens.jacobian.figures import figures
from netsens.jacobian.linearize import Linearization, linearizer
from netsens.jacobian.planning import make_plan
from netsens.jacobian.sparse_stream import stream_sparse
from netsens.jacobian.stream import Files, file_name
from netsens.modes.activity import active_values
from tests.jacobian.drawn import Runner64, models

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


def whole(point: Linearization) -> dict[str, np.ndarray]:
    """The Jacobian by unit tangents, one direction an element, without structure or colours."""
    result = {}
    for w in point.wrt:
        shape = point.linearizer.shape(w)
        size = int(np.prod(shape))
        columns = point.push({w: np.eye(size).reshape(size, *shape)})[point.of]
        result[w] = np.moveaxis(columns, 0, -1).reshape(point.out_shape + shape)
    return result


def point_of(graph: Graph, x: np.ndarray) -> Linearization:
    inner = graph.nodes[0].outputs[0]  # which x leads to
    wrt = [w for w in ["x", *([inner] if inner not in graph.outputs else []), *graph.parameters] if graph.outputs[0] in active_values(graph, [w])]
    return Linearization(linearizer(graph, {"x": x}, graph.outputs, wrt, Runner64), {"x": x})


@SETTINGS
@given(models())
def test_all_ways_agree(model: tuple[Graph, np.ndarray]) -> None:
    graph, x = model
    point = point_of(graph, x)
    expected = whole(point)
    for w, relation in ((w, point.linearizer.relations[point.of, w]) for w in point.wrt):
        assert not expected[w][~relation.dense()].any(), f"by {w}: a non-zero outside the structure"
    for mode in ("auto", "forward", "reverse", "mixed"):
        for limit in (None, 4096):
            try:
                plan = make_plan(point.linearizer, mode=mode, memory_limit=limit)
            except UsageError:
                assert mode == "mixed"
                continue
            for found in (evaluate(point, plan), evaluate(Linearization(point.linearizer, point.feeds), plan, last=True)):
                for w in point.wrt:
                    np.testing.assert_allclose(found[w], expected[w], rtol=1e-10, atol=1e-10, err_msg=f"{mode} by {w}")
            try:
                apart = evaluate(point, plan, per_sample=True)
            except UsageError:
                apart = {}
            for w, blocks in apart.items():
                exact = expected[w]
                if blocks.shape != exact.shape:
                    exact = np.stack([np.take(exact[n], n, axis=len(point.out_shape) - 1) for n in range(len(exact))])
                np.testing.assert_allclose(blocks, exact, rtol=1e-10, atol=1e-10, err_msg=f"{mode} by {w}, sample by sample")
            if plan.waist is None:
                for w, matrix in evaluate_sparse(point, plan).items():
                    np.testing.assert_allclose(matrix.toarray(), expected[w].reshape(matrix.shape), rtol=1e-10, atol=1e-10)


@settings(SETTINGS, max_examples=15)
@given(models())
def test_figures_and_files_agree_with_the_matrix(model: tuple[Graph, np.ndarray]) -> None:
    graph, x = model
    point = point_of(graph, x)
    expected = whole(point)
    for mode in ("forward", "reverse"):
        plan = make_plan(point.linearizer, mode=mode, memory_limit=4096)
        for w, f in figures(point, plan).items():
            matrix = expected[w].reshape(int(np.prod(f.out)), -1)
            np.testing.assert_allclose(f.frobenius, np.linalg.norm(matrix), atol=1e-9)
            np.testing.assert_allclose(f.row_norms.ravel(), np.linalg.norm(matrix, axis=1), atol=1e-9)
            np.testing.assert_allclose(f.column_norms.ravel(), np.linalg.norm(matrix, axis=0), atol=1e-9)
            row = f.row()
            exact = [matrix.mean(), matrix.min(), matrix.max(), np.abs(matrix).sum()]
            np.testing.assert_allclose([row["mean"], row["min"], row["max"], row["l1"]], exact, atol=1e-9)
            if f.largest:
                np.testing.assert_allclose(abs(f.largest[0][2]), np.abs(matrix).max(), atol=1e-9)
        with tempfile.TemporaryDirectory() as folder:
            files = Files(folder)
            evaluate(point, plan, files.allocate)
            done = files.finish()
            assert set(done) == set(point.wrt)
            assert {p.stem for p in Path(folder).iterdir()} == {file_name(w) for w in point.wrt}
            for w, array in done.items():
                np.testing.assert_allclose(array, expected[w], rtol=1e-10, atol=1e-10)
            del done, array
            assert not [p for p in Path(folder).iterdir() if p.suffix == ".part"]
            sparse, starts = stream_sparse(point, plan, Path(folder) / "sparse.npz", [])
            for w, start in starts.items():
                size = expected[w].size // max(int(np.prod(point.out_shape)), 1)
                np.testing.assert_allclose(sparse.toarray()[:, start : start + size], expected[w].reshape(-1, size), rtol=1e-10, atol=1e-10)
            del sparse


@settings(SETTINGS, max_examples=15)
@given(models())
def test_products_are_adjoint_and_the_operator_is_the_matrix(model: tuple[Graph, np.ndarray]) -> None:
    graph, x = model
    point = point_of(graph, x)
    rng = np.random.default_rng(0)
    v = {w: rng.standard_normal((3, *point.linearizer.shape(w))) for w in point.wrt}
    u = rng.standard_normal((3, *point.out_shape))
    jv, ju = point.jvp(v), point.vjp(u)
    left = np.einsum("kn,kn->k", u.reshape(3, -1), jv.reshape(3, -1))
    right = sum(np.einsum("kn,kn->k", ju[w].reshape(3, -1), v[w].reshape(3, -1)) for w in point.wrt)
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(point.jvp({w: t[1] for w, t in v.items()}), jv[1], rtol=1e-12, atol=1e-12)
    matrix = np.concatenate([m.reshape(point.shape[0], -1) for m in whole(point).values()], 1)
    operator = point.as_linear_operator()
    assert operator.shape == matrix.shape
    np.testing.assert_allclose(operator @ np.eye(matrix.shape[1]), matrix, atol=1e-10)
    np.testing.assert_allclose(operator.T @ np.eye(matrix.shape[0]), matrix.T, atol=1e-10)
