"""`netsens jacobian`: the Jacobian of an output or a layer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netsens.cli import batch, options
from netsens.cli.messages import Messages
from netsens.cli.streaming import streamed_to

if TYPE_CHECKING:
    from netsens.jacobian.answer import Point
    from netsens.jacobian.figures import Figures
    from netsens.jacobian.plan import Plan
    from netsens.model import Model
    from netsens.report.inputs import Sample

EXAMPLES = """\b
Examples:
  netsens jacobian sample_models/digits_cnn.onnx --input sample_models/digits.npy --layer relu1 --wrt params -o J.npz
  netsens jacobian model.onnx --input x.npy --layer relu1 --sparse -o J.npz
  netsens jacobian model.onnx --input x.npy --of logits --wrt params -o none --summary table
  netsens jacobian model.onnx --input x.npy --explain
  netsens jacobian model.onnx --layer relu1 --inputs-from list.txt -o out/ --jobs 4 --resume
"""


@click.command(epilog=EXAMPLES)
@options.model_argument
@options.input_options
@options.wrt_option("inputs")
@options.of_option
@click.option("--target", metavar="T",
              help="Only these components of --of: an index (3), several (0,2), a slice as NumPy writes it ([:,3]), or argmax. Default: all.")  # fmt: skip
@click.option("--mode", type=click.Choice(["auto", "forward", "reverse", "mixed"]), default="auto", show_default=True,
              help="auto: the cheapest; forward by columns, reverse by rows, mixed through a narrow waist.")  # fmt: skip
@click.option("--sparse", is_flag=True, help="Only the entries that the structure leaves, in SciPy's sparse form (.npz).")
@click.option("--per-sample", is_flag=True, help="For inputs that go along with the batch: [N, ...of, ...wrt] without the zero blocks between samples.")
@click.option("--explain", is_flag=True, help="Say the plan and its cost; compute nothing.")
@click.option("--singular-values", type=click.IntRange(1), metavar="K", help="Also the K largest singular values, without the matrix (SciPy).")
@click.option("--norms", metavar="FILE", help="Also the norm of each row and of each column, TENSOR/rows and TENSOR/columns (.npz .safetensors .h5).")
@click.option("--method", type=click.Choice(["auto", "autodiff"]), default="auto", show_default=True,
              help="auto: exact rules, and finite differences only for operators that have none.")  # fmt: skip
@batch.batch_options
@batch.image_options
@options.output_option
@options.summary_option
@click.option("--plot", metavar="FILE", help="Draw the matrix, tensor by tensor; with --explain its structure (.png .svg .pdf).")
@options.run_options
@options.memory_option
@options.message_options
def jacobian(
    model: str | None, inputs: tuple[str, ...], shapes: tuple[str, ...], wrt: tuple[str, ...], of: str | None, target: str | None, mode: str, sparse: bool,
    per_sample: bool, explain: bool, singular_values: int | None, norms: str | None, method: str, output: str | None, summary: str | None, plot: str | None, provider: str,
    threads: int | None, quantized: str, compute_dtype: str | None, memory_limit: int | None, quiet: bool, verbose: bool, no_progress: bool,
    inputs_from: str | None, jobs: int, resume: bool, format_: str | None, timings: bool, dask: str | None, image_preset: str | None,
    image_size: str | None, image_scale: str | None, image_mean: str | None, image_std: str | None, image_layout: str | None,
) -> int:  # fmt: skip
    """The Jacobian of an output or a layer, at a cost that follows its structure.

    Inputs that no output number shares travel in one pass, so a convolution takes as many passes as its window has taps, and a batch as many as one
    sample. The plan is said on standard error. Arrays have the shape of --of followed by that of the tensor. What doesn't fit into
    memory goes to .npy files in a folder, or (-o none) into figures alone.
    """
    say = options.messages(quiet, verbose, no_progress)
    if sparse and per_sample:
        raise click.UsageError("--sparse and --per-sample exclude each other: a sparse Jacobian stores no zero blocks anyway.")
    image = batch.parse_image_options(image_preset, image_size, image_scale, image_mean, image_std, image_layout)
    path = options.resolve_model(model, say)

    import netsens
    from netsens.report.inputs import plan_inputs
    from netsens.report.plot import check_plot_path
    from netsens.report.sparse import check_sparse_output

    with say.warnings_as_notes():
        loaded = netsens.load(path, provider=provider, threads=threads or batch.threads_for(jobs), quantized=quantized, compute_dtype=compute_dtype)
        specs = options.input_specs(loaded)
        plan = plan_inputs(inputs, specs, shapes=options.parse_shapes(shapes, specs), stdin=sys.stdin.buffer, inputs_from=inputs_from, image=image)
        if not inputs and specs and inputs_from is None:
            say.note("no --input was given: the inputs are random:0.")
        destination = output or (f"{path.stem}.jacobian/" if plan.is_batch else f"{path.stem}.jacobian.npz")
        asked = batch.BatchOptions(None, jobs, resume, format_, timings, dask)
        if not explain:
            batch.check_destination(destination, plan, asked)
        if sparse:
            check_sparse_output(destination)
        if plot:
            check_plot_path(plot)
        if norms:
            check_norms(norms)
        command = Command(
            loaded, list(wrt), of, target, mode, sparse, per_sample, method, memory_limit, singular_values, destination, format_, summary, plot, norms
        )
        if explain:
            sample = next(iter(plan)).read()
            point = loaded.linearize(sample.arrays, of, list(wrt), target, method=method)
            found = point.prepared.plan(mode, memory_limit, not sparse)
            click.echo(found.explain(command.what(point)))
            if plot:
                draw_structure(plot, found, point.prepared.question.layer)
                say.note(f"drew the structure in {plot}.")
        elif asked.needed(plan):
            from netsens.pipeline.question import JacobianQuestion

            if norms:
                raise click.UsageError("--norms is of one input's Jacobian; with several inputs, take their Jacobians' own files.")
            if sparse and format_ not in (None, "npz"):
                raise click.UsageError("A sparse Jacobian is written in SciPy's .npz form: leave --format out.")
            many = JacobianQuestion(
                loaded, list(wrt), of, target, mode, sparse, per_sample, method, memory_limit, singular=singular_values, stored=destination != "none"
            )
            return batch.Batch(many, plan, asked, destination, summary, plot, say, "jacobian").run()
        else:
            command.one(next(iter(plan)).read(), say)
    return 0


class Command:
    """What was asked, and what is done for each sample."""

    def __init__(
        self, model: Model, wrt: list[str], of: str | None, target: str | None, mode: str, sparse: bool, per_sample: bool, method: str,
        memory_limit: int | None, singular: int | None, destination: str, format_: str | None, summary: str | None, plot: str | None,
        norms: str | None,
    ) -> None:  # fmt: skip
        self.model, self.wrt, self.of, self.target, self.mode, self.method = model, wrt, of, target, mode, method
        self.sparse, self.per_sample, self.memory_limit, self.singular = sparse, per_sample, memory_limit, singular
        self.destination, self.format, self.summary, self.plot, self.norms = destination, format_, summary, plot, norms

    def one(self, sample: Sample, say: Messages) -> None:
        from netsens.errors import UsageError
        from netsens.jacobian.answer import jacobian, result_bytes, sparse_bytes, sparse_file
        from netsens.jacobian.figures import figures
        from netsens.jacobian.memory import fits, readable
        from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, is_folder, output_path, write_arrays
        from netsens.report.progress import Progress
        from netsens.report.sparse import write_sparse

        point = self.model.linearize(sample.arrays, self.of, self.wrt, self.target, method=self.method)
        plan: Plan = point.prepared.plan(self.mode, self.memory_limit, not self.sparse)
        needed = sparse_bytes(plan) if self.sparse else result_bytes(point.prepared, plan, self.per_sample)
        roomy = fits(needed, self.memory_limit)
        to = self.destination
        if to == NOTHING and not roomy and plan.waist is not None and self.mode == "auto":
            plan = point.prepared.plan(self.mode, self.memory_limit, False)
        say.note(plan.line(self.what(point)))
        say.note(f"{plan.why}.")
        for label in point.linearizer.differenced:
            say.note(f"no exact rule for {label}: its derivative is found by finite differences.")
        streamed = None if roomy or to == NOTHING else streamed_to(to, sample.name, f"The Jacobian takes {readable(needed)}", self.sparse)
        if streamed is not None:
            say.note(f"{readable(needed)} is more than half of the memory allowed: it goes to {streamed} piece by piece.")
        found: Mapping[str, Any] | None = None
        with Progress(plan.passes, "jacobian", quiet=not say.progress) as bar:
            if to == NOTHING and not roomy:
                if self.plot:
                    raise UsageError("The Jacobian doesn't fit into half of the memory allowed, so it can't be drawn; write it to files, or narrow it.")
                known = figures(point, plan, bar.reach)
            elif streamed is not None and self.sparse:
                whole, starts = sparse_file(point, streamed, mode=self.mode, memory_limit=self.memory_limit, progress=bar.reach)
                known = self._figures(point, dict.fromkeys(starts, whole), starts)
            else:
                found = jacobian(
                    point, mode=self.mode, sparse=self.sparse, per_sample=self.per_sample, memory_limit=self.memory_limit, folder=streamed, progress=bar.reach
                )
                known = self._figures(point, found, {})
        if found is not None and streamed is None and to != NOTHING:
            path = output_path(to, sample.name, suffix=f".{self.format or 'npz'}") if to != STANDARD_OUTPUT else to
            if self.sparse:
                if is_folder(to):
                    Path(to).mkdir(parents=True, exist_ok=True)
                write_sparse(path, found, sys.stdout.buffer)
            elif to == STANDARD_OUTPUT:
                batch.StandardOutput(self.format).write(found, {})
            else:
                write_arrays(path, found, make_folder=is_folder(to))
            if to != STANDARD_OUTPUT:
                say.note(f"wrote {len(found)} {'array' if len(found) == 1 else 'arrays'} to {path}.")
        if self.norms:
            write_arrays(self.norms, {f"{w}/{side}": a for w, f in known.items() for side, a in (("rows", f.row_norms), ("columns", f.column_norms))})
            say.note(f"wrote the norms of rows and columns to {self.norms}.")
        self._report(known, found, point, say)

    def what(self, point: Point) -> str:
        """What is computed, in the user's words."""
        chosen = f" at {self.target}" if self.target is not None else ""
        return f"Jacobian of '{point.prepared.question.layer}'{chosen}"

    def _figures(self, point: Point, found: Mapping[str, Any], starts: Mapping[str, int]) -> dict[str, Figures]:
        """By tensor; `starts` where all tensors share one sparse matrix."""
        from netsens.jacobian.figures import of_array, of_sparse

        out = point.out_shape
        if self.sparse:
            return {w: of_sparse(w, matrix, out, point.linearizer.shape(w), starts.get(w, 0)) for w, matrix in found.items()}
        return {w: of_array(w, matrix, out, matrix.shape[len(out) :]) for w, matrix in found.items()}

    def _report(self, known: Mapping[str, Figures], found: Mapping[str, Any] | None, point: Point, say: Messages) -> None:
        """The summary, the singular values, the picture."""
        from netsens.report.outputs import STANDARD_OUTPUT
        from netsens.report.render import default_kind, render

        values = None
        if self.singular is not None:
            from netsens.jacobian.figures import singular_values

            values = [float(v) for v in singular_values(point, self.singular)]
            say.note(f"largest singular values: {', '.join(f'{v:.6g}' for v in values)}.")
        stream = sys.stderr if self.destination == STANDARD_OUTPUT else sys.stdout
        kind = self.summary or default_kind(stream)
        if kind != "none" and not (stream is sys.stderr and (say.quiet or self.summary is None)):
            wide = kind in ("json", "csv")
            rows = [f.row() for f in known.values()]
            printed = [row if wide else {k: v for k, v in row.items() if k not in ("mean", "std", "l1", "largest", "at")} for row in rows]
            if kind == "json":
                entries = [[{"value": v, "at": [*out, *in_]} for v, out, in_ in f.places] for f in known.values()]
                more = {} if values is None else {"singular_values": values}
                printed = [{**row, "largest_entries": largest, **more} for row, largest in zip(printed, entries, strict=True)]
            render(printed, kind, stream)  # type: ignore[arg-type]
            if not wide and (named := self._largest(known, point)):
                say.note(f"largest entries: {named}.")
        if self.plot and found:
            self._draw(self.plot, found, point)
            say.note(f"drew the Jacobian in {self.plot}.")

    def _largest(self, known: Mapping[str, Figures], point: Point) -> str:
        """The largest entries of all tensors, with their places."""
        from netsens.report.render import format_number

        found = sorted(((v, out, in_, w) for w, f in known.items() for v, out, in_ in f.places), key=lambda e: -abs(e[0]))[:3]
        layer = point.prepared.question.layer
        return "; ".join(f"{format_number(v)} at {layer}{out} by {w}{in_}" for v, out, in_, w in found)

    def _draw(self, picture: str, found: Mapping[str, Any], point: Point) -> None:
        """All tensors side by side; per sample, the first sample's."""
        from math import prod

        from netsens.report.plot import plot_grid

        layer, out = point.prepared.question.layer, point.out_shape
        title, columns, blocks = f"Jacobian of {layer}", [], {}
        apart = self.per_sample and out[0] > 1
        rows = out[1:] if apart else out
        for w, matrix in found.items():
            in_ = point.linearizer.shape(w)
            if apart and not self.sparse:
                matrix, in_ = matrix[0], matrix.shape[len(out) :]
            columns.append((w, tuple(in_)))
            blocks[layer, w] = matrix if self.sparse else matrix.reshape(prod(rows), prod(in_))
        if apart:
            title += f", the first of {out[0]} samples"
        plot_grid(picture, title, [(layer, rows)], columns, blocks, label="derivative")


def draw_structure(picture: str, plan: Plan, layer: str) -> None:
    """Where entries may be non-zero, from the structure alone."""
    from netsens.errors import UsageError
    from netsens.jacobian.extras import scipy_module
    from netsens.modes.pattern import TooLarge, flattened
    from netsens.report.plot import plot_grid

    sparse = scipy_module("scipy.sparse", "a picture of the structure")
    blocks = {}
    for w, relation in plan.relations.items():
        try:
            matrix = flattened(relation)
        except TooLarge as error:
            raise UsageError(f"The structure by '{w}' has {relation.count:,} entries, too many to draw; narrow it with --wrt or --target.") from error
        rows, columns = matrix.pairs()
        blocks[layer, w] = sparse.coo_array((rows * 0 + 1.0, (rows, columns)), shape=(matrix.rows, matrix.columns))
    first = next(iter(plan.relations.values()))
    plot_grid(
        picture, f"Structure of the Jacobian of {layer}", [(layer, first.out or ())], [(w, r.in_) for w, r in plan.relations.items()], blocks, label="",
        structure=True,
    )  # fmt: skip


def check_norms(path: str) -> None:
    """Whether a file of this name holds several arrays."""
    from netsens.report.outputs import check_output

    check_output(path)
    if Path(path).suffix.lower() not in (".npz", ".safetensors", ".h5"):
        raise click.UsageError(f"--norms writes several arrays, and '{path}' holds one or none; name an .npz, .safetensors or .h5 file.")
