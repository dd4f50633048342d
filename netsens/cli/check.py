"""`netsens check`: proves a gradient against finite differences, and forward mode against reverse mode."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from netsens.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netsens.analyse.check import Checked
    from netsens.analyse.check_map import CheckedMatrix
    from netsens.cli.messages import Messages

EXAMPLES = """\b
Examples:
  netsens check sample_models/digits_cnn.onnx --input sample_models/digits.npy
  netsens check model.onnx --wrt params --of relu1 --directions 5
  netsens check model.onnx --input x.npy --target argmax --tolerance 1e-4
  netsens check model.onnx --input x.npy --of relu1 --jacobian
  netsens check sample_models/diabetes_mlp.onnx --wrt inputs --hessian
"""


@click.command(epilog=EXAMPLES)
@options.model_argument
@options.input_options
@options.wrt_option("all")
@options.of_option
@click.option("--target", metavar="T", help="Check the gradient of these components' sum, as in grad. Default: all components, weighed by random numbers.")
@options.cotangent_option
@click.option("--jacobian", is_flag=True, help="Also prove the whole Jacobian, as its colours and modes give it, against single products.")
@click.option("--hessian", is_flag=True, help="Prove second derivatives: products with the Hessian against differences of gradients.")
@click.option("--directions", type=click.IntRange(1), default=3, show_default=True, help="Random directions that each tensor is moved along.")
@click.option("--tolerance", type=float, metavar="R",
              help="The relative error allowed. Default: 1e-6 in float64, 1e-2 in float32 or where an operator has no exact rule.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "float64", "float32"]), default="auto", show_default=True,
              help="auto: float64 where onnxruntime, or ONNX's reference evaluator quickly enough, has it.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random directions and weights.")
@options.summary_option
@options.run_options
@options.message_options
def check(
    model: str | None, inputs: tuple[str, ...], shapes: tuple[str, ...], wrt: tuple[str, ...], of: str | None, target: str | None, cotangent: str | None,
    jacobian: bool, hessian: bool, directions: int, tolerance: float | None, precision: str, seed: int, summary: str | None, provider: str, threads: int | None,
    quantized: str, compute_dtype: str | None, quiet: bool, verbose: bool, no_progress: bool,
) -> int:  # fmt: skip
    """Prove gradients against finite differences.

    A row a tensor, for the worst of its directions: the derivative by the gradient, by differences, their relative error, the error between
    forward and reverse mode, the step. Verdicts: pass; kink (no derivative exists there: a ReLU at 0, say); unsure (the differences are too
    rough to tell); fail. Exit status 4 where a gradient fails, or where nothing could be compared. --verbose counts elements at kinks.
    """
    say = options.messages(quiet, verbose, no_progress)
    if cotangent is not None and target is not None:
        raise click.UsageError("--target and --cotangent exclude each other: put zeros in the cotangent where the target would not look.")
    if jacobian and hessian:
        raise click.UsageError("--jacobian and --hessian exclude each other: the first is of a layer, the second of a single number's gradient.")
    if hessian and cotangent is not None:
        raise click.UsageError("--hessian takes a single number: choose it with --target, not with a --cotangent.")
    path = options.resolve_model(model, say)

    import netsens
    from netsens.cli.messages import say as say_line
    from netsens.errors import ToleranceError
    from netsens.report.inputs import plan_inputs
    from netsens.report.progress import Progress
    from netsens.report.render import default_kind, render

    with say.warnings_as_notes():
        loaded = netsens.load(path, provider=provider, threads=threads, quantized=quantized, compute_dtype=compute_dtype)
        specs = options.input_specs(loaded)
        plan = plan_inputs(inputs, specs, shapes=options.parse_shapes(shapes, specs), stdin=sys.stdin.buffer)
        if not inputs and specs:
            say.note("no --input was given: the inputs are random:0.")
        imposed = None if cotangent is None else options.read_cotangent(loaded, cotangent, of)
        rows: list[dict[str, Any]] = []
        sound = True
        for pending in plan:
            sample = pending.read()
            with Progress(None, "check", quiet=not say.progress) as progress:
                how: dict[str, Any] = {
                    "directions": directions, "tolerance": tolerance, "precision": precision, "seed": seed, "count_kinks": verbose,
                    "progress": lambda done, total, bar=progress: bar.reach(done, total),
                }  # fmt: skip
                if hessian:
                    report = loaded.check_hessian(sample.arrays, list(wrt), of, target, **how)
                else:
                    report = loaded.check(sample.arrays, list(wrt), of, target, imposed, **how)
            for note in report.notes:
                say.note(note)
            lead = {"input": sample.source} if plan.is_batch else {}
            found = [{**lead, **row(checked, verbose)} for checked in report.rows]
            for checked in report.rows:
                if checked.verdict != "pass" and checked.reason:
                    (say.note if checked.verdict == "fail" else say.detail)(f"'{checked.name}': {checked.verdict}: {checked.reason}.")
                if checked.kinks and checked.kinks[0]:
                    say.detail(f"'{checked.name}': {checked.kinks[0]} of {checked.kinks[1]} elements looked at lie at a kink.")
            if jacobian:
                sound = _whole(loaded.check_jacobian(sample.arrays, list(wrt), of, target, seed=seed), found, say) and sound
            rows += found
            sentence = f"{f'{sample.source}: ' if plan.is_batch else ''}{report.sentence}"
            if report.ok:
                say.note(sentence)
            else:
                say_line(f"netsens: error: {sentence}")
            sound = sound and report.ok
    kind = summary or default_kind(sys.stdout)
    if kind != "none":
        render(rows if kind in ("json", "csv") else [_brief(r) for r in rows], kind, sys.stdout)  # type: ignore[arg-type]
    return 0 if sound else ToleranceError.exit_status


def _whole(matrices: Sequence[CheckedMatrix], rows: list[dict[str, Any]], say: Messages) -> bool:
    """The whole Jacobian's errors into the rows of its tensors; and whether all of it agrees."""
    by_name = {m.name: m for m in matrices}
    for row in rows:
        matrix = by_name.get(row["name"])
        row["matrix"] = None if matrix is None else max(matrix.forward, matrix.reverse, matrix.adjoint)
        if matrix is not None and matrix.verdict == "fail":
            row["verdict"], row["reason"] = "fail", "the whole Jacobian and single products disagree"
    wrong = [m for m in matrices if m.verdict == "fail"]
    if matrices:
        first = matrices[0]
        passes = f"{first.passes} {'pass' if first.passes == 1 else 'passes'}"
        outcome = f"{len(matrices) - len(wrong)} of {len(matrices)} agree" if len(matrices) > 1 else "it does not agree" if wrong else "it agrees"
        say.note(f"the whole Jacobian ({first.mode}, {passes}) against single products, in the model's own precision: {outcome}.")
    return not wrong


def row(checked: Checked, verbose: bool) -> dict[str, Any]:
    """A tensor's figures under the names that scripts read."""
    found: dict[str, Any] = {
        "name": checked.name, "shape": list(checked.shape), "derivative": checked.derivative, "difference": checked.difference, "error": checked.error,
        "adjoint": checked.adjoint, "step": checked.step, "precision": checked.precision, "rounding": checked.rounding, "directions": checked.directions,
        "verdict": checked.verdict, "reason": checked.reason,
    }  # fmt: skip
    if verbose and checked.kinks is not None:
        found["kinks"], found["elements"] = checked.kinks
    return found


def _brief(found: dict[str, Any]) -> dict[str, Any]:
    """The columns that fit a terminal."""
    short = {k: v for k, v in found.items() if k not in ("shape", "precision", "rounding", "directions", "reason", "elements")}
    for key, digits in (("error", 1), ("adjoint", 1), ("matrix", 1), ("step", 0)):
        if short.get(key) is not None:
            short[key] = _exponent(short[key], digits)
    return short


def _exponent(value: float, digits: int) -> str:
    """`1.2e-7`, without padding."""
    mantissa, e, exponent = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e and float(mantissa) else "0" if e else mantissa
