"""Gradient graphs that were built before: taken from the cache where nothing has changed, built again where anything has."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import netsens
from netsens.cli.main import run
from netsens.run.cache import Cache, CacheWarning, default_folder
from tests.run.drawn_convolutions import drawn

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETSENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(path: Path, scale: float = 1.0, width: int = 3, external: bool = False) -> Path:
    weight = (np.arange(4 * width, dtype=np.float32).reshape(4, width) / width - 1) * np.float32(scale)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path), save_as_external_data=external, location=f"{path.stem}.data", size_threshold=0)
    return path


def gradients(path: Path, **question: object) -> dict[str, np.ndarray]:
    model = netsens.load(path, cache=True)
    found = model.grad(X, **question)  # type: ignore[arg-type]
    assert all(np.isfinite(g).all() for g in found.values())
    return found


def expected(path: Path, **question: object) -> dict[str, np.ndarray]:
    return netsens.load(path).grad(X, **question)  # type: ignore[arg-type]


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def kinds(folder: Path) -> list[str]:
    return [e.about["kind"] for e in Cache(folder).entries()]


@pytest.mark.parametrize("question", [{}, {"wrt": "all"}, {"target": "argmax"}, {"of": "h", "wrt": "w"}, {"cotangent": np.ones((2, 3), np.float32)}])
@pytest.mark.parametrize("external", [False, True])
def test_a_question_asked_again_has_the_same_answer(tmp_path: Path, folder: Path, question: dict[str, object], external: bool) -> None:
    path = written(tmp_path / "m.onnx", external=external)
    wanted = expected(path, **question)
    same(gradients(path, **question), wanted)
    assert kinds(folder).count("gradient") == 1
    again = netsens.load(path, cache=True)
    same(again.grad(X, **question), wanted)  # type: ignore[arg-type]
    assert "graph" not in vars(again), "the model was read though the cache knew the answer"


def test_questions_are_told_apart(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "m.onnx")
    for question in ({}, {"wrt": "w"}, {"target": 0}, {"target": "0,1"}, {"of": "h"}, {"method": "autodiff"}):
        same(gradients(path, **question), expected(path, **question))
    assert kinds(folder).count("gradient") == 6
    for quantized in ("zero", "straight-through"):
        netsens.load(path, cache=True, quantized=quantized).grad(X)
    assert kinds(folder).count("gradient") == 7


# Each takes longer to import than a small model takes to run: what builds, what reads or writes other files, what draws on a terminal.
NOT_NEEDED = (
    "onnx", "google.protobuf", "ml_dtypes", "netsens.graph.emit", "netsens.graph.normal", "netsens.graph.names", "netsens.graph.shapes", "netsens.graph.read", "netsens.jacobian.gradient",
    "netsens.modes", "netsens.rules", "netsens.analyse", "netsens.pipeline", "netsens.report.images", "netsens.report.tables", "netsens.report.rows", "netsens.report.plot", "fractions",
    "hashlib", "zipfile", "shutil", "csv", "multiprocessing", "concurrent.futures", "asyncio", "rich", "PIL", "scipy", "matplotlib", "importlib.metadata",
)  # fmt: skip


def test_a_cached_run_imports_only_what_it_needs(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx")
    gradients(path)
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, numpy, onnxruntime, click; there = set(sys.modules); from netsens.cli.main import run; assert run(sys.argv[2:]) == 0;"
        "sys.exit(', '.join(m for m in sys.argv[1].split() if m in sys.modules and m not in there) or None)"
    )
    arguments = [" ".join(NOT_NEEDED), "grad", str(path), "--input", str(tmp_path / "x.npy"), "-o", str(tmp_path / "g.npz")]
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_changed_model_is_built_again(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx")
    first = gradients(path)
    written(path, scale=2.0)
    second = gradients(path)
    same(second, expected(path))
    assert not np.array_equal(first["x"], second["x"])


def test_changed_weights_beside_the_model_count(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", external=True)
    first = gradients(path)
    data = tmp_path / "m.data"
    values = np.fromfile(data, np.float32) * 3
    values.tofile(data)
    second = gradients(path)
    same(second, expected(path))
    assert not np.array_equal(first["x"], second["x"])
    data.unlink()
    with pytest.raises(netsens.ModelError, match="missing"):
        netsens.load(path, cache=True)


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b[:40], lambda b: b"", lambda b: b[:-9] + b"\x00" + b[-8:], lambda b: b"nonsense" * 50])
def test_a_damaged_entry_is_built_again(tmp_path: Path, folder: Path, damage: object) -> None:
    path = written(tmp_path / "m.onnx")
    first = gradients(path)
    for file in folder.iterdir():
        file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    same(gradients(path), first)
    assert kinds(folder).count("gradient") == 1
    same(gradients(path), first)


def test_weights_are_not_kept(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "m.onnx", width=100_000)
    same(gradients(path, wrt="all"), expected(path, wrt="all"))
    assert sum(f.stat().st_size for f in folder.iterdir()) < path.stat().st_size / 20
    same(gradients(path, wrt="all"), expected(path, wrt="all"))


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "m.onnx")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NETSENS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(CacheWarning, match="nothing could be kept"):
        found = gradients(path)
    same(found, expected(path))


def test_runs_at_once_do_not_disturb_each_other(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "m.onnx")
    wanted = expected(path)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: gradients(path), range(12)):
            same(found, wanted)
    assert not [f for f in folder.iterdir() if f.suffix == ".part"]


def test_lengths_that_contradict_a_symbol_do_not_share_an_entry(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["a", "axes"], ["s"], keepdims=0), helper.make_node("ReduceSum", ["b", "axes"], ["t"], keepdims=0),
         helper.make_node("Mul", ["s", "t"], ["y"])], "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "ab"], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.asarray([0]), "axes")],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    for a, b in ((3, 3), (3, 2), (3, 3), (2, 3)):
        feeds = {"a": np.arange(a, dtype=np.float32), "b": np.arange(b, dtype=np.float32)}
        same(netsens.load(path, cache=True).grad(feeds), netsens.load(path).grad(feeds))


def test_the_command_line_shows_and_clears(tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "m.onnx")
    assert run(["grad", str(path), "-o", "none", "--no-cache"]) == 0
    assert not folder.exists()
    assert run(["grad", str(path), "-o", "none"]) == 0
    capfd.readouterr()
    assert run(["cache", "--summary", "json"]) == 0
    out, err = capfd.readouterr()
    assert '"of": "y"' in out
    assert str(folder) in err
    assert run(["cache", "--clear"]) == 0
    assert not list(folder.iterdir())


def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETSENS_CACHE", "off")
    assert default_folder() is None
    gradients(written(tmp_path / "m.onnx"))
    monkeypatch.delenv("NETSENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert default_folder() == tmp_path / "netsens"


@pytest.mark.parametrize("wrt", ["inputs", "params"])
def test_a_model_in_blocks_of_channels(wrt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept is right for batches of other lengths, and is built again on a machine with other blocks."""
    model, x = drawn(3, "n")
    path = tmp_path / "m.onnx"
    onnx.save(model, path)

    def agrees(given: np.ndarray) -> None:
        found, wanted = netsens.load(path, cache=True).grad(given, wrt=wrt), netsens.load(path).grad(given, wrt=wrt)
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, atol=1e-4 * (np.abs(array).max() + 1e-6), err_msg=name)

    first, again = (netsens.load(path, cache=True).grad(x, wrt=wrt) for _ in range(2))
    same(first, again)
    for given in (x, x[:1]):
        agrees(given)
    monkeypatch.setattr("netsens.run.kept.shown_block", lambda probe: 4)
    agrees(x)
