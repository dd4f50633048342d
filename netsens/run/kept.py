"""Gradient programs of a model file that were built before: what they are kept under, and how an entry becomes a plan and a
program again. Weights are not kept: an entry says where in the model's files they lie. Nothing here imports onnx."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from netsens.graph.graph import Array, Graph, TensorType
from netsens.jacobian.gradient_plan import GradientPlan, Samples
from netsens.run.cache import Cache, default_folder, digest
from netsens.run.channel_block import shown_block
from netsens.run.runtime import Program

MOST_BYTES = 1 << 28  # of one entry
_ALIGNED = 64  # where the bytes of an array begin in an entry


@dataclass(slots=True)
class KeptModel:
    """What the cache knows of one model file under one way of loading it. `content` names what the file held when it was opened, at `opened`;
    `key` is None until its data files are known, `inputs` until the model was loaded once."""

    cache: Cache
    path: Path
    settings: Mapping[str, Any]
    content: str
    opened: int
    key: str | None = None
    inputs: dict[str, TensorType] | None = None

    def plan(self, question: str) -> tuple[GradientPlan, Program] | None:
        """The plan and the program that were kept for a question."""
        found = self.cache.get(digest("plan", self.key, question)) if self.key is not None else None
        if found is None:
            return None
        about, content = found
        try:
            program = _program(about["program"], content, self.path)
        except (OSError, ValueError):
            return None
        if program.block and shown_block(program.probe) != program.block:
            return None  # kept on another machine
        shell = Graph([], list(program.inputs), list(program.outputs), {}, {name: _type(t) for name, t in about["types"].items()})
        p = about["plan"]
        samples = None if p["samples"] is None else Samples(**p["samples"])
        return GradientPlan(shell, p["of"], p["results"], p["zeros"], p["notes"], p["cotangent"], samples), program

    def keep(self, question: str, plan: GradientPlan, program: Program, inputs: Mapping[str, TensorType]) -> None:
        """Keeps a plan with its program, and the model's inputs; not where a file was changed meanwhile."""
        try:
            if self.key is None:
                files = external_files(self.path)
                if any((self.path.parent / f).stat().st_mtime_ns >= self.opened for f in files):
                    return
                self.cache.put(digest("files", self.content), {"kind": "files", "model": str(self.path), "files": files})
                self.key = _whole_key(self, files)
            if self.cache.content_key(self.path) != self.content:
                return
            if self.inputs is None:
                self.inputs = dict(inputs)
                self.cache.put(digest("model", self.key), {"kind": "model", "model": str(self.path), "inputs": {k: _described(t) for k, t in inputs.items()}})
            described, content = _stored(program, self.path)
        except OSError:
            return
        types = {name: plan.graph.types[name] for name in (*plan.graph.inputs, *plan.graph.outputs, plan.of) if name in plan.graph.types}
        about = {
            "kind": "gradient", "model": str(self.path), "of": plan.of, "wrt": list(plan.results), "types": {k: _described(t) for k, t in types.items()},
            "plan": {"of": plan.of, "results": dict(plan.results), "zeros": dict(plan.zeros), "notes": list(plan.notes), "cotangent": plan.cotangent,
                     "samples": None if plan.samples is None else asdict(plan.samples)},
            "program": described,
        }  # fmt: skip
        if len(content) <= MOST_BYTES:
            self.cache.put(digest("plan", self.key, question), about, content)


def kept_for_user(path: Path, settings: Mapping[str, Any]) -> KeptModel | None:
    """What the user's own cache knows of this file under these settings; None where there is no cache, or no file."""
    folder = default_folder()
    return None if folder is None or not path.is_file() else kept_model(Cache(folder), path, settings)


def kept_model(cache: Cache, path: Path, settings: Mapping[str, Any]) -> KeptModel | None:
    """What the cache knows of this file under these settings; None where the file cannot be read."""
    opened = time.time_ns()
    try:
        kept = KeptModel(cache, path, settings, cache.content_key(path), opened)
        files = cache.get(digest("files", kept.content))
        if files is not None:
            kept.key = _whole_key(kept, files[0]["files"])
    except OSError:
        return None
    found = cache.get(digest("model", kept.key)) if kept.key is not None else None
    if found is not None:
        kept.inputs = {name: _type(t) for name, t in found[0]["inputs"].items()}
    return kept


def _whole_key(kept: KeptModel, files: Sequence[str]) -> str:
    """A name for the model's content, data files beside it included, and for what else its gradients depend on."""
    data = [(name, kept.cache.content_key(kept.path.parent / name)) for name in files]
    return digest(kept.content, data, dict(kept.settings), versions())


@cache
def versions() -> list[Any]:
    """What an entry depends on besides the model and the question: netsens itself, onnx, onnxruntime."""
    import onnxruntime

    import netsens

    sources: list[tuple[str, int, int]] = []
    folders = [os.path.dirname(netsens.__file__)]
    for folder in folders:
        with os.scandir(folder) as items:
            for item in items:
                if item.name.endswith(".py"):
                    status = item.stat()
                    sources.append((item.path, status.st_size, status.st_mtime_ns))
                elif item.is_dir() and item.name != "__pycache__":
                    folders.append(item.path)
    found = find_spec("onnx")
    origin = os.path.join(os.path.dirname(found.origin), "version.py") if found is not None and found.origin else ""
    installed = os.stat(origin) if os.path.exists(origin) else None  # its version, told without importing it
    stamp = None if installed is None else (origin, installed.st_size, installed.st_mtime_ns)
    return [netsens.__version__, onnxruntime.__version__, digest(sorted(sources)), stamp]


def external_files(path: Path) -> list[str]:
    """The data files beside the model that hold tensors of its."""
    from netsens.graph.read import read_model

    model, _, _ = read_model(path)
    found: dict[str, None] = {}

    def tensors(each: Iterable[Any]) -> None:
        for tensor in each:
            if tensor.data_location == tensor.EXTERNAL:
                found.update((e.value, None) for e in tensor.external_data if e.key == "location")

    def attributes(nodes: Iterable[Any]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                tensors([attribute.t, *attribute.tensors])
                for inner in (attribute.g, *attribute.graphs):
                    graph(inner)

    def graph(of: Any) -> None:
        tensors(of.initializer)
        for sparse in of.sparse_initializer:
            tensors([sparse.values, sparse.indices])
        attributes(of.node)

    graph(model.graph)
    for function in model.functions:
        attributes(function.node)
    return list(found)


# Arrays --------------------------------------------------------------------------------------------------------------------


def place(array: Array, model: Path) -> tuple[str, int] | None:
    """In which file an array's bytes lie, relative to the model's folder, and where; None for one that lies in memory."""
    if not array.flags.c_contiguous or not array.nbytes:
        return None
    base: Any = array
    mapped: np.memmap[Any, Any] | None = None
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.filename is not None and not isinstance(base.base, np.memmap):
            mapped = base
            break
        base = base.base
    address = _address(array)
    if mapped is not None:
        begin = _address(mapped)
        if not begin <= address <= begin + mapped.nbytes - array.nbytes:
            return None
        return os.path.relpath(str(mapped.filename), model.resolve().parent), int(mapped.offset) + address - begin
    while isinstance(base, memoryview):
        base = base.obj
    if type(base).__name__ != "mmap":
        return None
    whole = np.frombuffer(base, np.uint8)
    offset = address - _address(whole)
    return ("", offset) if 0 <= offset <= whole.nbytes - array.nbytes and whole.nbytes == model.stat().st_size else None


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _stored(program: Program, model: Path) -> tuple[dict[str, Any], bytes]:
    """A program as JSON and bytes: the model, then the arrays that lie in none of the model's files."""
    parts: list[bytes] = [program.proto]
    length = len(program.proto)
    arrays = []
    for name, array in program.arrays.items():
        where = place(array, model)
        if where is None:
            padding = -length % _ALIGNED
            data = np.ascontiguousarray(array).tobytes()
            parts += [bytes(padding), data]
            where = (None, length + padding)  # type: ignore[assignment]
            length += padding + len(data)
        assert where is not None
        arrays.append([name, *where, array.dtype.name, list(array.shape)])
    described = {
        "proto": len(program.proto), "arrays": arrays, "inputs": list(program.inputs), "outputs": list(program.outputs), "dtypes": dict(program.dtypes),
        "widened": program.widened, "block": program.block, "probe": program.probe.hex(),
        "shapes": {name: list(shape) for name, shape in program.shapes.items()},
    }  # fmt: skip
    return described, b"".join(parts)


def _program(about: Mapping[str, Any], content: memoryview, model: Path) -> Program:
    arrays: dict[str, Array] = {}
    maps: dict[str, Array] = {}
    folder = model.resolve().parent
    for name, file, offset, dtype_name, shape in about["arrays"]:
        dtype = _dtype(dtype_name)
        if file is None:
            source, count = np.frombuffer(content, np.uint8), int(np.prod(shape, dtype=np.int64))
        else:
            if file not in maps:
                maps[file] = np.memmap(model if not file else folder / file, np.uint8, "r")
            source, count = maps[file], int(np.prod(shape, dtype=np.int64))
        part = source[offset : offset + count * dtype.itemsize]
        if part.nbytes != count * dtype.itemsize:
            raise ValueError("the file is shorter than it was")
        arrays[name] = np.frombuffer(part, dtype).reshape(shape)
    machine = about["block"], bytes.fromhex(about["probe"]), about["shapes"]
    return Program(bytes(content[: about["proto"]]), arrays, about["inputs"], about["outputs"], about["dtypes"], about["widened"], *machine)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # bfloat16 and the float8 family

        return np.dtype(getattr(ml_dtypes, name))


def _described(type_: TensorType) -> list[Any]:
    return [type_.dtype, None if type_.shape is None else list(type_.shape), type_.container]


def _type(described: Sequence[Any]) -> TensorType:
    dtype, shape, container = described
    return TensorType(dtype, None if shape is None else tuple(shape), container)
