"""A folder of what was built before, under keys made of what it was built from. An entry that is damaged counts as absent, and
a folder that cannot be written is no error: building again is always possible."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from _blake2 import blake2b  # hashlib's own; with hashlib comes OpenSSL, which takes longer to load than an entry to read
except ImportError:
    from hashlib import blake2b

MOST_BYTES = 1 << 30  # of the whole folder; the entries that were used longest ago go first
HASHED_BYTES = 16 << 20  # larger files are read once, and known by their stamp from then on
OFF = ("0", "off", "no", "none")
_PART = 1 << 18
_MAGIC = b"netsens cache 1\n"
_DIGEST = 32
_SETTLED = 2 * 10**9  # nanoseconds after a change, before which another might leave the same stamp


class CacheWarning(UserWarning):
    """Something could not be kept; nothing else is wrong."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the folder, for whoever lists them. `used` is in seconds since 1970."""

    path: Path
    bytes: int
    used: float
    about: Mapping[str, Any]


def default_folder() -> Path | None:
    """NETSENS_CACHE, or the user's cache folder as the system has it; None where NETSENS_CACHE turns it off."""
    chosen = os.environ.get("NETSENS_CACHE")
    if chosen is not None and chosen.lower() in OFF:
        return None
    if chosen:
        return Path(chosen).expanduser()
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            wanted = os.environ.get("XDG_CACHE_HOME", "")
            base = Path(wanted) if os.path.isabs(wanted) else Path.home() / ".cache"
    except RuntimeError:  # there is no home
        return None
    return base / "netsens"


def digest(*parts: object) -> str:
    """A name for what the parts say."""
    return blake2b(json.dumps(parts, default=str).encode(), digest_size=20).hexdigest()


class Cache:
    """The entries under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> tuple[dict[str, Any], memoryview] | None:
        """What was put under the key: its JSON and its bytes."""
        path = self._path(key)
        try:
            content = memoryview(path.read_bytes())
            found = _read(content)
        except (OSError, ValueError):
            return None
        if found is None:
            with contextlib.suppress(OSError):  # half a file, or another version's
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def put(self, key: str, about: Mapping[str, Any], content: bytes = b"") -> None:
        """Keeps JSON and bytes under the key. The file appears whole or not at all, whoever else writes it."""
        head = json.dumps(about).encode()
        body = len(head).to_bytes(8, "little") + head + content
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                with temporary.open("xb") as file:
                    file.write(_MAGIC)
                    file.write(blake2b(body, digest_size=_DIGEST).digest())
                    file.write(body)
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self._shrink(path)
        except OSError as error:
            warnings.warn(f"nothing could be kept in the cache '{self.folder}': {error.strerror or error}", CacheWarning, stacklevel=2)

    def entries(self) -> Iterator[Entry]:
        """Every whole entry, the one used last first."""
        for path, status in sorted(self._files(), key=lambda f: -f[1].st_mtime):
            try:
                with path.open("rb") as file:
                    if file.read(len(_MAGIC)) != _MAGIC:
                        continue
                    file.seek(_DIGEST, os.SEEK_CUR)
                    about = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            except (OSError, ValueError):
                continue
            yield Entry(path, status.st_size, status.st_mtime, about)

    def clear(self) -> tuple[int, int]:
        """Deletes every entry; how many files, and their bytes."""
        files = size = 0
        for path, status in self._files():
            with contextlib.suppress(OSError):
                path.unlink()
                files, size = files + 1, size + status.st_size
        return files, size

    def content_key(self, path: Path) -> str:
        """A name for what the file holds. A large one is read once: afterwards its size, times and place on the disk vouch for it."""
        status = path.stat()
        if status.st_size <= HASHED_BYTES:
            return _hashed(path)
        stamp = digest("stamp", os.path.realpath(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        found = self.get(stamp)
        if found is not None:
            return str(found[0]["content"])
        begun = time.time_ns()
        content = _hashed(path)
        if begun - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED:
            self.put(stamp, {"kind": "stamp", "model": str(path), "content": content})
        return content

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.netsens"

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        with contextlib.suppress(OSError), os.scandir(self.folder) as folder:
            for item in folder:
                if item.name.endswith((".netsens", ".netsens.part")) or (item.name.startswith(".") and ".netsens." in item.name):
                    with contextlib.suppress(OSError):
                        found.append((Path(item.path), item.stat()))
        return found

    def _shrink(self, newest: Path) -> None:
        files = self._files()
        total = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda f: f[1].st_mtime):
            if total <= MOST_BYTES:
                return
            if path != newest and not path.name.endswith(".part"):
                path.unlink(missing_ok=True)
                total -= status.st_size


def _read(content: memoryview) -> tuple[dict[str, Any], memoryview] | None:
    start = len(_MAGIC) + _DIGEST
    body = content[start:]
    if content[: len(_MAGIC)] != _MAGIC or blake2b(body, digest_size=_DIGEST).digest() != content[len(_MAGIC) : start]:
        return None
    length = int.from_bytes(body[:8], "little")
    return json.loads(bytes(body[8 : 8 + length])), body[8 + length :]


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        found = blake2b(digest_size=20)
        while part := file.read(_PART):
            found.update(part)
        return found.hexdigest()
