"""Result arrays written as .npy .npz .safetensors .csv .parquet .h5 .jsonl, to a file, a folder, or standard output."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

import numpy as np

from netsens.errors import NetsensError, OutputError, UsageError
from netsens.report.atomic import replacing, unwritable
from netsens.report.dtypes import Array, widened
from netsens.report.extras import require
from netsens.report.json_lines import json_line
from netsens.report.npy import npy_header
from netsens.report.npz import write_npz
from netsens.report.remote import is_remote, write_remote

if TYPE_CHECKING:
    from netsens.report.inputs import InputPlan

STANDARD_OUTPUT = "-"
NOTHING = "none"
DEFAULT_FORMAT = ".npz"


def is_folder(output: str) -> bool:
    """Whether an `--output` names a folder: it ends with a slash, or is one already."""
    return output.endswith(("/", os.sep)) or (not is_remote(output) and Path(output).is_dir())


def output_path(output: str, sample_name: str, *, suffix: str = DEFAULT_FORMAT) -> str:
    """Where one sample's results go: into the folder under the sample's name, or to the one file."""
    if is_remote(output):
        return f"{output.rstrip('/')}/{sample_name}{suffix}" if is_folder(output) else output
    return str(Path(output) / f"{sample_name}{suffix}") if is_folder(output) else output


def check_output(output: str, *, is_batch: bool = False) -> None:
    """Raises before any computing what `write_arrays` would raise after it: a wrong format, no such folder or extra."""
    if output in (STANDARD_OUTPUT, NOTHING):
        return
    if is_folder(output):
        if not is_remote(output) and Path(output).exists() and not Path(output).is_dir():
            raise OutputError(f"{output!r} is to be a folder, but a file has that name")
        return
    if is_batch and Path(output).suffix.lower() != ".jsonl":
        raise UsageError(f"a batch run writes one file an input: name a folder, as -o {Path(output).with_suffix('')}/")
    suffix = _suffix(output)
    if suffix in _MODULES:
        require(_MODULES[suffix])
    parent = Path(output).parent
    if is_remote(output):
        return
    if not parent.is_dir():
        raise OutputError(f"cannot write {output!r}: there is no folder {str(parent)!r}; make it first")
    if not os.access(parent, os.W_OK) or (Path(output).exists() and not os.access(output, os.W_OK)):
        raise OutputError(f"cannot write {output!r}: permission denied")


def check_inputs_kept(output: str, plan: InputPlan, suffix: str = DEFAULT_FORMAT) -> None:
    """Raises before any computing where a result would take the place of a file that the run reads."""
    if output in (STANDARD_OUTPUT, NOTHING) or is_remote(output) or plan.total is None:
        return
    into = os.path.join(os.path.abspath(output), "") if is_folder(output) else os.path.abspath(output)
    read = {path for path in map(os.path.abspath, plan.paths) if path.startswith(into)}
    if not read:
        return
    names = (name for name, _ in plan.files) if plan.files is not None else (sample.name for sample in plan)
    for name in names:
        path = output_path(output, name, suffix=suffix)
        if os.path.abspath(path) in read:
            raise UsageError(f"the result would overwrite {path!r}, which is an input; write it elsewhere with -o")


def write_arrays(
    output: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    *,
    stream: BinaryIO | None = None,
    features: Mapping[str, Sequence[str]] | None = None,
    make_folder: bool = False,
) -> None:
    """Writes the arrays under their names, in the format of the path's ending; `-` writes to `stream`.

    Dtypes that files cannot hold (bfloat16) are widened to float32, exactly. `features` names the columns of an array
    [rows, features] in tables. The file appears whole or not at all. `make_folder`: for a batch's, whose folder grows.
    """
    plain = {name: np.asarray(widened(np.asarray(array)), order="C") for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.kind not in "biufc":
            raise OutputError(f"{name!r} holds {array.dtype} values, which no result file can hold")
    if not plain:
        raise OutputError(f"there is no array to write to {os.fspath(output)!r}")
    if os.fspath(output) == STANDARD_OUTPUT:
        if stream is None:
            raise OutputError("-o -: there is no standard output to write to")
        write_stream(stream, plain)
        return
    writer = _WRITERS[_suffix(output)]
    try:
        if is_remote(os.fspath(output)):
            _write_remote(os.fspath(output), writer, plain, features or {})
            return
        if make_folder:
            _make_folder(Path(output).parent)
        with replacing(output) as temporary:
            writer(temporary, plain, features or {})
    except (NetsensError, BrokenPipeError, MemoryError):  # a closed pipe is no failure: the command line ends quietly
        raise
    except Exception as error:  # safetensors, h5py and pyarrow each have errors of their own
        raise OutputError(f"cannot write {os.fspath(output)!r}: {error}") from error


def _write_remote(output: str, writer: Writer, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"result{Path(output).suffix}"
        writer(path, arrays, features)
        write_remote(output, path.read_bytes())


def encoded(arrays: Mapping[str, Array], suffix: str) -> bytes | None:
    """A small result as the bytes of its file; None where the format, or the size, wants a file to write to."""
    if suffix not in (".npy", ".npz", ".jsonl") or sum(array.nbytes for array in arrays.values()) > _IN_MEMORY:
        return None
    plain = {name: np.asarray(widened(array), order="C") for name, array in arrays.items()}
    if not plain or any(array.dtype.kind not in "biufc" for array in plain.values()) or (suffix == ".npy" and len(plain) > 1):
        return None  # `write_arrays` has the sentence for it
    if suffix == ".jsonl":
        return json_line(plain)
    stream = io.BytesIO()
    if suffix == ".npy":
        write_npy(stream, next(iter(plain.values())))
    else:
        write_npz(stream, plain)
    return stream.getvalue()


_IN_MEMORY = 16 << 20


def write_stream(stream: IO[bytes], arrays: Mapping[str, Array], format_: str | None = None) -> None:
    """Arrays to an open binary stream as `npy`, `npz` or `jsonl`; by default one array as `.npy`, several as `.npz`, which `numpy.load` tells apart."""
    try:
        if format_ == "jsonl":
            stream.write(json_line(arrays))
        elif format_ == "npy" or (format_ is None and len(arrays) == 1):
            write_npy(stream, next(iter(arrays.values())))
        else:
            write_npz(stream, arrays)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable("standard output", error) from error


def write_npy(stream: IO[bytes], array: Array) -> None:
    """An array in C order as `.npy`. NumPy's own writer hands the numbers to C, and an error of the system (no room, no reader) loses its name there."""
    stream.write(npy_header(array))
    if array.size:
        stream.write(array.data)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {str(folder)!r}: {error.strerror or error}") from error


def _suffix(output: str | os.PathLike[str]) -> str:
    suffix = Path(output).suffix.lower()
    if suffix not in _WRITERS:
        raise UsageError(f"{os.fspath(output)!r} ends in no format that netsens writes; it writes {' '.join(_WRITERS)}")
    return suffix


def _write_npy(path: Path, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
    if len(arrays) != 1:
        raise OutputError(f"an .npy file holds one array and there are {len(arrays)}; write .npz instead")
    with path.open("wb") as stream:
        write_npy(stream, next(iter(arrays.values())))


def _write_npz(path: Path, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
    with path.open("wb") as stream:
        write_npz(stream, arrays)


def _write_lines(path: Path, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
    path.write_bytes(json_line(arrays))


def _write_safetensors(path: Path, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
    require("safetensors.numpy").save_file(dict(arrays), str(path))


def _write_hdf5(path: Path, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
    names = {name.strip("/") for name in arrays}
    for name in names:
        parent = name.rpartition("/")[0]
        while parent:
            if parent in names:
                raise OutputError(f"HDF5 cannot hold both {parent!r} and {name!r}, one inside the other; write .npz instead")
            parent = parent.rpartition("/")[0]
    with require("h5py").File(str(path), "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, track_times=False)


def _write_csv(path: Path, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
    import csv

    columns, rows = as_table(arrays, features, ".csv")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _write_parquet(path: Path, arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]]) -> None:
    pyarrow = require("pyarrow")
    columns, blocks = _blocks(arrays, features, ".parquet")
    table = pyarrow.table([block[:, index] for block in blocks for index in range(block.shape[1])], names=columns)
    require("pyarrow.parquet").write_table(table, str(path))


def as_table(arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]], ending: str) -> tuple[list[str], Iterable[list[str]]]:
    columns, blocks = _blocks(arrays, features, ending)
    # a float32 in its own shortest spelling: 0.1, not 0.10000000149011612
    rows = ([cell for block in blocks for cell in block[index].astype(str).tolist()] for index in range(blocks[0].shape[0]))
    return columns, rows


def _blocks(arrays: Mapping[str, Array], features: Mapping[str, Sequence[str]], ending: str) -> tuple[list[str], list[Array]]:
    """Column names, and each array as [rows, columns]: rows are the first axis, the others lie side by side."""
    columns: list[str] = []
    blocks: list[Array] = []
    for name, array in arrays.items():
        block = array.reshape(1, 1) if array.ndim == 0 else array.reshape(len(array), -1 if array.size else 0)
        names = features.get(name)
        if names is not None and len(names) == block.shape[1]:
            columns.extend(names)
        elif array.ndim < 2 or (array.ndim == 2 and array.shape[1] == 1):
            columns.append(name)
        else:
            prefix = "" if len(arrays) == 1 else name
            columns.extend(f"{prefix}[{','.join(map(str, index))}]" for index in np.ndindex(*array.shape[1:]))
        blocks.append(block)
    if len({len(block) for block in blocks}) > 1:
        raise OutputError(f"the arrays differ in length, so that they make no {ending} table; write .npz instead")
    if len(set(columns)) < len(columns):
        raise OutputError(f"several columns of the {ending} table would have one name; write .npz instead")
    return columns, blocks


Writer = Callable[[Path, Mapping[str, Array], Mapping[str, Sequence[str]]], None]
_WRITERS: dict[str, Writer] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".h5": _write_hdf5,
    ".jsonl": _write_lines,
}
_MODULES = {".safetensors": "safetensors.numpy", ".parquet": "pyarrow", ".h5": "h5py"}
