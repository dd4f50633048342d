"""The process behind `netsens` and `python -m netsens`."""

from __future__ import annotations

import gc
from typing import NoReturn

# Objects made between two looks for circles of garbage. What start-up makes stays, and at Python's own 700 (or 2,000) the looks through it took a twelfth of a
# small run. Numbers lie in arrays and not in objects, so that this many take some ten megabytes.
_OBJECTS = 50_000


def main() -> NoReturn:
    """Runs the command line and exits with its status."""
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
    from netsens.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
