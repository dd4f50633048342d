"""`netsens grad`: the gradient of an output or a layer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netsens.cli import batch, options
from netsens.cli.messages import Messages

if TYPE_CHECKING:
    from netsens.analyse.aggregate import AggregateOptions
    from netsens.model import Model
    from netsens.report.inputs import PendingSample, Sample

EXAMPLES = """\b
Examples:
  netsens grad sample_models/digits_cnn.onnx --input sample_models/digits.npy --of logits --target argmax
  netsens grad model.onnx --input x.npy --wrt conv1.weight --of relu1 --cotangent g.npy
  netsens grad model.onnx --input 'data/*.npy' -o grads/
  find data -name '*.png' | netsens grad model.onnx --inputs-from - -o grads/ --jobs 4 --resume
  netsens grad model.onnx --input big.npy --batch-size 64 -o grads.npy
  netsens grad model.onnx --input table.csv --target 1 --aggregate mean,meanabs --units std -o sensitivities.csv
  cat x.npy | netsens grad model.onnx --input - -o - > gradient.npy
"""


@click.command(epilog=EXAMPLES)
@options.model_argument
@options.input_options
@options.wrt_option("inputs")
@options.of_option
@options.target_option
@options.cotangent_option
@click.option("--per-sample", is_flag=True, help="Keep the batch axis in a parameter's gradient instead of summing over it.")
@click.option("--method", type=click.Choice(["auto", "autodiff", "finite-difference"]), default="auto", show_default=True,
              help="auto: exact rules, and finite differences only for operators that have none.")  # fmt: skip
@click.option("--step", type=float, metavar="H", help="The step of --method finite-difference, in each tensor's own units. Default: chosen for each element.")
@click.option("--aggregate", metavar="S,...", help="Figures over all inputs instead of a summary of each: mean, meanabs, rms, quantiles or one (q50). -o names their "
              "file (.csv .parquet .npz ...), or a folder for the results too.")  # fmt: skip
@click.option("--units", type=click.Choice(["raw", "std", "elasticity"]), default="raw", show_default=True,
              help="Of an aggregate: as they are, times the deviation of each input column, or gradient * input / output.")  # fmt: skip
@batch.batch_size_option
@batch.batch_options
@batch.image_options
@options.output_option
@options.summary_option
@click.option("--plot", metavar="FILE", help="Draw the gradient: a heat map over an image, bars for features (.png .svg .pdf).")
@options.run_options
@options.memory_option
@options.cache_option
@options.message_options
def grad(
    model: str | None, inputs: tuple[str, ...], shapes: tuple[str, ...], wrt: tuple[str, ...], of: str | None, target: str | None, cotangent: str | None,
    per_sample: bool, method: str, step: float | None, output: str | None, summary: str | None, plot: str | None, provider: str, threads: int | None,
    quantized: str, compute_dtype: str | None, memory_limit: int | None, quiet: bool, verbose: bool, no_progress: bool, aggregate: str | None, units: str,
    inputs_from: str | None, batch_size: int | None, jobs: int, resume: bool, format_: str | None, timings: bool, dask: str | None, image_preset: str | None,
    image_size: str | None, image_scale: str | None, image_mean: str | None, image_std: str | None, image_layout: str | None,
) -> int:  # fmt: skip
    """The gradient of an output or a layer by inputs or parameters.

    A vector output means the gradient of its sum; --target chooses components, --cotangent weighs them. A parameter's gradient is summed over
    the batch. Arrays go to a file, a summary to standard output.
    """
    say = options.messages(quiet, verbose, no_progress)
    image = batch.parse_image_options(image_preset, image_size, image_scale, image_mean, image_std, image_layout)
    if units != "raw" and aggregate is None:
        raise click.UsageError("--units is for --aggregate: add --aggregate mean, or leave it out.")
    if cotangent is not None and target is not None:
        raise click.UsageError("--target and --cotangent exclude each other: put zeros in the cotangent where the target would not look.")
    path = options.resolve_model(model, say)

    import netsens
    from netsens.report.inputs import plan_inputs
    from netsens.report.outputs import check_output

    with say.warnings_as_notes():
        loaded = netsens.load(
            path, provider=provider, threads=threads or batch.threads_for(jobs), quantized=quantized, compute_dtype=compute_dtype, cache=options.caches()
        )
        specs = options.input_specs(loaded)
        plan = plan_inputs(inputs, specs, shapes=options.parse_shapes(shapes, specs), stdin=sys.stdin.buffer, inputs_from=inputs_from, image=image)
        if not inputs and specs and inputs_from is None:
            say.note("no --input was given: the inputs are random:0.")
        if plot:
            from netsens.report.plot import check_plot_path

            check_plot_path(plot)
        asked = batch.BatchOptions(batch_size, jobs, resume, format_, timings, dask, aggregate_options(loaded, aggregate, units))
        destination = output or default_output(path, plan.is_batch, asked)
        batch.check_destination(destination, plan, asked)
        if asked.needed(plan):
            from netsens.pipeline.question import GradientQuestion

            imposed = None if cotangent is None else options.read_cotangent(loaded, cotangent, of)
            many = GradientQuestion(loaded, list(wrt), of, target, imposed, per_sample, method, step, memory_limit)
            return batch.Batch(many, plan, asked, destination, summary, plot, say, "grad").run()
        check_output(destination)
        question = Question(loaded, list(wrt), of, target, cotangent, per_sample, method, memory_limit, step)
        return run_one(next(iter(plan)), question, destination, asked.format_, summary, plot, say)


def aggregate_options(model: Model, aggregate: str | None, units: str) -> AggregateOptions | None:
    """What `--aggregate` asks for. The first axis of an input is its rows', save where it has no other and is fixed."""
    if aggregate is None:
        return None
    from netsens.analyse.aggregate import AggregateOptions

    shapes = {name: type_.shape for name, type_ in model.inputs.items()}
    rows = tuple(name for name, shape in shapes.items() if shape is None or len(shape) > 1 or (shape and not isinstance(shape[0], int)))
    return AggregateOptions(tuple(part.strip() for part in aggregate.split(",")), units, rows)


def default_output(path: Path, is_batch: bool, asked: batch.BatchOptions) -> str:
    if asked.aggregate is not None:
        return f"{path.stem}.aggregate.csv"
    return f"{path.stem}.grad/" if is_batch else f"{path.stem}.grad.npz"


class Question:
    """What is asked of each sample."""

    def __init__(
        self, model: Model, wrt: list[str], of: str | None, target: str | None, cotangent: str | None, per_sample: bool, method: str,
        memory_limit: int | None, step: float | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.of = of
        self.differences = method == "finite-difference"
        self.arguments: dict[str, Any] = {"wrt": wrt, "of": of, "target": target, "per_sample": per_sample, "method": method, "step": step}
        self.cotangent = cotangent
        self.memory_limit = memory_limit

    def answer(self, sample: Sample, say: Messages) -> dict[str, Any]:
        arguments = dict(self.arguments)
        if self.cotangent is not None:
            arguments["cotangent"] = options.read_cotangent(self.model, self.cotangent, self.of)
        if not self.differences:
            return self.model.grad(sample.arrays, memory_limit=self.memory_limit, **arguments)
        from netsens.report.progress import Progress

        with Progress(None, "finite differences", quiet=not say.progress) as progress:
            return self.model.grad(sample.arrays, memory_limit=self.memory_limit, progress=progress.reach, **arguments)


def run_one(pending: PendingSample, question: Question, destination: str, format_: str | None, summary: str | None, plot: str | None, say: Messages) -> int:
    """Computes, writes and sums up a single sample."""
    from netsens.report.outputs import NOTHING, STANDARD_OUTPUT, output_path, write_arrays
    from netsens.report.progress import Progress
    from netsens.report.render import default_kind, render
    from netsens.report.summary import tensor_rows

    # A run by finite differences has a bar of its own, and two bars would draw over each other.
    with Progress(1, "grad", quiet=not say.progress or question.differences) as progress:
        sample = pending.read()
        arrays = question.answer(sample, say)
        progress.advance()
    if destination == STANDARD_OUTPUT:
        batch.StandardOutput(format_).write(arrays, sample.features)
    elif destination != NOTHING:
        path = output_path(destination, sample.name, suffix=f".{format_ or 'npz'}")
        write_arrays(path, arrays, features=_features(sample, arrays), make_folder=path != destination)
        say.note(f"wrote {len(arrays)} {'array' if len(arrays) == 1 else 'arrays'} to {path}.")
    stream = sys.stderr if destination == STANDARD_OUTPUT else sys.stdout
    kind = summary or default_kind(stream)
    if kind != "none" and not (stream is sys.stderr and (say.quiet or summary is None)):
        render(tensor_rows(arrays, sample.features), kind, stream)  # type: ignore[arg-type]
    if plot:
        from netsens.report.plot import plot_array

        name, array = next(iter(arrays.items()))
        plot_array(plot, name, array, input_array=sample.arrays.get(name), features=sample.features.get(name))
        say.note(f"drew the gradient by '{name}' in {plot}.")
    return 0


def _features(sample: Sample, arrays: Mapping[str, Any]) -> dict[str, list[str]]:
    return {name: sample.features[name] for name in arrays if name in sample.features}
