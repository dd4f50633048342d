"""`manifest.jsonl`: what became of each input of a batch run, a line of JSON each.

While the run goes on a line is added with each result, `seconds` among its figures. When all is done the lines are put in the inputs' order, a line an
input, and without `seconds` (unless they were asked for), so that the folder is the same to the byte however often the run was interrupted. A sample of a
stream has no file whose age could tell whether it is still the same: its line holds the digest of its arrays (`input_sha256`) instead."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from array import array
from pathlib import Path
from typing import IO, Any

from netsens.errors import InputError, OutputError
from netsens.pipeline.work import FULL, DiskFullError, Outcome, digest_of
from netsens.report.atomic import replacing, unwritable
from netsens.report.lists import FileNames, StreamNames
from netsens.report.remote import read_remote, write_remote
from netsens.report.render import json_ready

MANIFEST = "manifest.jsonl"
_UNFINISHED = re.compile(r"\..+\.([0-9a-f]{12}|[0-9]+)\.part")


class Manifest:
    """The manifest of one folder. `resume`: lines of an earlier run count."""

    def __init__(self, folder: Path, files: FileNames | StreamNames, key: str, suffix: str, resume: bool) -> None:
        self.folder, self.files, self.key, self.suffix = folder, files, key, suffix
        self.path = folder / MANIFEST
        self._places = array("q", [-1]) * len(files)  # where each input's line begins
        self._others: list[int] = []
        try:
            if not resume and self.path.exists():
                self.path.unlink()
            self._file: IO[bytes] = self.path.open("a+b")
            self._read()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _read(self) -> None:
        """Finds the lines of an earlier run; one that it left unfinished is cut off."""
        self._file.seek(0)
        number_of = self.files.numbers() if os.fstat(self._file.fileno()).st_size else None
        place = 0
        for line in self._file:
            row = _parsed(line)
            if row is None and not line.endswith(b"\n"):
                self._file.truncate(place)
                break
            if row is not None and row["input"] is not None and number_of is not None:
                number = number_of(row["input"])
                if number is not None:
                    self._put(number, place)
                elif row.get("status") == "done":
                    self._others.append(place)
            place += len(line)
        self._file.seek(0, os.SEEK_END)

    def _put(self, number: int, place: int) -> None:
        """Keeps where an input's line begins; a stream's inputs are not known beforehand."""
        if number >= len(self._places):
            self._places.extend([-1] * (number + 1 - len(self._places)))
        self._places[number] = place

    def summary(self, number: int) -> list[dict[str, Any]]:
        """The summary rows of an input that is done."""
        row = self._row(self._places[number])
        return list(row.get("summary", [])) if row is not None else []

    def is_done(self, number: int, digest: str = "") -> bool:
        """Whether the input's result is there, whole, from the same question, and no older than the input; of a stream's, from the same arrays."""
        row = self._row(self._places[number]) if number < len(self._places) else None
        name, path = self.files[number]
        if row is None or row.get("status") != "done" or row.get("key") != self.key or row.get("output") not in (name + self.suffix, name + "/"):
            return False
        if digest or "input_sha256" in row:
            return row.get("input_sha256") == digest and self._is_whole(row)
        return self._is_whole(row) and not _is_newer(path, self.folder / row["output"])

    def add(self, outcome: Outcome) -> None:
        """Adds a line. `DiskFullError` where there is no room for it."""
        row: dict[str, Any] = {"input": outcome.entry.source}
        if outcome.error:
            row |= {"status": "failed", "error": outcome.error}
        else:
            row |= {"output": outcome.output, "status": "done", "bytes": outcome.size, "sha256": outcome.sha256, "key": self.key}
        if outcome.entry.digest:
            row["input_sha256"] = outcome.entry.digest
        row |= {"seconds": round(outcome.seconds, 6)}
        if not outcome.error:
            row["summary"] = outcome.rows
        try:
            self._put(outcome.entry.number, self._file.tell())
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            self._close()
            if error.errno in FULL:
                raise DiskFullError(
                    f"cannot write '{self.path}': {error.strerror}; the results so far are whole: make room, then go on with --resume"
                ) from error
            raise unwritable(self.path, error) from error

    def finish(self, timings: bool) -> None:
        """Puts the lines in order, one an input, and lets the earlier ones go."""
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            for place in (*self._places, *self._others):
                row = self._row(place)
                if row is None:
                    continue
                if not timings:
                    row.pop("seconds", None)
                file.write(_line(row))
        self._close()

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # what could not be written has been reported

    def _row(self, place: int) -> dict[str, Any] | None:
        if place < 0:
            return None
        self._file.seek(place)
        row = _parsed(self._file.readline())
        self._file.seek(0, os.SEEK_END)
        return row

    def _is_whole(self, row: dict[str, Any]) -> bool:
        path = self.folder / row["output"]
        try:
            files = sorted(path.iterdir()) if row["output"].endswith("/") else [path]
            return sum(f.stat().st_size for f in files) == row["bytes"] and digest_of(files) == row["sha256"]
        except OSError:
            return False


class RemoteManifest(Manifest):
    """The manifest of a folder in an object store, which has no appending: kept here, and sent there now and then and at the end, however that comes."""

    def __init__(self, folder: str, files: FileNames | StreamNames, key: str, suffix: str, resume: bool) -> None:
        self.remote = f"{folder.rstrip('/')}/{MANIFEST}"
        self.target = folder.rstrip("/")
        self._here = tempfile.TemporaryDirectory()
        self._sent, self._took = time.monotonic(), 0.0
        if resume:
            try:
                (Path(self._here.name) / MANIFEST).write_bytes(read_remote(self.remote))
            except InputError:
                pass  # no run before this one
        super().__init__(Path(self._here.name), files, key, suffix, resume)

    def __enter__(self) -> RemoteManifest:
        return self

    def __exit__(self, *exception: object) -> None:
        self._send()
        self._here.cleanup()

    def add(self, outcome: Outcome) -> None:
        super().add(outcome)
        if time.monotonic() - self._sent > max(SEND_SECONDS, 20 * self._took):  # a long manifest goes seldom: it is sent whole
            self._send()

    def _send(self) -> None:
        begun = time.monotonic()
        write_remote(self.remote, self.path.read_bytes())
        self._sent = time.monotonic()
        self._took = self._sent - begun

    def _is_whole(self, row: dict[str, Any]) -> bool:
        return hashlib.sha256(read_remote(f"{self.target}/{row['output']}")).hexdigest() == row["sha256"]


SEND_SECONDS = 10.0


def tidy(folder: Path) -> None:
    """Takes away what a killed run was writing."""
    try:
        for path in folder.rglob(".*.part"):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot tidy '{folder}': {error.strerror or error}") from error


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(json_ready(row), ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogateescape") + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    return row if isinstance(row, dict) and "input" in row else None


def _is_newer(source: str, result: Path) -> bool:
    try:
        return os.path.getmtime(source) > os.path.getmtime(result)
    except OSError:
        return False  # an input that has gone, or that is not on this machine, does not spoil its result
