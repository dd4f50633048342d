"""`netsens jacobian` and `netsens hessian` as a user types them."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netsens
from tests.cli.shell import SAMPLES
from tests.cli.shell import netsens as run

DIGITS, DIABETES, DIGIT = SAMPLES / "digits_cnn.onnx", SAMPLES / "diabetes_mlp.onnx", SAMPLES / "digits.npy"


def test_in_a_folder_with_one_model_it_works_as_typed(tmp_path: Path) -> None:
    shutil.copy(DIGITS, tmp_path)
    done = run("jacobian", "--layer", "relu1", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "9 passes" in done.err
    with np.load(tmp_path / "digits_cnn.jacobian.npz") as file:
        assert file["image"].shape == (1, 8, 28, 28, 1, 1, 28, 28)
    (row,) = [json.loads(line) for line in done.text.splitlines()]
    assert row["name"] == "image"
    assert {"mean", "l2", "zeros", "row_norm_max", "column_norm_max", "largest", "at"} <= set(row)


def test_by_parameters(tmp_path: Path) -> None:
    done = run("jacobian", DIGITS, "--input", DIGIT, "--layer", "relu1", "--wrt", "params", "-o", "J.npz", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "14 passes" in done.err
    expected = netsens.load(DIGITS).jacobian(np.load(DIGIT), "relu1", "params")
    with np.load(tmp_path / "J.npz") as file:
        assert set(file) == set(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(file[name], array, atol=1e-6)


def test_sparse_is_scipys_form(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    done = run("jacobian", DIGITS, "--input", DIGIT, "--layer", "relu1", "--sparse", "-o", "J.npz", "--summary", "json", cwd=tmp_path)
    assert done.code == 0, done.err
    dense = netsens.load(DIGITS).jacobian(np.load(DIGIT), "relu1")["image"]
    found = sparse.load_npz(tmp_path / "J.npz")
    np.testing.assert_allclose(found.toarray(), dense.reshape(found.shape), atol=1e-6)
    row = json.loads(done.text)
    assert row["l2"] == pytest.approx(float(np.linalg.norm(dense)), rel=1e-6)
    assert row["shape"] == list(dense.shape)


def test_explain_computes_nothing(tmp_path: Path) -> None:
    done = run("jacobian", DIGITS, "--input", DIGIT, "--layer", "relu1", "--explain", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "9 colours for 784 columns" in done.text
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_streamed_or_summed_up(tmp_path: Path) -> None:
    dense = netsens.load(DIGITS).jacobian(np.load(DIGIT), "relu1")["image"]
    small = ["--input", DIGIT, "--layer", "relu1", "--memory-limit", "4MB"]
    read = {
        "J.npy": lambda path: np.load(path), "J.npz": lambda path: np.load(path)["image"], "digits_cnn.jacobian.npz": lambda path: np.load(path)["image"],
        "parts/": lambda path: np.load(path / "digits" / "image.npy"),
    }  # fmt: skip
    for name, reader in read.items():
        done = run("jacobian", DIGITS, *small, *(["-o", name] if name != "digits_cnn.jacobian.npz" else []), cwd=tmp_path)
        assert done.code == 0, done.err
        assert "piece by piece" in done.err
        np.testing.assert_allclose(reader(tmp_path / name), dense, atol=1e-6, err_msg=name)
        assert json.loads(done.text)["l2"] == pytest.approx(float(np.linalg.norm(dense)), rel=1e-6)
    assert not list(tmp_path.glob(".*"))
    done = run("jacobian", DIGITS, *small, "-o", "none", cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.text)["l2"] == pytest.approx(float(np.linalg.norm(dense)), rel=1e-6)
    for name in ("J.csv", "-"):
        done = run("jacobian", DIGITS, *small, "-o", name, cwd=tmp_path)
        assert done.code == 2
        assert "folder" in done.err


def test_several_tensors_are_streamed_into_one_archive(tmp_path: Path) -> None:
    expected = netsens.load(DIGITS).jacobian(np.load(DIGIT), "relu1", "params")
    done = run("jacobian", DIGITS, "--input", DIGIT, "--layer", "relu1", "--wrt", "params", "--memory-limit", "1MB", "-o", "J.npz", cwd=tmp_path)
    assert done.code == 0, done.err
    with zipfile.ZipFile(tmp_path / "J.npz") as archive:
        assert archive.testzip() is None
    with np.load(tmp_path / "J.npz") as file:
        assert set(file) == set(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(file[name], array, atol=1e-6)
    done = run("jacobian", DIGITS, "--input", DIGIT, "--layer", "relu1", "--wrt", "params", "--memory-limit", "1MB", "-o", "J.npy", cwd=tmp_path)
    assert done.code == 2
    assert "several" in done.err


def test_a_sparse_result_is_streamed_too(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for wrt in ("image", "params"):
        asked = ["--input", DIGIT, "--layer", "relu1", "--wrt", wrt, "--sparse"]
        whole = run("jacobian", DIGITS, *asked, "-o", "whole.npz", cwd=tmp_path)
        done = run("jacobian", DIGITS, *asked, "-o", "J.npz", "--memory-limit", "1MB", cwd=tmp_path)
        assert done.code == 0, done.err
        assert "piece by piece" in done.err
        expected, found = sparse.load_npz(tmp_path / "whole.npz"), sparse.load_npz(tmp_path / "J.npz")
        assert found.has_canonical_format
        np.testing.assert_array_equal(found.toarray(), expected.toarray())
        with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "J.npz") as other:
            np.testing.assert_array_equal(one["starts"], other["starts"])
            assert list(one["names"]) == list(other["names"])
        for one_line, other_line in zip(whole.text.splitlines(), done.text.splitlines(), strict=True):
            assert json.loads(one_line)["l2"] == pytest.approx(json.loads(other_line)["l2"], rel=1e-9)


def test_a_jacobian_larger_than_the_disk_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from netsens.jacobian import stream

    monkeypatch.setattr(stream.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20})())
    with pytest.raises(netsens.NetsensError, match=r"takes 18\.8 MiB.* has 1\.0 MiB free.*--wrt"):
        netsens.load(DIGITS).jacobian(np.load(DIGIT), "relu1", memory_limit=1 << 20, folder=tmp_path / "J.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_a_forced_mode(tmp_path: Path, mode: str) -> None:
    done = run("jacobian", DIABETES, "--input", "random:1", "--mode", mode, "-o", "-", cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"--mode {mode} was asked for" in done.err
    assert np.load(io.BytesIO(done.out)).shape == (1, 1, 1, 10)


def test_a_batch_by_sample(tmp_path: Path) -> None:
    done = run("jacobian", DIGITS, "--input", SAMPLES / "digits_batch.npy", "--of", "logits", "--per-sample", "-o", "J.npy", cwd=tmp_path)
    assert done.code == 0, done.err
    assert np.load(tmp_path / "J.npy").shape == (4, 10, 1, 28, 28)


def test_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("jacobian", DIABETES, "--input", "random:1", "--wrt", "fc1.weight", "-o", "none", "--plot", "J.png", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "J.png").read_bytes()[:4] == b"\x89PNG"


def test_pictures_of_a_structure_and_of_a_hessian(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("jacobian", DIGITS, "--input", DIGIT, "--layer", "relu1", "--wrt", "all", "--explain", "--plot", "S.png", cwd=tmp_path)
    assert done.code == 0, done.err
    done = run("hessian", DIABETES, "--input", "random:1", "--wrt", "fc*", "-o", "none", "--plot", "H.png", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "Hessian of 'progression'" in done.err
    for name in ("S.png", "H.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_errors_are_a_line(tmp_path: Path) -> None:
    for arguments, words in (
        (["--layer", "relu9"], "relu"),
        (["--layer", "relu1", "--wrt", "fc.weight"], "does not depend"),
        (["--layer", "relu1", "--sparse", "-o", "J.h5"], ".npz"),
        (["--sparse", "--per-sample"], "exclude"),
    ):
        done = run("jacobian", DIGITS, "--input", DIGIT, *arguments, cwd=tmp_path)
        assert done.code == 2, done.err
        assert words in done.err
        assert "Traceback" not in done.err


def test_hessian(tmp_path: Path) -> None:
    done = run("hessian", DIABETES, "--input", "random:1", "-o", "H.npy", cwd=tmp_path)
    assert done.code == 0, done.err
    h = np.load(tmp_path / "H.npy").reshape(10, 10)
    np.testing.assert_allclose(h, h.T, atol=1e-4)
    np.save(tmp_path / "v.npy", np.eye(10, dtype=np.float32)[3:4])
    done = run("hessian", DIABETES, "--input", "random:1", "--vector", "v.npy", "-o", "-", cwd=tmp_path)
    assert done.code == 0, done.err
    np.testing.assert_allclose(np.load(io.BytesIO(done.out)).ravel(), h[:, 3], atol=1e-4)


def test_a_hessian_needs_a_single_number(tmp_path: Path) -> None:
    done = run("hessian", DIGITS, "--input", DIGIT, "--of", "logits", cwd=tmp_path)
    assert done.code == 2
    assert "--target" in done.err


def test_a_hessian_that_does_not_fit_goes_to_a_file_or_into_figures(tmp_path: Path) -> None:
    asked = ["--input", DIGIT, "--of", "probabilities", "--target", "3", "--wrt", "conv1.weight"]
    exact = netsens.load(DIGITS).hessian(np.load(DIGIT), "probabilities", "conv1.weight", 3)["conv1.weight"]["conv1.weight"]
    for output in (["-o", "H.npy"], ["-o", "none"]):
        done = run("hessian", DIGITS, *asked, *output, "--memory-limit", "20KB", cwd=tmp_path)
        assert done.code == 0, done.err
        row = json.loads(done.text)
        assert row["l2"] == pytest.approx(float(np.linalg.norm(exact)), rel=1e-5)
        assert row["shape"] == list(exact.shape)
    np.testing.assert_allclose(np.load(tmp_path / "H.npy"), exact, atol=1e-5)
    sparse = pytest.importorskip("scipy.sparse")
    done = run("hessian", DIGITS, *asked, "-o", "H.npz", "--sparse", "--memory-limit", "100KB", cwd=tmp_path)
    assert "piece by piece" in done.err
    np.testing.assert_allclose(sparse.load_npz(tmp_path / "H.npz").toarray(), exact.reshape(72, 72), atol=1e-5)
    done = run("hessian", DIGITS, "--input", DIGIT, "--of", "probabilities", "--target", "3", "--wrt", "conv1.*", "--memory-limit", "20KB", cwd=tmp_path)
    assert done.code == 4
    assert "one tensor" in done.err


def test_a_hessian_of_what_bends_nowhere_is_zero_and_says_so(tmp_path: Path) -> None:
    done = run("hessian", DIGITS, "--input", DIGIT, "--of", "logits", "--target", "3", "--wrt", "conv1.bias", "-o", "H.npy", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "8 x 8 (256 bytes): all zero" in done.err
    assert "does not depend" in done.err
    assert not np.load(tmp_path / "H.npy").any()


@pytest.mark.parametrize(("stop", "status"), [("KeyboardInterrupt", 130), ("Terminated", 143)])
@pytest.mark.parametrize("output", ["J.npy", "J.npz", "folder/"])
def test_what_is_stopped_leaves_no_half_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: str, status: int, output: str) -> None:
    import signal

    from netsens.cli import main
    from netsens.jacobian import answer

    def stopped(point: object, plan: object, allocate: Any, **more: object) -> None:
        allocate("image", (3, 4), np.float32)[...] = 1
        assert list(tmp_path.rglob("*.part"))
        if stop == "Terminated":
            signal.raise_signal(signal.SIGTERM)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(answer, "evaluate", stopped)
    arguments = ["jacobian", str(DIGITS), "--input", str(DIGIT), "--layer", "relu1", "--memory-limit", "4MB", "-o", output]
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main.run(arguments) == status
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("more", [("-o", "none"), ("-o", "none", "--memory-limit", "1MB"), ("-o", "J.npz", "--sparse")])
def test_norms_and_the_largest_entries(tmp_path: Path, more: tuple[str, ...]) -> None:
    exact = netsens.load(DIGITS).jacobian(np.load(DIGIT), "relu1", "conv1.weight")["conv1.weight"].reshape(6272, 72)
    asked = ["--input", DIGIT, "--layer", "relu1", "--wrt", "conv1.weight", *more, "--norms", "N.npz"]
    done = run("jacobian", DIGITS, *asked, cwd=tmp_path)
    assert done.code == 0, done.err
    with np.load(tmp_path / "N.npz") as file:
        np.testing.assert_allclose(file["conv1.weight/rows"].ravel(), np.linalg.norm(exact, axis=1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(file["conv1.weight/columns"].ravel(), np.linalg.norm(exact, axis=0), rtol=1e-5)
        assert file["conv1.weight/columns"].shape == (8, 1, 3, 3)
    row = json.loads(done.text)
    largest = np.sort(np.abs(exact.ravel()))[::-1][:5]
    np.testing.assert_allclose([abs(e["value"]) for e in row["largest_entries"]], largest, rtol=1e-5)
    done = run("jacobian", DIGITS, *asked[:-1], "N.npy", cwd=tmp_path)
    assert done.code == 2
    assert "--norms" in done.err


def test_figures_leave_nan_out_and_count_it() -> None:
    from netsens.jacobian.figures import of_array

    row = of_array("x", np.asarray([[np.nan, 3.0], [0.0, -4.0]]), (2,), (2,)).row()
    assert (row["nan"], row["zeros"], row["min"], row["max"], row["l2"]) == (1, 0.25, -4, 3, 5)
