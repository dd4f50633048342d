"""SciPy, an extra, imported when something asks for what it alone has."""

from __future__ import annotations

import importlib
from typing import Any

from netsens.errors import UsageError


def scipy_module(module: str, purpose: str) -> Any:
    """The module of SciPy, or a `UsageError` that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{purpose} needs SciPy, which cannot be imported ({error}): pip install 'netsens[sparse]'.") from error
