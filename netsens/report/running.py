"""The summary of a long run, printed as its results come: one header for all of them, in columns that stay where they are."""

from __future__ import annotations

import csv
import io
import json
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TextIO

from netsens.errors import NetsensWarning
from netsens.report.render import PIPED_WIDTH, TEXTUAL, beneath_names, fold_middle, format_number, full_cell, json_ready, short_cell
from netsens.report.specs import format_shape

Row = Mapping[str, Any]
OPTIONAL = ("nan",)  # a column that a later row may need, which a header printed before it has to hold
_LEAST_TEXT = 10
_USUAL_NUMBER = 8  # `-0.01234`


class RunningSummary:
    """Groups of rows, an input each, on the stream that `stream` gives at the time (a progress bar may stand in for it). `detail`: columns that are too
    much for a table. The kinds are those of `render`, and none."""

    def __init__(self, kind: str, stream: Callable[[], TextIO], detail: Collection[str] = ()) -> None:
        self.kind, self.stream, self.detail = kind, stream, detail
        self._lines: list[str] = []  # not printed yet
        self._columns: list[str] = []
        self._widths: dict[str, int] = {}
        self._shared: tuple[str, ...] | None = None  # of a table: the name and the shape that stand above it instead of in each row
        self._warned = False

    def add(self, rows: Sequence[Row]) -> None:
        """Takes the rows of one input."""
        if not rows or self.kind == "none":
            return
        if self.kind in ("table", "markdown"):
            rows = [{k: v for k, v in row.items() if k not in self.detail} for row in rows]
        if self.kind == "json":
            for row in rows:
                self._write(json.dumps(json_ready(dict(row)), ensure_ascii=False, allow_nan=False))
        elif self.kind == "csv":
            self._add_csv(rows)
        elif self.kind == "markdown":
            self._add_markdown(rows)
        else:
            self._add_table(rows)

    def flush(self) -> None:
        """Prints what was added, in one piece: a progress bar beneath it is drawn anew each time."""
        if self._lines:
            stream = self.stream()
            stream.write("".join(self._lines))
            stream.flush()
            self._lines = []

    def _write(self, line: str) -> None:
        self._lines.append(line + "\n")

    def _first(self, rows: Sequence[Row]) -> bool:
        """Whether these are the first rows, whose columns are then everyone's."""
        if self._columns:
            missing = [c for c in dict.fromkeys(key for row in rows for key in row) if c not in self._columns]
            if missing and not self._warned:
                self._warned = True
                names = ", ".join(f"'{c}'" for c in missing)
                warnings.warn(
                    NetsensWarning(f"the summary's header was printed without {names}, which later inputs have; --summary json holds all"), stacklevel=2
                )
            return False
        found = dict.fromkeys(key for row in rows for key in row)
        if "zeros" in found:
            found |= dict.fromkeys(OPTIONAL)
        self._columns = list(found)
        return True

    def _add_csv(self, rows: Sequence[Row]) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        if self._first(rows):
            writer.writerow(self._columns)
        writer.writerows([full_cell(c, row.get(c)) for c in self._columns] for row in rows)
        self._lines.append(text.getvalue())

    def _add_markdown(self, rows: Sequence[Row]) -> None:
        if self._first(rows):
            self._write("| " + " | ".join(self._columns) + " |")
            self._write("| " + " | ".join("---" if c in TEXTUAL else "---:" for c in self._columns) + " |")
        for row in rows:
            self._write("| " + " | ".join(short_cell(c, row.get(c)).replace("|", "\\|") for c in self._columns) + " |")

    def _add_table(self, rows: Sequence[Row]) -> None:
        heading = str(rows[0]["input"]) if len(rows) > 1 and "input" in rows[0] else None
        if heading is not None:  # above the rows that are its own, so that they have the room
            rows = beneath_names([{k: v for k, v in row.items() if k != "input"} for row in rows])
        shared = (str(rows[0]["name"]), format_shape(rows[0]["shape"])) if len(rows) == 1 and {"input", "name", "shape"} <= rows[0].keys() else ()
        if shared != self._shared or any(key not in self._widths and key not in ("name", "shape") for row in rows for key in row):
            self._shared = shared
            self._open_table(rows)
        if heading is not None:
            self._write(heading)
        for row in rows:
            self._write(self._line({c: self._fitting(c, row.get(c)) for c in self._widths}))

    def _open_table(self, rows: Sequence[Row]) -> None:
        """A header, with columns as wide as these rows need and others like them."""
        columns = [c for c in dict.fromkeys(key for row in rows for key in row) if not (self._shared and c in ("name", "shape"))]
        cells = {c: [short_cell(c, row.get(c)) for row in rows] for c in columns}
        stream = self.stream()
        width = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns if stream.isatty() else PIPED_WIDTH
        numbers = [c for c in columns if c != "zeros" and any(isinstance(row.get(c), float) for row in rows)]
        for usual in (_USUAL_NUMBER, 0):  # room for wider numbers in later rows, where there is some
            self._widths = {c: max(len(c), *map(len, cells[c]), usual if c in numbers else 0) for c in columns}
            folded = next((c for c in ("input", "name") if c in columns), None)  # the only text that can be cut without reading as something else
            room = width - sum(w + 2 for c, w in self._widths.items() if c != folded)
            if folded is None or room >= self._widths[folded]:
                break
        if folded is not None:
            wanted = self._widths[folded] + (4 if folded == "input" else 0)  # later paths may be longer
            self._widths[folded] = max(min(wanted, room), min(self._widths[folded], _LEAST_TEXT))
        if self._columns:
            self._write("")
        self._columns = columns
        if self._shared:
            self._write(" ".join(self._shared))
        header = self._line({c: c for c in columns})
        self._write(f"\x1b[1m{header}\x1b[0m" if stream.isatty() else header)
        self._write("─" * len(header))

    def _fitting(self, column: str, value: Any) -> str:
        """A cell that keeps to its column: names folded, numbers with a digit less where that is enough."""
        cell, width = short_cell(column, value), self._widths[column]
        if column in TEXTUAL:
            return fold_middle(cell, width)
        if len(cell) > width and isinstance(value, float) and column != "zeros":
            cell = format_number(value, 3)
        return cell

    def _line(self, cells: Mapping[str, str]) -> str:
        return "  ".join(cell.ljust(self._widths[c]) if c in TEXTUAL else cell.rjust(self._widths[c]) for c, cell in cells.items()).rstrip()
