"""`netsens inspect` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import netsens
from netsens.cli.main import run
from netsens.graph.names import find_layer
from tests.analyse.models import CLASSIFIER, W, proto
from tests.cli.shell import SAMPLES, is_clear
from tests.cli.shell import netsens as process

MODELS = sorted(SAMPLES.glob("*.onnx"))


def test_json_is_one_object_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = process("inspect", SAMPLES / "digits_cnn.onnx", "--json", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.text)
    assert found["opset"] == 18
    assert found["ir_version"] == 8
    assert found["inputs"] == [{"name": "image", "dtype": "float32", "shape": ["N", 1, 28, 28]}]
    assert found["parameter_bytes"] == 4 * found["parameter_count"]
    assert "conv1" in [layer["name"] for layer in found["layers"]]
    assert {"operator": "Conv", "count": 3, "rule": "exact", "why": ""} in found["operators"]
    conv = next(layer for layer in found["layers"] if layer["name"] == "conv1")
    assert conv["parameters"] == ["conv1.weight", "conv1.bias"]
    assert conv["elements"] == 80
    assert {p["name"]: p["place"] for p in found["parameters"]}["conv1.weight"] == "conv1:W"


@pytest.mark.parametrize("model", MODELS, ids=[m.stem for m in MODELS])
@pytest.mark.parametrize("extra", [[], ["--all"]])
def test_the_report_fits_80_columns(model: Path, extra: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(model), "--summary", "table", *extra]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "parameters" in out


def test_in_a_pipe_a_line_a_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(SAMPLES / "digits_cnn.onnx")]) == 0
    layers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [layer["name"] for layer in layers][:3] == ["conv1", "bn1", "relu1"]


@pytest.mark.parametrize(("kind", "start"), [("csv", "name,operator,shape,parameters,rule"), ("markdown", "| name | operator |"), ("none", "")])
def test_other_summaries(kind: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(SAMPLES / "digits_cnn.onnx"), "--summary", kind]) == 0
    out = capsys.readouterr().out
    assert out.startswith(start)
    assert bool(out) == (kind != "none")


@pytest.mark.parametrize("model", MODELS, ids=[m.stem for m in MODELS])
def test_every_name_and_place_can_be_typed(model: Path) -> None:
    loaded = netsens.load(model)
    found = loaded.inspect()
    for layer in found.layers:
        assert find_layer(loaded.graph, layer.name) == layer.value
    from netsens.graph.names import find_wrt

    for parameter in found.parameters:
        if parameter.place:
            assert find_wrt(loaded.graph, [parameter.place]) == [parameter.name]


def test_names_as_exporters_write_them() -> None:
    """A scope stands for its operator where it holds one alone."""
    made = proto(
        '(float[N,5] x) => (float[N,5] y) { "/f/relu1/Relu_output_0" = Relu(x) "/f/act/Mul_output_0" = Mul("/f/relu1/Relu_output_0", x) '
        '"/f/act/Add_output_0" = Add("/f/act/Mul_output_0", x) y = Tanh("/f/act/Add_output_0") }'
    )
    for node, name in zip(made.graph.node, ("/f/relu1/Relu", "/f/act/Mul", "/f/act/Add", "/out/Tanh"), strict=True):
        node.name = name
    loaded = netsens.load(made)
    names = [layer.name for layer in loaded.inspect().layers]
    assert names[0] == "relu1"
    assert names[1:3] == ["Mul", "Add"]
    for layer in loaded.inspect().layers:
        assert find_layer(loaded.graph, layer.name) == layer.value


def test_every_status_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = proto("(float[N,5] x) => (float[N,5] y) { a = Tanh(x) b = Floor(a) c = custom.Strange(b) s = Shape(x) t = custom.Count(s) y = Add(b, c) }")
    made.opset_import.append(onnx.helper.make_opsetid("custom", 1))
    monkeypatch.chdir(tmp_path)
    onnx.save(made, "m.onnx")
    assert run(["inspect", "m.onnx", "--json"]) == 0
    rules = {o["operator"]: o["rule"] for o in json.loads(capsys.readouterr().out)["operators"]}
    assert rules["Tanh"] == "exact"
    assert rules["Floor"] == "flat"
    assert rules["Shape"] == "flat"
    assert rules["custom.Strange"] == "differenced"


def test_a_model_in_memory_has_no_file() -> None:
    found = netsens.load(proto(CLASSIFIER, W=W)).inspect()
    assert found.path is None
    assert found.ir_version is None
    assert found.opset >= 21
    assert found.parameter_count == W.size
    assert json.loads(json.dumps(found.as_dict()))["parameters"][0]["shape"] == [5, 7]


def test_nothing_runs_and_no_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def never(*_: object, **__: object) -> None:
        raise AssertionError("inspect started a session")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    assert netsens.load(SAMPLES / "digits_cnn.onnx").inspect().layers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.onnx"], ["nope.onnx"]),
        (["text.onnx"], ["text.onnx"]),
        ([], ["1 .onnx", "No model"]),
        (["m.onnx", "--json", "--summary", "csv"], ["exclude"]),
        (["m.onnx", "--summary", "yaml"], ["yaml"]),
    ],
)
def test_bad_input(arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.onnx").write_text("no model at all")
    onnx.save(proto(CLASSIFIER, W=W), "m.onnx")
    monkeypatch.delenv("NETSENS_MODEL", raising=False)
    words = ["No model", "2 .onnx"] if not arguments else words
    assert run(["inspect", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert is_clear(err, *words), err


def test_parameters_count_float_tensors_alone() -> None:
    made = proto("(float[N,5] x) => (float[N,5] y) { i = Add(k, k) c = Cast<to=1>(i) y = Add(x, c) }", k=np.arange(5))
    assert netsens.load(made).inspect().parameter_count == 0
