"""The options of batch runs: what the user says about how one goes, and where its results may go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from netsens.analyse.aggregate import AggregateOptions
    from netsens.report.inputs import InputPlan

Command = TypeVar("Command", bound=Callable[..., Any])
FORMATS = ["npz", "npy", "jsonl", "csv", "safetensors", "parquet", "h5"]
STREAMED = ("npy", "npz", "jsonl", "csv")
ARCHIVES = (".npz", ".h5", ".safetensors")  # of an aggregate: a tensor a figure, where a table would have a row an element


def batch_options(command: Command) -> Command:
    """How a batch run goes about it."""
    for option in reversed((
        click.option("--inputs-from", metavar="[NAME=]LIST", help="A list of input files, one a line; - for standard input. One result each."),
        click.option("--jobs", "-j", type=click.IntRange(1), default=1, show_default=True, metavar="N",
                     help="Worker processes. One reads and writes in threads beside the computing."),
        click.option("--resume", is_flag=True, help="Skip what an earlier run of the same question finished in the folder."),
        click.option("--format", "format_", type=click.Choice(FORMATS), help="The format of results in a folder or on standard output. Default: npz; npy or npz."),
        click.option("--timings", is_flag=True, help="Keep each input's seconds in the finished manifest."),
        click.option("--dask", metavar="ADDRESS", help="Run on a Dask cluster: its scheduler's address, or local."),
    )):  # fmt: skip
        command = option(command)
    return command


def batch_size_option(command: Command) -> Command:
    return click.option("--batch-size", type=click.IntRange(1), metavar="N",
                        help="Rows that one run of the model takes: of different files, where that is exact (default: up to 32 small ones), or of one big file."
                        )(command)  # fmt: skip


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
        asked = self.resume or self.batch_size is not None or self.aggregate is not None or self.dask is not None
        return asked or plan.is_batch or plan.total is None


def threads_for(jobs: int) -> int | None:
    """onnxruntime's threads in each of several processes, so that together they have the machine's."""
    import os

    return None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)


def check_destination(destination: str, plan: InputPlan, options: BatchOptions) -> None:
    """Raises before any computing where results could not go to `destination`."""
    from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, check_inputs_kept, check_output, is_folder

    name, suffix = options.format_, Path(destination).suffix.lower()
    if name is not None and destination == NOTHING:
        raise click.UsageError(f"--format {name} and -o none contradict each other: nothing is written; leave one of them out.")
    if options.timings and not is_folder(destination):
        raise click.UsageError("--timings are kept in the manifest of a folder of results: name one with -o FOLDER/.")
    if destination == STANDARD_OUTPUT and name not in (None, *STREAMED):
        raise click.UsageError(f"--format {name} is written to files; on standard output there are {', '.join(STREAMED)}.")
    if name is not None and destination not in (NOTHING, STANDARD_OUTPUT) and not is_folder(destination) and suffix != f".{name}":
        raise click.UsageError(f"--format {name} and -o {destination} contradict each other; leave --format out, or name a folder.")
    if options.aggregate is not None and destination not in (NOTHING, STANDARD_OUTPUT) and not is_folder(destination):
        from netsens.report.rows import TABLES

        if suffix not in (*TABLES, *ARCHIVES):
            raise click.UsageError(
                f"an aggregate can't be written as '{destination}'; name a file that ends in one of {' '.join((*TABLES, *ARCHIVES))}, or a folder/."
            )
        check_output(destination if suffix not in TABLES else str(Path(destination).with_suffix(".csv")))
        return
    check_output(destination, is_batch=plan.is_batch)
    check_inputs_kept(destination, plan, f".{name or 'npz'}")
