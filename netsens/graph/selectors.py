"""What a user names to differentiate by, before there is a graph in which to look for it (`names` finds it there)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netsens.errors import UsageError

GLOB = set("*?[")


def selectors_of(wrt: str | Sequence[str]) -> list[str]:
    """What is differentiated by, as a list of selectors."""
    chosen = [wrt] if isinstance(wrt, str) else list(wrt) if isinstance(wrt, Iterable) else [wrt]
    if not chosen:
        raise UsageError("Nothing is named to differentiate by: give --wrt a name, inputs, params or all.")
    for selector in chosen:
        if not isinstance(selector, str):
            raise UsageError(f"What is differentiated by is chosen by name, and {selector!r} was given.")
    return chosen


def is_group(selectors: Iterable[str]) -> bool:
    """Whether the selectors are groups or globs, in which tensors without a path are passed over."""
    return all(s in ("inputs", "params", "all") or GLOB & set(s) for s in selectors)
