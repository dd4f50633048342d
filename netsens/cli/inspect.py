"""`netsens inspect`: what a model is made of, before anything runs."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

from netsens.cli import options

if TYPE_CHECKING:
    from netsens.analyse.inspection import Inspection, LayerInfo

EXAMPLES = """\b
Examples:
  netsens inspect sample_models/digits_cnn.onnx
  netsens inspect model.onnx --json | jq '.layers[].name'
  netsens inspect model.onnx --summary csv > layers.csv
"""


@click.command(epilog=EXAMPLES)
@options.model_argument
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
@click.option("--all", "everything", is_flag=True, help="In the report also the layers that hold no floating point numbers, and every parameter.")
@click.option("--summary", type=click.Choice(options.SUMMARIES),
              help="How layers are listed: table (the report), markdown, csv, json (a line each). Default: table on a terminal, json in a pipe.")  # fmt: skip
@options.message_options
def inspect(model: str | None, as_json: bool, everything: bool, summary: str | None, quiet: bool, verbose: bool, no_progress: bool) -> int:
    """Layers, parameters, inputs and outputs of a model, and which operators have exact rules.

    Nothing runs. A layer's name is the shortest that --of takes for it. Rules: exact; expanded (exact, through simpler operators); flat (the
    derivative is zero by definition); differenced (no rule, so finite differences inside the graph); refused.
    """
    say = options.messages(quiet, verbose, no_progress)
    if as_json and summary is not None:
        raise click.UsageError("--json and --summary exclude each other: --json is one object, --summary json one a layer.")
    path = options.resolve_model(model, say)

    import netsens
    from netsens.report.render import default_kind, render

    with say.warnings_as_notes():
        found = netsens.load(path).inspect()
    if as_json:
        import json

        click.echo(json.dumps(found.as_dict(), ensure_ascii=False))
        return 0
    kind: Any = summary or default_kind(sys.stdout)
    if kind == "table":
        report(found, sys.stdout, everything or verbose)
    elif kind in ("csv", "markdown"):
        render([_row(layer) for layer in found.layers], kind, sys.stdout)
    elif kind == "json":
        render([layer.as_dict() for layer in found.layers], kind, sys.stdout)
    return 0


def report(found: Inspection, stream: TextIO, everything: bool) -> None:
    """The readable report; it fits 80 columns."""
    from netsens.analyse.inspection import STATUSES
    from netsens.report.render import fold_middle, render
    from netsens.report.specs import format_shape

    width = shutil.get_terminal_size((80, 24)).columns if stream.isatty() else 80

    def line(label: str, text: str) -> None:
        lead = f"{label:<12}"
        while len(lead) + len(text) > width and " " in text[: width - len(lead)]:
            cut = text.rindex(" ", 0, width - len(lead) + 1) if " " in text[: width - len(lead) + 1] else width - len(lead)
            stream.write(f"{lead}{text[:cut]}\n")
            lead, text = " " * 12, text[cut + 1 :]
        stream.write(f"{lead}{text}\n")

    line("model", f"{fold_middle(found.path or 'in memory', width - 30)}{f', {_size(found.file_bytes)}' if found.file_bytes else ''}")
    domains = "".join(f", {name} {version}" for name, version in found.domains.items())
    line("format", f"opset {found.opset}{domains}{f', IR {found.ir_version}' if found.ir_version else ''}{f', by {found.producer}' if found.producer else ''}")
    for label, tensors in (("inputs", found.inputs), ("outputs", found.outputs)):
        for tensor in tensors:
            shape = format_shape(tensor.shape)
            line(label, f"{fold_middle(tensor.name, max(width - 16 - len(shape) - len(tensor.dtype), 12))}  {tensor.dtype}  {shape}")
            label = ""
    line("parameters", f"{found.parameter_count:,} numbers in {len(found.parameters)} tensors, {_size(found.parameter_bytes)}")
    for status, meaning in STATUSES.items():
        names = [f"{o.operator} x{o.count}" if o.count > 1 else o.operator for o in found.operators if o.status == status]
        if names:
            line(status, f"{', '.join(names)}{f'  ({meaning})' if meaning else ''}")
    shown = [layer for layer in found.layers if everything or layer.differentiable]
    stream.write("\n")
    # A short heading leaves the names more room.
    render([{"params" if key == "parameters" else key: cell for key, cell in _row(layer).items()} for layer in shown], "table", stream)
    if len(shown) < len(found.layers):
        stream.write(f"{len(found.layers) - len(shown)} more layers hold no floating point numbers (--all shows them).\n")
    if everything and found.parameters:
        stream.write("\n")
        render([{"name": p.name, "shape": p.shape, "dtype": p.dtype, "place": p.place} for p in found.parameters], "table", stream)


def _row(layer: LayerInfo) -> dict[str, object]:
    return {"name": layer.name, "operator": layer.operator, "shape": layer.shape, "parameters": layer.elements, "rule": layer.status}


def _size(count: int) -> str:
    amount, units = float(count), ["bytes", "kB", "MB", "GB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.3g} {units[0]}" if amount < 100 or units[0] != "bytes" else f"{count} bytes"
