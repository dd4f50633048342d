"""Inputs as people have them, through a real shell: lists, folders, globs, tables, pictures, the ONNX test layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import netsens
from tests.cli.shell import SAMPLES, is_clear, shell
from tests.cli.shell import netsens as run

DIGITS, DIABETES = SAMPLES / "digits_cnn.onnx", SAMPLES / "diabetes_mlp.onnx"
COLUMNS = (SAMPLES / "diabetes.csv").read_text().splitlines()[0].split(",")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Seven digits as .npy, in two folders, under the same names."""
    for folder in ("a", "b"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for k in range(7):
        np.save(tmp_path / "data" / ("a" if k < 4 else "b") / f"x{k % 4}.npy", np.random.default_rng(k).random((1, 1, 28, 28), np.float32))
    return tmp_path / "data"


def test_find_into_inputs_from(data: Path) -> None:
    line = f"find data -name '*.npy' | sort | netsens grad {DIGITS} --inputs-from - --of logits -o grads/ --jobs 2 --resume"
    done = shell(line, data.parent)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (data.parent / "grads" / "manifest.jsonl").read_text().splitlines()]
    assert [(row["input"], row["output"]) for row in rows] == [(f"data/{f}/x{k}.npy", f"{f}/x{k}.npz") for f, n in (("a", 4), ("b", 3)) for k in range(n)]
    model = netsens.load(DIGITS)
    for row in rows:
        assert row["status"] == "done"
        assert row["summary"][0]["name"] == "image"
        with np.load(data.parent / "grads" / row["output"]) as file:
            expected = model.grad(np.load(data.parent / row["input"]), of="logits")["image"]
            np.testing.assert_allclose(file["image"], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    again = shell(line, data.parent)
    assert "7 of them before" in again.err


def test_pictures_that_find_has_found(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for k, picture in enumerate(pixels):
        (tmp_path / "data" / str(k % 2)).mkdir(parents=True, exist_ok=True)
        image.fromarray(picture).save(tmp_path / "data" / str(k % 2) / f"x{k}.png")
    (tmp_path / "data" / "0" / "x9.png").write_bytes(b"no picture")
    line = f"find data -name '*.png' | sort | netsens grad {DIGITS} --inputs-from - --of logits -o grads/ --jobs 4 --resume"
    done = shell(line, tmp_path)
    assert done.code == 3
    assert is_clear(done.err, "x9.png", "5 of 6 inputs are done")
    (tmp_path / "data" / "0" / "x9.png").unlink()
    again = shell(line, tmp_path)
    assert again.code == 0, again.err
    assert "5 of them before" in again.err
    assert again.text == done.text
    model = netsens.load(DIGITS)
    for k, picture in enumerate(pixels):
        with np.load(tmp_path / "grads" / f"x{k}.npz") as file:
            expected = model.grad((picture / 255).astype(np.float32)[None, None], of="logits")["image"]
            np.testing.assert_allclose(file["image"], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_list_in_a_file_and_a_missing_input(data: Path) -> None:
    (data.parent / "list.txt").write_text("data/a/x0.npy\n\ndata/a/nowhere.npy\ndata/b/x1.npy\n")
    done = run("grad", DIGITS, "--inputs-from", "list.txt", "--of", "logits", "-o", "out/", cwd=data.parent)
    assert done.code == 3
    assert is_clear(done.err, "nowhere.npy")
    rows = [json.loads(line) for line in (data.parent / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "nowhere" in rows[1]["error"]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_list(content: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(content)
    done = run("grad", DIGITS, "--inputs-from", "list.txt", "-o", "out/", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "list.txt")


def test_a_folder_a_glob_and_formats(data: Path) -> None:
    for source, format_ in (("data/a", "npy"), ("'data/a/*.npy'", "jsonl"), ("data/a/", "safetensors")):
        done = shell(f"netsens grad {DIGITS} --input {source} --of logits -o out/ --format {format_} --timings", data.parent)
        assert done.code == 0, done.err
        rows = [json.loads(line) for line in (data.parent / "out" / "manifest.jsonl").read_text().splitlines()]
        assert [row["output"] for row in rows] == [f"x{k}.{format_}" for k in range(4)]
        assert all(row["seconds"] >= 0 for row in rows)


def test_files_onto_standard_output(data: Path) -> None:
    done = shell(f"netsens grad {DIGITS} --input 'data/a/*.npy' --of logits -o - --format jsonl", data.parent)
    assert done.code == 0, done.err
    assert [np.shape(json.loads(line)["image"]) for line in done.text.splitlines()] == [(1, 1, 28, 28)] * 4


def test_gathered_results_are_those_of_single_runs(data: Path) -> None:
    together = run("grad", DIGITS, "--input", "data/a/*.npy", "--of", "logits", "--target", "argmax", "-o", "together/", "-v", cwd=data.parent)
    assert "share a run" in together.err
    assert (
        run("grad", DIGITS, "--input", "data/a/*.npy", "--of", "logits", "--target", "argmax", "-o", "single/", "--batch-size", "1", cwd=data.parent).code == 0
    )
    for k in range(4):
        with np.load(data.parent / "together" / f"x{k}.npz") as a, np.load(data.parent / "single" / f"x{k}.npz") as b:
            np.testing.assert_allclose(a["image"], b["image"], rtol=1e-4, atol=1e-5 * np.abs(b["image"]).max())


def test_the_onnx_test_layout(tmp_path: Path) -> None:
    model = tmp_path / "model_dir"
    (model / "test_data_set_0").mkdir(parents=True)
    (model / "model.onnx").write_bytes(DIGITS.read_bytes())
    x = np.load(SAMPLES / "digits.npy")
    (model / "test_data_set_0" / "input_0.pb").write_bytes(numpy_helper.from_array(x, "image").SerializeToString())
    (model / "test_data_set_0" / "output_0.pb").write_bytes(onnx.TensorProto().SerializeToString())
    done = shell("netsens grad model_dir --input model_dir/test_data_set_0 --of logits -o g.npy", tmp_path)
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "g.npy"), netsens.load(DIGITS).grad(x, of="logits")["image"])


def test_a_table_gives_a_row_a_feature(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes((SAMPLES / "diabetes.csv").read_bytes())
    done = shell(f"netsens grad {DIABETES} --input table.csv --summary csv -o none > sensitivities.csv", tmp_path)
    assert done.code == 0, done.err
    lines = (tmp_path / "sensitivities.csv").read_text().splitlines()
    place = lines[0].split(",").index("feature")
    assert [line.split(",")[place] for line in lines[2:]] == COLUMNS


def test_sensitivities_of_one_output_by_named_columns(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]> g (float[N, 3] x) => (float[N, 2] y) <float[3, 2] W = {1, 2, 3, 4, 5, 6}> { y = MatMul(x, W) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    (tmp_path / "table.csv").write_text("age,height,weight\n1,2,3\n4,5,6\n")
    done = shell("netsens grad model.onnx --input table.csv --target 1 --summary csv > sensitivities.csv", tmp_path)
    assert done.code == 0, done.err
    header, *rows = (line.split(",") for line in (tmp_path / "sensitivities.csv").read_text().splitlines())
    found = {row[header.index("feature")]: float(row[header.index("mean")]) for row in rows[1:]}
    assert found == {"age": 2.0, "height": 4.0, "weight": 6.0}


def test_parquet_and_json_lines_are_the_same_table(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = np.loadtxt(SAMPLES / "diabetes.csv", delimiter=",", skiprows=1, dtype=np.float32)
    parquet.write_table(pyarrow.table({c: rows[:, k] for k, c in enumerate(COLUMNS)}), tmp_path / "x.parquet")
    expected = netsens.load(DIABETES).grad(rows)
    done = run("grad", DIABETES, "--input", "x.parquet", "-o", "g.csv", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "g.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "g.csv", delimiter=",", skiprows=1), next(iter(expected.values())), rtol=1e-6)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1nonsense")
    assert is_clear(run("grad", DIABETES, "--input", "bad.parquet", cwd=tmp_path).err, "bad.parquet")


def test_pictures(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    from netsens.report.images import PRESETS, ImageOptions, read_image
    from netsens.report.specs import InputSpec

    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "p.png")
    spec = InputSpec("x", np.dtype(np.float32), ("N", 3, "h", "w"))

    def read(spec: InputSpec, options: ImageOptions) -> np.ndarray:
        with (tmp_path / "p.png").open("rb") as file:
            return read_image(file, spec, "p.png", options)

    plain = read(spec, ImageOptions(mean=(0.5, 0.25, 0.125), std=(2.0,), scale=1.0))
    np.testing.assert_allclose(plain[0], (pixels.transpose(2, 0, 1) - np.array([0.5, 0.25, 0.125])[:, None, None]) / 2, rtol=1e-6)
    assert read(spec, ImageOptions(size=(20, 10))).shape == (1, 3, 20, 10)
    assert read(InputSpec("x", np.dtype(np.float32), ("N", "h", "w", "c")), ImageOptions(layout="NHWC")).shape == (1, 40, 30, 3)
    found = read(InputSpec("x", np.dtype(np.float32), (1, 3, 224, 224)), PRESETS["imagenet"])
    resized = image.fromarray(pixels).resize((256, 341), image.Resampling.BILINEAR).crop((16, 58, 240, 282))
    expected = (np.asarray(resized, np.float64).transpose(2, 0, 1) / 255 - np.array(PRESETS["imagenet"].mean)[:, None, None]) / np.array(
        PRESETS["imagenet"].std
    )[:, None, None]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)


def test_image_options_on_the_command_line(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.full((28, 28), 51, np.uint8)).save(tmp_path / "p.png")
    done = run(
        "grad", DIGITS, "--input", "p.png", "--image-scale", "1/255", "--image-mean", "0.2", "--image-std", "0.5", "--of", "logits", "-o", "g.npy", cwd=tmp_path
    )
    assert done.code == 0, done.err
    np.testing.assert_allclose(
        np.load(tmp_path / "g.npy"), netsens.load(DIGITS).grad(np.zeros((1, 1, 28, 28), np.float32), of="logits")["image"], rtol=1e-5, atol=1e-6
    )
    for wrong in (
        ["--image-mean", "a"],
        ["--image-size", "0x3"],
        ["--image-layout", "XYZ"],
        ["--image-std", "0"],
        ["--image-mean", "1,2"],
        ["--image-size", "28x30"],
    ):
        done = run("grad", DIGITS, "--input", "p.png", *wrong, cwd=tmp_path)
        assert done.code == 2
        assert is_clear(done.err, wrong[0] if wrong != ["--image-mean", "1,2"] else "--image-mean")
