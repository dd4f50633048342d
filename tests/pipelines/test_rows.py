"""One big array, some rows at a time: the same numbers, little memory, and no batch where rows mix."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

import netsens
from tests.cli.shell import SAMPLES, is_clear, shell
from tests.cli.shell import netsens as run

DIGITS, DIABETES = SAMPLES / "digits_cnn.onnx", SAMPLES / "diabetes_mlp.onnx"


@pytest.mark.parametrize("output", ["g.npy", "g.csv", "g.npz", "g.jsonl"])
def test_rows_of_a_big_array(output: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((101, 10)).astype(np.float32)
    np.save(tmp_path / "big.npy", x)
    done = run("grad", DIABETES, "--input", "big.npy", "--batch-size", "16", "-o", output, "--summary", "none", cwd=tmp_path)
    assert done.code == 0, done.err
    (expected,) = netsens.load(DIABETES).grad(x).values()
    file = tmp_path / output
    if output == "g.csv":
        found = np.loadtxt(file, delimiter=",", skiprows=1)
    elif output == "g.jsonl":
        found = np.array([next(iter(json.loads(line).values())) for line in file.read_text().splitlines()])
    elif output == "g.npz":
        with np.load(file) as archive:
            (found,) = archive.values()
    else:
        found = np.load(file)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["big.npy", output])


@pytest.mark.parametrize("more", ["", "-j 2"])
def test_the_summary_is_that_of_all_rows(more: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((41, 10)).astype(np.float32)
    x[7, 3] = np.nan
    names = (SAMPLES / "diabetes.csv").read_text().splitlines()[0]
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header=names, comments="")
    whole = run("grad", DIABETES, "--input", "x.csv", "-o", "g.npy", cwd=tmp_path)
    parts = shell(f"netsens grad {DIABETES} --input x.csv --batch-size 8 {more} -o g.csv", tmp_path)
    assert parts.code == 0, parts.err
    found, expected = ([json.loads(line) for line in done.text.splitlines()] for done in (parts, whole))
    assert len(found) == len(expected) == 11
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        assert (a["name"], a["shape"], a.get("feature"), a.get("nan")) == (b["name"], b["shape"], b.get("feature"), b.get("nan"))
        np.testing.assert_allclose(
            [a[k] for k in ("mean", "std", "min", "max", "l1", "l2", "zeros")],
            [b[k] for k in ("mean", "std", "min", "max", "l1", "l2", "zeros")],
            rtol=1e-4,
            atol=1e-6,
        )


def test_rows_in_fortran_order_and_onto_standard_output(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((33, 10)).astype(np.float32)
    np.save(tmp_path / "big.npy", np.asfortranarray(x))
    done = shell(f"netsens grad {DIABETES} --input big.npy --batch-size 8 -o - -j 2 > g.npy", tmp_path)
    assert done.code == 0, done.err
    np.testing.assert_allclose(np.load(tmp_path / "g.npy"), next(iter(netsens.load(DIABETES).grad(x).values())), rtol=1e-4, atol=1e-5)


def test_memory_stays_flat(tmp_path: Path) -> None:
    """The peak of a run over 120 MB in and 120 MB out stays below both."""
    for name, rows in (("small", 500), ("large", 40_000)):
        out = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float32, (rows, 1, 28, 28))
        out[:] = np.random.default_rng(0).random((1, 1, 28, 28), np.float32)
        out.flush()
        del out
    peak = {}
    code = "import resource, sys; from netsens.cli.main import run; c = run(sys.argv[1:]); print(c, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    for name in ("small", "large"):
        line = f"{sys.executable} -c '{code}' grad {DIGITS} --of logits --input {name}.npy --batch-size 64 -o {name}.out.npy --summary none -q --threads 1"
        done = shell(line, tmp_path)
        status, kilobytes = map(int, done.text.split()) if done.text else (1, 0)
        assert status == 0, done.err
        peak[name] = kilobytes / 1024
    assert np.load(tmp_path / "large.out.npy", mmap_mode="r").shape == (40_000, 1, 28, 28)
    assert peak["large"] < peak["small"] + 40


def model_of(path: Path, nodes: list[tuple[str, list[str], list[str], dict[str, object]]], constants: dict[str, np.ndarray], shape: list[object]) -> Path:
    made = [helper.make_node(op, i, o, **attributes) for op, i, o, attributes in nodes]
    graph = helper.make_graph(made, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(a, n) for n, a in constants.items()])  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


MIXED = {
    "the sum of all": ([("ReduceSum", ["x"], ["s"], {"keepdims": 0}), ("Mul", ["s", "s"], ["y"], {})], {}),
    "less the mean over the batch": (
        [("ReduceMean", ["x", "zero"], ["m"], {}), ("Sub", ["x", "m"], ["d"], {}), ("Mul", ["d", "d"], ["y"], {})], {"zero": np.array([0])},
    ),
    "softmax over the batch": ([("Softmax", ["x"], ["s"], {"axis": 0}), ("Mul", ["s", "s"], ["y"], {})], {}),
    "by the number of rows": (
        [("Shape", ["x"], ["n"], {"start": 0, "end": 1}), ("Cast", ["n"], ["f"], {"to": 1}), ("Div", ["x", "f"], ["q"], {}), ("Mul", ["q", "q"], ["y"], {})], {},
    ),
    "times a rounded mean": (
        [("ReduceMean", ["x", "zero"], ["m"], {}), ("Floor", ["m"], ["r"], {}), ("Mul", ["x", "x"], ["xx"], {}), ("Mul", ["xx", "r"], ["y"], {})],
        {"zero": np.array([0])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MIXED)
def test_rows_that_mix_are_never_gathered(kind: str, tmp_path: Path) -> None:
    model = model_of(tmp_path / "m.onnx", *MIXED[kind], ["N", 3])
    generator = np.random.default_rng(0)
    for k in range(5):
        np.save(tmp_path / f"x{k}.npy", generator.standard_normal((1, 3)).astype(np.float32) * 3 + k)
    done = run("grad", model, "--input", "x*.npy", "--batch-size", "4", "-o", "out/", "--format", "npy", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "each input has a run of its own" in done.err
    for k in range(5):
        np.testing.assert_array_equal(np.load(tmp_path / "out" / f"x{k}.npy"), netsens.load(model).grad(np.load(tmp_path / f"x{k}.npy"))["x"])
    np.save(tmp_path / "big.npy", generator.standard_normal((9, 3)).astype(np.float32) * 3)
    done = run("grad", model, "--input", "big.npy", "--batch-size", "2", "-o", "g.npy", cwd=tmp_path)
    assert done.code == 2
    assert is_clear(done.err, "--batch-size would change the result")
    assert not (tmp_path / "g.npy").exists()


def test_parameters_are_summed_over_an_input_alone(tmp_path: Path) -> None:
    for k in range(3):
        np.save(tmp_path / f"x{k}.npy", np.random.default_rng(k).standard_normal((2, 10)).astype(np.float32))
    done = run("grad", DIABETES, "--input", "x*.npy", "--wrt", "params", "--batch-size", "8", "-o", "out/", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "parameters is a sum" in done.err
    expected = netsens.load(DIABETES).grad(np.load(tmp_path / "x1.npy"), wrt="params")
    with np.load(tmp_path / "out" / "x1.npz") as file:
        for name, array in expected.items():
            np.testing.assert_array_equal(file[name], array)


def test_a_cotangent_for_each_input(tmp_path: Path) -> None:
    u = np.random.default_rng(1).standard_normal((1, 10)).astype(np.float32)
    np.save(tmp_path / "u.npy", u)
    for k in range(3):
        np.save(tmp_path / f"x{k}.npy", np.random.default_rng(k).random((1, 1, 28, 28), np.float32))
    done = run("grad", DIGITS, "--input", "x*.npy", "--of", "logits", "--cotangent", "u.npy", "-o", "out/", "--format", "npy", "-v", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "share a run" in done.err
    for k in range(3):
        expected = netsens.load(DIGITS).grad(np.load(tmp_path / f"x{k}.npy"), of="logits", cotangent=u)["image"]
        np.testing.assert_allclose(np.load(tmp_path / "out" / f"x{k}.npy"), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:Some inner values are not finite")  # which is what the test is about
def test_what_is_not_finite_touches_no_neighbour(tmp_path: Path) -> None:
    """x1 has inner values that are NaN and never read, which are passed over; x2 is NaN itself, and so is its output."""
    nodes: list[tuple[str, list[str], list[str], dict[str, object]]] = [
        ("Greater", ["x", "zero"], ["c"], {}), ("Sqrt", ["x"], ["r"], {}), ("Mul", ["x", "two"], ["d"], {}), ("Where", ["c", "r", "d"], ["w"], {}), ("Sin", ["w"], ["y"], {}),
    ]  # fmt: skip
    model = model_of(tmp_path / "m.onnx", nodes, {"zero": np.float32(0), "two": np.float32(2)}, ["N", 3])
    x = np.array([[1.0, 2.0, 3.0], [4.0, -1.0, 0.5], [np.nan, 1.0, -2.0], [0.3, 0.2, 5.0]], np.float32)
    for k, row in enumerate(x):
        np.save(tmp_path / f"x{k}.npy", row[None])
    done = run("grad", model, "--input", "x*.npy", "--batch-size", "4", "-o", "all/", "-v", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "share a run" in done.err
    for k in range(4):
        with np.load(tmp_path / "all" / f"x{k}.npz") as file:
            np.testing.assert_array_equal(file["x"], netsens.load(model).grad(x[k : k + 1])["x"])
    with np.load(tmp_path / "all" / "x1.npz") as file:
        np.testing.assert_allclose(file["x"], [[np.cos(2) / 4, 2 * np.cos(-2), np.cos(np.sqrt(0.5)) / 2 / np.sqrt(0.5)]], rtol=1e-5)
    before = (tmp_path / "all" / "x3.npz").read_bytes()
    (tmp_path / "all" / "x3.npz").unlink()
    assert run("grad", model, "--input", "x*.npy", "--batch-size", "4", "-o", "all/", "--resume", cwd=tmp_path).code == 0
    assert (tmp_path / "all" / "x3.npz").read_bytes() == before
