"""What a built gradient graph says of itself; apart from what builds it, since a plan can also come from the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from netsens.graph.graph import Graph

TOGETHER_BYTES = 1 << 23  # of the largest value, for a thread: what is computed of it next then finds it in a cache


@dataclass(frozen=True, slots=True)
class Samples:
    """How the gradient of a whole batch is put together from parts of it: `inputs` of the graph are cut along their first axis, gradients by the tensors in `summed` are
    added, and those by others come one behind the other. `sample_bytes` are those of the largest value for one sample, `parameter_bytes` those of what is added, and
    `dense_bytes` those of dense layers' weights, which are all read for each part. `at_a_time` is how many samples a part has where that is settled, else 0."""

    inputs: Sequence[str]
    summed: Sequence[str]
    sample_bytes: int
    parameter_bytes: int
    dense_bytes: int = 0
    at_a_time: int = 0

    def rows(self, count: int, threads: int) -> int:
        """How many of `count` samples to compute at a time. A sample's values want to stay in the caches, and what is added should be small beside them. Parts are of one
        length, since onnxruntime plans for it."""
        if self.at_a_time or self.dense_bytes > 4 * self.sample_bytes:
            return self.at_a_time or count
        most = max(TOGETHER_BYTES * threads // self.sample_bytes, ceil(self.parameter_bytes / (1.5 * self.sample_bytes)), 1)
        rows = next(r for r in range(min(most, count), 0, -1) if count % r == 0) if count else 0
        return rows if 4 * rows >= most else count


@dataclass(frozen=True, slots=True)
class GradientPlan:
    """A graph that holds the gradient, and where.

    `results` say which output holds the gradient by each tensor; `zeros` are the tensors asked for by name whose gradient is
    zero, each with the reason; `notes` are sentences that the user should read. `cotangent` is the graph input for an
    imposed output gradient, None where the seed is all ones. `samples` say how parts of a batch make the whole, None where they may not. `cotangents` say which
    value holds the cotangent of which inner value; a plan from the cache doesn't know. `limited`: it was made to fit into a limit of memory."""

    graph: Graph
    of: str
    results: Mapping[str, str]
    zeros: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    cotangent: str | None = None
    samples: Samples | None = None
    cotangents: Mapping[str, str] = field(default_factory=dict)
    limited: bool = False
