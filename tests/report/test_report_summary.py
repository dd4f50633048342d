"""Summary rows and how they are printed."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pytest

from netsens.errors import NetsensWarning
from netsens.report import summary
from netsens.report.render import KINDS, default_kind, fold_middle, format_number, render
from netsens.report.running import RunningSummary
from netsens.report.summary import joined, summarize


def printed(rows: list[dict[str, object]], kind: str, **more: object) -> str:
    stream = io.StringIO()
    render(rows, kind, stream, **more)  # type: ignore[arg-type]
    return stream.getvalue()


def test_figures_agree_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).standard_normal((7, 5, 3)).astype(np.float32)
    array[0] = 0
    wide = array.astype(np.float64)
    expected = {
        "mean": wide.mean(), "std": wide.std(), "min": wide.min(), "max": wide.max(),
        "l1": np.abs(wide).sum(), "l2": np.linalg.norm(wide), "zeros": 15 / 105,
    }  # fmt: skip
    for chunk in (1 << 20, 4):
        monkeypatch.setattr(summary, "_CHUNK", chunk)
        row = summarize("x", array)
        assert list(row) == ["name", "shape", "mean", "std", "min", "max", "l1", "l2", "zeros"]
        assert row["shape"] == [7, 5, 3]
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-12)


def test_nan_is_left_out_and_counted() -> None:
    row = summarize("x", np.asarray([np.nan, 3.0, 0.0, np.nan]))
    assert (row["mean"], row["min"], row["max"], row["l2"], row["zeros"], row["nan"]) == (1.5, 0, 3, 3, 0.25, 2)
    assert math.isnan(summarize("x", np.asarray([np.nan]))["mean"])


def test_edges() -> None:
    empty = summarize("x", np.zeros((0, 3)))
    assert empty["l1"] == empty["l2"] == 0
    assert math.isnan(empty["mean"])
    assert summarize("x", np.asarray(-2.0))["l1"] == 2
    assert summarize("x", np.asarray([True, False]))["mean"] == 0.5
    assert summarize("x", np.zeros(3))["std"] == 0
    infinite = summarize("x", np.asarray([1.0, -np.inf]))
    assert infinite["min"] == -math.inf
    assert infinite["l2"] == math.inf
    assert summarize("x", np.asarray([3e200, 4e200]))["l2"] == pytest.approx(5e200)
    assert summarize("x", np.asarray([3e-200, -4e-200]))["l2"] == pytest.approx(5e-200)
    assert summarize("x", np.full(10, 7.0))["std"] == 0


def test_json_is_one_object_a_line_with_every_digit() -> None:
    rows = [summarize("a|ü", np.asarray([0.1, np.nan])), summarize("b", np.asarray([1, np.inf], np.float32))]
    lines = printed(rows, "json").splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["name"] == "a|ü"
    assert first["mean"] == 0.1
    assert first["shape"] == [2]
    assert second["max"] is None
    assert json.loads(printed([{"n": np.float32(0.5), "t": (1, np.int64(2))}], "json")) == {"n": 0.5, "t": [1, 2]}


def test_csv_and_markdown() -> None:
    rows = [summarize("a|b", np.asarray([[0.1, 0.2]])), {**summarize("c", np.ones(())), "nan": 3}]
    read = list(csv.DictReader(io.StringIO(printed(rows, "csv"))))
    assert read[0]["shape"] == "1x2"
    assert float(read[0]["mean"]) == rows[0]["mean"]
    assert read[0]["nan"] == ""
    assert read[1]["shape"] == "scalar"
    lines = printed(rows, "markdown").splitlines()
    assert lines[2].startswith("| a\\|b | 1x2 | 0.15 |")
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_fits_and_folds_names_in_the_middle(width: int) -> None:
    rows = [
        summarize("/features/very/long/path/of/modules/conv1/Conv_output_0", np.full((1, 3, 224, 224), -1.2345678e-5)),
        summarize("x[bold]", np.asarray([0.2, 0.1])),
    ]
    text = printed(rows, "table", width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "output_0" in text.replace("\n", "") or width == 80
    assert "x[bold]" in text
    assert "-1.235e-5" in text
    assert "1x3x224x224" in text
    assert ("…" in text) == (width == 80)


def test_a_narrow_terminal_cuts_no_number() -> None:
    rows = [{"name": "image", "shape": (1, 8, 28, 28, 1, 1, 28, 28), **{f"a_column_{k}": 1.2345 for k in range(5)}}]
    text = printed(rows, "table", width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "1x8x28x28x1x1x28x28" in text
    text = printed([summarize("a/very/long/name/of/a/tensor", np.full(3, -1.2345678e-5))], "table", width=30)
    assert text.count("-1.235e-5") == 3
    assert "3.704e-5" in text


def test_numbers_and_names() -> None:
    assert [format_number(v) for v in (0.0, 1234567.0, 0.000012345, -0.5, 123.456)] == [
        "0", "1.235e6", "1.234e-5", "-0.5", "123.5",
    ]  # fmt: skip
    assert fold_middle("abcdefghij", 7) == "abc…hij"
    assert len(fold_middle("abcdefghij", 6)) == 6
    assert fold_middle("abc", 3) == "abc"


def test_kind_follows_the_stream() -> None:
    assert default_kind(io.StringIO()) == "json"
    for kind in KINDS:
        printed([], kind)


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
def test_rows_of_two_parts_join_to_that_of_the_whole(cut: int) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((9, 3)) * 1e3 + 5
    x[generator.random(x.shape) < 0.2] = 0
    for bad in (None, np.nan):
        if bad is not None:
            x[2:5] = bad
        found, expected = joined(summarize("x", x[:cut]), summarize("x", x[cut:])), summarize("x", x)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key] == (pytest.approx(value, rel=1e-12) if key not in ("name", "shape") else value), key
    infinite = joined(summarize("x", np.asarray([1.0])), summarize("x", np.asarray([np.inf])))
    assert (infinite["max"], infinite["l2"]) == (math.inf, math.inf)
    assert math.isnan(infinite["std"])
    huge = joined(summarize("x", np.asarray([3e200])), summarize("x", np.asarray([-1e200])))
    assert huge["std"] == pytest.approx(2e200)


def running(kind: str, groups: list[list[dict[str, Any]]], detail: tuple[str, ...] = ()) -> list[str]:
    stream = io.StringIO()
    summary = RunningSummary(kind, lambda: stream, detail)
    for group in groups:
        summary.add(group)
    assert not stream.getvalue()
    summary.flush()
    return stream.getvalue().splitlines()


def test_a_running_summary_has_one_header() -> None:
    generator = np.random.default_rng(0)
    groups = [[{"input": f"data/x{k}.npy", **summarize("image", generator.standard_normal((1, 1, 28, 28)))}] for k in range(3)]
    groups[2][0]["nan"] = 2
    table = running("table", groups[:2])
    assert table[0] == "image 1x1x28x28"
    assert table[1].split() == ["input", "mean", "std", "min", "max", "l1", "l2", "zeros"]
    assert len(table) == 5
    assert max(map(len, table)) <= 80
    found = list(csv.DictReader(io.StringIO("\n".join(running("csv", groups)))))
    assert [row["nan"] for row in found] == ["", "", "2"]
    assert [row["input"] for row in found] == ["data/x0.npy", "data/x1.npy", "data/x2.npy"]
    assert len(running("markdown", groups)) == 5
    assert [json.loads(line)["input"] for line in running("json", groups)] == ["data/x0.npy", "data/x1.npy", "data/x2.npy"]
    assert "l1" not in running("table", groups, ("l1",))[1]
    assert not running("none", groups)


def test_a_running_table_says_when_its_tensor_changes() -> None:
    rows = [{"input": f"{'long/' * 20}x{k}.npy", **summarize("image", np.ones((k + 1, 2)))} for k in (0, 0, 1)]
    table = running("table", [[row] for row in rows])
    assert [line for line in table if line.startswith("image")] == ["image 1x2", "image 2x2"]
    assert all(line.endswith("0%") for line in table if "long" in line)
    several = running("table", [[{"input": source, **summarize(name, np.ones(2))} for name in ("a", "b")] for source in ("x.npy", "y.npy")])
    assert [line.split()[0] for line in several[2:]] == ["x.npy", "a", "b", "y.npy", "a", "b"]


def test_features_stand_beneath_their_tensor() -> None:
    rows = [summarize("features", np.ones((5, 2))), *({**summarize("features", np.ones(5)), "feature": name} for name in ("age", "weight"))]
    for lines in (printed(rows, "table").splitlines(), running("table", [[{"input": "x.csv", **row} for row in rows]])[1:]):
        assert [line.split()[:2] for line in lines[-3:]] == [["features", "5x2"], ["·", "age"], ["·", "weight"]]
        assert max(map(len, lines)) <= 80
        assert "shape" not in "".join(lines)


def test_a_column_that_comes_too_late_is_said() -> None:
    with pytest.warns(NetsensWarning, match="'feature'"):
        running("csv", [[summarize("x", np.ones(2))], [{**summarize("x", np.ones(2)), "feature": "age"}]])
