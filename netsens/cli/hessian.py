"""`netsens hessian`: second derivatives of a single number, or their product with a vector."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import click

from netsens.cli import options
from netsens.cli.messages import Messages
from netsens.cli.streaming import streamed_to

if TYPE_CHECKING:
    from netsens.jacobian.answer import Point

EXAMPLES = """\b
Examples:
  netsens hessian sample_models/diabetes_mlp.onnx --input random:1
  netsens hessian model.onnx --input x.npy --of loss --wrt fc.weight -o H.npy
  netsens hessian model.onnx --input x.npy --of logits --target 3 --vector v.npy
"""


@click.command(epilog=EXAMPLES)
@options.model_argument
@options.input_options
@options.wrt_option("inputs")
@options.of_option
@click.option("--target", metavar="T", help="The one component of --of that is differentiated: an index (3), or as NumPy writes it ([0,3]), or argmax.")
@click.option("--vector", "vectors", multiple=True, metavar="[NAME=]SRC",
              help="A file of the shape of the tensor: the Hessian's product with it, without the Hessian. Repeatable, one a tensor of --wrt.")  # fmt: skip
@click.option("--mode", type=click.Choice(["auto", "forward", "reverse"]), default="auto", show_default=True,
              help="Over the gradient: forward is forward over reverse.")  # fmt: skip
@click.option("--sparse", is_flag=True, help="Only the entries that the structure leaves, in SciPy's sparse form (.npz); of one tensor.")
@click.option("--method", type=click.Choice(["auto", "autodiff"]), default="auto", show_default=True,
              help="auto: exact rules, and finite differences only for operators that have none.")  # fmt: skip
@options.output_option
@options.summary_option
@click.option("--plot", metavar="FILE", help="Draw the matrix (.png .svg .pdf).")
@options.run_options
@options.memory_option
@options.message_options
def hessian(
    model: str | None, inputs: tuple[str, ...], shapes: tuple[str, ...], wrt: tuple[str, ...], of: str | None, target: str | None, vectors: tuple[str, ...],
    mode: str, sparse: bool, method: str, output: str | None, summary: str | None, plot: str | None, provider: str, threads: int | None, quantized: str, compute_dtype: str | None,
    memory_limit: int | None, quiet: bool, verbose: bool, no_progress: bool,
) -> int:  # fmt: skip
    """Second derivatives of a single number, or their product with a vector.

    By one tensor the array has its shape twice; by several there is one for each two of them, named "ROW,COLUMN". A layer of more than one
    number needs --target.
    """
    say = options.messages(quiet, verbose, no_progress)
    if vectors and (sparse or mode != "auto"):
        option = "--sparse" if sparse else "--mode"
        raise click.UsageError(
            f"--vector and {option} exclude each other: the product with a vector takes one pass, and no matrix is made. Leave one of them out."
        )
    path = options.resolve_model(model, say)

    import netsens
    from netsens.report.inputs import plan_inputs
    from netsens.report.outputs import check_inputs_kept, check_output
    from netsens.report.plot import check_plot_path
    from netsens.report.sparse import check_sparse_output

    with say.warnings_as_notes():
        loaded = netsens.load(path, provider=provider, threads=threads, quantized=quantized, compute_dtype=compute_dtype)
        specs = options.input_specs(loaded)
        plan = plan_inputs(inputs, specs, shapes=options.parse_shapes(shapes, specs), stdin=sys.stdin.buffer)
        if plan.is_batch:
            raise click.UsageError("hessian takes one input at a time; a glob of several is for grad and jacobian.")
        if not inputs and specs:
            say.note("no --input was given: the inputs are random:0.")
        destination = output or f"{path.stem}.hessian.npz"
        check_output(destination)
        check_inputs_kept(destination, plan)
        if sparse:
            check_sparse_output(destination)
        if plot:
            check_plot_path(plot)
        sample = next(iter(plan)).read()
        command = Command(mode, sparse, memory_limit, destination, summary, plot, say)
        if vectors:
            given = _vectors(loaded, vectors, list(wrt))
            command.products(loaded.hvp(sample.arrays, given, of, list(wrt), target, method=method), sample.name)
        else:
            command.matrix(loaded.second_order(sample.arrays, of, list(wrt), target, method=method), sample.name)
    return 0


@dataclass(frozen=True)
class Command:
    """What was asked of the Hessian, and what is done with it."""

    mode: str
    sparse: bool
    memory_limit: int | None
    destination: str
    summary: str | None
    plot: str | None
    say: Messages

    def products(self, arrays: Mapping[str, Any], name: str) -> None:
        """Products with vectors, by tensor."""
        from netsens.report.plot import plot_array

        self._write(arrays, name, False)
        self._summarise([(tensor, array) for tensor, array in arrays.items()])
        if self.plot:
            tensor, array = next(iter(arrays.items()))
            plot_array(self.plot, tensor, array, label="product with the Hessian")
            self.say.note(f"drew '{tensor}' in {self.plot}.")

    def matrix(self, point: Point, name: str) -> None:
        """The matrix: whole, piece by piece into a file, or as figures alone."""
        from netsens.errors import UsageError
        from netsens.jacobian.answer import hessian as whole
        from netsens.jacobian.answer import result_bytes, sparse_bytes, sparse_file
        from netsens.jacobian.figures import figures, of_array, of_sparse
        from netsens.jacobian.memory import fits, readable
        from netsens.report.outputs import NOTHING
        from netsens.report.progress import Progress

        say, tensors = self.say, point.prepared.tensors
        if self.sparse and len(tensors) > 1:
            raise click.UsageError("A sparse Hessian is of one tensor; choose it with --wrt, or leave --sparse out.")
        plan = point.prepared.plan(self.mode, self.memory_limit, not self.sparse)
        needed = sparse_bytes(plan) if self.sparse else result_bytes(point.prepared, plan, False)
        stored, roomy = self.destination != NOTHING, fits(needed, self.memory_limit)
        if not stored and not roomy and plan.waist is not None:
            plan = point.prepared.plan(self.mode, self.memory_limit, False)
        say.note(plan.line(f"Hessian of '{point.prepared.layer}'"))
        say.note(f"{plan.why}." if plan.relations else "its gradient does not depend on what it is taken by.")
        for label in point.linearizer.differenced:
            say.note(f"no exact rule for {label}: its derivative is found by finite differences.")
        file = None
        if stored and not roomy and len(tensors) == 1:
            file = streamed_to(self.destination, name, f"The Hessian takes {readable(needed)}", self.sparse)
            say.note(f"{readable(needed)} is more than half of the memory allowed: it goes to {file} piece by piece.")
        found: Mapping[str, Mapping[str, Any]] = {}
        rows: list[Any] = []
        with Progress(plan.passes, "hessian", quiet=not say.progress) as bar:
            if not stored and not roomy:
                if self.plot:
                    raise UsageError("The Hessian doesn't fit into half of the memory allowed, so it can't be drawn; write it to a file, or narrow it.")
                rows = [f.row() for f in figures(point, plan, bar.reach).values()]
            elif file is not None and self.sparse:
                found = {tensors[0]: {tensors[0]: sparse_file(point, file, mode=self.mode, memory_limit=self.memory_limit, progress=bar.reach)[0]}}
            else:
                found = whole(point, mode=self.mode, sparse=self.sparse, memory_limit=self.memory_limit, folder=file, progress=bar.reach)
        shape = point.linearizer.shape
        if file is not None:
            ((w, line),) = found.items()
            rows = [(of_sparse if self.sparse else of_array)(w, line[w], shape(w), shape(w)).row()]
        arrays = {(row if len(found) == len(line) == 1 else f"{row},{column}"): m for row, line in found.items() for column, m in line.items()}
        if stored and file is None:
            self._write(arrays, name, self.sparse)
        self._summarise(rows or [(tensor, a.toarray() if hasattr(a, "toarray") else a) for tensor, a in arrays.items()])
        if self.plot:
            self._draw(point, found)

    def _write(self, arrays: Mapping[str, Any], name: str, sparse: bool) -> None:
        from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, output_path, write_arrays
        from netsens.report.sparse import write_sparse

        if self.destination == NOTHING:
            return
        path = output_path(self.destination, name) if self.destination != STANDARD_OUTPUT else self.destination
        if sparse:
            write_sparse(path, arrays, sys.stdout.buffer)
        else:
            write_arrays(path, arrays, stream=sys.stdout.buffer, make_folder=True)
        if self.destination != STANDARD_OUTPUT:
            self.say.note(f"wrote {len(arrays)} {'array' if len(arrays) == 1 else 'arrays'} to {path}.")

    def _summarise(self, found: Sequence[Any]) -> None:
        """A row a tensor: rows that are there already, or (name, array)."""
        from netsens.report.outputs import STANDARD_OUTPUT
        from netsens.report.render import default_kind, render
        from netsens.report.summary import summarize

        stream = sys.stderr if self.destination == STANDARD_OUTPUT else sys.stdout
        kind = self.summary or default_kind(stream)
        if kind == "none" or (stream is sys.stderr and (self.say.quiet or self.summary is None)):
            return
        rows = [row if isinstance(row, dict) else summarize(*row) for row in found]
        if kind not in ("json", "csv"):  # two tensors' names want the room
            rows = [{k: v for k, v in row.items() if k not in ("std", "l1", "largest", "at", "row_norm_max", "column_norm_max")} for row in rows]
        render(rows, kind, stream)  # type: ignore[arg-type]

    def _draw(self, point: Point, found: Mapping[str, Mapping[str, Any]]) -> None:
        from netsens.report.plot import plot_grid

        assert self.plot is not None
        shapes = {name: point.linearizer.shape(name) for name in found}
        tensors = list(shapes.items())
        blocks = {
            (row, column): m if self.sparse else m.reshape(prod(shapes[row]), prod(shapes[column])) for row, line in found.items() for column, m in line.items()
        }
        plot_grid(self.plot, f"Hessian of {point.prepared.layer}", tensors, tensors, blocks, label="second derivative")
        self.say.note(f"drew the Hessian in {self.plot}.")


def _vectors(model: Any, sources: tuple[str, ...], wrt: list[str]) -> dict[str, Any]:
    """The vectors by tensor, from their files."""
    import numpy as np

    from netsens.graph.dtypes import numpy_dtype
    from netsens.graph.names import find_wrt
    from netsens.report.inputs import read_inputs
    from netsens.report.specs import InputSpec

    specs = []
    for name in find_wrt(model.graph, wrt):
        known = model.graph.types.get(name)
        dtype = numpy_dtype(known.dtype) if known is not None and known.dtype else np.dtype(np.float32)
        specs.append(InputSpec(name, dtype, known.shape if known is not None else None))
    return dict(next(read_inputs(list(sources), specs, stdin=sys.stdin.buffer)).arrays)
