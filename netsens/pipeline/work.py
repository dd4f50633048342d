"""The work on one unit of a batch run: its inputs read, answered, written. It can be sent to another process, and every kind of worker does the same."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from netsens.analyse.aggregate import Aggregate, AggregateOptions
from netsens.errors import InputError, NetsensError, OutputError
from netsens.pipeline.gather import Gathering, signature, together
from netsens.pipeline.question import Answer, GradientQuestion, Question, Row
from netsens.report.atomic import write_new
from netsens.report.inputs import Sample
from netsens.report.outputs import output_path
from netsens.report.remote import is_remote, read_remote

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullError(OutputError):
    """There is no room for results: every one that follows would fail too."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One input: its number in the list, its slot in a gathered run, its name and where it is. `done`: its result is there already. `digest`: of a
    stream's sample, which has no file of its own to be known by."""

    number: int
    slot: int
    name: str
    source: str
    done: bool = False
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """Inputs that a worker takes at once. `slots`: how many a gathered run of them has, whichever of them can be read."""

    entries: tuple[Entry, ...]
    slots: int = 1


@dataclass(slots=True)
class Outcome:
    """What became of one input. `sample` and `answer` are there where the caller is to write the result."""

    entry: Entry
    seconds: float = 0.0
    error: str = ""
    status: int = 0  # what the program would exit with for this input alone
    output: str | None = None
    size: int = 0
    sha256: str = ""
    rows: list[Row] = field(default_factory=list)
    sample: Sample | None = None
    answer: Answer | None = None


@dataclass(slots=True)
class Result:
    """What became of a unit; `notes` are warnings that came up in another process."""

    outcomes: list[Outcome]
    aggregate: Aggregate | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Work:
    """What a worker needs to know. `folder` None: results go back to the caller."""

    question: Question
    open_file: Callable[[str, str], Sample]
    gathering: Gathering | None = None
    folder: str | None = None
    keep: bool = False  # results go back even so
    aggregate: AggregateOptions | None = None
    summarize: bool = True
    picture: Callable[[Sample, Answer], None] | None = None

    def __call__(self, unit: Unit) -> Result:
        """The whole unit, one step after the other."""
        return self.write(self.compute(unit, self.read(unit)))

    def apart(self, unit: Unit) -> Result:
        """The same in another process, whose warnings come back with the result."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = self(unit)
        from netsens.errors import NetsensWarning

        result.notes = list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, NetsensWarning)))
        return result

    def read(self, unit: Unit) -> list[Outcome]:
        found = []
        for entry in unit.entries:
            begun = time.perf_counter()
            outcome = Outcome(entry)
            if not entry.done or self.aggregate is not None:
                with _reported(outcome):
                    outcome.sample = self.open_file(entry.name, entry.source)
            outcome.seconds = time.perf_counter() - begun
            found.append(outcome)
        return found

    def compute(self, unit: Unit, outcomes: list[Outcome]) -> list[Outcome]:
        for outcome in outcomes:
            if outcome.entry.done and outcome.sample is not None:
                outcome.answer = self._again(outcome.entry)
        left = [o for o in outcomes if o.sample is not None and o.answer is None]
        if self.gathering is not None and unit.slots > 1 and isinstance(self.question, GradientQuestion):
            shared = {o.entry.slot: o for o in left if o.sample is not None and signature(o.sample) == self.gathering.signature}
            if shared and self._together(self.question, shared, replace(self.gathering, slots=unit.slots)):
                left = [o for o in left if o.answer is None]
        for outcome in left:
            begun = time.perf_counter()
            with _reported(outcome):
                assert outcome.sample is not None
                outcome.answer = self.question.answer(outcome.sample, self.folder)
            outcome.seconds += time.perf_counter() - begun
        return outcomes

    def _together(self, question: GradientQuestion, shared: Mapping[int, Outcome], gathering: Gathering) -> bool:
        """Whether one run answered them all; where it failed, each is tried alone, to tell which one is bad."""
        begun = time.perf_counter()
        try:
            found = together(question, {slot: o.sample for slot, o in shared.items() if o.sample is not None}, gathering)
        except (NetsensError, MemoryError):
            return False
        share = (time.perf_counter() - begun) / len(shared)
        for slot, outcome in shared.items():
            outcome.answer = Answer(found[slot])
            outcome.seconds += share
        return True

    def write(self, outcomes: list[Outcome]) -> Result:
        total = Aggregate(self.aggregate) if self.aggregate is not None else None
        for outcome in outcomes:
            sample, answer = outcome.sample, outcome.answer
            if sample is None or answer is None:
                continue
            begun = time.perf_counter()
            with _reported(outcome):
                if self.summarize and not outcome.entry.done:
                    outcome.rows = self.question.rows(sample, answer)
                if self.folder is not None and not outcome.entry.done:
                    self._store(outcome, sample, answer)
                if self.picture is not None and not outcome.entry.done:
                    self.picture(sample, answer)
                if total is not None and isinstance(self.question, GradientQuestion):
                    total.add(sample.arrays, answer.arrays, sample.features, objective(self.question, sample, self.aggregate))
            outcome.seconds += time.perf_counter() - begun
            if not self.keep:
                outcome.sample = outcome.answer = None
        return Result(outcomes, total)

    def _store(self, outcome: Outcome, sample: Sample, answer: Answer) -> None:
        assert self.folder is not None
        name = outcome.entry.name
        if answer.files:
            outcome.output = f"{name}/"
            outcome.size = sum(os.path.getsize(f) for f in answer.files)
            outcome.sha256 = _digest(*answer.files)
            return
        path = output_path(self.folder, name, suffix=self.question.suffix)
        outcome.output = f"{name}{self.question.suffix}"
        small = self.question.encoded(answer) if not is_remote(path) and not os.path.islink(path) else None
        if small is not None:
            if os.sep in name or "/" in name:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            write_new(path, small)
            outcome.size, outcome.sha256 = len(small), hashlib.sha256(small).hexdigest()
            return
        self.question.write(path, sample, answer)
        if is_remote(path):
            content = read_remote(path)
            outcome.size, outcome.sha256 = len(content), hashlib.sha256(content).hexdigest()
        else:
            outcome.size, outcome.sha256 = os.path.getsize(path), _digest(path)

    def _again(self, entry: Entry) -> Answer | None:
        """The result that an earlier run left, for an aggregate; None where its format can't be read back, so that it is computed anew."""
        if self.folder is None or self.question.suffix != ".npz" or is_remote(self.folder):
            return None
        with np.load(output_path(self.folder, entry.name, suffix=".npz")) as file:
            return Answer({name: file[name] for name in file.files})


@dataclass(frozen=True, slots=True)
class Placed:
    """Reads files whose paths are meant from a folder, in a process that may be in another. What it says names them as the user did."""

    open_file: Callable[[str, str], Sample]
    base: str

    def __call__(self, name: str, source: str) -> Sample:
        if is_remote(source) or os.path.isabs(source):
            return self.open_file(name, source)
        there = os.path.join(self.base, source)
        try:
            return self.open_file(name, there)
        except NetsensError as error:
            raise type(error)(str(error).replace(there, source)) from error


def objective(question: GradientQuestion, sample: Sample, options: AggregateOptions | None) -> Any:
    """What was differentiated, row by row, where the aggregate divides by it."""
    if options is None or options.units != "elasticity":
        return None
    from netsens.analyse.aggregate import chosen_sum
    from netsens.graph.names import find_layer

    layer = find_layer(question.model.graph, question.of)
    return chosen_sum(question.model.run(sample.arrays, layer)[layer], question.target, question.cotangent)


class _reported:
    """Within, an error belongs to the one input; that the disk is full belongs to the run."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, (NetsensError, OSError, MemoryError)) or isinstance(error, BrokenPipeError):
            return False
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise DiskFullError(f"{error}; the results so far are whole: make room, then go on with --resume") from error
        if isinstance(error, MemoryError):
            error = InputError("out of memory; give it to a machine with more, or with fewer --jobs")
        self.outcome.error = str(error)
        self.outcome.status = error.exit_status if isinstance(error, NetsensError) else 1
        self.outcome.answer = None
        return True


def digest_of_sample(sample: Sample) -> str:
    """The SHA-256 of a sample's arrays, with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, array in sample.arrays.items():
        digest.update(repr((name, array.dtype.name, array.shape)).encode())
        digest.update(repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _digest(*paths: str | Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def digest_of(paths: list[Path]) -> str:
    """The SHA-256 of files one after another."""
    return _digest(*paths)
