"""Pipes: arrays and lines of JSON one after another, answered as they come, and readers that go away."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import pytest

import netsens
from tests.cli.shell import SAMPLES, is_clear, shell
from tests.cli.shell import netsens as run

DIGITS, DIABETES = SAMPLES / "digits_cnn.onnx", SAMPLES / "diabetes_mlp.onnx"


def digits(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(k).random((1 + k % 2, 1, 28, 28), np.float32) for k in range(count)]


def stream(arrays: list[np.ndarray]) -> bytes:
    whole = io.BytesIO()
    for array in arrays:
        np.save(whole, array)
    return whole.getvalue()


class Unseekable:
    """A pipe as NumPy reads it piece by piece; of a real file it would ask the position, which a pipe hasn't."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.read = pipe.read


def test_arrays_one_after_another(tmp_path: Path) -> None:
    given = digits(4)
    done = run("grad", DIGITS, "--input", "-", "--of", "logits", "-o", "-", cwd=tmp_path, stdin=stream(given))
    assert done.code == 0, done.err
    model, out = netsens.load(DIGITS), io.BytesIO(done.out)
    for x in given:  # a session for any lengths rounds otherwise than one for the lengths at hand
        expected = model.grad(x, of="logits")["image"]
        np.testing.assert_allclose(np.lib.format.read_array(out), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert not out.read()


def test_each_result_leaves_before_the_next_input_comes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "netsens", "grad", str(DIGITS), "--input", "-", "--of", "logits", "-o", "-"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SAMPLES.parent)}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for x in digits(3):
            process.stdin.write(stream([x]))
            process.stdin.flush()
            assert np.lib.format.read_array(Unseekable(process.stdout)).shape == x.shape  # would wait for ever if results came at the end
        process.stdin.close()
        assert process.wait(30) == 0


def test_json_lines_in_json_lines_out(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)
    names = (SAMPLES / "diabetes.csv").read_text().splitlines()[0].split(",")
    lines = [json.dumps(rows[:1].tolist()), json.dumps(rows[1].tolist()), "not json", json.dumps(dict(zip(names, rows[2].tolist(), strict=True)))]
    done = run("grad", DIABETES, "--input", "-", "-o", "-", cwd=tmp_path, stdin="\n".join(lines).encode())
    assert done.code == 3, done.err
    assert is_clear(done.err, "line 3")
    found = [json.loads(line) for line in done.text.splitlines()]
    expected = netsens.load(DIABETES).grad(rows)
    (name,) = expected
    np.testing.assert_allclose(np.concatenate([f[name] for f in found]), expected[name], rtol=1e-5)


def test_a_file_of_json_lines(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(r.tolist()) + "\n" for r in rows))
    done = run("grad", DIABETES, "--input", "x.jsonl", "-o", "g.jsonl", cwd=tmp_path)
    assert done.code == 0, done.err
    assert len((tmp_path / "g.jsonl").read_text().splitlines()) == 3
    done = run("grad", DIABETES, "--input", "x.jsonl", "-o", "out/", "--format", "npy", "--summary", "csv", cwd=tmp_path)
    assert done.code == 0, done.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.jsonl", "x-2.npy", "x-3.npy", "x.npy"]
    assert len(done.text.splitlines()) == 4  # one header


def test_arrays_in_json_lines_out_on_request(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", "-", "--wrt", "all", "--of", "logits", "-o", "-", "--format", "jsonl", cwd=tmp_path, stdin=stream(digits(2)))
    assert done.code == 0, done.err
    first, second = (json.loads(line) for line in done.text.splitlines())
    assert np.shape(first["image"]) == (1, 1, 28, 28)
    assert np.shape(second["fc.weight"]) == (10, 784)


def test_several_results_are_not_written_over_each_other(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", "-", "--of", "logits", "-o", "g.npz", cwd=tmp_path, stdin=stream(digits(2)))
    assert done.code == 2
    assert is_clear(done.err, "g.npz", "folder")
    with np.load(tmp_path / "g.npz") as file:
        assert len(file["image"]) == 1
    done = run("grad", DIGITS, "--input", "-", "--wrt", "all", "--of", "logits", "-o", "-", cwd=tmp_path, stdin=stream(digits(2)))
    assert done.code == 2
    assert is_clear(done.err, "jsonl")


def test_a_truncated_stream_ends_with_an_error(tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", "-", "--of", "logits", "-o", "-", cwd=tmp_path, stdin=stream(digits(2))[:-5])
    assert done.code == 2
    assert is_clear(done.err, "truncated")
    assert np.lib.format.read_array(io.BytesIO(done.out)).shape == (1, 1, 28, 28)


@pytest.mark.parametrize("reader", ["head -c 100 > /dev/null", "true"])
def test_a_reader_that_goes_away(reader: str, tmp_path: Path) -> None:
    (tmp_path / "many").write_bytes(stream(digits(40)))
    done = shell(f"cat many | netsens grad {DIGITS} --input - --of logits -o - -q | {reader}", tmp_path)
    assert not done.err
    done = shell(f"netsens grad {DIGITS} --input {SAMPLES}/digits.npy --wrt all --of logits -o none -q | {reader}", tmp_path)
    assert not done.err


def test_through_a_pipe_to_python(tmp_path: Path) -> None:
    (tmp_path / "consume.py").write_text("import io, sys, numpy\nx = numpy.load(io.BytesIO(sys.stdin.buffer.read()))\nprint(x.shape)\n")
    done = shell(f"cat {SAMPLES}/digits.npy | netsens grad {DIGITS} --input - -o - | {sys.executable} consume.py", tmp_path)
    assert done.code == 0, done.err
    assert done.text.strip() == "(1, 1, 28, 28)"


def manifest(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_a_stream_into_a_folder_goes_on_where_it_stopped(tmp_path: Path) -> None:
    given = digits(5)
    call = ("grad", DIGITS, "--input", "-", "--of", "logits", "--resume", "-o")
    whole = run(*call, "whole/", cwd=tmp_path, stdin=stream(given))
    assert whole.code == 0, whole.err
    rows = manifest(tmp_path / "whole")
    assert [(row["input"], row["output"], row["status"]) for row in rows] == [
        ("stdin" if k == 0 else f"stdin, number {k + 1}", f"stdin{'' if k == 0 else f'-{k + 1}'}.npz", "done") for k in range(5)
    ]
    first = run(*call, "out/", cwd=tmp_path, stdin=stream(given)[:-5])
    assert first.code == 2
    assert is_clear(first.err, "stdin, number 5", "truncated")
    again = run(*call, "out/", cwd=tmp_path, stdin=stream(given))
    assert "5 of 5 inputs are done, 4 of them before" in again.err
    assert again.text == whole.text  # the summary of all, as if nothing had happened
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}
    given[1], given[3] = given[1] + 1, given[3] * 2
    other = run(*call, "out/", cwd=tmp_path, stdin=stream(given))
    assert "3 of them before" in other.err
    with np.load(tmp_path / "out" / "stdin-2.npz") as file:
        np.testing.assert_allclose(file["image"], netsens.load(DIGITS).grad(given[1], of="logits")["image"], rtol=1e-5, atol=1e-5)


def test_json_lines_into_a_folder_leave_a_manifest(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(r.tolist()) + "\n" for r in rows[:2]) + "nonsense\n" + json.dumps(rows[2].tolist()) + "\n")
    call = ("grad", DIABETES, "--input", "x.jsonl", "-o", "out/", "--format", "npy")
    done = run(*call, cwd=tmp_path)
    assert done.code == 3, done.err
    assert [(row["input"], row["status"]) for row in manifest(tmp_path / "out")] == [
        ("x.jsonl", "done"), ("x.jsonl, number 2", "done"), ("x.jsonl, number 3", "failed"), ("x.jsonl, number 4", "done"),
    ]  # fmt: skip
    before = (tmp_path / "out" / "manifest.jsonl").read_bytes()
    assert "3 of them before" in run(*call, "--resume", cwd=tmp_path).err
    assert (tmp_path / "out" / "manifest.jsonl").read_bytes() == before


def test_a_table_on_standard_output(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)
    names = (SAMPLES / "diabetes.csv").read_text().splitlines()[0]
    lines = "".join(json.dumps(dict(zip(names.split(","), r.tolist(), strict=True))) + "\n" for r in rows)
    done = run("grad", DIABETES, "--input", "-", "-o", "-", "--format", "csv", cwd=tmp_path, stdin=lines.encode())
    assert done.code == 0, done.err
    header, *found = done.text.splitlines()
    assert header == names
    (expected,) = netsens.load(DIABETES).grad(rows).values()
    np.testing.assert_allclose(np.loadtxt(found, delimiter=","), expected, rtol=1e-5)
    np.save(tmp_path / "x.npy", rows)
    done = shell(f"netsens grad {DIABETES} --input x.npy --batch-size 2 -o - --format csv > g.csv", tmp_path)
    assert done.code == 0, done.err
    np.testing.assert_allclose(np.loadtxt(tmp_path / "g.csv", delimiter=",", skiprows=1), expected, rtol=1e-5)


@pytest.mark.parametrize(("more", "words"), [
    (["-o", "-", "--format", "h5"], ["h5", "standard output"]), (["-o", "g.npy", "--format", "csv"], ["csv", "g.npy"]), (["-o", "out/", "--dask", "local"], ["--dask"]),
])  # fmt: skip
def test_what_a_stream_cannot_do(more: list[str], words: list[str], tmp_path: Path) -> None:
    done = run("grad", DIGITS, "--input", "-", "--of", "logits", *more, cwd=tmp_path, stdin=stream(digits(2)))
    assert done.code == 2
    assert is_clear(done.err, *words)
