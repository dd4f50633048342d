"""What a built gradient graph says of itself; apart from what builds it, since a plan can also come from the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from netsens.graph.graph import Graph


@dataclass(frozen=True, slots=True)
class GradientPlan:
    """A graph that holds the gradient, and where.

    `results` say which output holds the gradient by each tensor; `zeros` are the tensors asked for by name whose gradient is
    zero, each with the reason; `notes` are sentences that the user should read. `cotangent` is the graph input for an
    imposed output gradient, None where the seed is all ones. `cotangents` say which value holds the cotangent of which inner value; a plan from the cache
    doesn't know."""

    graph: Graph
    of: str
    results: Mapping[str, str]
    zeros: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    cotangent: str | None = None
    cotangents: Mapping[str, str] = field(default_factory=dict)
