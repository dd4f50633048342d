"""Files that are no models, or not whole ones, each with a sentence; and weights that stay where they are."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from netsens.errors import ModelError
from netsens.graph.normal import load_graph
from netsens.graph.read import read_model

WEIGHT = np.arange(4000, dtype=np.float32).reshape(40, 100)


def model(weight: TensorProto | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], "mul"), helper.make_node("Add", ["h", "b"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, ["N", 40])], [helper.make_tensor_value_info("y", 1, ["N", 100])],
        [weight or numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.ones(100, np.float32), "b")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def external(**entries: str) -> TensorProto:
    tensor = TensorProto(name="w", dims=[40, 100], data_type=1, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model file"):
        load_graph(tmp_path / "nothing.onnx")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        load_graph(tmp_path)


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(200)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"epoch,loss\n1,2\n" * 50, pickle.dumps({"a": [1, 2]}), PNG, b"PK\x03\x04" + bytes(100), bytes(64), b"{}", b"\n", b"\x08\x0a"]
)
def test_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        load_graph(path)
    with pytest.raises(ModelError):
        load_graph(content)


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.3, 0.5, 0.9, 0.99, 0.999])
def test_truncated_anywhere(tmp_path: Path, share: float) -> None:
    whole = model().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError):
        load_graph(path)


def test_truncated_at_every_byte() -> None:
    """A cut is told from a model, or it is one: protobuf's fields have no end mark, so a cut between two of a model's last is a model."""
    small = model()
    small.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((40, 2), np.float32), "w"))
    whole = small.SerializeToString()
    for end in range(len(whole)):
        try:
            load_graph(whole[:end])
        except ModelError:
            continue
        assert onnx.ModelProto.FromString(whole[:end]).graph == small.graph


def test_damaged_anywhere() -> None:
    """A flipped byte is an error of ours or no error: nothing else escapes."""
    whole = bytearray(model(numpy_helper.from_array(WEIGHT[:2], "w")).SerializeToString())
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        try:
            load_graph(bytes(damaged))
        except ModelError:
            pass


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "gone.bin"}, "missing"),
        ({"location": "../outside.bin"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "link.bin"}, "outside the model's folder"),
        ({"location": ""}, "outside"),
        ({"location": "short.bin"}, "too short"),
        ({"location": "whole.bin", "offset": "8"}, "too short"),
        ({"location": "whole.bin", "offset": "-8"}, "offset"),
        ({"location": "whole.bin", "offset": "many"}, "offset"),
        ({"location": "whole.bin", "length": "8"}, "too short"),
    ],
)
def test_external_data_that_cannot_be_had(tmp_path: Path, entries: dict[str, str], says: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(WEIGHT.tobytes())
    (folder / "whole.bin").write_bytes(WEIGHT.tobytes())
    (folder / "short.bin").write_bytes(WEIGHT.tobytes()[:-1])
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "m.onnx").write_bytes(model(external(**entries)).SerializeToString())
    with pytest.raises(ModelError, match=says):
        load_graph(folder / "m.onnx")


def test_external_data_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4096) + WEIGHT.tobytes())
    (tmp_path / "m.onnx").write_bytes(model(external(location="w.bin", offset="4096", length=str(WEIGHT.nbytes))).SerializeToString())
    weight = load_graph(tmp_path / "m.onnx").constants["w"]
    assert isinstance(weight, np.memmap)
    np.testing.assert_array_equal(weight, WEIGHT)


def test_bytes_cannot_reach_external_data() -> None:
    with pytest.raises(ModelError, match="give the model's path"):
        load_graph(model(external(location="w.bin")).SerializeToString())


def test_a_tensor_whose_data_do_not_fit() -> None:
    tensor = numpy_helper.from_array(WEIGHT, "w")
    tensor.dims[0] = 41
    with pytest.raises(ModelError):
        load_graph(model(tensor).SerializeToString())
    small = numpy_helper.from_array(WEIGHT[:1], "w")
    small.dims[0] = 2
    with pytest.raises(ModelError, match="'w' is damaged"):
        load_graph(model(small))


def test_weights_inside_the_file_are_views(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    proto, arrays, _ = read_model(path)
    assert list(arrays) == ["w"]
    assert not arrays["w"].flags.owndata
    assert not arrays["w"].flags.writeable
    assert len(proto.SerializeToString()) < 1000
    np.testing.assert_array_equal(arrays["w"], WEIGHT)


@pytest.mark.parametrize("shift", range(4))
def test_views_that_are_not_aligned_are_arrays_like_any_other(tmp_path: Path, shift: int) -> None:
    proto = model()
    proto.producer_name = "p" * (1 + shift)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    weight = load_graph(path).constants["w"]
    np.testing.assert_array_equal(weight @ np.ones((100, 1), np.float32), WEIGHT @ np.ones((100, 1), np.float32))
    np.testing.assert_array_equal(weight.astype(np.float64)[::-1], WEIGHT[::-1])


def test_an_initializer_listed_as_an_input_is_a_constant() -> None:
    proto = model()
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [40, 100]))
    graph = load_graph(proto)
    assert graph.inputs == ["x"]
    assert "w" in graph.parameters
