"""`netsens export` as a user runs it: files that run elsewhere, and a sidecar that says what is in them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import netsens
from netsens.cli.main import run
from netsens.errors import NetsensWarning, NoPathError, RunError
from tests.analyse.models import CLASSIFIER, RNG, W, X, classifier, model, proto
from tests.cli.shell import SAMPLES, is_clear
from tests.cli.shell import netsens as process

Array = np.ndarray[Any, Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(CLASSIFIER, W=W), "m.onnx")
    np.save("x.npy", X)
    return tmp_path


def ran(path: str | Path, **feeds: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def test_a_sample_model_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = process("export", SAMPLES / "diabetes_mlp.onnx", cwd=tmp_path)
    assert done.code == 0, done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["diabetes_mlp.grad.onnx", "diabetes_mlp.grad.onnx.json"]
    assert "diabetes_mlp.grad.onnx.json" in done.err
    rows = [json.loads(line) for line in done.text.splitlines()]
    assert [r["role"] for r in rows] == ["output", "gradient"]
    onnx.checker.check_model(str(tmp_path / "diabetes_mlp.grad.onnx"), full_check=True)


@pytest.mark.filterwarnings("ignore:the components of 'y' are a softmax")  # its sum is one of the cases
@pytest.mark.parametrize(
    ("arguments", "question", "convention"),
    [
        ([], {}, "sum"),
        (["--wrt", "all", "--of", "y", "--target", "2"], {"wrt": "all", "target": 2}, "target"),
        (["--target", "argmax"], {"target": "argmax"}, "target"),
        (["--wrt", "h", "--of", "r"], {"wrt": "h", "of": "r"}, "sum"),
        (["--wrt", "params", "--cotangent"], {"wrt": "params", "cotangent": RNG.standard_normal((3, 7)).astype(np.float32)}, "cotangent"),
    ],
)
def test_the_file_gives_the_gradient_of_grad(arguments: list[str], question: dict[str, Any], convention: str, folder: Path) -> None:
    assert run(["export", "m.onnx", "-o", "g.onnx", *arguments]) == 0
    sidecar = json.loads(Path("g.onnx.json").read_text())
    assert sidecar["convention"] == convention
    feeds = {"x": X, **({"cotangent": question["cotangent"]} if "cotangent" in question else {})}
    assert [i["name"] for i in sidecar["inputs"]] == list(feeds)
    assert [i["role"] for i in sidecar["inputs"]] == ["input", "cotangent"][: len(feeds)]
    found = ran("g.onnx", **feeds)
    assert list(found) == [o["name"] for o in sidecar["outputs"]]
    wanted = classifier().grad({"x": X}, **question)
    gradients = [o for o in sidecar["outputs"] if o["role"] == "gradient"]
    assert [g["wrt"] for g in gradients] == list(wanted)
    for g in gradients:
        assert g["name"] == f"gradient/{g['wrt']}"
        assert g["of"] == sidecar["of"]["name"] == question.get("of", "y")
        np.testing.assert_allclose(found[g["name"]], wanted[g["wrt"]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["y"], classifier().run({"x": X})["y"], rtol=1e-6)


def test_it_is_standard_onnx_and_keeps_the_batch(folder: Path) -> None:
    assert run(["export", "m.onnx", "-o", "g.onnx"]) == 0
    made = onnx.load("g.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert {n.domain for n in made.graph.node} <= {"", "ai.onnx"}
    assert [o.domain for o in made.opset_import] == [""]
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert json.loads(Path("g.onnx.json").read_text())["outputs"][1]["shape"] == ["N", 5]
    for rows in (1, 3):
        assert ran("g.onnx", x=X[:rows])["gradient/x"].shape == (rows, 5)
    evaluator = ReferenceEvaluator(made)
    np.testing.assert_allclose(evaluator.run(None, {"x": X})[1], ran("g.onnx", x=X)["gradient/x"], atol=1e-6)


def test_an_operator_that_the_user_brings_stays(folder: Path) -> None:
    made = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["":21, "com.microsoft":1]> g (float[N,5] x) => (float[N,5] y) { a = com.microsoft.FastGelu(x) y = Tanh(a) }'
    )
    onnx.save(made, "own.onnx")
    assert run(["export", "own.onnx"]) == 0
    assert ran("own.grad.onnx", x=X)["gradient/x"].shape == X.shape


def test_a_cotangent_finds_a_free_name(folder: Path) -> None:
    onnx.save(proto("(float[N,5] cotangent) => (float[N,5] y) { y = Tanh(cotangent) }"), "taken.onnx")
    assert run(["export", "taken.onnx", "--cotangent"]) == 0
    inputs = json.loads(Path("taken.grad.onnx.json").read_text())["inputs"]
    assert [(i["name"], i["role"]) for i in inputs] == [("cotangent", "input"), ("cotangent_1", "cotangent")]


def test_weights_beside_the_model(tmp_path: Path) -> None:
    """As above 2 GB, at a size that a test can afford."""
    big = RNG.standard_normal((5, 700)).astype(np.float32)
    loaded = model("(float[N,5] x) => (float[N,700] y) { h = MatMul(x, W) y = Tanh(h) }", W=big)
    sidecar = loaded.export(tmp_path / "g.onnx", external_above=1000)
    assert sidecar["data"] == "g.onnx.data"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.onnx", "g.onnx.data", "g.onnx.json"]
    assert (tmp_path / "g.onnx").stat().st_size < big.nbytes
    np.testing.assert_allclose(ran(tmp_path / "g.onnx", x=X)["gradient/x"], loaded.grad({"x": X})["x"], rtol=1e-5)
    again = netsens.load(tmp_path / "g.onnx")
    np.testing.assert_array_equal(again.graph.constants["W"], big)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("g.onnx", "g.onnx.data"):
        os.replace(tmp_path / name, moved / name)
    assert "gradient/x" in ran(moved / "g.onnx", x=X)


def test_a_path_that_is_cut_is_said_and_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(proto("(float[N,5] x, float[N,5] z) => (float[N,5] y) { f = Floor(z) a = Tanh(x) y = Add(a, f) }"), "cut.onnx")
    assert run(["export", "cut.onnx", "--wrt", "x", "--wrt", "z"]) == 0
    sidecar = json.loads(Path("cut.grad.onnx.json").read_text())
    assert "Floor" in sidecar["zeros"]["z"]
    assert [o["name"] for o in sidecar["outputs"]] == ["y", "gradient/x"]
    assert "Floor" in capsys.readouterr().err
    dead = "(float[N,5] x) => (float[N,5] y) { i = ArgMax<axis=1, keepdims=1>(x) c = Cast<to=1>(i) e = Sub(c, c) y = Add(e, k) }"
    onnx.save(proto(dead, k=np.ones(5, np.float32)), "dead.onnx")
    assert run(["export", "dead.onnx"]) == 2
    assert is_clear(capsys.readouterr().err, "ArgMax")
    assert not Path("dead.grad.onnx").exists()


def test_no_exact_rule_is_refused_by_autodiff(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = proto("(float[N,5] x) => (float[N,5] y) { a = Tanh(x) y = custom.Strange(a) }")
    made.opset_import.append(onnx.helper.make_opsetid("custom", 1))
    onnx.save(made, "strange.onnx")
    assert run(["export", "strange.onnx", "--method", "autodiff"]) == 2
    assert is_clear(capsys.readouterr().err, "Strange")


def test_what_does_not_load_is_not_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """onnxruntime has no kernel for it, so the gradient model would run nowhere."""
    made = proto("(float[N,5] x) => (float[N,5] y) { a = Tanh(x) y = custom.Strange(a) }")
    made.opset_import.append(onnx.helper.make_opsetid("custom", 1))
    Path("g.onnx").write_text("before")
    with pytest.warns(NetsensWarning), pytest.raises(RunError, match="was not written"):
        netsens.load(made).export("g.onnx")
    assert Path("g.onnx").read_text() == "before"
    assert sorted(p.name for p in folder.iterdir()) == ["g.onnx", "m.onnx", "x.npy"]


def test_ranks_that_inference_cannot_tell_come_from_an_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file does not say how many axes its attribute-less operator of another domain gives."""
    made = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["":21, "com.microsoft":1]> g (float[N,5] x) => (float[N,5] y) '
        "{ a = com.microsoft.FastGelu(x) b = Tanh(x) y = Add(a, b) }"
    )
    onnx.save(made, "ranks.onnx")
    assert run(["export", "ranks.onnx", "--input", "x.npy"]) == 0
    capsys.readouterr()
    np.testing.assert_allclose(ran("ranks.grad.onnx", x=X)["gradient/x"], netsens.load("ranks.onnx").grad({"x": X})["x"], rtol=1e-5)


def test_summary_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "m.onnx", "--summary", "table"]) == 0
    out = capsys.readouterr().out
    assert "gradient/x" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert run(["export", "m.onnx", "-q", "--summary", "none"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.onnx"], ["nope.onnx"]),
        (["m.onnx", "--of", "nope"], ["nope"]),
        (["m.onnx", "--wrt", "nope"], ["nope"]),
        (["m.onnx", "--of", "h", "--wrt", "r"], ["depend"]),
        (["m.onnx", "--target", "99"], ["99"]),
        (["m.onnx", "--target", "1", "--cotangent"], ["exclude"]),
        (["m.onnx", "-o", "missing/g.onnx"], ["missing"]),
        (["m.onnx", "-o", "g.npz"], [".onnx"]),
        (["m.onnx", "-o", "-"], [".onnx"]),
        (["m.onnx", "-o", "folder.onnx"], ["folder"]),
        (["m.onnx", "-o", "m.onnx"], ["the model itself"]),
        (["m.onnx", "--method", "finite-difference"], ["finite-difference"]),
    ],
)
def test_bad_input(arguments: list[str], words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder.onnx").mkdir()
    before = sorted(p.name for p in folder.iterdir())
    assert run(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert is_clear(err, *words), err
    assert sorted(p.name for p in folder.iterdir()) == before


def test_only_what_is_asked_for_reaches_a_group(folder: Path) -> None:
    with pytest.raises(NoPathError):
        classifier().export("g.onnx", "r", of="h")
