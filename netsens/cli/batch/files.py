"""A batch run over files: those of a list, a folder or a glob."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

from netsens.cli.batch.results import Picture, result_writer

if TYPE_CHECKING:
    from netsens.cli.batch.run import Batch
    from netsens.pipeline.gather import Gathering
    from netsens.pipeline.manifest import Manifest
    from netsens.pipeline.work import Unit
    from netsens.report.inputs import Sample
    from netsens.report.lists import FileNames
    from netsens.report.progress import Progress


def run_files(batch: Batch, files: FileNames, progress: Progress) -> None:
    """Every file, small ones several to a run of the model, with a manifest where results go to a folder."""
    from netsens.pipeline.work import Placed, Work
    from netsens.report.remote import is_remote

    assert batch.plan.open_file is not None
    with ExitStack() as stack:
        manifest = batch.manifest(stack, files)
        found = _gathering(batch, files)
        reader, folder = batch.plan.open_file, batch.folder
        if batch.options.dask is not None:  # workers may be in other folders, whose relative paths are not the user's
            reader, folder = Placed(reader, os.getcwd()), folder if folder is None or is_remote(folder) else os.path.abspath(folder) + os.sep
        work = Work(batch.question, reader, found, folder, batch.folder is None and batch.to != "none", batch.options.aggregate)
        work.summarize = batch.folder is not None or batch.prints
        if batch.plot:
            work.picture = Picture(os.path.abspath(batch.plot) if batch.options.dask is not None else batch.plot)
        before = _Before(batch, files, manifest)
        write = stack.enter_context(nullcontext() if batch.folder is not None else result_writer(batch.to, batch.options.format_, batch.question, batch.say))
        for result in batch.results(work, _units(batch, files, before, found.slots if found else 1, progress)):
            batch.count(result)
            for outcome in result.outcomes:
                before.print_until(outcome.entry.number)
                if batch.account(outcome) and not outcome.entry.done:
                    if write is not None:
                        write(outcome, False)
                    batch.print(outcome.entry.source, outcome.rows)
                if manifest is not None and not outcome.entry.done:
                    manifest.add(outcome)
                progress.advance(failed=bool(outcome.error))
            batch.flush()
        before.print_until(len(files))
        batch.flush()
        if manifest is not None:
            manifest.finish(batch.options.timings)


class _Before:
    """What an earlier run has done. Its summary is printed in its place among the rest, so that a resumed run prints what an undisturbed one would."""

    def __init__(self, batch: Batch, files: FileNames, manifest: Manifest | None) -> None:
        self.batch, self.files = batch, files
        self.manifest = manifest if batch.options.resume else None
        self._done = bytearray(len(files) if self.manifest is not None else 0)
        self._printed = 0

    def has(self, number: int) -> bool:
        """Whether the input of that number is done."""
        if self.manifest is None:
            return False
        self._done[number] = self.manifest.is_done(number)
        return bool(self._done[number])

    def print_until(self, number: int) -> None:
        """The summaries of those before the one whose turn it is."""
        if self.manifest is None or not self.batch.prints_rows:
            return
        for k in range(self._printed, number):
            if self._done[k]:
                self.batch.print(self.files[k][1], self.manifest.summary(k))
        self._printed = max(self._printed, number)


def _units(batch: Batch, files: FileNames, before: _Before, slots: int, progress: Progress) -> Iterator[Unit]:
    """The inputs, `slots` of them at a time, without those that are done, save where an aggregate needs them again."""
    from netsens.pipeline.work import Entry, Unit

    for start in range(0, len(files), slots):
        entries = [Entry(n, n - start, *files[n], done=before.has(n)) for n in range(start, min(start + slots, len(files)))]
        left = tuple(e for e in entries if not e.done or batch.options.aggregate is not None)
        batch.skipped += sum(e.done for e in entries)
        batch.done += len(entries) - len(left)
        if len(left) < len(entries):
            progress.advance(len(entries) - len(left))
        if left:
            yield Unit(left, len(entries))


def _gathering(batch: Batch, files: FileNames) -> Gathering | None:
    """How the inputs share runs of the model, judged by the first that can be read."""
    from netsens.pipeline.gather import gathering

    assert batch.plan.open_file is not None
    if len(files) < 2 or batch.options.batch_size == 1:
        return None
    samples: list[Sample] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the inputs themselves are computed
        for name, path in files:
            try:
                samples.append(batch.plan.open_file(name, path))
            except Exception:  # it is reported when its turn comes
                continue
            if len(samples) == 4:
                break
        if not samples:
            return None
        found, why = gathering(batch.question, samples[0], batch.options.batch_size, samples[1:])
    if found is not None:
        batch.say.detail(f"{found.slots} inputs share a run of the model.")
    elif batch.options.batch_size is not None:
        batch.say.note(f"each input has a run of its own: {why}.")
    return found
