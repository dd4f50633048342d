"""What is known of a sequence without running the model: which tensors it holds."""

from __future__ import annotations

from dataclasses import dataclass

from netsens.graph.graph import Graph

OPERATORS = {
    "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "SequenceMap", "SplitToSequence",
    "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listed:
    """A sequence of these tensors; or an optional, of one or none. `rows` is the same sequence as slices of one tensor, where it is that."""

    names: tuple[str, ...]
    rows: Rows | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """A sequence of the slices of length 1 of a tensor along an axis; `kept` says whether they still have that axis."""

    tensor: str
    axis: int
    kept: bool


@dataclass(frozen=True, slots=True)
class Chunks:
    """A sequence of stretches of a tensor along an axis, each as long as the whole number `size` says (a value), the last perhaps shorter."""

    tensor: str
    axis: int
    size: str


Known = Listed | Rows | Chunks


def holds_sequences(graph: Graph) -> bool:
    """Whether an operator over sequences or optionals is among the nodes."""
    return any((n.op in OPERATORS and not n.domain) or any(holds_sequences(g) for _, g in n.subgraphs()) for n in graph.nodes)
