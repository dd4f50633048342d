"""`netsens grad --method finite-difference` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from netsens.cli.main import run
from tests.analyse.models import CLASSIFIER, W, X, proto
from tests.cli.shell import SAMPLES, is_clear
from tests.cli.shell import netsens as process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(CLASSIFIER, W=W), "m.onnx")
    onnx.save(proto("(float[N,5] x) => (float[N,5] y) { y = Floor(x) }"), "stairs.onnx")
    np.save("x.npy", X)
    return tmp_path


def test_a_sample_model_in_a_process_of_its_own(tmp_path: Path) -> None:
    question = ["grad", SAMPLES / "diabetes_mlp.onnx", "--input", SAMPLES / "diabetes.csv", "--wrt", "all"]
    assert process(*question, "-o", "exact.npz", cwd=tmp_path).code == 0
    done = process(*question, "-o", "differences.npz", "--method", "finite-difference", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "largest estimated relative error" in done.err
    assert "Traceback" not in done.err
    exact, found = np.load(tmp_path / "exact.npz"), np.load(tmp_path / "differences.npz")
    assert list(found) == list(exact)
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-3, atol=1e-4 * float(np.abs(exact[name]).max()))


def test_a_step_by_hand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["grad", "stairs.onnx", "--input", "x.npy", "--method", "finite-difference", "--step", "10", "-o", "g.npy", "--summary", "none"]) == 0
    np.testing.assert_allclose(np.load("g.npy"), 1.0)
    assert "a step of 10" in capsys.readouterr().err


def test_per_sample_and_a_batch_of_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["grad", "m.onnx", "--input", "x.npy", "--wrt", "all", "--per-sample", "--target", "1", "--method", "finite-difference", "-o", "p.npz"]) == 0
    assert np.load("p.npz")["W"].shape == (3, 5, 7)
    np.save("x2.npy", X + 1)
    assert run(["grad", "m.onnx", "--input", "x*.npy", "--method", "finite-difference", "-o", "out/", "--target", "1"]) == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["manifest.jsonl", "x.npz", "x2.npz"]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--step", "0.1"], ["--method finite-difference"]),
        (["--step", "-1", "--method", "finite-difference"], ["-1"]),
        (["--step", "wide", "--method", "finite-difference"], ["wide"]),
        (["--method", "differences"], ["differences"]),
        (["--wrt", "nope", "--method", "finite-difference"], ["nope"]),
    ],
)
def test_bad_input(arguments: list[str], words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["grad", "m.onnx", "--input", "x.npy", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert is_clear(err, *words), err
    assert not list(folder.glob("*.npz"))
