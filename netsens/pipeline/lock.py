"""One run at a time in a folder of results."""

from __future__ import annotations

import os
from pathlib import Path

from netsens.errors import OutputError

LOCK = ".netsens.lock"


class FolderLock:
    """Held by a run as long as it lives. The system lets go of it when the process ends, however it ends, so a lock left behind by a killed run
    hinders nobody."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        try:
            while True:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                _take(self._file)
                try:
                    if os.stat(self.path).st_ino == os.fstat(self._file).st_ino:
                        break
                except FileNotFoundError:
                    pass
                os.close(self._file)  # another run ended and took its file away just now
        except BlockingIOError as error:
            assert self._file is not None
            owner = os.read(self._file, 100).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            self._file = None
            raise OutputError(f"another run is writing to '{self.path.parent}' (process {owner}); wait for it, or name another folder") from error
        except OSError as error:
            raise OutputError(f"cannot write '{self.path}': {error.strerror or error}") from error
        os.ftruncate(self._file, 0)
        try:
            os.write(self._file, f"{os.getpid()}\n".encode())
        except OSError:
            pass  # a full disk: the lock holds without its owner's name
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def _take(file: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            raise BlockingIOError from error
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
