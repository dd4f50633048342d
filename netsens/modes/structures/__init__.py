"""Rules of structure, a module a family of operators; importing this declares them all."""

from netsens.modes.structures import axes, gather, layout, products, resize, windows  # noqa: F401  # each declares its own
from netsens.modes.structures.view import RULES

__all__ = ["RULES"]
