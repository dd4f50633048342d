"""A Jacobian that doesn't fit into memory is written through memory maps as its passes come in: to a .npy file a tensor in a folder, to one
.npy file, or into the members of one .npz archive."""

from __future__ import annotations

import io
import mmap
import os
import secrets
import shutil
import struct
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from netsens.errors import OutputError
from netsens.graph.graph import Array
from netsens.jacobian.memory import readable

BLOCK = 1 << 22  # bytes that are copied at a time
ALIGNED = 64  # an array inside an archive begins at a multiple of this
PADDING = 0xD935  # the archive's own mark for bytes without a meaning (as zipalign writes it)


class Files:
    """Arrays of results on disk under a temporary name, all zeros at first; `finish` gives the files their names, `discard` removes what was not
    finished. This one makes a .npy file an array, in a folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._pending: dict[Path, Path] = {}
        self._arrays: dict[str, tuple[Path, Array]] = {}

    def check_space(self, needed: int, what: str) -> None:
        """Raises `OutputError` where the disk can't take so many bytes."""
        free = shutil.disk_usage(_nearest(self.path)).free
        if needed > free:
            raise OutputError(
                f"{what} takes {readable(needed)}, and the disk of '{self.path}' has {readable(free)} free; narrow it with --wrt or --target, "
                "take --sparse where it has structure, or look at its figures alone (-o none)."
            )

    def allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new array, all zeros."""
        self.check_space(prod(shape) * np.dtype(dtype).itemsize, f"The Jacobian by '{name}'")
        path = self._place(name)
        if path in self._pending:
            raise OutputError(f"Two tensors would have one file, '{path}'; name an .npz file, or ask for them one at a time with --wrt.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            array = np.lib.format.open_memmap(self._temporary(path), "w+", dtype, shape)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._arrays[name] = path, array
        return array

    def finish(self) -> dict[str, Array]:
        """The files in their places, as arrays that read from them."""
        try:
            for _, array in self._arrays.values():
                _flush(array)
            self._arrays = {name: (path, released(array)) for name, (path, array) in self._arrays.items()}
            for path, temporary in self._pending.items():
                temporary.replace(path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._pending = {}
        return {name: np.load(path, mmap_mode="r") for name, (path, _) in self._arrays.items()}

    def discard(self) -> None:
        """Removes what was not finished."""
        for temporary in self._pending.values():
            temporary.unlink(missing_ok=True)
        self._pending = {}

    def _place(self, name: str) -> Path:
        return self.path / f"{file_name(name)}.npy"

    def _temporary(self, path: Path) -> Path:
        """Beside the path, and remembered."""
        if path not in self._pending:
            self._pending[path] = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.part")
        return self._pending[path]


class File(Files):
    """One array, as one .npy file."""

    def _place(self, name: str) -> Path:
        if self._pending:
            raise OutputError(f"'{self.path}' holds one array and there are several; name an .npz file or a folder.")
        return self.path


class Archive(Files):
    """Arrays as members of one .npz archive. Each lies in the archive uncompressed and is written where it lies; `finish` adds checksums."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._end = 0
        self._members: dict[str, tuple[zipfile.ZipInfo, bytes, int, Array]] = {}  # with the array's header, and where the array begins

    def allocate(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        self.check_space(prod(shape) * np.dtype(dtype).itemsize, f"The Jacobian by '{name}'")
        header = _header(shape, dtype)
        info = zipfile.ZipInfo(f"{name}.npy")
        start = self._end + _member_start(info) + len(header)
        info.extra = struct.pack("<HH", PADDING, (padding := -(start + 4) % ALIGNED)) + bytes(padding)
        start += 4 + padding
        temporary = self._temporary(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("r+b" if temporary.exists() else "w+b") as file:
                file.truncate(start + prod(shape) * np.dtype(dtype).itemsize)
            array = _mapped(temporary, "r+", start, shape, dtype)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._end = start + array.nbytes
        self._members[name] = info, header, start, array
        return array

    def finish(self) -> dict[str, Array]:
        temporary = self._temporary(self.path)
        try:
            with temporary.open("r+b") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                # The archive is written over itself: the arrays are in their places, and what zipfile adds is their checksums.
                for name, (info, header, start, array) in self._members.items():
                    _flush(array)
                    with archive.open(info, "w", force_zip64=True) as member:
                        member.write(header)
                        if file.tell() != start:
                            raise OutputError(f"cannot write '{self.path}': the archive's member '{name}' has moved; write to a folder instead.")
                        flat = array.reshape(-1).view(np.uint8)
                        for begin in range(0, flat.size, BLOCK):
                            member.write(flat[begin : begin + BLOCK].tobytes())
                            released(array)
            temporary.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._pending = {}
        return {name: _mapped(self.path, "r", start, array.shape, array.dtype) for name, (_, _, start, array) in self._members.items()}


def files_at(path: str | os.PathLike[str]) -> Files | None:
    """Where an output of this name is written through memory maps: one .npy, one .npz, else a folder; None for formats that can't be."""
    suffix = Path(path).suffix.lower()
    if os.fspath(path).endswith(("/", os.sep)) or Path(path).is_dir():
        return Files(path)
    if suffix in (".csv", ".parquet", ".h5", ".safetensors", ".jsonl"):
        return None
    return {".npy": File, ".npz": Archive}.get(suffix, Files)(path)


def released(array: Array) -> Array:
    """The array; where it lies in a file, its pages no longer count as this process's memory (what was written is the system's to store, and is read again
    when it is looked at)."""
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)
    return array


def file_name(name: str) -> str:
    """A tensor's name as a file's: separators of folders become dots."""
    return name.strip("/").replace("/", ".").replace("\\", ".").replace(":", ".") or "tensor"


def _header(shape: tuple[int, ...], dtype: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_2_0(stream, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _member_start(info: zipfile.ZipInfo) -> int:
    """How many bytes zipfile writes before a member's own."""
    stream: IO[bytes] = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open(zipfile.ZipInfo(info.filename), "w", force_zip64=True):
        return stream.tell()


def _mapped(path: Path, mode: Any, start: int, shape: tuple[int, ...], dtype: Any) -> Array:
    return np.memmap(path, dtype, mode, start, shape) if prod(shape) else np.zeros(shape, dtype)


def _flush(array: Array) -> None:
    if isinstance(array, np.memmap):
        array.flush()


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write '{path}': {error.strerror or error}")
