"""`netsens grad` as a user types it: files, pipes, batches, choosing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

import netsens
from tests.cli.shell import SAMPLES, shell
from tests.cli.shell import netsens as run

DIGITS, DIABETES = SAMPLES / "digits_cnn.onnx", SAMPLES / "diabetes_mlp.onnx"
DIGIT = SAMPLES / "digits.npy"


def expected(**question: object) -> dict[str, np.ndarray]:
    return netsens.load(DIGITS).grad(np.load(DIGIT), **question)  # type: ignore[arg-type]


def test_writes_an_npz_named_after_the_model_and_sums_up_in_json_lines(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", DIGIT, "--of", "logits", "--target", "argmax", cwd=tmp_path)
    assert done.code == 0, done.err
    (row,) = [json.loads(line) for line in done.text.splitlines()]
    assert row["name"] == "image"
    assert row["shape"] == [1, 1, 28, 28]
    with np.load(tmp_path / "digits_cnn.grad.npz") as file:
        np.testing.assert_array_equal(file["image"], expected(of="logits", target="argmax")["image"])
    assert "digits_cnn.grad.npz" in done.err


def test_a_pipe_carries_npy_from_standard_input_to_standard_output(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", "-", "--of", "logits", "-o", "-", cwd=tmp_path, stdin=DIGIT.read_bytes())
    assert done.code == 0, done.err
    # A stream may bring arrays of any length: its session is for all of them, and rounds otherwise in the last bits than one for a single length.
    streamed = netsens.load(DIGITS)
    streamed.options = replace(streamed.options, any_lengths=True)
    np.testing.assert_array_equal(np.load(io.BytesIO(done.out)), streamed.grad(np.load(DIGIT), of="logits")["image"])
    np.testing.assert_allclose(np.load(io.BytesIO(done.out)), expected(of="logits")["image"], rtol=1e-4, atol=1e-6)
    assert not list(tmp_path.iterdir())


def test_through_a_real_shell(tmp_path: Path) -> None:
    line = f"cat {DIGIT} | netsens grad {DIGITS} --input - --of logits -o - | python3 -c 'import sys; print(len(sys.stdin.buffer.read()))'"
    done = shell(line, tmp_path)
    assert done.code == 0, done.err
    assert int(done.text) > 784 * 4


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    done = shell(f"netsens grad {DIGITS} --input {DIGIT} --wrt params --of logits -o none | head -n 1", tmp_path)
    assert "Traceback" not in done.err
    assert len(done.text.splitlines()) == 1


def test_parameters_of_a_layer_with_a_cotangent(tmp_path: Path) -> None:
    u = np.random.default_rng(0).standard_normal((1, 8, 28, 28)).astype(np.float32)
    np.save(tmp_path / "g.npy", u)
    done = run("grad", DIGITS, "--input", DIGIT, "--wrt", "conv1.weight", "--of", "relu1", "--cotangent", "g.npy", "-o", "w.npy", cwd=tmp_path)
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), expected(wrt="conv1.weight", of="relu1", cotangent=u)["conv1.weight"])


def test_per_sample_keeps_the_batch(tmp_path: Path) -> None:
    batch = SAMPLES / "digits_batch.npy"
    done = run("grad", DIGITS, "--input", batch, "--wrt", "all", "--of", "logits", "--per-sample", "-o", "g.npz", cwd=tmp_path)
    assert done.code == 0, done.err
    summed = netsens.load(DIGITS).grad(np.load(batch), wrt="all", of="logits")
    with np.load(tmp_path / "g.npz") as file:
        assert file["fc.weight"].shape == (4, 10, 784)
        assert file["image"].shape == (4, 1, 28, 28)
        for name, total in summed.items():
            got = file[name] if name == "image" else file[name].sum(0)
            np.testing.assert_allclose(got, total, rtol=1e-4, atol=1e-4 * np.abs(total).max())


def test_a_batch_writes_one_result_an_input_and_goes_on_after_a_bad_one(tmp_path: Path) -> None:
    for k in range(3):
        np.save(tmp_path / f"x{k}.npy", np.random.default_rng(k).random((1, 1, 28, 28), np.float32))
    (tmp_path / "x1.npy").write_bytes(b"not an array")
    done = run("grad", DIGITS, "--input", "x*.npy", "--of", "logits", "-o", "out/", cwd=tmp_path)
    assert done.code == 3
    assert sorted(p.name for p in (tmp_path / "out").glob("*.npz")) == ["x0.npz", "x2.npz"]
    assert "x1.npy" in done.err
    assert "Traceback" not in done.err


def test_csv_names_its_columns(tmp_path: Path) -> None:
    done = run("grad", DIABETES, "--input", SAMPLES / "diabetes.csv", "-o", "g.csv", "--summary", "markdown", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "g.csv").read_text().splitlines()[0].startswith("age,sex,bmi")
    assert done.text.startswith("|")


def test_the_model_of_the_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "one.onnx").write_bytes(DIABETES.read_bytes())
    done = run("grad", "-o", "none", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "one.onnx" in done.err
    assert "random:0" in done.err


def test_token_ids_are_differentiated_at_their_embedding(tmp_path: Path) -> None:
    done = run("grad", SAMPLES / "sentiment_attention.onnx", "--input", SAMPLES / "tokens.npy", "--target", "1", "-o", "none", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "'tokens' holds integers" in done.err
    assert json.loads(done.text.splitlines()[0])["shape"][:2] == [4, 12]


def test_every_sample_model(tmp_path: Path) -> None:
    for model, file in (("diabetes_mlp", "diabetes.csv"), ("sentiment_attention", "tokens.npy"), ("pendulum_lstm", "series.npy"), ("digits_cnn", "digits.npy")):
        done = run("grad", SAMPLES / f"{model}.onnx", "--input", SAMPLES / file, "--wrt", "all", "-o", "none", cwd=tmp_path)
        assert done.code == 0, done.err
        assert "finite differences" not in done.err
        assert done.text.strip()
