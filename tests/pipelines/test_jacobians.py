"""The same batch runs for Jacobians."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

import netsens
from tests.cli.shell import SAMPLES, is_clear
from tests.cli.shell import netsens as run

DIABETES, DIGITS = SAMPLES / "diabetes_mlp.onnx", SAMPLES / "digits_cnn.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(5):
        np.save(tmp_path / f"x{k}.npy", np.random.default_rng(k).standard_normal((2, 10)).astype(np.float32))
    (tmp_path / "x3.npy").write_bytes(b"nothing")
    (tmp_path / "list.txt").write_text("".join(f"x{k}.npy\n" for k in range(5)))
    return tmp_path


@pytest.mark.parametrize("more", [(), ("--jobs", "2")])
def test_a_list_of_inputs(more: tuple[str, ...], folder: Path) -> None:
    call = ("jacobian", DIABETES, "--inputs-from", "list.txt", "--wrt", "all", "-o", "out/", *more)
    done = run(*call, cwd=folder)
    assert done.code == 3, done.err
    assert is_clear(done.err, "x3.npy")
    model = netsens.load(DIABETES)
    for k in (0, 1, 2, 4):
        expected = model.jacobian(np.load(folder / f"x{k}.npy"), wrt="all")
        with np.load(folder / "out" / f"x{k}.npz") as file:
            for name, array in expected.items():
                np.testing.assert_array_equal(file[name], array)
    np.save(folder / "x3.npy", np.zeros((1, 10), np.float32))
    again = run(*call, "--resume", cwd=folder)
    assert again.code == 0, again.err
    assert "4 of them before" in again.err


def test_sparse_with_singular_values(folder: Path) -> None:
    scipy = pytest.importorskip("scipy.sparse")
    done = run("jacobian", DIABETES, "--inputs-from", "list.txt", "--sparse", "--singular-values", "1", "-o", "out/", cwd=folder)
    assert done.code == 3, done.err
    assert all(len(json.loads(line)["singular_values"]) == 1 for line in done.text.splitlines())
    assert scipy.load_npz(folder / "out" / "x0.npz").shape == (2, 20)


def test_what_does_not_fit_goes_to_a_folder_an_input(tmp_path: Path) -> None:
    for k in range(2):
        np.save(tmp_path / f"x{k}.npy", np.random.default_rng(k).random((1, 1, 28, 28), np.float32))
    call = ("jacobian", DIGITS, "--input", "x*.npy", "--layer", "relu1", "--memory-limit", "30MB", "-o", "out/")
    done = run(*call, cwd=tmp_path)
    assert done.code == 0, done.err
    expected = netsens.load(DIGITS).jacobian(np.load(tmp_path / "x1.npy"), of="relu1")["image"]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "x1" / "image.npy"), expected)
    assert "2 of them before" in run(*call, "--resume", cwd=tmp_path).err
    figures = run(*call[:-2], "-o", "none", cwd=tmp_path)
    assert figures.code == 0, figures.err
    assert [json.loads(line)["input"] for line in figures.text.splitlines()] == ["x0.npy", "x1.npy"]


def test_a_stream(tmp_path: Path) -> None:
    given = io.BytesIO()
    x = [np.random.default_rng(k).standard_normal((1, 10)).astype(np.float32) for k in range(3)]
    for array in x:
        np.save(given, array)
    done = run("jacobian", DIABETES, "--input", "-", "-o", "-", cwd=tmp_path, stdin=given.getvalue())
    assert done.code == 0, done.err
    out = io.BytesIO(done.out)
    for array in x:
        (expected,) = netsens.load(DIABETES).jacobian(array).values()
        np.testing.assert_array_equal(np.lib.format.read_array(out), expected)
    scipy = pytest.importorskip("scipy.sparse")
    sparse = run("jacobian", DIABETES, "--sparse", "--input", "-", "-o", "-", cwd=tmp_path, stdin=given.getvalue())
    assert sparse.code == 2
    assert is_clear(sparse.err, "name a folder")
    one = run("jacobian", DIABETES, "--sparse", "--input", "-", "-o", "-", cwd=tmp_path, stdin=json.dumps(x[0].tolist()).encode())
    assert one.code == 0, one.err
    assert scipy.load_npz(io.BytesIO(one.out)).shape == (1, 10)
