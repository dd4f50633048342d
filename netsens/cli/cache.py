"""`netsens cache`: the gradient graphs that were kept, and away with them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from netsens.cli import options

EXAMPLES = """\b
Examples:
  netsens cache
  netsens cache --clear
  NETSENS_CACHE=off netsens grad model.onnx
"""


@click.command(epilog=EXAMPLES)
@click.option("--clear", is_flag=True, help="Delete everything that was kept.")
@options.summary_option
@options.message_options
def cache(clear: bool, summary: str | None, quiet: bool, verbose: bool, no_progress: bool) -> int:
    """Gradient graphs that grad has kept.

    A gradient graph is built once for a model and a question; the next time it is taken from the cache folder, which NETSENS_CACHE names (off: none).
    An entry holds no weights, and a model that was changed gets a new one. The folder stays below 1 GiB: what was used longest ago goes first.
    """
    say = options.messages(quiet, verbose, no_progress)

    from datetime import UTC, datetime

    from netsens.report.render import default_kind, fold_middle, render
    from netsens.run.cache import Cache, default_folder

    folder = default_folder()
    if folder is None:
        say.note("the cache is turned off (NETSENS_CACHE).")
        return 0
    kept = Cache(folder)
    if clear:
        files, size = kept.clear()
        say.note(f"deleted {files} files, {size:,} bytes, from {folder}.")
        return 0
    entries = list(kept.entries())
    say.note(f"{len(entries)} entries, {sum(e.bytes for e in entries):,} bytes, in {folder}.")
    kind = summary or default_kind(sys.stdout)
    if kind != "none":
        brief = kind == "table"  # a model's parameters don't fit on a line
        rows = [
            {"model": fold_middle(e.about.get("model", ""), 24 if brief else sys.maxsize), "of": fold_middle(e.about["of"], 16 if brief else sys.maxsize),
             "wrt": _first(e.about["wrt"]) if brief else ", ".join(e.about["wrt"]), "bytes": e.bytes,
             "used": datetime.fromtimestamp(e.used, UTC).isoformat(timespec="seconds")}
            for e in entries if e.about.get("kind") == "gradient"
        ]  # fmt: skip
        render(rows, kind, sys.stdout)  # type: ignore[arg-type]
    return 0


def _first(names: Sequence[str]) -> str:
    """The first name, and how many more there are."""
    from netsens.report.render import fold_middle

    return fold_middle(names[0], 16) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
