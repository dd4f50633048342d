"""Models written: what is read back is what was written, whole files or none."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest

from netsens.errors import OutputError
from netsens.graph import store
from netsens.graph.graph import Graph, Node, TensorType
from netsens.graph.normal import load_graph
from netsens.graph.store import save_model

WEIGHTS = {
    "w": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32),
    "transposed": np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32).T,
    "b": np.ones(64, np.float32),
}


def graph(**more: np.ndarray) -> Graph:
    nodes = [Node("MatMul", ("x", "w"), ("h",)), Node("MatMul", ("h", "transposed"), ("k",)), Node("Add", ("k", "b"), ("y",))]
    types = {"x": TensorType(1, ("N", 64)), "y": TensorType(1, ("N", 64))}
    return Graph(nodes, ["x"], ["y"], {**WEIGHTS, **more}, types, 21, metadata={"who": "me"})


def result(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(3, 64, dtype=np.float32)})[0]


@pytest.mark.parametrize("external", [None, False, True])
def test_read_back(tmp_path: Path, external: bool | None) -> None:
    path = tmp_path / "m.onnx"
    files = save_model(graph(), path, external)
    assert sorted(files) == sorted(tmp_path.iterdir()) == ([path, tmp_path / "m.onnx.data"] if external else [path])
    onnx.checker.check_model(str(path), full_check=True)
    back = load_graph(path)
    assert back.metadata == {"who": "me"}
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(back.constants[name], array)
    np.testing.assert_allclose(result(path), np.eye(3, 64, dtype=np.float32) @ WEIGHTS["w"] @ WEIGHTS["transposed"] + 1, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(3000, dtype=np.float16), np.arange(3000, dtype=np.int64), np.zeros((3000, 0), np.float32), np.arange(6000) % 3 == 0,
        np.arange(3000).astype(ml_dtypes.bfloat16), np.arange(9000).astype(ml_dtypes.int4), np.array(["a", "ü"] * 3000, object), np.float64(2.5),
        (np.arange(9000) % 100).astype(ml_dtypes.float8_e4m3fn), np.arange(9000).reshape(90, 100)[::2, ::-1],
    ],
    ids=lambda a: f"{a.dtype.name}{a.shape}",
)  # fmt: skip
def test_every_dtype(tmp_path: Path, array: np.ndarray, external: bool) -> None:
    save_model(graph(extra=np.asarray(array)), tmp_path / "m.onnx", external)
    back = load_graph(tmp_path / "m.onnx").constants["extra"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert (back == array).all()


def test_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_model(graph(), path)
    save_model(load_graph(path), path)
    save_model(load_graph(path), path, external=True)
    save_model(load_graph(path), path, external=True)
    np.testing.assert_array_equal(load_graph(path).constants["w"], WEIGHTS["w"])


def test_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_BYTES", 20_000)
    assert len(save_model(graph(), tmp_path / "m.onnx")) == 2
    with pytest.raises(OutputError, match="external"):
        save_model(graph(), tmp_path / "n.onnx", external=False)
    assert not (tmp_path / "n.onnx").exists()


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        save_model(graph(), tmp_path / "none" / "m.onnx")
    with pytest.raises(OutputError, match="is a folder"):
        save_model(graph(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(graph(), tmp_path / "file" / "m.onnx")


@contextmanager
def disk_of(count: int) -> Iterator[None]:
    """Within, no file grows beyond `count` bytes."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, external: bool) -> None:
    path = tmp_path / "m.onnx"
    save_model(graph(), path)
    before = path.read_bytes()
    with disk_of(10_000), pytest.raises(OutputError, match="cannot be written"):
        save_model(replace(graph(), metadata={}), path, external)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
