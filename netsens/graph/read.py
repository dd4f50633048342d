"""Reads ONNX files into graphs. Weights stay in the file: large tensors become views of a memory map, whether they lie inside
the model file or beside it, so opening a model costs its structure and not its size."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.errors import ModelError
from netsens.graph.dtypes import is_float
from netsens.graph.graph import Array, Graph, Node, TensorType
from netsens.graph.order import in_order

if TYPE_CHECKING:
    import onnx

INLINE_BYTES = 4096  # tensors below this are parsed with the rest of the file

# Field numbers of onnx.proto that the scan needs.
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_FLOAT_DATA, _TENSOR_RAW_DATA, _TENSOR_DOUBLE_DATA = 4, 9, 10


def read_model(source: str | Path | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Array], Path | None]:
    """The model without its large initializers (stubs stay in their place), those initializers by name, and its path."""
    import onnx

    if isinstance(source, onnx.ModelProto):
        return _check_model(source, "the model"), {}, None
    if isinstance(source, bytes):
        return *_read_bytes(memoryview(source), "the model"), None
    path = Path(source)
    where = f"'{path}'"
    if not path.exists():
        raise ModelError(f"There is no model file {where}.")
    if path.is_dir():
        raise ModelError(f"{where} is a folder, not a model file; name the .onnx file in it.")
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ModelError(f"{where} is empty, so it is not an ONNX model.")
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {error.strerror or error}.") from error
    model, arrays = _read_bytes(view, where)
    return model, arrays, path


def _check_model(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    if not model.HasField("graph") or not model.opset_import or not (model.graph.node or model.graph.output):
        raise ModelError(f"{where} is not an ONNX model: it holds no graph, or names no opset.")
    return model


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than protobuf allows")


def _fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, start of the whole field, start of its content, end) of each field of a protobuf message."""
    at = start
    while at < end:
        begin = at
        key, at = _varint(view, at)
        kind = key & 7
        if kind == 0:
            content = at
            _, at = _varint(view, at)
        elif kind == 1:
            content, at = at, at + 8
        elif kind == 2:
            length, content = _varint(view, at)
            at = content + length
        elif kind == 5:
            content, at = at, at + 4
        else:
            raise ValueError(f"wire type {kind} is not protobuf's")
        if at > end:
            raise IndexError("the data end in the middle of a field")
        yield key >> 3, begin, content, at


def field_header(number: int, length: int) -> bytes:
    """What goes before the content of a field that is a message or bytes."""
    return bytes([number << 3 | 2]) + _length(length)


def _length(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_bytes(view: memoryview, where: str) -> tuple[onnx.ModelProto, dict[str, Array]]:
    import onnx
    from google.protobuf.message import DecodeError

    arrays: dict[str, Array] = {}
    model = onnx.ModelProto()
    try:
        parts: list[bytes | memoryview] = []
        for number, begin, content, end in _fields(view, 0, len(view)):
            if number != _MODEL_GRAPH:
                parts.append(view[begin:end])
                continue
            graph: list[bytes | memoryview] = []
            for field, first, inside, last in _fields(view, content, end):
                stub = _tensor_stub(view, inside, last, arrays) if field == _GRAPH_INITIALIZER and last - inside > INLINE_BYTES else None
                graph.append(view[first:last] if stub is None else field_header(_GRAPH_INITIALIZER, len(stub)) + stub)
            body = b"".join(graph)
            parts.append(field_header(_MODEL_GRAPH, len(body)) + body)
        model.ParseFromString(b"".join(parts))
    except (IndexError, ValueError, DecodeError) as error:
        raise ModelError(f"{where} is not a whole ONNX model: it is truncated, damaged, or of another format.") from error
    return _check_model(model, where), arrays


def _tensor_stub(view: memoryview, start: int, end: int, arrays: dict[str, Array]) -> bytes | None:
    """A tensor's message without its data, which becomes a view; None where the data are not one plain block."""
    import onnx

    kept, data = [], None
    for number, begin, content, stop in _fields(view, start, end):
        if number in (_TENSOR_RAW_DATA, _TENSOR_FLOAT_DATA, _TENSOR_DOUBLE_DATA) and view[begin] & 7 == 2:
            if data is not None:
                return None
            data = (content, stop)
        elif number in (5, 6, 7, 11, _TENSOR_FLOAT_DATA, _TENSOR_DOUBLE_DATA):  # other typed data fields
            return None
        else:
            kept.append(bytes(view[begin:stop]))
    if data is None:
        return None
    tensor = onnx.TensorProto.FromString(b"".join(kept))
    dtype = _plain_dtype(tensor.data_type)
    if dtype is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    shape = tuple(tensor.dims)
    if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize != data[1] - data[0]:
        raise ValueError("a tensor's data do not fit its shape")
    arrays[tensor.name] = np.frombuffer(view[data[0] : data[1]], dtype).reshape(shape)
    return bytes(tensor.SerializeToString())


def _plain_dtype(data_type: int) -> np.dtype[Any] | None:
    """NumPy's dtype where ONNX stores whole little-endian elements, else None (strings, and two or more to a byte)."""
    import onnx

    packed = {"STRING", "UNDEFINED", "INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1"}
    try:
        if onnx.TensorProto.DataType.Name(data_type) in packed:
            return None
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))
    except (KeyError, ValueError):
        return None


def tensor_array(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """A tensor's values; external data are mapped, never copied, and may not lie outside the model's folder."""
    import onnx
    from onnx import numpy_helper

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise ModelError(f"The tensor '{tensor.name}' is damaged: {error}.") from error
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(f"The tensor '{tensor.name}' lies in the file '{location}', which a model given as bytes cannot reach; give the model's path.")
    path = (folder / location).resolve()
    if not location or not path.is_relative_to(folder.resolve()):
        raise ModelError(f"The tensor '{tensor.name}' points to '{location}', outside the model's folder; that is refused.")
    if not path.is_file():
        raise ModelError(f"The tensor '{tensor.name}' lies in '{location}', and that file is missing beside the model.")
    dtype = _plain_dtype(tensor.data_type)
    shape = tuple(tensor.dims)
    offset, length = (_place(tensor, entries, key) for key in ("offset", "length"))
    available = path.stat().st_size - offset
    length = length or available
    if dtype is None:
        inline = onnx.TensorProto()
        inline.CopyFrom(tensor)
        inline.ClearField("external_data")
        inline.data_location = onnx.TensorProto.DEFAULT
        with path.open("rb") as file:
            file.seek(offset)
            inline.raw_data = file.read(length)
        return np.asarray(numpy_helper.to_array(inline))
    count = int(np.prod(shape, dtype=np.int64))
    if count * dtype.itemsize > min(available, length):
        raise ModelError(f"The tensor '{tensor.name}' needs {count * dtype.itemsize} bytes at {offset} of '{location}', which is too short.")
    if count == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape)


def _place(tensor: onnx.TensorProto, entries: dict[str, str], key: str) -> int:
    text = entries.get(key) or "0"
    if not text.isdecimal():
        raise ModelError(f"The tensor '{tensor.name}' gives '{text}' as the {key} of its data, which is no place in a file.")
    return int(text)


def attribute_value(attribute: onnx.AttributeProto, opset: int, folder: Path | None) -> Any:
    """An attribute as a Python value (see `Node`)."""
    import onnx

    kinds = onnx.AttributeProto
    match attribute.type:
        case kinds.FLOAT:
            return attribute.f
        case kinds.INT:
            return attribute.i
        case kinds.STRING:
            return _text(attribute.s)
        case kinds.FLOATS:
            return list(attribute.floats)
        case kinds.INTS:
            return list(attribute.ints)
        case kinds.STRINGS:
            return [_text(s) for s in attribute.strings]
        case kinds.TENSOR:
            return tensor_array(attribute.t, folder)
        case kinds.GRAPH:
            return graph_from_proto(attribute.g, {}, opset, folder)
        case _:
            return attribute


def constant_attribute(attributes: Mapping[str, Any]) -> Any:
    """The array that a Constant node's one attribute describes."""
    (key, value), *_ = attributes.items()
    if key == "value":
        return value
    if key in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if key in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    if key in ("value_string", "value_strings"):
        return np.asarray(value, object)
    raise ModelError("A Constant node holds nothing that netsens can read.")


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


@cache
def _element_types() -> frozenset[int]:
    import onnx

    return frozenset(onnx.TensorProto.DataType.values())


def type_from_proto(proto: onnx.TypeProto) -> TensorType:
    kind = proto.WhichOneof("value")
    if kind == "sequence_type":
        inner = type_from_proto(proto.sequence_type.elem_type)
        return TensorType(inner.dtype, inner.shape, "sequence")
    if kind == "optional_type":
        inner = type_from_proto(proto.optional_type.elem_type)
        return TensorType(inner.dtype, inner.shape, "optional")
    if kind != "tensor_type":
        return TensorType(0, None, kind or "")
    tensor = proto.tensor_type
    if tensor.elem_type not in _element_types():
        raise ModelError(f"A value has the element type {tensor.elem_type}, which ONNX does not have: the model is damaged, or newer than the installed onnx.")
    if not tensor.HasField("shape"):
        return TensorType(tensor.elem_type)
    if any(isinstance(d.dim_param, bytes) for d in tensor.shape.dim):  # what protobuf gives for text that is none
        raise ModelError("The name of a dimension is no text: the model is damaged.")
    dims = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param or None) for d in tensor.shape.dim)
    return TensorType(tensor.elem_type, dims)


def graph_from_proto(proto: onnx.GraphProto, arrays: dict[str, Array], opset: int, folder: Path | None) -> Graph:
    """A protobuf graph as a `Graph`; `arrays` are the tensors that were left in the file."""
    constants: dict[str, Array] = {}
    for tensor in proto.initializer:
        constants[tensor.name] = arrays[tensor.name] if tensor.name in arrays else tensor_array(tensor, folder)
    for sparse in proto.sparse_initializer:
        constants[sparse.values.name] = _dense(sparse, folder)
    types = {v.name: type_from_proto(v.type) for v in [*proto.value_info, *proto.output, *proto.input]}
    nodes = [
        Node(
            n.op_type, tuple(n.input), tuple(n.output), {a.name: attribute_value(a, opset, folder) for a in n.attribute},
            "" if n.domain == "ai.onnx" else n.domain, n.name,
        )
        for n in proto.node
    ]  # fmt: skip
    parameters = [k for k, a in constants.items() if is_float(a.dtype)]
    return Graph(
        in_order(nodes), [i.name for i in proto.input if i.name not in constants], [o.name for o in proto.output], constants, types,
        opset, parameters=parameters, name=proto.name or "graph",
    )  # fmt: skip


def _dense(sparse: onnx.SparseTensorProto, folder: Path | None) -> Array:
    values, indices = tensor_array(sparse.values, folder), tensor_array(sparse.indices, folder)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense
