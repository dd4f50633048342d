"""Result files: what is written reads back the same, whole or not at all, and each refusal is one sentence."""

from __future__ import annotations

import csv
import io
import os
import stat
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from netsens.errors import OutputError, UsageError
from netsens.report import extras, npz
from netsens.report.atomic import replacing, write_bytes_atomically
from netsens.report.outputs import check_output, is_folder, output_path, write_arrays, write_stream

NAMES = ("/features/conv1/Relu_output_0", "onnx::Conv_123", "file", "allow_pickle", "a b.npy", "ünïcode", "x")


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    made = {name: generator.standard_normal((2, 3)).astype(np.float32) for name in NAMES}
    made["scalar"] = np.asarray(2.5)
    made["empty"] = np.zeros((0, 3), np.float16)
    made["turned"] = np.arange(6.0).reshape(2, 3).T  # not contiguous
    made["whole"] = np.arange(3)
    return made


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert set(left) == set(right)
    for name, array in left.items():
        assert array.dtype == right[name].dtype, name
        assert array.shape == right[name].shape, name
        np.testing.assert_array_equal(array, right[name])


def test_npz_keeps_names_and_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", arrays())
    with np.load(tmp_path / "a.npz") as archive:
        same(dict(archive), arrays())
    write_arrays(tmp_path / "b.npz", arrays())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("large", [0x7FFFFFFF, 300, 50])
def test_npz_is_an_archive_as_zipfile_has_it(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fields of 64 bits too, which are there where a size or a place is large."""
    monkeypatch.setattr(npz, "_LARGE", large)
    held = {
        **{name: np.asarray(array, order="C") for name, array in arrays().items()},
        "ü/ö": np.float32(3).reshape(()),
        "none": np.zeros((0, 4)),
        "half": np.ones((2, 3), np.float16),
        "complex": np.full(3, 1 + 2j),
    }
    stream = io.BytesIO()
    npz.write_npz(stream, held)
    with zipfile.ZipFile(stream) as archive:
        assert archive.testzip() is None
        for name, member in zip(held, archive.infolist(), strict=True):
            assert (member.filename, member.compress_type, member.date_time) == (f"{name}.npy", zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
            found = np.load(io.BytesIO(archive.read(member)))
            assert found.dtype == held[name].dtype
            np.testing.assert_array_equal(found, held[name])


def test_npz_of_many_arrays() -> None:
    stream = io.BytesIO()
    npz.write_npz(stream, {str(k): np.int8([k % 100]) for k in range(0x10001)})
    with zipfile.ZipFile(stream) as archive:
        assert len(archive.infolist()) == 0x10001
        assert np.load(io.BytesIO(archive.read("65536.npy"))) == 36


def test_npy_holds_one(tmp_path: Path) -> None:
    write_arrays(tmp_path / "x.npy", {"x": np.ones((2, 3))})
    assert np.load(tmp_path / "x.npy").shape == (2, 3)
    with pytest.raises(OutputError, match=r"there are 11; write \.npz instead"):
        write_arrays(tmp_path / "y.npy", arrays())
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_safetensors(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    write_arrays(tmp_path / "x.safetensors", arrays())
    same(numpy.load_file(tmp_path / "x.safetensors"), arrays())


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_arrays(tmp_path / "x.h5", arrays())
    with h5py.File(tmp_path / "x.h5") as file:
        same({name: file[name][()] for name in arrays()}, {n: np.asarray(a) for n, a in arrays().items()})
    with pytest.raises(OutputError, match="both 'a' and 'a/b'"):
        write_arrays(tmp_path / "y.h5", {"a/b": np.ones(2), "a": np.ones(2)})
    assert not (tmp_path / "y.h5").exists()


def test_csv_headers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"

    def written(values: dict[str, np.ndarray], **more: object) -> list[list[str]]:
        write_arrays(path, values, **more)  # type: ignore[arg-type]
        with path.open(newline="") as stream:
            return list(csv.reader(stream))

    x = np.asarray([[0.1, 2], [np.nan, 1e-30]], np.float32)
    assert written({"x": x}, features={"x": ["age", "a, b"]}) == [["age", "a, b"], ["0.1", "2.0"], ["nan", "1e-30"]]
    assert written({"x": x})[0] == ["[0]", "[1]"]
    assert written({"b": np.arange(3)}) == [["b"], ["0"], ["1"], ["2"]]
    assert written({"s": np.asarray(1.5)}) == [["s"], ["1.5"]]
    assert written({"x": np.zeros((1, 2, 2))})[0] == ["[0,0]", "[0,1]", "[1,0]", "[1,1]"]
    assert written({"age": x[:, :1], "pair": x})[0] == ["age", "pair[0]", "pair[1]"]
    with pytest.raises(OutputError, match="differ in length"):
        written({"a": np.zeros((2, 1)), "b": np.zeros((3, 1))})
    with pytest.raises(OutputError, match="one name"):
        written({"a": np.zeros((2, 2))}, features={"a": ["same", "same"]})


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        x = np.random.default_rng(0).standard_normal((50, 4)).astype(dtype) * dtype(1e-3)
        write_arrays(tmp_path / "x.csv", {"x": x})
        np.testing.assert_array_equal(np.loadtxt(tmp_path / "x.csv", delimiter=",", skiprows=1).astype(dtype), x)


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_arrays(tmp_path / "x.parquet", {"x": x}, features={"x": ["a", "b", "c"]})
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["a", "b", "c"]
    np.testing.assert_array_equal(np.stack([table[name].to_numpy() for name in "abc"], 1), x)


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.asarray([1.5, -3.0], ml_dtypes.bfloat16)
    write_arrays(tmp_path / "x.npy", {"x": x})
    assert np.load(tmp_path / "x.npy").dtype == np.float32
    assert np.load(tmp_path / "x.npy").tolist() == [1.5, -3.0]


def test_streams() -> None:
    stream = io.BytesIO()
    write_arrays("-", {"x": np.ones(2)}, stream=stream)
    write_stream(stream, {"x": np.zeros(2)})
    stream.seek(0)
    assert [np.load(stream).tolist(), np.load(stream).tolist()] == [[1, 1], [0, 0]]
    stream = io.BytesIO()
    write_arrays("-", arrays(), stream=stream)
    stream.seek(0)
    with np.load(stream) as archive:
        same(dict(archive), arrays())


def test_a_closed_pipe_stays_a_closed_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError), os.fdopen(writer, "wb", buffering=0) as stream:
        write_stream(stream, {"x": np.ones(2)})


# --- whole or not at all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "x.bin"
    write_bytes_atomically(path, b"old")

    def write(stream: io.BufferedWriter) -> None:
        stream.write(b"new")
        raise error

    with pytest.raises(error):
        write_bytes_atomically(path, write)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_permissions_follow_the_umask_or_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    before = os.umask(0o027)
    try:
        write_bytes_atomically(path, b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o600)
    write_bytes_atomically(path, b"2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_keeps_pointing_and_a_device_is_written_directly(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    write_bytes_atomically(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"1"
    write_bytes_atomically("/dev/null", b"1")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(OutputError, match="cannot write '/dev/full': No space left on device"):
        write_bytes_atomically("/dev/full", b"1")
    with open("/dev/full", "wb", buffering=0) as stream, pytest.raises(OutputError, match=r"standard output.*No space"):
        write_stream(stream, {"x": np.ones(2)})


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"there is no folder '.*missing'; make it first"):
        write_arrays(tmp_path / "missing" / "x.npz", {"x": np.ones(2)})
    with pytest.raises(OutputError, match="Not a directory"):
        write_arrays(tmp_path / "file" / "x.npz", {"x": np.ones(2)})
    with pytest.raises(OutputError, match="cannot make the folder"):
        write_arrays(tmp_path / "file" / "x.npz", {"x": np.ones(2)}, make_folder=True)
    with pytest.raises(OutputError, match="is a folder"), replacing(tmp_path):
        pass
    with pytest.raises(UsageError, match=r"it writes \.npy \.npz"):
        write_arrays(tmp_path / "x.txt", {"x": np.ones(2)})
    with pytest.raises(OutputError, match="no array to write"):
        write_arrays(tmp_path / "x.npz", {})
    with pytest.raises(OutputError, match="'x' holds object"):
        write_arrays(tmp_path / "x.npz", {"x": np.asarray(["a"], dtype=object)})


def test_check_output_says_it_before_the_work(tmp_path: Path) -> None:
    for good in ("-", "none", str(tmp_path / "x.npz"), f"{tmp_path}/new/", str(tmp_path)):
        check_output(good)
    with pytest.raises(UsageError, match="ends in no format"):
        check_output(str(tmp_path / "x.txt"))
    with pytest.raises(OutputError, match="no folder"):
        check_output(str(tmp_path / "missing" / "x.npz"))
    with pytest.raises(UsageError, match="name a folder, as -o grads/"):
        check_output("grads.npz", is_batch=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is to be a folder"):
        check_output(f"{tmp_path}/file/")


def test_folders_hold_one_file_an_input(tmp_path: Path) -> None:
    assert is_folder("grads/")
    assert is_folder(str(tmp_path))
    assert output_path(f"{tmp_path}/grads/", "1/a") == f"{tmp_path}/grads/1/a.npz"
    assert output_path("x.npy", "a") == "x.npy"
    path = output_path(f"{tmp_path}/grads/", "1/a")
    write_arrays(path, {"x": np.ones(2)}, make_folder=True)
    assert np.load(path).files == ["x"]


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> None:
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(extras.importlib, "import_module", refuse)
    for ending, extra in ((".parquet", "parquet"), (".h5", "hdf5"), (".safetensors", "safetensors")):
        with pytest.raises(UsageError, match=rf"pip install 'netsens\[{extra}\]'"):
            write_arrays(tmp_path / f"x{ending}", {"x": np.ones(2)})
        with pytest.raises(UsageError, match=extra):
            check_output(str(tmp_path / f"x{ending}"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_warns(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_arrays(tmp_path / "x.npz", arrays())
