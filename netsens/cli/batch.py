"""Batch runs of any command: many files, streams, the rows of a big file. What is asked of each input is the command's; how the work is done is `pipeline`'s."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from netsens.cli.messages import Messages
from netsens.cli.messages import say as say_line

if TYPE_CHECKING:
    from netsens.analyse.aggregate import Aggregate, AggregateOptions
    from netsens.pipeline.manifest import Manifest
    from netsens.pipeline.question import Question
    from netsens.pipeline.work import Outcome, Result, Unit, Work
    from netsens.report.images import ImageOptions
    from netsens.report.inputs import InputPlan, PendingSample, Sample
    from netsens.report.progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])
FORMATS = ["npz", "npy", "jsonl", "csv", "safetensors", "parquet", "h5"]
MOST_ROWS_PRINTED = 20


def batch_options(command: Command) -> Command:
    """How a batch run goes about it."""
    for option in reversed((
        click.option("--inputs-from", metavar="[NAME=]LIST", help="A list of input files, one a line; - for standard input. One result each."),
        click.option("--batch-size", type=click.IntRange(1), metavar="N",
                     help="Rows that one run of the model takes: of different files, where that is exact (default: up to 32 small ones), or of one big file."),
        click.option("--jobs", "-j", type=click.IntRange(1), default=1, show_default=True, metavar="N",
                     help="Worker processes. One reads and writes in threads beside the computing."),
        click.option("--resume", is_flag=True, help="Skip what an earlier run of the same question finished in the folder."),
        click.option("--format", "format_", type=click.Choice(FORMATS), help="The format of results in a folder or on standard output. Default: npz; npy or npz."),
        click.option("--timings", is_flag=True, help="Keep each input's seconds in the finished manifest."),
        click.option("--dask", metavar="ADDRESS", help="Run on a Dask cluster: its scheduler's address, or local."),
    )):  # fmt: skip
        command = option(command)
    return command


def image_options(command: Command) -> Command:
    """How pictures become arrays."""
    for option in reversed((
        click.option("--image-preset", type=click.Choice(["imagenet"]), help="imagenet: shorter side to 256, middle 224 x 224, ImageNet's mean and deviation."),
        click.option("--image-size", metavar="HxW", help="Resize pictures to this height and width."),
        click.option("--image-scale", metavar="S", help="Multiply pixels (0 to 255) by this. Default: 1/255 where the model takes floats."),
        click.option("--image-mean", metavar="M,...", help="Subtract this after scaling, one number or one a channel."),
        click.option("--image-std", metavar="D,...", help="Divide by this after that."),
        click.option("--image-layout", metavar="AXES", help="NCHW, NHWC, CHW, HWC, NHW or HW. Default: what the input's shape tells."),
    )):  # fmt: skip
        command = option(command)
    return command


def parse_image_options(preset: str | None, size: str | None, scale: str | None, mean: str | None, std: str | None, layout: str | None) -> ImageOptions:
    """The options as the reader of pictures has them; those given override the preset's."""
    from netsens.report.images import LAYOUTS, PLAIN, PRESETS

    found = PRESETS[preset] if preset else PLAIN
    if size is not None:
        parts = size.lower().split("x")
        if len(parts) not in (1, 2) or not all(p.isdigit() and int(p) for p in parts):
            raise click.BadParameter(f"'{size}' is not a size; write 224x224.", param_hint="--image-size")
        found = replace(found, size=(int(parts[0]), int(parts[-1])))
    if scale is not None:
        over, _, under = scale.partition("/")
        found = replace(found, scale=_numbers(over, "--image-scale")[0] / (_numbers(under, "--image-scale")[0] if under else 1.0))
    if mean is not None:
        found = replace(found, mean=_numbers(mean, "--image-mean"))
    if std is not None:
        found = replace(found, std=_numbers(std, "--image-std"))
        if 0.0 in found.std:
            raise click.BadParameter("a deviation of 0 can't be divided by.", param_hint="--image-std")
    if layout is not None:
        if layout.upper() not in LAYOUTS:
            raise click.BadParameter(f"'{layout}' is none of {', '.join(LAYOUTS)}.", param_hint="--image-layout")
        found = replace(found, layout=layout.upper())
    return found


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a number, or several with commas between.", param_hint=option) from None


@dataclass(frozen=True)
class BatchOptions:
    """What the user said about the batch run."""

    batch_size: int | None = None
    jobs: int = 1
    resume: bool = False
    format_: str | None = None
    timings: bool = False
    dask: str | None = None
    aggregate: AggregateOptions | None = None

    def needed(self, plan: InputPlan) -> bool:
        """Whether there is a batch to run, and not a single input."""
        return plan.is_batch or plan.total is None or self.batch_size is not None or self.aggregate is not None or self.dask is not None


def threads_for(jobs: int) -> int | None:
    """onnxruntime's threads in each of several processes, so that together they have the machine's."""
    import os

    return None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)


def check_destination(destination: str, plan: InputPlan, options: BatchOptions) -> None:
    """Raises before any computing where results could not go to `destination`."""
    from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, check_output, is_folder
    from netsens.report.rows import TABLES

    if options.aggregate is not None and destination not in (NOTHING, STANDARD_OUTPUT) and not is_folder(destination):
        if Path(destination).suffix.lower() not in TABLES:
            check_output(destination)
        return
    check_output(destination, is_batch=plan.is_batch)


class Batch:
    """One batch run: where results go, what is printed, what became of the inputs."""

    def __init__(
        self, question: Question, plan: InputPlan, options: BatchOptions, destination: str, summary: str | None, plot: str | None, say: Messages, name: str
    ) -> None:
        from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, is_folder
        from netsens.report.render import default_kind

        self.question, self.plan, self.options, self.plot, self.say, self.name = question, plan, options, plot, say, name
        self.to = destination
        self.folder = destination if is_folder(destination) else None
        self.aggregate_file: str | None = None
        if options.aggregate is not None and destination not in (NOTHING, STANDARD_OUTPUT):
            self.aggregate_file = f"{destination.rstrip('/')}/aggregate.csv" if self.folder else destination
            if self.folder is None:
                self.to = NOTHING
        self.stream = sys.stderr if self.to == STANDARD_OUTPUT else sys.stdout
        self.kind = summary or default_kind(self.stream)
        self.prints = self.kind != "none" and not (self.stream is sys.stderr and (say.quiet or summary is None))
        self.done = self.failed = self.skipped = self.status = 0
        self.json = False  # the stream's input is JSON, which standard output then answers in kind
        self.header: list[str] | None = None
        self.total: Aggregate | None = None
        if options.format_ is not None:
            question.suffix = f".{options.format_}"
        if options.resume and self.folder is None:
            raise click.UsageError("--resume goes on in a folder of results: name one with -o FOLDER/.")

    def run(self) -> int:
        """Every input; the exit status."""
        from netsens.report.progress import Progress

        with Progress(self.plan.total, self.name, quiet=not self.say.progress) as progress:
            if self.plan.files is not None:
                self._files(progress)
            elif self.plan.total is None:
                self._stream(progress)
            else:
                self._rows(progress)
        if self.total is not None:
            self._report_aggregate(self.total)
        if self.plan.total != 1:
            where = f"; results are in {self.to}" if self.folder or self.to.endswith(".jsonl") else ""
            before = f", {self.skipped} of them before" if self.skipped else ""
            self.say.note(f"{self.done} of {self.done + self.failed} inputs are done{before}{where}")
        return 0 if not self.failed else 3 if self.done else self.status or 1

    # Files -----------------------------------------------------------------------------------------------------------------

    def _files(self, progress: Progress) -> None:
        from netsens.pipeline.work import Work

        assert self.plan.open_file is not None
        with ExitStack() as stack:
            manifest = self._manifest(stack) if self.folder is not None else None
            found = self._gathering()
            work = Work(self.question, self.plan.open_file, found, self.folder, self.folder is None and self.to != "none", self.options.aggregate)
            work.summarize = self.folder is not None or self.prints
            if self.plot:
                work.picture = Picture(self.plot)
            write = stack.enter_context(self._writer())
            for result in self._results(work, self._units(manifest, found.slots if found else 1, progress)):
                self._take(result, manifest, write, progress)
            if manifest is not None:
                manifest.finish(self.options.timings)

    def _manifest(self, stack: ExitStack) -> Manifest:
        from netsens.pipeline.manifest import Manifest, RemoteManifest
        from netsens.report.remote import is_remote

        assert self.folder is not None
        assert self.plan.files is not None
        given = (self.plan.files, self.question.key(), self.question.suffix, self.options.resume)
        if is_remote(self.folder):
            return stack.enter_context(RemoteManifest(self.folder, *given))
        self._hold_folder(stack)
        return Manifest(Path(self.folder), *given)

    def _hold_folder(self, stack: ExitStack) -> None:
        """Makes the folder of results where it isn't there, for this run alone until it ends, and clears what killed runs left half written."""
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

    def _gathering(self) -> Any:
        """How the inputs share runs of the model, judged by the first that can be read."""
        from netsens.pipeline.gather import gathering

        assert self.plan.files is not None
        assert self.plan.open_file is not None
        if len(self.plan.files) < 2 or self.options.batch_size == 1:
            return None
        samples: list[Sample] = []
        for name, path in self.plan.files:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    samples.append(self.plan.open_file(name, path))
            except Exception:  # it is reported when its turn comes
                continue
            if len(samples) == 4:
                break
        if not samples:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the inputs themselves are computed
            found, why = gathering(self.question, samples[0], self.options.batch_size, samples[1:])
        if found is not None:
            self.say.detail(f"{found.slots} inputs share a run of the model.")
        elif self.options.batch_size is not None:
            self.say.note(f"each input has a run of its own: {why}.")
        return found

    def _units(self, manifest: Manifest | None, slots: int, progress: Progress) -> Iterator[Unit]:
        from netsens.pipeline.work import Entry, Unit

        assert self.plan.files is not None
        files = self.plan.files
        for start in range(0, len(files), slots):
            numbers = range(start, min(start + slots, len(files)))
            known = [manifest is not None and self.options.resume and manifest.is_done(n) for n in numbers]
            entries = tuple(Entry(n, n - start, *files[n], done=d) for n, d in zip(numbers, known, strict=True))
            left = tuple(e for e in entries if not e.done or self.options.aggregate is not None)
            self.skipped += sum(known)
            self.done += len(entries) - len(left)
            if len(left) < len(entries):
                progress.advance(len(entries) - len(left))
            if left:
                yield Unit(left, len(entries))

    def _results(self, work: Work, units: Iterable[Unit]) -> Iterator[Result]:
        from netsens.pipeline.workers import in_processes, in_threads

        if self.options.dask is not None:
            from netsens.pipeline.cluster import in_cluster

            return in_cluster(work, units, self.options.dask, self.options.jobs if self.options.jobs > 1 else None)
        return in_processes(work, units, self.options.jobs) if self.options.jobs > 1 else in_threads(work, units)

    def _take(self, result: Result, manifest: Manifest | None, write: Callable[[Outcome], None], progress: Progress) -> None:
        """One unit's results, in order."""
        from netsens.errors import NetsensWarning

        for note in result.notes:
            warnings.warn(note, NetsensWarning, stacklevel=2)
        for outcome in result.outcomes:
            if outcome.error:
                self.failed += 1
                self.status = self.status or outcome.status
                say_line(f"netsens: error: {outcome.entry.source}: {outcome.error}")
            else:
                self.done += 1
                if not outcome.entry.done:
                    write(outcome)
                    self._print(outcome.entry.source, outcome.rows)
            if manifest is not None and not outcome.entry.done:
                manifest.add(outcome)
            progress.advance(failed=bool(outcome.error))
        if result.aggregate is not None:
            if self.total is None:
                self.total = result.aggregate
            else:
                self.total.merge(result.aggregate)

    # Streams and rows --------------------------------------------------------------------------------------------------------

    def _stream(self, progress: Progress) -> None:
        """Samples as they arrive, each answered before the next is read, so that a pipe never waits for one that is ready."""
        from netsens.pipeline.work import Entry, Unit, Work
        from netsens.report.remote import is_remote

        def missing(name: str, source: str) -> Sample:
            raise AssertionError(source)

        work = Work(self.question, missing, None, self.folder, self.folder is None and self.to != "none", self.options.aggregate)
        work.summarize = self.prints
        if self.plot:
            work.picture = Picture(self.plot)
        with ExitStack() as stack:
            if self.folder is not None and not is_remote(self.folder):
                self._hold_folder(stack)
            write = stack.enter_context(self._writer())
            for number, pending in enumerate(self.plan):
                self.json = pending.json
                work.open_file = _Opened(pending)
                self._take(work(Unit((Entry(number, 0, pending.name, pending.source),))), None, write, progress)

    def _rows(self, progress: Progress) -> None:
        """The rows of one input, some at a time."""
        from netsens.errors import UsageError
        from netsens.pipeline.gather import separable
        from netsens.pipeline.rows import blocks_in_memory, blocks_of
        from netsens.pipeline.work import Entry, Unit, Work

        if self.plan.whole is None or self.plan.rows is None:
            if self.options.batch_size is not None:
                raise click.UsageError("--batch-size takes some rows of one file at a time, or of several files; these inputs are neither.")
            self._stream(progress)
            return
        path = self.plan.whole
        fixed = next((t.shape[0] for t in self.question.model.inputs.values() if t.shape and isinstance(t.shape[0], int)), None)
        size = self.options.batch_size
        if size is None:
            self._stream(progress)
            return
        count = fixed or size
        blocks = blocks_of(self.plan.rows, path, count) if len(self.question.model.inputs) == 1 else None
        if blocks is None:
            blocks = blocks_in_memory(self.plan.rows, path, next(iter(self.plan)).read(), count)
        if blocks.total > count:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                first = blocks("", f"0:{min(count, 4)}") if fixed is None else None
                why = separable(self.question, first) if first is not None else "" if fixed == 1 else f"the model takes {fixed} rows at once"
            if why:
                raise UsageError(f"--batch-size would change the result, since {why}; leave it out.")
        self.plan = replace(self.plan, total=blocks.total)
        progress.total = blocks.total
        work = Work(self.question, blocks, None, None, self.to != "none", self.options.aggregate)
        work.summarize = self.prints and self.options.aggregate is None
        units = (Unit((Entry(n, 0, Path(path).stem, f"{start}:{stop}"),)) for n, (start, stop) in enumerate(blocks.ranges()))
        with self._grown(blocks.total) as add:
            for result in self._results(work, units):
                for outcome in result.outcomes:
                    if outcome.error:
                        raise _as_error(outcome, path)
                    if add is not None and outcome.answer is not None and outcome.sample is not None:
                        add(outcome.answer.arrays, outcome.sample.features)
                    self._print(f"rows {outcome.entry.source}", outcome.rows)
                    start, stop = map(int, outcome.entry.source.split(":"))
                    progress.advance(stop - start)
                    self.done += stop - start
                    outcome.error = ""
                if result.aggregate is not None:
                    if self.total is None:
                        self.total = result.aggregate
                    else:
                        self.total.merge(result.aggregate)
        self.plan = replace(self.plan, total=1)
        if self.to != "none" and self.to != "-":
            self.say.note(f"wrote {blocks.total} rows to {self.to}.")

    @contextmanager
    def _grown(self, rows: int) -> Iterator[Any]:
        """What takes the results row by row: a file that grows, standard output, or for other formats memory."""
        from netsens.pipeline.rows import GROWS, check_one_array, growing, growing_file
        from netsens.report.outputs import write_arrays

        if self.to == "none":
            yield None
            return
        suffix = Path(self.to).suffix.lower() if self.to != "-" else f".{self.options.format_ or 'npy'}"
        if self.folder is None and suffix in GROWS:

            def checked(writer: Any) -> Callable[[Any, Any], None]:
                def add(arrays: Any, features: Any) -> None:
                    check_one_array(list(arrays), suffix)
                    writer.add(arrays, features)

                return add

            if self.to == "-":
                yield checked(growing(sys.stdout.buffer, suffix, rows))
            else:
                with growing_file(self.to, rows) as writer:
                    yield checked(writer)
            return
        parts: list[tuple[Any, Any]] = []

        def keep(arrays: Any, features: Any) -> None:
            parts.append((arrays, features))

        yield keep
        import numpy as np

        from netsens.report.outputs import output_path

        whole = {name: np.concatenate([arrays[name] for arrays, _ in parts]) for name in parts[0][0]}
        path = output_path(self.to, Path(self.plan.whole or "rows").stem, suffix=self.question.suffix) if self.folder else self.to
        write_arrays(path, whole, stream=sys.stdout.buffer, features=parts[0][1], make_folder=self.folder is not None)

    # Results -----------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _writer(self) -> Iterator[Callable[[Outcome], None]]:
        """What writes a result that the workers haven't written."""
        from netsens.report.outputs import write_stream

        if self.folder is not None or self.to == "none":
            yield lambda outcome: None
        elif self.to == "-":
            several = _Several()

            def stream(outcome: Outcome) -> None:
                assert outcome.answer is not None
                lines = self.options.format_ == "jsonl" or (self.options.format_ is None and self.json)
                several.check(outcome.answer.arrays, lines)
                write_stream(sys.stdout.buffer, plain(outcome.answer.arrays), lines=lines)

            yield stream
        elif self.to.endswith(".jsonl"):
            from netsens.report.atomic import replacing

            with replacing(self.to) as temporary, temporary.open("wb") as file:

                def line(outcome: Outcome) -> None:
                    assert outcome.answer is not None
                    write_stream(file, plain(outcome.answer.arrays), lines=True)

                yield line
        else:
            yield self._single()

    def _single(self) -> Callable[[Outcome], None]:
        """One file takes one result: a second is refused before the first is overwritten."""
        from netsens.errors import UsageError

        taken: list[str] = []

        def single(outcome: Outcome) -> None:
            assert outcome.sample is not None
            assert outcome.answer is not None
            if taken:
                raise UsageError(
                    f"there are several inputs ({taken[0]}, {outcome.entry.source}, ...) and '{self.to}' takes one result, which is the first's; "
                    f"name a folder (-o {Path(self.to).stem}/), a .jsonl file, or - for standard output"
                )
            taken.append(outcome.entry.source)
            self.question.write(self.to, outcome.sample, outcome.answer)
            self.say.note(f"wrote {len(outcome.answer.arrays)} {'array' if len(outcome.answer.arrays) == 1 else 'arrays'} to {self.to}.")

        return single

    def _print(self, source: str, rows: list[dict[str, Any]]) -> None:
        """Summary rows; one header for all where they make a CSV table."""
        from netsens.report.render import render

        if not self.prints or self.options.aggregate is not None or not rows:
            return
        source = source.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # a path may be any bytes
        lead = {"input": source} if self.plan.is_batch or self.done > 1 or self.plan.total != 1 else {}
        printed = [{**lead, **row} for row in rows]
        if self.kind != "csv":
            render(printed, self.kind, self.stream)  # type: ignore[arg-type]
            return
        columns = list(dict.fromkeys(key for row in printed for key in row))
        if self.header is None:
            self.header = columns
            render(printed, "csv", self.stream)
            return
        import io

        text = io.StringIO()
        render([dict.fromkeys(self.header), *({k: row.get(k) for k in self.header} for row in printed)], "csv", text)
        self.stream.write("".join(text.getvalue().splitlines(keepends=True)[2:]))

    def _report_aggregate(self, total: Aggregate) -> None:
        from netsens.report.outputs import write_arrays
        from netsens.report.render import render
        from netsens.report.rows import write_rows

        rows = total.rows() if total.size <= 1_000_000 else []
        if self.aggregate_file is not None:
            suffix = Path(self.aggregate_file).suffix.lower()
            if suffix in (".npz", ".h5", ".safetensors"):
                write_arrays(self.aggregate_file, total.arrays())
            else:
                write_rows(self.aggregate_file, rows)
            self.say.note(f"wrote the aggregate of {self.done} inputs to {self.aggregate_file}.")
        if self.to == "-":
            self.stream = sys.stdout if self.prints is False else self.stream
        if not self.prints:
            return
        if self.kind in ("table", "markdown") and len(rows) > MOST_ROWS_PRINTED:
            by = next((s for s in ("meanabs", "rms", "q50", "mean") if s in rows[0]), "count")
            rows = sorted(rows, key=lambda row: -abs(row[by]))[:MOST_ROWS_PRINTED]
            self.say.note(f"the table shows the {MOST_ROWS_PRINTED} largest by {by} of {total.size}.")
        render(rows, self.kind, self.stream)  # type: ignore[arg-type]


@dataclass
class Picture:
    """Draws each result beside the others; it can be sent to another process."""

    path: str

    def __call__(self, sample: Sample, answer: Any) -> None:
        from netsens.report.plot import plot_array

        name, array = next(iter(answer.arrays.items()))
        file = str(Path(self.path).with_stem(f"{Path(self.path).stem}-{sample.name.replace('/', '-')}"))
        if answer.row_axes:
            plot_array(file, name, array, kind="matrix", label=f"Jacobian by {name}", row_axes=answer.row_axes)
        else:
            plot_array(file, name, array, input_array=sample.arrays.get(name), features=sample.features.get(name))


class _Several:
    """Results one after another on standard output: a reader must be able to tell them apart."""

    def __init__(self) -> None:
        self.count = 0

    def check(self, arrays: Any, lines: bool) -> None:
        from netsens.errors import UsageError

        self.count += 1
        if self.count > 1 and len(arrays) > 1 and not lines:
            raise UsageError("each result has several arrays, and .npz archives can't be told apart on standard output: add --format jsonl, or name a folder")


def plain(arrays: Any) -> dict[str, Any]:
    """Arrays of dtypes that files hold."""
    import numpy as np

    from netsens.report.dtypes import widened

    return {name: np.asarray(widened(np.asarray(array)), order="C") for name, array in arrays.items()}


@dataclass(frozen=True)
class _Opened:
    """A sample of a stream, in place of one that is opened by its path."""

    pending: PendingSample

    def __call__(self, name: str, source: str) -> Sample:
        return self.pending.read()


def _as_error(outcome: Outcome, path: str) -> Exception:
    from netsens.errors import InputError, NetsensError

    return (InputError if outcome.status == 2 else NetsensError)(f"{path}, rows {outcome.entry.source}: {outcome.error}")
