"""Summary rows on a text stream: a table that fits its terminal, Markdown, CSV, or one JSON object a line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TextIO

from netsens.report.specs import format_shape

Row = Mapping[str, Any]
TableKind = Literal["table", "markdown", "csv", "json"]
KINDS: tuple[TableKind, ...] = ("table", "markdown", "csv", "json")
PIPED_WIDTH = 80
_NARROWEST_NAME = 12
_SHORTEST_NAME = 24  # below this the shape goes beneath the name rather than beside it


def default_kind(stream: TextIO) -> TableKind:
    """`table` on a terminal, `json` where the stream is piped."""
    return "table" if stream.isatty() else "json"


def render(rows: Sequence[Row], kind: TableKind, stream: TextIO, *, width: int | None = None, title: str | None = None) -> None:
    """Prints the rows. Columns are the rows' keys, in the order they first come. `width`: the terminal's, or 80.

    Table and Markdown round to four significant digits; CSV and JSON keep every digit, and JSON has null for NaN and
    infinity, which it cannot spell.
    """
    if kind == "json":
        for row in rows:
            stream.write(json.dumps(json_ready(dict(row)), ensure_ascii=False, allow_nan=False) + "\n")
    elif kind == "csv":
        import csv

        columns = _columns(rows)
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([full_cell(column, row.get(column)) for column in columns] for row in rows)
    elif kind == "markdown":
        _render_markdown(rows, stream, title)
    else:
        _render_table(rows, stream, width or _width_of(stream), title)


def json_ready(value: Any) -> Any:
    """The value with NaN and infinity as None, NumPy's numbers as Python's, and tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(part) for part in value]
    if hasattr(value, "tolist"):
        return json_ready(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_number(value: float, digits: int = 4) -> str:
    """So many significant digits, exponents without padding: `0.01234`, `1.234e-7`."""
    mantissa, e, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def fold_middle(text: str, width: int) -> str:
    """The text with its middle cut out where it is longer than `width`: both ends of a tensor's name tell most."""
    if len(text) <= width:
        return text
    tail = width // 2
    return text[: max(width - 1 - tail, 0)] + "…" + text[len(text) - tail :]


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def short_cell(column: str, value: Any) -> str:
    """A value as a table has it, rounded."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if column == "shape":
        return format_shape(value)
    if column == "zeros":
        return _percent(float(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return format_number(float(value)) if isinstance(value, float) or hasattr(value, "dtype") else str(value)


def _percent(share: float) -> str:
    # neither rounds to the whole what is not whole
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{100 * share:.3g}%"


def full_cell(column: str, value: Any) -> str:
    """A value as CSV has it, with every digit."""
    if value is None:
        return ""
    return format_shape(value) if column == "shape" else str(value)


def _render_markdown(rows: Sequence[Row], stream: TextIO, title: str | None) -> None:
    columns = _columns(rows)
    if title:
        stream.write(f"**{title}**\n\n")
    stream.write("| " + " | ".join(columns) + " |\n")
    stream.write("| " + " | ".join("---" if column in TEXTUAL else "---:" for column in columns) + " |\n")
    for row in rows:
        cells = [short_cell(column, row.get(column)).replace("|", "\\|") for column in columns]
        stream.write("| " + " | ".join(cells) + " |\n")


TEXTUAL = ("input", "name", "feature", "shape", "operator", "status", "method", "rule", "dtype", "place", "role", "wrt", "verdict")


def beneath_names(rows: Sequence[Row]) -> Sequence[Row]:
    """A tensor's features in the column of names, beneath the tensor's own with its shape, which leaves a table its width."""
    if not 0 < sum("feature" in row for row in rows) < len(rows):
        return rows
    names = (f"· {row['feature']}" if "feature" in row else f"{row['name']} {format_shape(row['shape'])}" for row in rows)
    return [{"name": name, **{k: v for k, v in row.items() if k not in ("name", "shape", "feature")}} for name, row in zip(names, rows, strict=True)]


def _render_table(rows: Sequence[Row], stream: TextIO, width: int, title: str | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = beneath_names(rows)
    columns = _columns(rows)
    cells = [{column: short_cell(column, row.get(column)) for column in columns} for row in rows]
    widths = {column: max([len(column), *(len(row[column]) for row in cells)]) for column in columns}
    room = width - _total(widths, columns)
    if "name" in widths and "shape" in widths and room < min(widths["name"], _SHORTEST_NAME):
        columns.remove("shape")  # it goes beneath the name, which gets its width and a second line
        room = max(width - _total(widths, columns), _NARROWEST_NAME)
        for row in cells:
            name = fold_middle(row["name"], 2 * room)
            lines = [name[:room], name[room:], fold_middle(row["shape"], room)]
            row["name"] = "\n".join(line for line in lines if line)
    elif "name" in widths:
        room = max(room, _NARROWEST_NAME)
        for row in cells:
            row["name"] = fold_middle(row["name"], room)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in TEXTUAL else "right", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(row[column]) for column in columns))  # Text: a name such as x[0] is no markup
    # a terminal too narrow gets broken lines rather than cut numbers, which would read as others
    needed = _total(widths, columns) + (room if "name" in widths else 0)
    # (rich gives a dumb terminal 80 columns, whatever it is told)
    plain = False if os.environ.get("TERM") in ("dumb", "unknown") else None
    console = Console(file=stream, width=max(width, needed), highlight=False, emoji=False, force_terminal=plain)
    console.print(table)


def _total(widths: Mapping[str, int], columns: Sequence[str]) -> int:
    """The width of all columns but the name's, two spaces before each."""
    return sum(widths[column] + 2 for column in columns if column != "name")


def _width_of(stream: TextIO) -> int:
    if not stream.isatty():
        return PIPED_WIDTH
    import shutil

    return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns
