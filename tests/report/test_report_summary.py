"""Summary rows and how they are printed."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest

from netsens.report import summary
from netsens.report.render import KINDS, default_kind, fold_middle, format_number, render
from netsens.report.summary import summarize


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
