"""A batch run over the rows of one big file, some at a time, so that neither the input nor the result needs to fit in memory."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from netsens.cli.batch.run import Batch
    from netsens.pipeline.rows import Blocks
    from netsens.pipeline.work import Outcome
    from netsens.report.progress import Progress


def run_rows(batch: Batch, size: int, progress: Progress) -> None:
    """The rows of the one input, `size` at a time; the result and its summary are those of all rows at once."""
    from netsens.pipeline.work import Entry, Unit, Work
    from netsens.report.summary import joined

    if batch.plot is not None:
        raise click.UsageError(
            "--plot draws whole results, and with --batch-size they are never in memory; add --aggregate for a picture of all rows, or leave it out."
        )
    blocks = _blocks(batch, size)
    path = blocks.path
    progress.total = blocks.total
    work = Work(batch.question, blocks, None, None, batch.to != "none", batch.options.aggregate)
    work.summarize = batch.prints_rows
    units = (Unit((Entry(n, 0, Path(path).stem, f"{start}:{stop}"),)) for n, (start, stop) in enumerate(blocks.ranges()))
    summary: list[dict[str, Any]] = []
    with _grown(batch, path, blocks.total) as add:
        for result in batch.results(work, units):
            batch.count(result)
            for outcome in result.outcomes:
                if outcome.error:
                    raise _as_error(outcome, path)
                if add is not None and outcome.answer is not None and outcome.sample is not None:
                    add(outcome.answer.arrays, outcome.sample.features)
                summary = [joined(a, b) for a, b in zip(summary, outcome.rows, strict=True)] if summary else outcome.rows
                start, stop = map(int, outcome.entry.source.split(":"))
                progress.advance(stop - start)
    batch.done = 1
    batch.print(None, summary)
    batch.flush()
    if batch.to not in ("none", "-"):
        batch.say.note(f"wrote {blocks.total} rows to {batch.to}.")


def _blocks(batch: Batch, size: int) -> Blocks:
    """The blocks of rows, once it is sure that they can be computed apart from each other."""
    from netsens.errors import UsageError
    from netsens.pipeline.gather import separable
    from netsens.pipeline.rows import blocks_in_memory, blocks_of
    from netsens.report.remote import is_remote

    plan, inputs = batch.plan, batch.question.model.inputs
    if plan.whole is None or plan.rows is None:
        raise click.UsageError("--batch-size takes some rows of one file at a time, or of several files; these inputs are neither.")
    fixed = next((t.shape[0] for t in inputs.values() if t.shape and isinstance(t.shape[0], int)), None)
    count = fixed or size
    path = plan.whole if batch.options.dask is None or is_remote(plan.whole) else os.path.abspath(plan.whole)  # workers may be in other folders
    blocks = blocks_of(plan.rows, path, count) if len(inputs) == 1 else None
    if blocks is None:
        blocks = blocks_in_memory(plan.rows, path, next(iter(plan)).read(), count)
    if blocks.total > count:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the rows themselves are computed
            first = blocks("", f"0:{min(count, 4)}") if fixed is None else None
            why = separable(batch.question, first) if first is not None else "" if fixed == 1 else f"the model takes {fixed} rows at once"
        if why:
            raise UsageError(f"--batch-size would change the result, since {why}; leave it out.")
    return blocks


@contextmanager
def _grown(batch: Batch, path: str, rows: int) -> Iterator[Callable[[Any, Any], None] | None]:
    """What takes the results row by row: a file that grows, standard output, or for other formats memory."""
    from netsens.pipeline.rows import GROWS, check_one_array, growing, growing_file
    from netsens.report.outputs import output_path, write_arrays
    from netsens.report.remote import is_remote

    to = batch.to
    if to == "none":
        yield None
        return
    suffix = Path(to).suffix.lower() if to != "-" else f".{batch.options.format_ or 'npy'}"
    if batch.folder is not None:
        to = output_path(batch.folder, Path(path).stem, suffix=batch.question.suffix)
        suffix = batch.question.suffix
        if not is_remote(to):
            Path(batch.folder).mkdir(parents=True, exist_ok=True)
    if suffix in GROWS and not is_remote(to):

        def checked(writer: Any) -> Callable[[Any, Any], None]:
            def add(arrays: Any, features: Any) -> None:
                check_one_array(list(arrays), suffix)
                writer.add(arrays, features)

            return add

        if to == "-":
            yield checked(growing(sys.stdout.buffer, suffix, rows))
        else:
            with growing_file(to, rows) as writer:
                yield checked(writer)
        return
    parts: list[tuple[Any, Any]] = []

    def keep(arrays: Any, features: Any) -> None:
        parts.append((arrays, features))

    yield keep
    import numpy as np

    whole = {name: np.concatenate([arrays[name] for arrays, _ in parts]) for name in parts[0][0]}
    write_arrays(to, whole, stream=sys.stdout.buffer, features=parts[0][1], make_folder=batch.folder is not None)


def _as_error(outcome: Outcome, path: str) -> Exception:
    from netsens.errors import InputError, NetsensError

    return (InputError if outcome.status == 2 else NetsensError)(f"{path}, rows {outcome.entry.source}: {outcome.error}")
