"""Where the results of a batch run go when the workers don't write them: standard output, one file of JSON lines, one file, a picture each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsens.cli.messages import Messages

if TYPE_CHECKING:
    from netsens.pipeline.question import Question
    from netsens.pipeline.work import Outcome
    from netsens.report.inputs import Sample


class StandardOutput:
    """Results one after another on standard output, in a form that a reader can take apart: .npy arrays, lines of JSON, the rows of one CSV table. Several
    arrays make an .npz archive, which has to be alone there."""

    def __init__(self, format_: str | None) -> None:
        self.format = format_
        self.count = 0
        self._table: Any = None

    def write(self, arrays: Mapping[str, Any], features: Mapping[str, Sequence[str]], json: bool = False) -> None:
        """One input's arrays; without a format they are JSON where the input was."""
        from netsens.errors import UsageError
        from netsens.pipeline.rows import GrowingCsv, check_one_array
        from netsens.report.outputs import write_stream
        from netsens.report.sparse import write_sparse

        self.count += 1
        sparse = any(hasattr(array, "tocsr") for array in arrays.values())  # which SciPy keeps in an .npz of its own, whatever the input was
        format_ = "npz" if sparse else self.format or ("jsonl" if json else "npy" if len(arrays) == 1 else "npz")
        if format_ == "csv":
            self._table = self._table or GrowingCsv(sys.stdout.buffer)
            self._table.add(plain(arrays), features)
            return
        if format_ == "npz" and self.count > 1:
            raise UsageError(
                f"there are several results, and .npz archives can't be told apart on standard output: {'' if sparse else 'add --format jsonl, or '}name a folder"
            )
        if sparse:
            write_sparse("-", arrays, sys.stdout.buffer)
            return
        if format_ == "npy":
            check_one_array(list(arrays), ".npy")
        write_stream(sys.stdout.buffer, plain(arrays), format_)


@contextmanager
def result_writer(to: str, format_: str | None, question: Question, say: Messages) -> Iterator[Callable[[Outcome, bool], None]]:
    """What writes the result of one input to `to`, which is no folder; its second argument says whether the input was JSON."""
    from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, write_stream

    if to == NOTHING:
        yield lambda outcome, json: None
    elif to == STANDARD_OUTPUT:
        output = StandardOutput(format_)

        def stream(outcome: Outcome, json: bool) -> None:
            assert outcome.answer is not None
            assert outcome.sample is not None
            output.write(outcome.answer.arrays, outcome.sample.features, json)

        yield stream
    elif to.endswith(".jsonl"):
        from netsens.report.atomic import replacing

        with replacing(to) as temporary, temporary.open("wb") as file:

            def line(outcome: Outcome, json: bool) -> None:
                assert outcome.answer is not None
                write_stream(file, plain(outcome.answer.arrays), "jsonl")

            yield line
    else:
        yield _single(to, question, say)


def _single(to: str, question: Question, say: Messages) -> Callable[[Outcome, bool], None]:
    """One file takes one result: a second is refused before the first is overwritten."""
    from netsens.errors import UsageError

    taken: list[str] = []

    def single(outcome: Outcome, json: bool) -> None:
        assert outcome.sample is not None
        assert outcome.answer is not None
        if taken:
            raise UsageError(
                f"there are several inputs ({taken[0]}, {outcome.entry.source}, ...) and '{to}' takes one result, which is the first's; "
                f"name a folder (-o {Path(to).stem}/), a .jsonl file, or - for standard output"
            )
        taken.append(outcome.entry.source)
        question.write(to, outcome.sample, outcome.answer)
        say.note(f"wrote {len(outcome.answer.arrays)} {'array' if len(outcome.answer.arrays) == 1 else 'arrays'} to {to}.")

    return single


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


def plain(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays of dtypes that files hold."""
    import numpy as np

    from netsens.report.dtypes import widened

    return {name: np.asarray(widened(np.asarray(array)), order="C") for name, array in arrays.items()}
