"""`netsens ops`: what netsens knows of each operator."""

from __future__ import annotations

import sys

import click

from netsens.cli import options

EXAMPLES = """\b
Examples:
  netsens ops
  netsens ops sample_models/digits_cnn.onnx
  netsens ops --domain com.microsoft --summary csv
"""


@click.command(epilog=EXAMPLES)
@click.argument("model", required=False, type=click.Path(path_type=str))
@click.option("--domain", help="Only this domain: ai.onnx, ai.onnx.ml, com.microsoft, ...")
@click.option("--opset", type=click.IntRange(1), help="The standard's operators as of this opset. Default: the newest that onnx knows.")
@click.option("--status", type=click.Choice(["exact", "expanded", "flat", "refused", "differenced"]), help="Only operators of this status.")
@options.summary_option
@options.message_options
def ops(
    model: str | None, domain: str | None, opset: int | None, status: str | None, summary: str | None, quiet: bool, verbose: bool, no_progress: bool
) -> int:
    """All operators with their status, or the verdict on a model.

    exact: a rule of its own; expanded: differentiated through simpler operators; flat: its derivative is zero by definition; refused: it has no
    derivative that one could mean; differenced: no rule, finite differences.
    """
    from netsens.analyse.operators import DOMAINS, operator_table, verdict
    from netsens.report.render import default_kind, render

    if model is not None and opset is not None:
        raise click.UsageError("--opset is for the list of all operators; a model has its own. Leave one of them out.")
    wanted = "" if domain == "ai.onnx" else domain
    if model is not None:
        import netsens

        rows = [
            {"operator": s.qualified, "nodes": count, "status": s.status, "why": s.why}
            for s, count in verdict(netsens.load(options.resolve_model(model, options.messages(quiet, verbose, no_progress))).graph)
            if wanted is None or s.domain == wanted
        ]
    else:
        if wanted is not None and wanted not in DOMAINS:
            raise click.BadParameter(
                f"there is no domain '{domain}' in the list; there are {', '.join(d or 'ai.onnx' for d in DOMAINS)}.", param_hint="'--domain'"
            )
        rows = [{"operator": s.qualified, "since": s.since, "status": s.status, "why": s.why} for s in operator_table(wanted, opset)]
    rows = [row for row in rows if status is None or row["status"] == status]
    kind = summary or default_kind(sys.stdout)
    if kind != "none":
        render(rows, kind, sys.stdout)  # type: ignore[arg-type]
    return 0
