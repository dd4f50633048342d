"""Files and streams decoded by their format: .npy .npz .csv .tsv .parquet .json .jsonl .pb .png .jpg, or told by their first bytes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from netsens.errors import InputError
from netsens.report.contents import ArrayContent, Content, ImageContent, TableContent
from netsens.report.dtypes import Array
from netsens.report.json_lines import holds_lines, read_lines
from netsens.report.npy import MAGIC, Resumed, read_npy
from netsens.report.remote import is_remote, read_remote

_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_PICKLE_MAGIC = b"\x80"
_LONGEST_MAGIC = 8


def read_path(path: Path | str) -> Content:
    """What one file holds, or a folder of `input_0.pb`, `input_1.pb`, ... as ONNX's own tests have it."""
    source = str(path)
    if is_remote(source):
        return _decode_remote(source)
    path = Path(path)
    if path.is_dir():
        return _decode_test_folder(path)
    decode = DECODERS.get(path.suffix.lower())
    if decode is None and path.suffix and path.is_file():
        raise InputError(f"{source!r} is in no format that netsens reads; it reads {' '.join(DECODERS)}")
    try:
        with path.open("rb") as stream:
            return decode(stream, source) if decode else _decode_unknown(stream.read(), source)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {source!r}{_similar(path)}") from error
    except OSError as error:
        raise InputError(f"{source!r} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{source!r} does not fit in memory, or its header is damaged and claims a size too large") from error


def _decode_remote(source: str) -> Content:
    content = read_remote(source)
    decode = DECODERS.get(Path(source).suffix.lower())
    return decode(io.BytesIO(content), source) if decode else _decode_unknown(content, source)


def read_stream(stream: BinaryIO, source: str = "stdin") -> Iterator[Content | InputError]:
    """What a stream holds: `.npy` arrays or lines of JSON one after another, each as it arrives, or one content of any other format. A line that
    can't be read is an error of its own, and the rest goes on."""
    head = _read_exactly(stream, _LONGEST_MAGIC, line=True)
    if head.startswith(MAGIC):
        number = 1
        while head:
            yield _decode_npy(cast(BinaryIO, Resumed(head, stream)), source if number == 1 else f"{source}, number {number}")
            number += 1
            head = _read_exactly(stream, _LONGEST_MAGIC)
        return
    if head.lstrip()[:1] in b"[{" and head.strip():
        first = head if head.endswith(b"\n") else head + stream.readline()
        if holds_lines(first):
            yield from read_lines(first, stream, source, _nested_array)
            return
        head = first
    yield _decode_unknown(head + stream.read(), source)


def _read_exactly(stream: BinaryIO, size: int, *, line: bool = False) -> bytes:
    """So many bytes, fewer at the end; with `line` no more than a line of text that is shorter."""
    # a pipe without buffering may give fewer bytes than asked for
    parts = b""
    while len(parts) < size and (part := stream.read(1 if line else size - len(parts))):
        parts += part
        if line and part == b"\n" and not parts.startswith(MAGIC[:1]):
            break
    return parts


def _decode_unknown(content: bytes, source: str) -> Content:
    stream = io.BytesIO(content)
    if not content.strip():
        raise InputError(f"{source!r} is empty; it should hold an array, a table, JSON or a picture")
    for magic, decode in _MAGICS.items():
        if content.startswith(magic):
            return decode(stream, source)
    if content.lstrip()[:1] in b"[{":
        return _decode_json(stream, source)
    if b"\0" in content[:4096] or content.startswith(_PICKLE_MAGIC):
        raise InputError(f"{source!r} holds bytes of no known format; send .npy, .npz, CSV, JSON, PNG or JPEG")
    return _decode_table(stream, source)


def _decode_npy(stream: BinaryIO, source: str) -> ArrayContent:
    # read_array checks the first bytes itself; a pickle in disguise gets its own sentence
    try:
        array = read_npy(stream)
    except Exception as error:  # NumPy's header parser raises nearly anything on damaged files
        raise _damaged(source, "an .npy file", error) from error
    if isinstance(stream, io.BufferedReader) and stream.read(1):
        raise InputError(f"{source!r} holds more after its array; several arrays in a row are read from '-' only")
    return ArrayContent((("", array),), source)


def _decode_npz(stream: BinaryIO, source: str) -> ArrayContent:
    head = stream.read(len(MAGIC))
    stream.seek(0)
    if head == MAGIC:
        raise InputError(f"{source!r} holds one array, as .npy files do: name it .npy")
    if not head.startswith((*_ZIP_MAGICS, _PICKLE_MAGIC)):
        raise InputError(f"{source!r} cannot be read as an .npz file, it is truncated or damaged (no zip archive)")
    try:
        with np.load(stream, allow_pickle=False) as archive:
            return ArrayContent(tuple((name, archive[name]) for name in archive.files), source)
    except Exception as error:  # zipfile, zlib and NumPy each have errors of their own for damaged files
        raise _damaged(source, "an .npz file", error) from error


def _damaged(source: str, what: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if "pickle" in reason.lower() or "got b'\\x80" in reason:  # \x80 begins a pickle, whatever the file is called
        return InputError(
            f"{source!r} holds pickled Python objects, which are refused since loading them can run code; "
            f"save plain numbers, as in numpy.save(path, array.astype('float32'))"
        )
    return InputError(f"{source!r} cannot be read as {what}, it is truncated or damaged ({reason[:160]}); make it anew")


def _decode_table(stream: BinaryIO, source: str) -> TableContent:
    from netsens.report.tables import read_table

    delimiter = "\t" if source.lower().endswith(".tsv") else None
    try:
        text = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source!r} is not UTF-8 text (byte {error.start}); save the table as UTF-8") from error
    return TableContent(read_table(text, source, delimiter=delimiter))


def _decode_json(stream: BinaryIO, source: str) -> ArrayContent:
    try:
        value = json.loads(stream.read())
    except json.JSONDecodeError as error:
        raise InputError(f"{source!r} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source!r} is not UTF-8 text (byte {error.start}); save the JSON as UTF-8") from error
    except RecursionError as error:
        raise InputError(f"{source!r} is nested too deep for an array") from error
    if isinstance(value, dict):
        items = tuple((name, _nested_array(part, f"{source!r}, {name!r}")) for name, part in value.items())
    else:
        items = (("", _nested_array(value, repr(source))),)
    return ArrayContent(items, source, textual=True)


def _nested_array(value: object, place: str) -> Array:
    kinds: set[type] = set()
    _collect_leaf_types(value, kinds)
    if kinds - {int, float} and len(kinds) > 1:
        names = " and ".join(sorted(_JSON_NAMES.get(kind, kind.__name__) for kind in kinds))
        raise InputError(f"{place}: numbers alone, text alone or booleans alone make an array, not {names} together")
    if not kinds <= {int, float, str, bool}:
        raise InputError(f"{place}: a nested list of numbers is expected, not {_JSON_NAMES.get(kinds.pop(), 'objects')}")
    try:
        array = np.asarray(value, dtype=object if kinds == {str} else None)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{place}: the lists are of uneven length or depth, so that they make no array") from error
    if array.dtype == object and kinds != {str}:
        raise InputError(f"{place}: a whole number is too large for 64 bits")
    if kinds == {str} and any(isinstance(leaf, list) for leaf in array.reshape(-1)):
        raise InputError(f"{place}: the lists are of uneven length or depth, so that they make no array")
    return array


def _collect_leaf_types(value: object, kinds: set[type]) -> None:
    if isinstance(value, list):
        for part in value:
            _collect_leaf_types(part, kinds)
    else:
        kinds.add(type(value))


_JSON_NAMES: dict[type, str] = {int: "numbers", float: "numbers", str: "text", bool: "booleans", type(None): "null", dict: "objects"}


def _decode_tensor(stream: BinaryIO, source: str) -> ArrayContent:
    import onnx  # only this format needs it, and it takes a third of a second

    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(stream.read())
        if tensor.data_type == onnx.TensorProto.UNDEFINED:
            raise ValueError("no data type: it is another kind of file, or a sequence or a map")
    except Exception as error:  # protobuf's DecodeError has another home in each of its implementations
        raise _damaged(source, "an ONNX tensor", error) from error
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise InputError(f"{source!r} keeps its numbers in another file, which is not followed; save them inside")
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise _damaged(source, "an ONNX tensor", error) from error
    if array.dtype == object:
        array = np.asarray([_text(value) for value in array.reshape(-1)], dtype=object).reshape(array.shape)
    return ArrayContent(((tensor.name, array),), source)


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def numbered_tensors(path: Path) -> list[Path]:
    """The `input_N.pb` of a folder in ONNX's test layout, by N; empty where it is no such folder."""
    numbered = {int(match[1]): file for file in path.iterdir() if (match := re.fullmatch(r"input_(\d+)\.pb", file.name))}
    return [numbered[number] for number in sorted(numbered)]


def _decode_test_folder(path: Path) -> ArrayContent:
    items: list[tuple[str, Array]] = []
    for file in numbered_tensors(path):
        with file.open("rb") as stream:
            items.extend(_decode_tensor(stream, str(file)).items)
    if not items:
        raise InputError(f"{str(path)!r} is a folder without input_0.pb; name a file, or quote a glob for a batch run")
    return ArrayContent(tuple(items), str(path), positional=True)


def _decode_lines(stream: BinaryIO, source: str) -> Content:
    """A file of JSON lines as one sample, which it is where it holds one line."""
    found = list(read_lines(b"", stream, source, _nested_array))
    if len(found) != 1:
        raise InputError(f"{source!r} holds {len(found)} lines, each a sample of its own; give it alone: --input {source}")
    if isinstance(found[0], InputError):
        raise found[0]
    return found[0]


def _decode_parquet(stream: BinaryIO, source: str) -> TableContent:
    from netsens.report.parquet import read_parquet

    return TableContent(read_parquet(stream, source))


def _decode_image(stream: BinaryIO, source: str) -> ImageContent:
    return ImageContent(stream.read(), source)


def _similar(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    import difflib

    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; is {str(path.with_name(close[0]))!r} meant?" if close else ""


DECODERS: dict[str, Callable[[BinaryIO, str], Content]] = {
    ".npy": _decode_npy,
    ".npz": _decode_npz,
    ".csv": _decode_table,
    ".tsv": _decode_table,
    ".parquet": _decode_parquet,
    ".json": _decode_json,
    ".jsonl": _decode_lines,
    ".pb": _decode_tensor,
    ".png": _decode_image,
    ".jpg": _decode_image,
    ".jpeg": _decode_image,
}
_MAGICS: dict[bytes, Callable[[BinaryIO, str], Content]] = {
    MAGIC: _decode_npy,
    **dict.fromkeys(_ZIP_MAGICS, _decode_npz),
    b"PAR1": _decode_parquet,
    b"\x89PNG": _decode_image,
    b"\xff\xd8\xff": _decode_image,
}
