"""Figures over a data set: counted in one pass, merged in any order, in physical units."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import netsens
from netsens.analyse import aggregate
from netsens.analyse.aggregate import QUANTILES, Aggregate, AggregateOptions, Sketch, chosen_sum
from tests.cli.shell import SAMPLES, is_clear, shell
from tests.cli.shell import netsens as run

DIABETES, DIGITS = SAMPLES / "diabetes_mlp.onnx", SAMPLES / "digits_cnn.onnx"
ALL = ("mean", "q99.9", "meanabs", "rms", "quantiles")


def drawn(count: int = 400) -> np.ndarray:
    generator = np.random.default_rng(0)
    g = generator.standard_normal((count, 3)) * np.array([1e-6, 1.0, 1e4])
    g[:, 1] *= generator.random(count) > 0.3
    return g


def filled(g: np.ndarray, pieces: int, x: np.ndarray | None = None, units: str = "raw") -> Aggregate:
    parts = []
    for rows in np.array_split(np.arange(len(g)), pieces):
        part = Aggregate(AggregateOptions(ALL, units, ("x",)))
        part.add({"x": g[rows] if x is None else x[rows]}, {"x": g[rows]}, {"x": ["a", "b", "c"]})
        parts.append(part)
    total = parts.pop(len(parts) // 2)
    for part in parts:
        total.merge(part)
    return total


@pytest.mark.parametrize("pieces", [1, 7])
def test_figures_of_merged_parts(pieces: int) -> None:
    g = drawn()
    found = filled(g, pieces).figures("x")
    np.testing.assert_allclose(found["mean"], g.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found["meanabs"], np.abs(g).mean(0), rtol=1e-9)
    np.testing.assert_allclose(found["rms"], np.sqrt((g**2).mean(0)), rtol=1e-9)
    for name, q in (QUANTILES | {"q99.9": 0.999}).items():
        np.testing.assert_array_equal(found[name], np.quantile(g, q, axis=0, method="inverted_cdf"))
    assert found["count"].tolist() == [400] * 3


@pytest.mark.parametrize("pieces", [1, 5])
def test_quantiles_of_more_than_fits(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate, "EXACT_BYTES", 1000)
    g = drawn()
    found = filled(g, pieces).figures("x")
    for name, q in QUANTILES.items():
        expected = np.quantile(g, q, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(found[name], expected, rtol=0.0101, atol=1e-29)
    whole = filled(g, 1).figures("x")
    for name, array in found.items():
        if name.startswith("q"):
            np.testing.assert_array_equal(array, whole[name])  # counts merge to the same counts in any order


def test_values_that_are_not_finite_are_counted_apart() -> None:
    g = drawn(10)
    g[3, 0], g[4, 1] = np.nan, np.inf
    found = filled(g, 3).figures("x")
    assert found["left_out"].tolist() == [1, 1, 0]
    assert found["count"].tolist() == [9, 9, 10]
    np.testing.assert_allclose(found["mean"][0], np.delete(g[:, 0], 3).mean())
    sketch = Sketch()
    sketch.add(np.full((2, 3), np.nan))
    assert np.isnan(sketch.quantiles([0.5])).all()


def test_units() -> None:
    g, x = drawn(), np.random.default_rng(1).standard_normal((400, 3)) * np.array([1.0, 50.0, 0.1]) + 1000
    found = filled(g, 7, x, "std").figures("x")
    np.testing.assert_allclose(found["meanabs"], np.abs(g).mean(0) * x.std(0), rtol=1e-9)
    np.testing.assert_allclose(found["q50"], np.quantile(g, 0.5, axis=0, method="inverted_cdf") * x.std(0), rtol=1e-9)
    y = np.random.default_rng(2).standard_normal(400) + 5
    total = Aggregate(AggregateOptions(("mean",), "elasticity", ("x",)))
    total.add({"x": x}, {"x": g}, {}, y)
    np.testing.assert_allclose(total.figures("x")["mean"], (g * x / y[:, None]).mean(0), rtol=1e-9)


@pytest.mark.parametrize("target", [None, 2, "0,2", "argmax", "[:,1]", "[...,1]", "[:,0:2]"])
def test_what_an_elasticity_divides_by_is_what_was_differentiated(target: object) -> None:
    generator = np.random.default_rng(0)
    text = """<ir_version: 9, opset_import: ["" : 18]> g (double[N, 5] x) => (double[N, 4] y) { z = MatMul(x, W)  t = Tanh(z)  y = MatMul(t, V) }"""
    proto = onnx.parser.parse_model(text)
    for name, shape in (("W", (5, 6)), ("V", (6, 4))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(generator.standard_normal(shape), name))
    model = netsens.load(proto)
    x, direction = generator.standard_normal((2, 3, 5))
    step = 1e-6
    ahead, behind = (chosen_sum(model.run(x + s * step * direction)["y"], target) for s in (1, -1))
    assert ahead.shape == (3,)
    np.testing.assert_allclose((model.grad(x, target=target)["x"] * direction).sum(1), (ahead - behind) / (2 * step), rtol=1e-7)


def table(tmp_path: Path, rows: int = 60) -> np.ndarray:
    names = (SAMPLES / "diabetes.csv").read_text().splitlines()[0]
    x = np.random.default_rng(0).standard_normal((rows, 10)).astype(np.float32)
    np.savetxt(tmp_path / "table.csv", x, delimiter=",", header=names, comments="")
    return x


@pytest.mark.parametrize("more", ["", "--batch-size 7", "--batch-size 7 --jobs 2"])
def test_which_inputs_matter_over_a_table(more: str, tmp_path: Path) -> None:
    x = table(tmp_path)
    done = shell(f"netsens grad {DIABETES} --input table.csv --aggregate mean,meanabs,quantiles --units std {more} -o agg.csv --summary csv", tmp_path)
    assert done.code == 0, done.err
    assert done.text == (tmp_path / "agg.csv").read_text()
    lines = [line.split(",") for line in done.text.splitlines()]
    assert lines[0][:4] == ["name", "feature", "mean", "meanabs"]
    g = next(iter(netsens.load(DIABETES).grad(x).values()))
    np.testing.assert_allclose([float(line[3]) for line in lines[1:]], np.abs(g).mean(0) * x.std(0), rtol=1e-4)
    assert lines[1][1] == "age"


def test_over_many_files_beside_their_results(tmp_path: Path) -> None:
    x = [np.random.default_rng(k).random((1, 1, 28, 28), np.float32) for k in range(9)]
    for k, array in enumerate(x):
        np.save(tmp_path / f"x{k}.npy", array)
    call = ("grad", DIGITS, "--input", "x*.npy", "--of", "logits", "--target", "argmax", "--aggregate", "mean,rms")
    done = run(*call, "-o", "agg.npz", cwd=tmp_path)
    assert done.code == 0, done.err
    g = np.concatenate([netsens.load(DIGITS).grad(array, of="logits", target="argmax")["image"] for array in x])
    with np.load(tmp_path / "agg.npz") as file:
        np.testing.assert_allclose(file["image/rms"], np.sqrt((g.astype(float) ** 2).mean(0)), rtol=1e-4, atol=1e-6)
    assert run(*call, "-o", "out/", cwd=tmp_path).code == 0
    first = (tmp_path / "out" / "aggregate.csv").read_bytes()
    (tmp_path / "out" / "x3.npz").unlink()
    done = run(*call, "-o", "out/", "--resume", cwd=tmp_path)
    assert "8 of them before" in done.err
    assert (tmp_path / "out" / "aggregate.csv").read_bytes() == first
    assert len(json.loads(done.text.splitlines()[0])) > 3


@pytest.mark.parametrize(("more", "units"), [("", "std"), ("--jobs 2", "elasticity"), ("--dask local --jobs 2", "std"), ("--batch-size 1", "elasticity")])
def test_over_files_of_several_rows(more: str, units: str, tmp_path: Path) -> None:
    if "dask" in more:
        pytest.importorskip("distributed")
    x = np.abs(table(tmp_path)) + 20
    names = (SAMPLES / "diabetes.csv").read_text().splitlines()[0]
    for k, rows in enumerate(np.array_split(x, 7)):
        np.savetxt(tmp_path / f"part{k}.csv", rows, delimiter=",", header=names, comments="")
    done = shell(f"netsens grad {DIABETES} --input 'part*.csv' --aggregate q50,rms --units {units} -o - {more}", tmp_path)
    assert done.code == 0, done.err
    header, *rows = (line.split(",") for line in done.text.splitlines())
    assert header == ["name", "feature", "q50", "rms", "count"]
    assert [row[1] for row in rows] == names.split(",")
    model = netsens.load(DIABETES)
    g = next(iter(model.grad(x).values())).astype(float)
    scaled = g * x.std(0, dtype=float) if units == "std" else g * x / next(iter(model.run(x).values()))
    np.testing.assert_allclose([float(row[2]) for row in rows], np.quantile(scaled, 0.5, axis=0, method="inverted_cdf"), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose([float(row[3]) for row in rows], np.sqrt((scaled**2).mean(0)), rtol=1e-4, atol=1e-7)


def test_the_picture_of_an_aggregate(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table(tmp_path)
    call = ("grad", DIABETES, "--input", "table.csv", "--batch-size", "8", "-o", "none", "--plot", "which.png")
    done = run(*call, "--aggregate", "meanabs,mean", "--units", "std", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "drew the meanabs of 'features' in which.png" in done.err
    assert (tmp_path / "which.png").read_bytes().startswith(b"\x89PNG")
    refused = run(*call, cwd=tmp_path)
    assert refused.code == 2
    assert is_clear(refused.err, "--plot", "--aggregate")


def test_wrong_aggregates(tmp_path: Path) -> None:
    table(tmp_path)
    for wrong in (
        ["--aggregate", "median"],
        ["--aggregate", "q0"],
        ["--aggregate", "q100"],
        ["--aggregate", "mean", "-o", "a.npy"],
        ["--aggregate", "mean", "-o", "a.xyz"],
        ["--aggregate", ""],
        ["--units", "std"],
        ["--aggregate", "mean", "--wrt", "params", "--units", "std"],
    ):
        done = run("grad", DIABETES, "--input", "table.csv", *wrong, cwd=tmp_path)
        assert done.code == 2, wrong
        assert is_clear(done.err)
