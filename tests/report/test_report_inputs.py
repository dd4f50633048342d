"""`--input` options as samples: every format, the batch, the generators, and each kind of bad input."""

from __future__ import annotations

import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from netsens.errors import InputError, NetsensWarning, UsageError
from netsens.report.inputs import Sample, parse_input_option, plan_inputs, read_inputs, unique_names
from netsens.report.specs import InputSpec, parse_shape_option

FLOAT = np.dtype(np.float32)
X = InputSpec("x", FLOAT, ("batch", 3))
IMAGE = InputSpec("image", FLOAT, ("batch", 3, 4, 6))
IDS = InputSpec("ids", np.dtype(np.int64), ("batch", "time"))


def one(*options: str, specs: list[InputSpec] | None = None, **more: object) -> Sample:
    (sample,) = read_inputs(options, specs or [X], **more)  # type: ignore[arg-type]
    return sample


def saved(path: Path, array: object) -> str:
    np.save(path, np.asarray(array))
    return str(path)


# --- names and sources -------------------------------------------------------------------------------------------


def test_equals_sign_names_an_input_only_where_one_has_that_name(tmp_path: Path) -> None:
    odd = tmp_path / "lr=0.1.npy"
    saved(odd, np.ones((2, 3), FLOAT))
    assert parse_input_option(f"x={odd}", [X]) == ("x", str(odd))
    assert parse_input_option(str(odd), [X]) == (None, str(odd))
    assert parse_input_option("a=b=c.npy", [InputSpec("a=b", FLOAT, (1,))]) == ("a=b", "c.npy")
    assert one(str(odd)).name == "lr=0.1"


@pytest.mark.parametrize("source", ["random", "-", "zeros"])
def test_a_wrong_input_name_lists_the_right_ones(source: str) -> None:
    with pytest.raises(UsageError, match="no input 'imgae'; it has 'image', 'ids'"):
        parse_input_option(f"imgae={source}", [IDS, IMAGE])


@pytest.mark.parametrize("option", ["", "x="])
def test_an_empty_source_is_refused(option: str) -> None:
    with pytest.raises(UsageError):
        parse_input_option(option, [X])


def test_shape_option() -> None:
    assert parse_shape_option("2x3", [X]) == ("x", (2, 3))
    assert parse_shape_option("ids=1x7", [X, IDS]) == ("ids", (1, 7))
    for option, specs in (("2x4", [X]), ("2", [X]), ("y=2x3", [X]), ("2x3", [X, IDS]), ("2x-3", [X]), ("x=", [X])):
        with pytest.raises(UsageError):
            parse_shape_option(option, specs)


# --- formats -----------------------------------------------------------------------------------------------------


def test_npy(tmp_path: Path) -> None:
    sample = one(saved(tmp_path / "sample 1.npy", np.asfortranarray(np.arange(6.0).reshape(2, 3))))
    assert sample.name == "sample 1"
    assert sample.arrays["x"].dtype == FLOAT
    assert sample.arrays["x"].flags.c_contiguous
    np.testing.assert_array_equal(sample.arrays["x"], np.arange(6).reshape(2, 3))


def test_npz_by_name_and_a_single_array_under_any_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", x=np.ones((1, 3), FLOAT), ids=np.zeros((1, 2), np.int64))
    assert list(one(str(tmp_path / "both.npz"), specs=[X, IDS]).arrays) == ["x", "ids"]
    np.savez(tmp_path / "single.npz", whatever=np.ones((1, 3), FLOAT))
    assert one(str(tmp_path / "single.npz")).arrays["x"].shape == (1, 3)
    with pytest.warns(NetsensWarning, match="left out: 'ids'"):
        one(str(tmp_path / "both.npz"))
    with pytest.raises(InputError, match="none of which"):
        one(str(tmp_path / "both.npz"), specs=[IMAGE])


@pytest.mark.parametrize(
    ("ending", "text"),
    [(".csv", "age,income,height\n1,2,3\n4,5.5,6\n"), (".tsv", "age\tincome\theight\r\n1\t2\t3\r\n\r\n4\t5.5\t6\r\n"),
     (".csv", "\ufeffage;income;height\n1;2;3\n4;5.5;6")],
)  # fmt: skip
def test_a_table_with_a_header(tmp_path: Path, ending: str, text: str) -> None:
    path = tmp_path / f"people{ending}"
    path.write_text(text, encoding="utf-8", newline="")
    sample = one(str(path))
    np.testing.assert_array_equal(sample.arrays["x"], np.asarray([[1, 2, 3], [4, 5.5, 6]], FLOAT))
    assert sample.features == {"x": ["age", "income", "height"]}


def test_a_table_without_a_header_has_no_features(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("1,2,3\n4,5,nan\n")
    with pytest.warns(NetsensWarning, match="1 NaN of 6 values"):
        sample = one(str(path))
    assert sample.features == {}
    assert sample.arrays["x"].shape == (2, 3)


def test_a_header_of_pandas_numbers_and_its_index_column(tmp_path: Path) -> None:
    path = tmp_path / "pandas.csv"
    path.write_text(",a,b,c\n0,1,2,3\n1,4,5,6\n")
    with pytest.warns(NetsensWarning, match="no name"):
        assert one(str(path)).features == {"x": ["a", "b", "c"]}
    path.write_text("0,1,2\n7,8,9\n")
    with pytest.warns(NetsensWarning, match="taken for a header"):
        np.testing.assert_array_equal(one(str(path)).arrays["x"], [[7, 8, 9]])


def test_columns_feed_inputs_of_their_names(tmp_path: Path) -> None:
    specs = [
        InputSpec("age", FLOAT, (None, 1)),
        InputSpec("rank", np.dtype(np.int64), ("n", 1)),
        InputSpec("sex", np.dtype(object), (None, 1)),
        InputSpec("alive", np.dtype(bool), (None,)),
    ]
    path = tmp_path / "titanic.csv"
    path.write_text('sex,age,alive,rank,note\nmale,22,true,3,"a, b"\nfemale,38,0,1,\n')
    with pytest.warns(NetsensWarning, match="left out: 'note'"):
        arrays = one(str(path), specs=specs).arrays
    assert arrays["sex"].tolist() == [["male"], ["female"]]
    assert arrays["rank"].dtype == np.int64
    assert arrays["alive"].tolist() == [True, False]
    assert arrays["age"].tolist() == [[22.0], [38.0]]


def test_rows_of_pixels_become_images(tmp_path: Path) -> None:
    path = tmp_path / "digits.csv"
    np.savetxt(path, np.arange(16).reshape(2, 8), delimiter=",")
    sample = one(str(path), specs=[InputSpec("x", FLOAT, ("n", 1, 2, 4))])
    np.testing.assert_array_equal(sample.arrays["x"], np.arange(16).reshape(2, 1, 2, 4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n1,2,3\n1,two,3\n", "line 3, column 'b': 'two' is not a number"),
        ("a,b,c\n1,,3\n", "line 2, column 'b': the cell is empty"),
        ("1,2,3\n1,2,3_0\n", "line 2, column 3: '3_0'"),
        ("a,b,c\n1,2\n", "line 2: 2 cells where the first line has 3"),
        ("a,b,a\n1,2,3\n", "several columns named 'a'"),
        ("a,b,c\n", "a header and no rows"),
        ("a,b\n1,2\n", "has 2 columns, but input 'x' \\(batchx3\\) takes 3 a row"),
        ('a,b,c\n1,2,"3', "line 2: unexpected end of data"),
        ("", "is empty"),
        ("\n\n", "is empty"),
    ],
)
def test_a_bad_table_names_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        one(str(path))


def test_whole_numbers_of_a_table_keep_all_digits(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("9007199254740993,1\n")
    assert one(str(path), specs=[IDS]).arrays["ids"][0, 0] == 9007199254740993
    path.write_text("1.5,1\n")
    with pytest.raises(InputError, match=r"'1\.5' is not a whole number"):
        one(str(path), specs=[IDS])


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[[1, 2.5, 3]]")
    np.testing.assert_array_equal(one(str(path)).arrays["x"], np.asarray([[1, 2.5, 3]], FLOAT))
    path.write_text('{"ids": [[1, 2]], "x": [[1, 2, 3]]}')  # whole numbers for a float input are no news in JSON
    arrays = one(str(path), specs=[X, IDS]).arrays
    assert arrays["ids"].dtype == np.int64
    assert arrays["x"].dtype == FLOAT
    path.write_text('[["a"], ["b"]]')
    assert one(str(path), specs=[InputSpec("t", np.dtype(object), (None, 1))]).arrays["t"].tolist() == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[1, 2], [3]]", "uneven"),
        ("[[1, null, 3]]", "null and numbers|numbers and null"),
        ('[["a", 1, 2]]', "numbers and text"),
        ("[[1, 2, 3]", "line 1, column"),
        ('[{"a": 1}]', "not objects"),
        ("null", "not null"),
        ("[[1e400, 2, 3]]", None),
        ("[[123456789012345678901234567890, 1, 2]]", "64 bits"),
        ("[" * 100000, "deep"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    if message is None:  # JSON reads it as infinity, which is worth a warning
        with pytest.warns(NetsensWarning, match="1 infinite"):
            one(str(path))
        return
    with pytest.raises(InputError, match=message):
        one(str(path))


def test_onnx_tensors_and_the_test_layout(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    tensors = [np.ones((1, 3), FLOAT), np.arange(2, dtype=np.int64)[None]]
    for number, (tensor, name) in enumerate(zip(tensors, ("", "ids"), strict=True)):
        proto = onnx.numpy_helper.from_array(tensor, name)
        (tmp_path / f"input_{number}.pb").write_bytes(proto.SerializeToString())
    assert one(str(tmp_path / "input_0.pb")).arrays["x"].shape == (1, 3)
    assert one(str(tmp_path / "input_1.pb"), "x=ones", specs=[X, IDS]).arrays["ids"].tolist() == [[0, 1]]
    # by place, since not every tensor is named
    (tmp_path / "input_1.pb").write_bytes(onnx.numpy_helper.from_array(tensors[1], "other").SerializeToString())
    sample = one(str(tmp_path), specs=[X, IDS])
    assert sample.name == tmp_path.name
    assert sample.arrays["ids"].tolist() == [[0, 1]]


def test_bad_onnx_tensors(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "bad.pb"
    for content in (b"", b"no tensor at all", onnx.numpy_helper.from_array(np.ones((1, 3), FLOAT)).SerializeToString()[:-3]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as an ONNX tensor"):
            one(str(path))
    tensor = onnx.numpy_helper.from_array(np.ones((1, 3), FLOAT))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(tensor.SerializeToString())
    with pytest.raises(InputError, match="in another file"):
        one(str(path))


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_images_by_layout_and_dtype(tmp_path: Path, ending: str) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[..., 0] = 255
    path = tmp_path / f"red{ending}"
    image.fromarray(pixels).save(path, quality=95)
    first = one(str(path), specs=[IMAGE]).arrays["image"]
    assert first.shape == (1, 3, 4, 6)
    assert first.dtype == FLOAT
    np.testing.assert_allclose(first[0, :, 2, 3], [1, 0, 0], atol=0.03)
    last = one(str(path), specs=[InputSpec("i", np.dtype(np.uint8), (1, 4, 6, 3))]).arrays["i"]
    np.testing.assert_allclose(last[0, 2, 3], [255, 0, 0], atol=8)
    grey = one(str(path), specs=[InputSpec("i", FLOAT, (None, 1, None, None))]).arrays["i"]
    assert grey.shape == (1, 1, 4, 6)
    np.testing.assert_allclose(grey, 0.299, atol=0.02)
    assert one(str(path), specs=[InputSpec("i", FLOAT, (3, 4, 6))]).arrays["i"].shape == (3, 4, 6)
    assert one(str(path), specs=[InputSpec("i", FLOAT, (4, 6))]).arrays["i"].shape == (4, 6)
    with pytest.warns(NetsensWarning, match="6x4 pixels; it is resized to the model's 12x8"):
        assert one(str(path), specs=[InputSpec("i", FLOAT, (1, 3, 8, 12))]).arrays["i"].shape == (1, 3, 8, 12)
    with pytest.raises(InputError, match="not that of an image"):
        one(str(path), specs=[InputSpec("i", FLOAT, (1, 2, 3, 4, 5))])
    with pytest.raises(InputError, match="int8"):
        one(str(path), specs=[InputSpec("i", np.dtype(np.int8), (1, 3, 4, 6))])


def test_deep_transparent_and_broken_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "picture.png"
    image.fromarray(np.full((4, 6), 65535, np.uint16)).save(path)
    np.testing.assert_allclose(one(str(path), specs=[IMAGE]).arrays["image"], 1.0)
    image.fromarray(np.full((4, 6, 4), 100, np.uint8), "RGBA").save(path)
    with pytest.warns(NetsensWarning, match="transparen"):
        one(str(path), specs=[IMAGE])
    assert one(str(path), specs=[InputSpec("i", FLOAT, (1, 4, 4, 6))]).arrays["i"].shape == (1, 4, 4, 6)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="cannot be read as an image"):
        one(str(path), specs=[IMAGE])


# --- standard input ----------------------------------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives a few bytes at a time, as a pipe may."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        part, self._rest = self._rest[: min(5, len(view))], self._rest[min(5, len(view)) :]
        view[: len(part)] = part
        return len(part)


def encoded(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_standard_input_tells_its_format_by_its_first_bytes() -> None:
    array = np.ones((1, 3), FLOAT)
    archive = io.BytesIO()
    np.savez(archive, x=array)
    for content in (encoded(array), archive.getvalue(), b" [[1, 1, 1]]", b"a,b,c\n1,1,1\n", b"1\t1\t1\n"):
        sample = one("-", stdin=io.BytesIO(content))
        assert sample.name == "stdin"
        np.testing.assert_array_equal(sample.arrays["x"], array)


def test_arrays_in_a_row_on_a_pipe_are_samples_in_a_row() -> None:
    stream = Pipe(b"".join(encoded(np.full((1, 3), value, FLOAT)) for value in range(3)))
    samples = list(read_inputs(["-"], [X], stdin=stream))  # type: ignore[arg-type]
    assert [sample.name for sample in samples] == ["stdin", "stdin-2", "stdin-3"]
    assert [sample.arrays["x"][0, 0] for sample in samples] == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"  \n", b"\x80\x04K\x01.", encoded(np.ones((1, 3)))[:-4], b"\x00\x01\x02"])
def test_bad_standard_input(content: bytes) -> None:
    with pytest.raises(InputError, match="'stdin'"):
        one("-", stdin=io.BytesIO(content))


def test_standard_input_is_read_once() -> None:
    with pytest.raises(UsageError, match="many samples"):
        plan_inputs(["x=-", "ids=-"], [X, IDS], stdin=io.BytesIO())


# --- batches -----------------------------------------------------------------------------------------------------


def test_a_glob_is_a_batch_in_order_with_the_rest_shared(tmp_path: Path) -> None:
    for value in (10, 2, 1):
        saved(tmp_path / f"b{value}.npy", np.full((1, 3), value, FLOAT))
    plan = plan_inputs([f"x={tmp_path}/b*.npy", "ids=zeros"], [X, IDS])
    assert plan.is_batch
    assert plan.total == 3
    samples = [pending.read() for pending in plan]
    assert [sample.name for sample in samples] == ["b1", "b10", "b2"]
    assert [sample.arrays["x"][0, 0] for sample in samples] == [1, 10, 2]
    assert all(sample.arrays["ids"].shape == (1, 1) for sample in samples)
    assert [pending.name for pending in plan_inputs([str(tmp_path)], [X])] == ["b1", "b10", "b2"]


def test_one_bad_file_of_a_batch_fails_alone(tmp_path: Path) -> None:
    saved(tmp_path / "a.npy", np.ones((1, 3), FLOAT))
    saved(tmp_path / "b.npy", np.ones((1, 4), FLOAT))
    saved(tmp_path / "c.npy", np.ones((1, 3), FLOAT))
    failed = []
    for pending in plan_inputs([f"{tmp_path}/*.npy"], [X]):
        try:
            pending.read()
        except InputError:
            failed.append(pending.name)
    assert failed == ["b"]


def test_a_file_of_that_very_name_is_no_glob(tmp_path: Path) -> None:
    assert one(saved(tmp_path / "x[1].npy", np.ones((1, 3), FLOAT))).name == "x[1]"


def test_names_never_collide() -> None:
    assert unique_names([Path("d/a.npy"), Path("d/b.npy")]) == ["a", "b"]
    assert unique_names([Path("d/1/a.npy"), Path("d/2/a.npy")]) == ["1/a", "2/a"]
    assert unique_names([Path("d/a.npy"), Path("d/a.csv")]) == ["a.npy", "a.csv"]


def test_batch_contradictions(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.ones((1, 3), FLOAT))
    with pytest.raises(InputError, match="no file matches"):
        plan_inputs([f"{tmp_path}/*.csv"], [X])
    with pytest.raises(UsageError, match="given 2 times"):
        plan_inputs([path, path], [X])
    with pytest.raises(UsageError, match="many samples"):
        plan_inputs([f"x={tmp_path}/*.npy", f"ids={tmp_path}/*.npy"], [X, IDS])
    with pytest.raises(UsageError, match="nothing left to feed"):
        plan_inputs([f"x={path}", "ids=ones", path], [X, IDS])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        plan_inputs([f"{tmp_path}/empty"], [X])


# --- generated ---------------------------------------------------------------------------------------------------


def test_random_is_the_same_for_a_seed_and_the_default() -> None:
    specs = [X, IDS, InputSpec("mask", np.dtype(bool), (100,)), InputSpec("half", np.dtype(np.float16), (2, 0))]
    default, again, other = one(specs=specs), one("random:0", specs=specs), one("random:1", specs=specs)
    for name, array in default.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    assert (default.arrays["x"] != other.arrays["x"]).all()
    assert default.name == "random"
    assert default.arrays["x"].shape == (1, 3)
    assert default.arrays["half"].dtype == np.float16
    assert 0 < default.arrays["mask"].sum() < 100
    many = one("random", specs=[IDS], shapes={"ids": (10, 100)}).arrays["ids"]
    assert set(many.reshape(-1).tolist()) == set(range(10))


def test_zeros_ones_and_sizes_taken_from_other_inputs(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.ones((5, 3), FLOAT))
    sample = one(f"x={path}", "ones", specs=[X, IDS])
    assert sample.arrays["ids"].tolist() == [[1]] * 5
    assert sample.name == "x"
    assert one("zeros", specs=[IMAGE], shapes={"image": (2, 3, 4, 6)}).arrays["image"].shape == (2, 3, 4, 6)


def test_what_cannot_be_generated() -> None:
    with pytest.raises(InputError, match="takes text"):
        one("random", specs=[InputSpec("t", np.dtype(object), (1,))])
    with pytest.raises(UsageError, match="--shape x="):
        one("random", specs=[InputSpec("x", FLOAT, None)])
    with pytest.raises(UsageError, match="the seed is a whole number"):
        one("random:seven")


def test_a_model_without_inputs_and_optional_inputs() -> None:
    (sample,) = read_inputs([], [])
    assert sample.arrays == {}
    assert list(one(specs=[X, InputSpec("y", FLOAT, (1,), optional=True)]).arrays) == ["x"]


# --- what does not fit -------------------------------------------------------------------------------------------


def test_missing_inputs_are_named_with_what_they_take(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.ones((1, 3), FLOAT))
    with pytest.raises(InputError, match=r"'ids' \(int64 batchxtime\): add --input ids=FILE"):
        one(f"x={path}", specs=[X, IDS])
    with pytest.raises(InputError, match="several inputs: write --input NAME="):
        one(path, specs=[X, IDS])


@pytest.mark.parametrize(
    ("shape", "expected", "message"),
    [
        ((2, 4), ("n", 3), "2x4, but the model expects nx3$"),
        ((3,), ("n", 3), "the batch axis is missing"),
        ((1, 2, 3), ("n", 3), "a leading axis too many"),
        ((1, 8, 9, 3), (1, 3, 8, 9), "NHWC"),
        ((1, 3, 8, 9), (1, 8, 9, 3), "NCHW"),
        ((2, 2), (None, None, None), "batch axis|rank 2 where"),
        ((), (1,), "the model expects 1"),
    ],
)
def test_wrong_shapes(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int | str, ...], message: str) -> None:
    path = saved(tmp_path / "x.npy", np.ones(shape, FLOAT))
    with pytest.raises(InputError, match=message):
        one(path, specs=[InputSpec("x", FLOAT, expected)])


@pytest.mark.parametrize(
    ("have", "want", "outcome"),
    [
        ("float64", "float32", "silent"),
        (">f4", "float32", "silent"),
        ("float32", "float64", "noted"),
        ("float16", "float32", "noted"),
        ("int32", "int64", "noted"),
        ("int64", "int32", "noted"),
        ("uint8", "float32", "noted"),
        ("bool", "float32", "noted"),
        ("int64", "bool", "noted"),
        ("float32", "int64", "numbers are not rounded unasked"),
        ("float32", "bool", "numbers are not rounded unasked"),
        ("complex64", "float32", "holds complex64"),
        ("U3", "float32", "holds text"),
        ("float32", "object", "holds float32"),
        ("M8[s]", "int64", "holds datetime64"),
    ],
)
def test_dtypes(tmp_path: Path, have: str, want: str, outcome: str) -> None:
    path = saved(tmp_path / "x.npy", np.ones((1, 2)).astype(np.int64).astype(have))
    specs = [InputSpec("x", np.dtype(want), (1, 2))]
    if outcome == "silent":
        assert one(path, specs=specs).arrays["x"].dtype == want
    elif outcome == "noted":
        with pytest.warns(NetsensWarning, match=f"input 'x' is {have}; it is read as {want}"):
            assert one(path, specs=specs).arrays["x"].dtype == want
    else:
        with pytest.raises(InputError, match=outcome):
            one(path, specs=specs)


@pytest.mark.parametrize(("value", "want"), [(1e300, "float32"), (1e5, "float16")])
def test_numbers_that_overflow_are_refused(tmp_path: Path, value: float, want: str) -> None:
    with pytest.raises(InputError, match="does not fit"):
        one(saved(tmp_path / "x.npy", [[value]]), specs=[InputSpec("x", np.dtype(want), (1, 1))])


def test_integers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for value, want in ((300, "uint8"), (-1, "uint8"), (2**40, "int32"), (2, "bool")):
        with pytest.raises(InputError, match=f"holds {value}, which does not fit the model's {want}"):
            one(saved(tmp_path / "x.npy", [[value]]), specs=[InputSpec("x", np.dtype(want), (1, 1))])
    with pytest.raises(InputError, match="does not fit"):
        one(saved(tmp_path / "x.npy", np.asarray([[2**63]], np.uint64)), specs=[InputSpec("x", np.dtype(np.int64), (1, 1))])


def test_nan_and_infinity_are_warned_of(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.asarray([[np.nan, np.inf, -np.inf]], FLOAT))
    with pytest.warns(NetsensWarning, match="input 'x' from .* holds 1 NaN and 2 infinite of 3 values"):
        one(path)


def test_dimensions_that_disagree_are_warned_of(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", x=np.ones((2, 3), FLOAT), ids=np.zeros((4, 2), np.int64))
    with pytest.warns(NetsensWarning, match="'batch' is 2 in input 'x' and 4 in 'ids'"):
        one(str(tmp_path / "both.npz"), specs=[X, IDS])


def test_an_input_given_twice_by_two_archives(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=np.ones((2, 3), FLOAT))
    with pytest.raises(InputError, match="input 'x' is in"):
        one(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), specs=[X, IDS])


# --- files that cannot be read -----------------------------------------------------------------------------------


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    saved(tmp_path / "sample.npy", np.ones((1, 3)))
    with pytest.raises(InputError, match=r"no such file: '.*smaple.npy'; is '.*sample.npy' meant\?"):
        plan_inputs([str(tmp_path / "smaple.npy")], [X])
    with pytest.raises(InputError, match="no such file"):
        plan_inputs(["nowhere/at/all.npy"], [X])


def test_an_unknown_ending_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"it reads \.npy \.npz"):
        one(str(tmp_path / "x.xlsx"))


def test_no_ending_is_told_by_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(encoded(np.ones((1, 3), FLOAT)))
    assert one(str(tmp_path / "x")).arrays["x"].shape == (1, 3)


def test_pickles_are_refused_in_every_disguise(tmp_path: Path) -> None:
    import pickle

    np.save(tmp_path / "objects.npy", np.asarray([[{}, 1, "a"]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", x=np.asarray([[{}, 1, "a"]], dtype=object))
    (tmp_path / "plain.npy").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps([1, 2]))
    for name in ("objects.npy", "objects.npz", "plain.npy", "plain.npz"):
        with pytest.raises(InputError, match="pickled Python objects, which are refused"):
            one(str(tmp_path / name))


@pytest.mark.parametrize("ending", [".npy", ".npz", ".json", ".csv", ".pb", ".png"])
def test_empty_and_damaged_files(tmp_path: Path, ending: str) -> None:
    specs = [IMAGE] if ending == ".png" else [X]
    path = tmp_path / f"bad{ending}"
    for content in (b"", b"\xff\xfe\x00garbage" * 3):
        path.write_bytes(content)
        with pytest.raises(InputError, match="bad"):
            one(str(path), specs=specs)


def test_every_truncation_is_an_input_error(tmp_path: Path) -> None:
    whole = encoded(np.ones((1, 3), FLOAT))
    archive = io.BytesIO()
    np.savez_compressed(archive, x=np.random.default_rng(0).standard_normal((1, 3)).astype(FLOAT))
    for ending, content in ((".npy", whole), (".npz", archive.getvalue())):
        path = tmp_path / f"cut{ending}"
        for length in range(0, len(content), 3):
            path.write_bytes(content[:length])
            with pytest.raises(InputError, match="truncated or damaged"):
                one(str(path))
    (tmp_path / "long.npy").write_bytes(whole + b"x")
    with pytest.raises(InputError, match="more after its array"):
        one(str(tmp_path / "long.npy"))


def test_a_header_that_claims_a_size_without_end(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    header = header.ljust(117) + b"\n"
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 12)
    with pytest.raises(InputError):
        one(str(tmp_path / "huge.npy"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "x.npy", np.ones((1, 3))))
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        one(str(path))


def test_good_input_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one(saved(tmp_path / "x.npy", np.ones((1, 3))))
        (tmp_path / "x.json").write_text(json.dumps([[1, 2, 3]]))
        one(str(tmp_path / "x.json"))
