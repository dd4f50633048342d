"""Tables in .parquet files, through pyarrow (an extra)."""

from __future__ import annotations

from typing import BinaryIO

from netsens.errors import InputError
from netsens.report.extras import require
from netsens.report.tables import Table


def read_parquet(stream: BinaryIO, source: str) -> Table:
    """The columns by name, with their rows as text in full precision, so that a table is one thing wherever it came from."""
    try:
        table = require("pyarrow.parquet").read_table(require("pyarrow").BufferReader(stream.read()))
    except OSError as error:
        raise InputError(f"{source!r} cannot be read as a .parquet file, it is truncated or damaged ({error})") from error
    except ValueError as error:  # pyarrow's ArrowInvalid
        raise InputError(f"{source!r} cannot be read as a .parquet file, it is truncated or damaged ({' '.join(str(error).split())[:160]})") from error
    names = tuple(name for name in table.column_names if not name.startswith("__index_level_"))
    columns = [["" if v is None else str(v) for v in table.column(name).to_pylist()] for name in names]
    if not names or not len(table):
        raise InputError(f"{source!r} holds no rows")
    return Table(names, [list(row) for row in zip(*columns, strict=True)], list(range(1, len(table) + 1)), source)
