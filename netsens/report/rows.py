"""Tables of figures (rows of names and numbers) written to files: .csv .tsv .jsonl .parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netsens.errors import UsageError
from netsens.report.atomic import replacing, write_bytes_atomically
from netsens.report.extras import require
from netsens.report.remote import is_remote, write_remote
from netsens.report.render import json_ready

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


def check_rows_output(path: str) -> None:
    """Raises where `write_rows` doesn't know the format."""
    if Path(path).suffix.lower() not in TABLES:
        raise UsageError(f"'{path}' ends in no format of a table; take one of {' '.join(TABLES)}")


def write_rows(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows whole or not at all. Columns are the rows' keys, in the order they first come."""
    check_rows_output(path)
    suffix = Path(path).suffix.lower()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if suffix == ".parquet":
        table = require("pyarrow").table({c: [row.get(c) for row in rows] for c in columns})
        with replacing(path) as temporary:
            require("pyarrow.parquet").write_table(table, str(temporary))
        return
    text = io.StringIO()
    if suffix == ".jsonl":
        for row in rows:
            text.write(json.dumps(json_ready(dict(row)), ensure_ascii=False, allow_nan=False) + "\n")
    else:
        writer = csv.writer(text, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(c, "") for c in columns] for row in rows)
    content = text.getvalue().encode()
    if is_remote(path):
        write_remote(path, content)
    else:
        write_bytes_atomically(path, content)
