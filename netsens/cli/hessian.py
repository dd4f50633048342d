"""`netsens hessian`: second derivatives of a single number, or their product with a vector."""

from __future__ import annotations

import sys
from math import prod
from typing import Any

import click

from netsens.cli import options

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
    path = options.resolve_model(model, say)

    import netsens
    from netsens.report.inputs import plan_inputs
    from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, check_output, output_path, write_arrays
    from netsens.report.plot import check_plot_path, plot_array, plot_grid
    from netsens.report.progress import Progress
    from netsens.report.render import default_kind, render
    from netsens.report.sparse import check_sparse_output, write_sparse
    from netsens.report.summary import summarize

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
        if sparse:
            check_sparse_output(destination)
        if plot:
            check_plot_path(plot)
        sample = next(iter(plan)).read()
        selected = list(wrt)
        arrays: dict[str, Any]
        if vectors:
            given = _vectors(loaded, vectors, selected)
            arrays = loaded.hvp(sample.arrays, given, of, selected, target, method=method)
        else:
            from netsens.jacobian.answer import hessian as whole

            point = loaded.second_order(sample.arrays, of, selected, target, method=method)
            if sparse and len(point.prepared.tensors) > 1:
                raise click.UsageError("A sparse Hessian is of one tensor; choose it with --wrt, or leave --sparse out.")
            way = point.prepared.plan(mode, memory_limit, not sparse)
            say.note(way.line(f"Hessian of '{point.prepared.layer}'"))
            say.note(f"{way.why}.")
            for label in point.linearizer.differenced:
                say.note(f"no exact rule for {label}: its derivative is found by finite differences.")
            with Progress(way.passes, "hessian", quiet=not say.progress) as bar:
                found = whole(point, mode=mode, sparse=sparse, memory_limit=memory_limit, progress=bar.reach)
            arrays = {(row if len(found) == len(line) == 1 else f"{row},{column}"): m for row, line in found.items() for column, m in line.items()}
        if destination != NOTHING:
            target_path = output_path(destination, sample.name) if destination != STANDARD_OUTPUT else destination
            if sparse and not vectors:
                write_sparse(target_path, arrays, sys.stdout.buffer)
            else:
                write_arrays(target_path, arrays, stream=sys.stdout.buffer, make_folder=True)
            if destination != STANDARD_OUTPUT:
                say.note(f"wrote {len(arrays)} {'array' if len(arrays) == 1 else 'arrays'} to {target_path}.")
        stream = sys.stderr if destination == STANDARD_OUTPUT else sys.stdout
        kind = summary or default_kind(stream)
        if kind != "none" and not (stream is sys.stderr and (quiet or summary is None)):
            rows = [summarize(name, a.toarray() if hasattr(a, "toarray") else a) for name, a in arrays.items()]
            if kind not in ("json", "csv"):  # two tensors' names want the room
                rows = [{k: v for k, v in row.items() if k not in ("std", "l1")} for row in rows]
            render(rows, kind, stream)  # type: ignore[arg-type]
        if plot and vectors:
            name, array = next(iter(arrays.items()))
            plot_array(plot, name, array, label="product with the Hessian")
            say.note(f"drew '{name}' in {plot}.")
        elif plot:
            shapes_of = {name: point.linearizer.shape(name) for name in found}
            tensors = list(shapes_of.items())
            blocks = {
                (row, column): m if sparse else m.reshape(prod(shapes_of[row]), prod(shapes_of[column]))
                for row, line in found.items() for column, m in line.items()
            }  # fmt: skip
            plot_grid(plot, f"Hessian of {point.prepared.layer}", tensors, tensors, blocks, label="second derivative")
            say.note(f"drew the Hessian in {plot}.")
    return 0


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
