"""What is known of a derivative while it is built, for rules and for whoever emits its nodes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from netsens.graph.graph import Node


@dataclass(slots=True)
class Derivative:
    """Its mode, and what was found out on the way."""

    # Whether reverse mode passes over what `of` never reads, which may be NaN or infinite: residuals that aren't finite count as zero, and a
    # cotangent of zero stays zero whatever it is multiplied with or divided by. `pulled` are the cotangents, and what was computed from them.
    finite_only: bool = False
    pulled: set[str] = field(default_factory=set)
    # What stands in for the rule of an operator that has none, and the nodes that needed it.
    fallback: Callable[[Node], Any] | None = None
    differenced: list[Node] = field(default_factory=list)
    # In reverse mode, what cotangents are wanted of: a rule may lean on what the rule of another operand will compute anyway.
    active: AbstractSet[str] = frozenset()
    # Values whose numbers are those of what is differentiated, moved at most.
    exposed: AbstractSet[str] = frozenset()
    # Cotangents that are zero already wherever a value isn't positive, and that value.
    rectified: dict[str, str] = field(default_factory=dict)
    # What a reverse rule computes besides the node itself, to keep values on the way: the node's outputs, and what equals them. None: not asked for.
    instead: dict[str, str] | None = None

    def inside(self) -> Derivative:
        """The same for a graph inside, which finds things out for both."""
        return replace(self, instead=None)
