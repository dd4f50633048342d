"""Options that contradict each other, or would change nothing, are refused in a line that says what to leave out; an option is never read and ignored."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.shell import SAMPLES, is_clear
from tests.cli.shell import netsens as run

DIGITS, DIGIT = SAMPLES / "digits_cnn.onnx", SAMPLES / "digits.npy"
MLP = SAMPLES / "diabetes_mlp.onnx"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["jacobian", DIGITS, "--input", DIGIT, "--batch-size", "2"], "--batch-size"),
        (["hessian", MLP, "--vector", "ones", "--sparse"], "--sparse"),
        (["hessian", MLP, "--vector", "ones", "--mode", "forward"], "--mode"),
        (["grad", MLP, "--format", "csv", "-o", "none"], "--format"),
        (["grad", MLP, "--timings"], "--timings"),
        (["grad", MLP, "--timings", "-o", "x.npz"], "--timings"),
        (["ops", MLP, "--opset", "10"], "--opset"),
        (["ops", "--domain", "nosuch"], "com.microsoft"),
        (["grad", MLP, "--plot", "nosuch/p.png"], "nosuch"),
        (["jacobian", MLP, "--plot", "nosuch/p.png"], "nosuch"),
    ],
    ids=lambda value: " ".join(map(str, value[2:])) if isinstance(value, list) else "",
)  # fmt: skip
def test_refused(arguments: list[str | Path], named: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, named)
    assert done.out == b""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["grad", "jacobian", "hessian"])
@pytest.mark.parametrize("output", ["x.npz", "."])
def test_a_result_never_takes_the_place_of_an_input(command: str, output: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.ones((1, 10), np.float32))
    before = (tmp_path / "x.npz").read_bytes()
    done = run(command, MLP, "--input", "x.npz", "-o", output, cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "overwrite 'x.npz'")
    assert (tmp_path / "x.npz").read_bytes() == before


def test_a_batch_of_results_beside_its_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(3):
        np.savez(folder / f"{number}.npz", features=np.full((1, 10), number, np.float32))
        np.save(folder / f"{number + 10}.npy", np.full((1, 10), number, np.float32))
    refused = run("grad", MLP, "--input", "data/*.npz", "-o", "data/", cwd=tmp_path)
    assert refused.code == 2
    assert is_clear(refused.err, "data/0.npz")
    done = run("grad", MLP, "--input", "data/*.npy", "-o", "data/", cwd=tmp_path)
    assert done.code == 0
    assert np.load(folder / "0.npz")["features"][0, 0] == 0


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert (done.text + done.err).startswith("Usage: netsens")  # where, and the exit status, is the installed click's to say


def test_a_target_outside_says_the_shape_as_everywhere(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", DIGIT, "--of", "logits", "--target", "10", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "Nx10")


def test_an_operator_that_onnxruntime_lacks(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    x, y = (helper.make_tensor_value_info(name, 1, ["N", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Own", ["x"], ["y"], domain="own")], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("own", 1)], ir_version=9), tmp_path / "m.onnx")
    done = run("grad", "m.onnx", "--input", "ones", cwd=tmp_path)
    assert done.code == 1
    assert "custom operator" in done.err


def test_a_precision_without_kernels_says_what_to_do(tmp_path: Path) -> None:
    shutil.copy(DIGITS, tmp_path / "m.onnx")
    done = run("grad", "m.onnx", "--input", DIGIT, "--compute-dtype", "float64", "-q", cwd=tmp_path)
    if done.code:  # onnxruntime may learn it
        assert done.code == 1
        assert "--compute-dtype float32" in done.err
