"""Batching rules, a module a family of operators; importing this declares them all."""

from netsens.modes.batches import layout, products, windows  # noqa: F401  # each declares its own
from netsens.modes.batches.view import RULES

__all__ = ["RULES"]
