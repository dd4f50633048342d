"""A batch run over a stream: samples one after another on standard input, or in a file of JSON lines. Also over a single input."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from netsens.cli.batch.results import Picture, result_writer

if TYPE_CHECKING:
    from netsens.cli.batch.run import Batch
    from netsens.pipeline.manifest import Manifest
    from netsens.report.inputs import PendingSample, Sample
    from netsens.report.progress import Progress


def run_stream(batch: Batch, progress: Progress) -> None:
    """Samples as they arrive, each answered before the next is read, so that a pipe never waits for one that is ready. With `--resume` the stream comes
    again from its beginning, and what an earlier run made of the same arrays in the same place is left as it is."""
    from netsens.pipeline.work import Entry, Unit, Work
    from netsens.report.lists import StreamNames

    if batch.options.dask is not None:
        raise click.UsageError("--dask shares out files (--inputs-from, a folder, a glob) or rows (--batch-size), and these inputs are neither.")
    if batch.options.jobs > 1:
        batch.say.note("--jobs shares out files or rows, which these inputs are not: one process answers them.")
    work = Work(batch.question, _unread, None, batch.folder, batch.folder is None and batch.to != "none", batch.options.aggregate)
    work.summarize = batch.folder is not None or batch.prints
    if batch.plot:
        work.picture = Picture(batch.plot)
    names = batch.plan.stream
    with ExitStack() as stack:
        manifest = batch.manifest(stack, names if names is not None else next(StreamNames(p.name, p.source) for p in batch.plan))
        write = stack.enter_context(nullcontext() if batch.folder is not None else result_writer(batch.to, batch.options.format_, batch.question, batch.say))
        for number, pending in enumerate(batch.plan):
            work.open_file = opened = _Opened(pending)
            digest = opened.digest() if manifest is not None else ""
            done = manifest is not None and batch.options.resume and manifest.is_done(number, digest)
            batch.skipped += done
            if done and batch.options.aggregate is None:
                batch.done += 1
                progress.advance()
                _print_again(batch, manifest, number, pending)
                continue
            result = work(Unit((Entry(number, 0, pending.name, pending.source, done, digest),)))
            batch.count(result)
            (outcome,) = result.outcomes
            if batch.account(outcome) and not done:
                if write is not None:
                    write(outcome, pending.json)
                batch.print(pending.source if names is not None else None, outcome.rows)
                batch.flush()
            if manifest is not None and not done:
                manifest.add(outcome)
            progress.advance(failed=bool(outcome.error))
        if manifest is not None:
            manifest.finish(batch.options.timings)


def _print_again(batch: Batch, manifest: Manifest | None, number: int, pending: PendingSample) -> None:
    """The summary that an earlier run made, in its place among the others."""
    if manifest is not None and batch.prints_rows:
        batch.print(pending.source, manifest.summary(number))
        batch.flush()


def _unread(name: str, source: str) -> Sample:
    raise AssertionError(source)  # each sample of a stream sets its own reader before it is asked for


@dataclass
class _Opened:
    """A sample of a stream, in place of one that is opened by its path."""

    pending: PendingSample
    sample: Sample | None = None

    def __call__(self, name: str, source: str) -> Sample:
        if self.sample is None:
            self.sample = self.pending.read()
        return self.sample

    def digest(self) -> str:
        """The digest of its arrays; empty where it can't be read, which is reported when it is asked for."""
        from netsens.errors import NetsensError
        from netsens.pipeline.work import digest_of_sample

        try:
            return digest_of_sample(self("", ""))
        except (NetsensError, MemoryError):
            return ""
