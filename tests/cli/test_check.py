"""`netsens check` as a user runs it: figures on standard output, what came of them on standard error and in the exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from netsens.cli.main import run
from netsens.rules.words import RULES
from tests.analyse.models import CLASSIFIER, W, X, proto
from tests.cli.shell import SAMPLES, is_clear
from tests.cli.shell import netsens as process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(CLASSIFIER, W=W), "m.onnx")
    np.save("x.npy", X)
    return tmp_path


@pytest.fixture
def wrong() -> Iterator[None]:
    """A Relu whose derivative is off by a thousandth."""
    import netsens.rules  # noqa: F401  # declares it

    kept = RULES["", "Relu"]
    RULES["", "Relu"] = replace(kept, jvp=lambda op, n, ts: [op.Mul(ts[0], op.Cast(n.y > 0, to=n.y.dtype) * 1.001)], transpose=None, vjp=None)
    yield
    RULES["", "Relu"] = kept


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_sample_model_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = process("check", SAMPLES / "diabetes_mlp.onnx", "--input", SAMPLES / "diabetes.csv", cwd=tmp_path)
    assert done.code == 0, done.err
    found = rows(done.text)
    assert {r["verdict"] for r in found} == {"pass"}
    assert {"name", "derivative", "difference", "error", "adjoint", "step", "precision", "verdict"} <= set(found[0])
    assert "in float64" in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_table_fits_80_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "m.onnx", "--input", "x.npy", "--summary", "table"]) == 0
    out, err = capsys.readouterr()
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "verdict" in out
    assert "2 of 2 gradients agree" in err


def test_a_wrong_gradient_is_exit_4(folder: Path, wrong: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "m.onnx", "--input", "x.npy"]) == 4
    out, err = capsys.readouterr()
    assert {r["verdict"] for r in rows(out)} == {"fail"}
    assert is_clear(err, "do not")
    assert run(["check", "m.onnx", "--input", "x.npy", "--tolerance", "0.01"]) == 0


def test_quiet_says_nothing_but_failures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "m.onnx", "--input", "x.npy", "-q", "--summary", "none"]) == 0
    assert capsys.readouterr() == ("", "")


def test_verbose_counts_elements_at_kinks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(proto("(float[N,5] x) => (float[N,5] y) { y = Relu(x) }"), "relu.onnx")
    x = X.copy()
    x[0, :2] = 0
    np.save("kinks.npy", x)
    assert run(["check", "relu.onnx", "--input", "kinks.npy", "-v"]) == 0
    out, err = capsys.readouterr()
    assert rows(out)[0]["kinks"] == 2
    assert "2 of 15 elements" in err
    assert "beside a kink" in err


def test_nothing_compared_is_exit_4(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(proto("(float[N,5] x) => (float[N,5] y) { r = Abs(b) y = Mul(x, r) }", b=np.zeros(5, np.float32)), "held.onnx")
    assert run(["check", "held.onnx", "--input", "x.npy", "--wrt", "b"]) == 4
    assert "nothing was proven" in capsys.readouterr().err


def test_the_question_of_grad(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("u.npy", np.ones((3, 7), np.float32))
    assert run(["check", "m.onnx", "--input", "x.npy", "--of", "r", "--wrt", "W", "--cotangent", "u.npy", "--directions", "2", "--threads", "1"]) == 0
    (row,) = rows(capsys.readouterr().out)
    assert (row["name"], row["directions"]) == ("W", 2)
    assert run(["check", "m.onnx", "--input", "x.npy", "--target", "argmax", "--wrt", "inputs", "--precision", "float32"]) == 0
    assert rows(capsys.readouterr().out)[0]["precision"] == "float32"


def test_a_glob_checks_every_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x2.npy", X + 1)
    assert run(["check", "m.onnx", "--input", "x*.npy", "--wrt", "inputs"]) == 0
    assert [r["input"] for r in rows(capsys.readouterr().out)] == ["x.npy", "x2.npy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.onnx"], ["nope.onnx"]),
        (["m.onnx", "--input", "nope.npy"], ["nope.npy"]),
        (["m.onnx", "--of", "nope"], ["nope"]),
        (["m.onnx", "--wrt", "nope"], ["nope"]),
        (["m.onnx", "--target", "1", "--cotangent", "x.npy"], ["exclude"]),
        (["m.onnx", "--cotangent", "x.npy", "--input", "x.npy"], ["3x5"]),
        (["m.onnx", "--directions", "0"], ["--directions"]),
        (["m.onnx", "--tolerance", "-1"], ["-1"]),
        (["m.onnx", "--tolerance", "small"], ["small"]),
        (["m.onnx", "--precision", "float16"], ["float16"]),
        (["m.onnx", "--provider", "abacus"], ["abacus"]),
    ],
)
def test_bad_input(arguments: list[str], words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert is_clear(err, *words), err


def test_second_derivatives_are_proven(tmp_path: Path) -> None:
    done = process("check", SAMPLES / "diabetes_mlp.onnx", "--wrt", "all", "--hessian", "--summary", "json", cwd=tmp_path)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.text.splitlines()]
    assert {"features", "fc1.weight"} <= {row["name"] for row in rows}
    assert all(row["verdict"] in ("pass", "kink", "unsure") for row in rows)
    assert "Hessians agree" in done.err
    several = process("check", SAMPLES / "digits_cnn.onnx", "--of", "logits", "--hessian", cwd=tmp_path)
    assert several.code == 2
    assert "--target" in several.err


def test_a_whole_jacobian_is_proven(tmp_path: Path) -> None:
    digits = SAMPLES / "digits_cnn.onnx"
    done = process("check", digits, "--input", SAMPLES / "digits.npy", "--of", "relu1", "--wrt", "image", "--jacobian", "--summary", "json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.text)["matrix"] < 1e-5
    assert "9 passes" in done.err


def test_a_wrong_entry_of_a_jacobian_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from netsens.jacobian.decompress import Decompressor

    entries = Decompressor.entries

    def without_one(self: Decompressor, passes: Any, start: int) -> Any:
        found, columns, values = entries(self, passes, start)
        values = values.copy()
        values[np.abs(values).argmax()] = 0
        return found, columns, values

    monkeypatch.setattr(Decompressor, "entries", without_one)
    command = ["check", str(SAMPLES / "digits_cnn.onnx"), "--input", str(SAMPLES / "digits.npy"), "--of", "relu1", "--wrt", "image", "--jacobian"]
    assert run(command) == 4
    out, err = capsys.readouterr()
    assert rows(out)[0]["verdict"] == "fail"
    assert "does not agree" in err


def test_a_wrong_second_derivative_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from netsens.analyse import check_map

    right, first = check_map.gradient_question, RULES["", "Tanh"]

    def then_wrong(question: Any, *rest: Any) -> Any:
        found = right(question, *rest)
        monkeypatch.setitem(RULES, ("", "Tanh"), replace(first, jvp=lambda op, n, ts: [ts[0] * (1 - n.y * n.y) * 1.001], partials=(), transpose=None, vjp=None))
        return found

    monkeypatch.setattr(check_map, "gradient_question", then_wrong)
    command = ["check", str(SAMPLES / "diabetes_mlp.onnx"), "--wrt", "inputs", "--hessian"]
    assert run(command) == 4
    out, err = capsys.readouterr()
    assert rows(out)[0]["verdict"] == "fail"
    assert "does not" in err
