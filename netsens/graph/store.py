"""Writes a graph as an ONNX file, whole or not at all. Weights go from where they lie straight to the disk, one at a time: a model is
never in memory twice, and one above protobuf's 2 GB gets a data file beside it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from netsens.errors import OutputError
from netsens.graph.graph import Array, Graph
from netsens.graph.read import field_header
from netsens.graph.save import model_proto, tensor_proto

INLINE_BYTES = 4096  # smaller constants stay in the model file whatever happens
MOST_BYTES = 2**31 - 1  # of one protobuf message
_ALIGNED = 4096  # where a tensor begins in a data file, so that it can be mapped
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


def save_model(graph: Graph, path: str | os.PathLike[str], external: bool | None = None, shown: object = None) -> list[Path]:
    """Writes the graph to `path`, and its weights to `path` with `.data` added where `external` asks for it, or where it is
    None and the model is too large for one file. The files written; `OutputError` for whatever the system refuses,
    with the path called `shown` where that is given (it will be moved there, say)."""
    shown = path if shown is None else shown
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"'{shown}' is a folder; name a file in it.")
    large = {k: v for k, v in graph.constants.items() if v.nbytes > INLINE_BYTES and _is_plain(v)}
    small = replace(graph, constants={k: v for k, v in graph.constants.items() if k not in large})
    if external is None:
        external = sum(a.nbytes for a in graph.constants.values()) + (64 << 20) > MOST_BYTES
    try:
        if external:
            return _write_with_data(small, large, target)
        with _replacing(target) as file:
            _write_whole(small, large, file)
        return [target]
    except OSError as error:
        parent = target.parent
        if isinstance(error, FileNotFoundError) and not parent.exists():
            raise OutputError(f"'{shown}' cannot be written: there is no folder '{parent}'; make it first.") from error
        raise OutputError(f"'{shown}' cannot be written: {error.strerror or error}.") from error


def _write_whole(small: Graph, large: dict[str, Array], file: IO[bytes]) -> None:
    """The model as one protobuf message: the weights' fields come last in the graph's."""
    proto, _ = model_proto(small)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    heads = {name: _tensor_head(name, array) for name, array in large.items()}
    fields = {name: field_header(_GRAPH_INITIALIZER, len(heads[name]) + array.nbytes) for name, array in large.items()}
    length = len(graph) + sum(len(fields[n]) + len(heads[n]) + a.nbytes for n, a in large.items())
    if length > MOST_BYTES:
        raise OutputError(f"The model has {length / 2**30:.1f} GB, more than one ONNX file may hold; save its weights beside it (external=True).")
    file.write(proto.SerializeToString())
    file.write(field_header(_MODEL_GRAPH, length))
    file.write(graph)
    for name, array in large.items():
        file.write(fields[name])
        file.write(heads[name])
        file.write(_bytes(array))


def _tensor_head(name: str, array: Array) -> bytes:
    """A tensor's message up to its data."""
    empty = tensor_proto(np.zeros(0, array.dtype), name)
    empty.ClearField("raw_data")
    del empty.dims[:]
    empty.dims.extend(array.shape)
    return bytes(empty.SerializeToString()) + field_header(_TENSOR_RAW_DATA, array.nbytes)


def _write_with_data(small: Graph, large: dict[str, Array], target: Path) -> list[Path]:
    import onnx
    from onnx import helper

    data = target.with_name(target.name + ".data")
    proto, _ = model_proto(small)
    with ExitStack() as files:
        # The model appears last: whoever sees it finds its data.
        model_file = files.enter_context(_replacing(target))
        data_file = files.enter_context(_replacing(data))
        at = 0
        for name, array in large.items():
            data_file.write(bytes(-at % _ALIGNED))
            at += -at % _ALIGNED
            stub = proto.graph.initializer.add(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
            stub.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", at), ("length", array.nbytes)):
                stub.external_data.add(key=key, value=str(value))
            data_file.write(_bytes(array))
            at += array.nbytes
        model_file.write(proto.SerializeToString())
    return [target, data]


def _is_plain(array: Array) -> bool:
    """Whether ONNX stores the array's own bytes (not strings, nor two or more elements to a byte)."""
    return array.dtype.kind in "fiub" or array.dtype.name == "bfloat16"


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `target` when the block ends well, and leaves nothing behind when it doesn't."""
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
        os.replace(temporary, target)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise
