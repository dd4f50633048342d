"""`netsens export`: the gradient model as plain ONNX, with a JSON sidecar that says what each output is."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from netsens.cli import options

EXAMPLES = """\b
Examples:
  netsens export sample_models/digits_cnn.onnx --of logits
  netsens export model.onnx --wrt inputs --of logits --target argmax -o model.grad.onnx
  netsens export model.onnx --wrt params --of relu1 --cotangent
"""


@click.command(epilog=EXAMPLES)
@options.model_argument
@click.option("--input", "-i", "inputs", multiple=True, metavar="[NAME=]SRC",
              help="Inputs as in grad; needed only where the model doesn't say how many axes a value has, so that a run must show it.")  # fmt: skip
@options.wrt_option("inputs")
@options.of_option
@options.target_option
@click.option("--cotangent", is_flag=True,
              help="Give the gradient model one more input, `cotangent`, of the shape of --of: the gradient of the dot product with it.")  # fmt: skip
@click.option("--method", type=click.Choice(["auto", "autodiff"]), default="auto", show_default=True,
              help="auto: exact rules, and finite differences inside the graph only for operators that have none.")  # fmt: skip
@click.option("--output", "-o", metavar="PATH",
              help="The gradient model. Default: NAME.grad.onnx here. The sidecar is PATH.json; weights above 2 GB go to PATH.data.")  # fmt: skip
@options.summary_option
@options.run_options
@options.message_options
def export(
    model: str | None, inputs: tuple[str, ...], wrt: tuple[str, ...], of: str | None, target: str | None, cotangent: bool, method: str,
    output: str | None, summary: str | None, provider: str, threads: int | None, quantized: str,
    compute_dtype: str | None, quiet: bool, verbose: bool, no_progress: bool,
) -> int:  # fmt: skip
    """Write the gradient model as plain ONNX.

    One file of standard operators that runs wherever ONNX does: the model's own outputs, then gradient/NAME for each tensor of --wrt. It is checked
    and loaded once before it takes its place. A JSON sidecar names each output: of what, by what, its shape, its convention.
    """
    say = options.messages(quiet, verbose, no_progress)
    if cotangent and target is not None:
        raise click.UsageError("--target and --cotangent exclude each other: put zeros in the cotangent where the target would not look.")
    path = options.resolve_model(model, say)
    destination = output or f"{path.stem}.grad.onnx"
    if destination == "-" or Path(destination).suffix != ".onnx":
        raise click.UsageError(f"The gradient model goes to a file that ends in .onnx, as -o {path.stem}.grad.onnx; '{destination}' is none.")

    import netsens
    from netsens.report.render import default_kind, render
    from netsens.report.sidecar import sidecar_path

    with say.warnings_as_notes():
        loaded = netsens.load(path, provider=provider, threads=threads, quantized=quantized, compute_dtype=compute_dtype)
        feeds = None
        if inputs:
            from netsens.report.inputs import read_inputs

            feeds = next(read_inputs(inputs, options.input_specs(loaded), stdin=sys.stdin.buffer)).arrays
        sidecar = loaded.export(destination, list(wrt), of, target, cotangent=cotangent, method=method, inputs=feeds)
    beside = f", {sidecar['data']}" if sidecar["data"] else ""
    say.note(f"wrote {destination}{beside} and {sidecar_path(destination)}.")
    kind = summary or default_kind(sys.stdout)
    if kind != "none":
        keys = ("name", "shape", "dtype", "role", "of", "wrt", "convention")
        rows = [{k: o[k] for k in keys if k in o} for o in sidecar["outputs"]]
        if kind == "table":
            rows = [{k: v for k, v in row.items() if k not in ("of", "convention", "dtype")} for row in rows]
        render(rows, kind, sys.stdout)  # type: ignore[arg-type]
    return 0
