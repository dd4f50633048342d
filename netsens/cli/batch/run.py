"""One batch run: where its results go, what is printed of them, what became of the inputs. How inputs of each kind are gone through stands in `files`,
`streams` and `rows`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from netsens.cli.batch.options import ARCHIVES, BatchOptions
from netsens.cli.messages import Messages
from netsens.cli.messages import say as say_line

if TYPE_CHECKING:
    from netsens.analyse.aggregate import Aggregate
    from netsens.pipeline.manifest import Manifest
    from netsens.pipeline.question import Question
    from netsens.pipeline.work import Outcome, Result, Unit, Work
    from netsens.report.inputs import InputPlan
    from netsens.report.lists import FileNames, StreamNames

MOST_ROWS_PRINTED = 20


class Batch:
    """A command's question, asked of every input of its plan."""

    def __init__(
        self, question: Question, plan: InputPlan, options: BatchOptions, destination: str, summary: str | None, plot: str | None, say: Messages, name: str
    ) -> None:
        from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, is_folder
        from netsens.report.render import default_kind
        from netsens.report.running import RunningSummary

        self.question, self.plan, self.options, self.say, self.name = question, plan, options, say, name
        self.plot = plot if options.aggregate is None else None  # of each input
        self.aggregate_plot = plot if options.aggregate is not None else None
        self.to = destination
        self.folder = destination if is_folder(destination) else None
        self.aggregate_file: str | None = None
        if options.aggregate is not None and destination != NOTHING:
            if destination == STANDARD_OUTPUT:
                summary = summary or "csv"  # there the figures are the result
            else:
                self.aggregate_file = f"{destination.rstrip('/')}/aggregate.csv" if self.folder else destination
            if self.folder is None:
                self.to = NOTHING
        self.aside = self.to == STANDARD_OUTPUT  # results have standard output, and the summary goes to standard error
        self.kind: Any = summary or default_kind(self.stream())  # click has checked it
        self.prints = self.kind != "none" and not (self.aside and (say.quiet or summary is None))
        self.done = self.failed = self.skipped = self.status = 0
        self.total: Aggregate | None = None
        self._summary = RunningSummary(self.kind, self.stream, question.detail)
        question.model.options = replace(question.model.options, any_lengths=True)  # a resumed run ends with the bytes of an undisturbed one
        if options.format_ is not None:
            question.suffix = f".{options.format_}"
        if options.resume and self.folder is None:
            raise click.UsageError("--resume goes on in a folder of results: name one with -o FOLDER/.")

    def stream(self) -> TextIO:
        """What takes the summary; while a progress bar is drawn, its stand-in for it."""
        return sys.stderr if self.aside else sys.stdout

    @property
    def prints_rows(self) -> bool:
        """Whether there is a summary of each input, and not of all of them."""
        return self.prints and self.options.aggregate is None

    def run(self) -> int:
        """Every input; the exit status."""
        from netsens.cli.batch.files import run_files
        from netsens.cli.batch.rows import run_rows
        from netsens.cli.batch.streams import run_stream
        from netsens.report.progress import Progress

        with Progress(self.plan.total, self.name, quiet=not self.say.progress) as progress:
            if self.plan.files is not None:
                run_files(self, self.plan.files, progress)
            elif self.options.batch_size is not None and self.plan.total is not None:
                run_rows(self, self.options.batch_size, progress)
            else:
                run_stream(self, progress)
        if self.total is not None:
            self._report_aggregate(self.total)
        if self.folder or self.failed or self.done + self.failed != 1:
            where = f"; results are in {self.to}" if self.folder or self.to.endswith(".jsonl") else ""
            before = f", {self.skipped} of them before" if self.skipped else ""
            self.say.note(f"{self.done} of {self.done + self.failed} inputs are done{before}{where}")
        return 0 if not self.failed else 3 if self.done else self.status or 1

    def manifest(self, stack: ExitStack, names: FileNames | StreamNames) -> Manifest | None:
        """The manifest of the folder of results, which is this run's alone until the stack is left; None where there is no folder."""
        from netsens.pipeline.manifest import Manifest, RemoteManifest
        from netsens.report.remote import is_remote

        if self.folder is None:
            return None
        given = (names, self.question.key(), self.question.suffix, self.options.resume)
        if is_remote(self.folder):
            return stack.enter_context(RemoteManifest(self.folder, *given))
        self._hold_folder(stack)
        return Manifest(Path(self.folder), *given)

    def _hold_folder(self, stack: ExitStack) -> None:
        """Makes the folder where it isn't there, takes its lock, and clears what killed runs left half written."""
        from netsens.errors import OutputError
        from netsens.pipeline.lock import FolderLock
        from netsens.pipeline.manifest import tidy

        path = Path(self.folder or "")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder '{path}': {error.strerror or error}") from error
        stack.enter_context(FolderLock(path))
        tidy(path)
        stack.callback(tidy, path)

    def results(self, work: Work, units: Iterable[Unit]) -> Iterator[Result]:
        """The results of the units in their order, from the workers that were asked for."""
        from netsens.pipeline.workers import in_processes, in_threads

        if self.options.dask is not None:
            from netsens.pipeline.cluster import in_cluster

            return in_cluster(work, units, self.options.dask, self.options.jobs if self.options.jobs > 1 else None)
        return in_processes(work, units, self.options.jobs) if self.options.jobs > 1 else in_threads(work, units)

    def count(self, result: Result) -> None:
        """Passes on what a unit has to say, and adds its figures."""
        from netsens.errors import NetsensWarning

        for note in result.notes:
            warnings.warn(note, NetsensWarning, stacklevel=2)
        if result.aggregate is not None:
            if self.total is None:
                self.total = result.aggregate
            else:
                self.total.merge(result.aggregate)

    def account(self, outcome: Outcome) -> bool:
        """Counts one input, and says what was wrong with it; whether it is done."""
        if not outcome.error:
            self.done += 1
            return True
        self.failed += 1
        self.status = self.status or outcome.status
        where = "" if outcome.entry.source in outcome.error else f"{outcome.entry.source}: "
        say_line(f"netsens: error: {where}{outcome.error}")
        return False

    def print(self, source: str | None, rows: list[dict[str, Any]]) -> None:
        """Summary rows; `source` where there may be several inputs to tell apart."""
        if not self.prints_rows:
            return
        lead = {} if source is None else {"input": source.encode("utf-8", "surrogateescape").decode("utf-8", "replace")}  # a path may be any bytes
        self._summary.add([{**lead, **row} for row in rows])

    def flush(self) -> None:
        """Prints the summary rows so far."""
        self._summary.flush()

    def _report_aggregate(self, total: Aggregate) -> None:
        from netsens.report.outputs import write_arrays
        from netsens.report.render import render
        from netsens.report.rows import write_rows

        rows = total.rows() if total.size <= 1_000_000 else []
        if self.aggregate_file is not None:
            suffix = Path(self.aggregate_file).suffix.lower()
            if suffix in ARCHIVES:
                write_arrays(self.aggregate_file, total.arrays())
            else:
                write_rows(self.aggregate_file, rows)
            self.say.note(f"wrote the aggregate of {self.done} {'input' if self.done == 1 else 'inputs'} to {self.aggregate_file}.")
        if self.aggregate_plot is not None:
            self._draw_aggregate(total, self.aggregate_plot)
        if not self.prints:
            return
        if self.kind in ("table", "markdown") and len(rows) > MOST_ROWS_PRINTED:
            by = next((s for s in ("meanabs", "rms", "q50", "mean") if s in rows[0]), "count")
            rows = sorted(rows, key=lambda row: -abs(row[by]))[:MOST_ROWS_PRINTED]
            self.say.note(f"the table shows the {MOST_ROWS_PRINTED} largest by {by} of {total.size}.")
        render(rows, self.kind, self.stream())

    def _draw_aggregate(self, total: Aggregate, plot: str) -> None:
        """The first figure of the first tensor."""
        from netsens.report.plot import plot_array

        name, tensor = next(iter(total.tensors.items()))
        statistic, array = next(iter(total.figures(name).items()))
        units = {"raw": "", "std": ", times the input's deviation", "elasticity": ", as an elasticity"}[total.options.units]
        plot_array(plot, name, array[None], features=tensor.features or None, label=f"{statistic} of the gradient{units}")
        self.say.note(f"drew the {statistic} of '{name}' in {plot}.")
