"""What a user may get wrong: one or two clear lines, exit status 2, no traceback, nothing half written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli.shell import SAMPLES, is_clear
from tests.cli.shell import netsens as run

DIGITS, DIGIT = SAMPLES / "digits_cnn.onnx", SAMPLES / "digits.npy"


def test_no_such_model(tmp_path: Path) -> None:
    done = run("grad", "nope.onnx", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "nope.onnx")


@pytest.mark.parametrize("content", [b"", b"hello world, this is text", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\x80\x04K\x01."])
def test_not_onnx(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    done = run("grad", "m.onnx", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "m.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated_model(share: float, tmp_path: Path) -> None:
    whole = DIGITS.read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[: int(len(whole) * share)])
    done = run("grad", "m.onnx", "--input", DIGIT, cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "m.onnx")


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin", "/etc/passwd"])
def test_external_data_missing_or_outside(location: str, tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    weight = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", [helper.make_tensor_value_info("x", 1, [4])],
                              [helper.make_tensor_value_info("y", 1, [4])], [weight])  # fmt: skip
    (folder / "m.onnx").write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    done = run("grad", folder / "m.onnx", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "'w'", location)


def test_wrong_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 28, 28), np.float32))
    done = run("grad", DIGITS, "--input", "x.npy", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "1x3x28x28")


def test_wrong_dtype(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.zeros((1, 12), np.float32) + 0.5)
    done = run("grad", SAMPLES / "sentiment_attention.onnx", "--input", "t.npy", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "float32", "int64")


def test_nan_is_a_warning(tmp_path: Path) -> None:
    x = np.load(DIGIT)
    x[0, 0, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    done = run("grad", DIGITS, "--input", "x.npy", "--of", "logits", "-o", "none", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "NaN" in done.err


def test_missing_input(tmp_path: Path) -> None:
    a, b, y = (helper.make_tensor_value_info(n, 1, [2]) for n in "aby")
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", [a, b], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    np.save(tmp_path / "a.npy", np.zeros(2, np.float32))
    done = run("grad", "m.onnx", "--input", "a=a.npy", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "b")


def test_unknown_layer_lists_the_nearest(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", DIGIT, "--of", "rellu1", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "rellu1", "relu1")


def test_ambiguous_layer(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", DIGIT, "--of", "relu*", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "relu1", "relu2", "relu3")


def test_cotangent_of_the_wrong_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", np.zeros((1, 9), np.float32))
    done = run("grad", DIGITS, "--input", DIGIT, "--of", "logits", "--cotangent", "g.npy", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "--cotangent", "1x9")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    done = run("grad", DIGITS, "--input", "x.npy", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "x.npy")


@pytest.mark.parametrize("output", ["no/such/folder/g.npz", "g.unknown"])
def test_unwritable_output(output: str, tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", DIGIT, "-o", output, cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err)
    assert not list(tmp_path.iterdir())


def test_no_float_path(tmp_path: Path) -> None:
    x, y = helper.make_tensor_value_info("x", 1, [4]), helper.make_tensor_value_info("y", 1, [4])
    nodes = [helper.make_node("Cast", ["x"], ["i"], name="to_int", to=7), helper.make_node("Cast", ["i"], ["y"], to=1)]
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    done = run("grad", "m.onnx", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "to_int")


@pytest.mark.parametrize("target", ["99", "[:,99]", "abc", "[0,0,0,0]"])
def test_a_target_that_does_not_fit(target: str, tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", DIGIT, "--of", "logits", "--target", target, cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err)


def test_unknown_option_and_command(tmp_path: Path) -> None:
    for arguments in (["grad", "--nonsense"], ["graad"], ["grad", str(DIGITS), "--memory-limit", "lots"]):
        done = run(*arguments, cwd=tmp_path)
        assert done.code == 2
        assert is_clear(done.err)


def test_a_provider_that_is_not_there(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", DIGIT, "--provider", "openvino", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "openvino", "cpu")


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    done = run("grad", "nope.onnx", "-v", cwd=tmp_path)
    assert done.code == 2
    assert "Traceback" in done.err
