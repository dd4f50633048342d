"""Which values carry a derivative: those that floating point numbers of `wrt` reach through operators that bend or are linear.
Where nothing arrives, the operator that cut the path is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from netsens.graph.dtypes import FLOATS
from netsens.graph.graph import Graph, Node, TensorType
from netsens.rules.words import rule_of

QUANTISED = {2, 3, 4, 5, 6, 17, 18, 19, 20, 21, 22, 23, 25, 26}  # whole numbers of up to 32 bits, and floats of up to 8
CONTROL_FLOW = {"If", "Loop", "Scan"}


def carries(type_: TensorType | None) -> bool:
    """Whether a value of this type can carry a derivative; one of unknown type may."""
    return type_ is None or type_.dtype in FLOATS or type_.dtype == 0


def active_values(graph: Graph, wrt: Iterable[str]) -> set[str]:
    """Every value that a change of `wrt` can move smoothly."""
    active = set(wrt)
    spread(graph.nodes, active, graph.types.get, graph.straight_through)
    return active


def spread(nodes: Sequence[Node], active: set[str], type_of: Callable[[str], TensorType | None], straight_through: bool = False) -> None:
    """Adds to `active` what it reaches through `nodes`, and through rounding to quantised integers where that is passed straight through."""
    for node in nodes:
        if not is_active(node, active):
            continue
        rule = rule_of(node)
        if rule is not None and (rule.status == "flat" or (rule.quantizes and not straight_through)):
            continue
        moved = _moved_by_subgraphs(node, active) if node.op in CONTROL_FLOW and any(node.subgraphs()) else node.outputs
        handed_on = straight_through and rule is not None and (rule.quantizes or _reads_integers(node, active, type_of))
        active.update(o for o in moved if o and (carries(type_of(o)) or (handed_on and _quantised(type_of(o)))))


def leading_to(graph: Graph, of: str) -> set[str]:
    """Every value whose change moves `of` smoothly: one look from the other end, where `active_values` would be asked of each value. What a node hands on of
    several values is what it hands on of each."""
    leading = {of}
    for node in reversed(graph.nodes):
        outputs = [o for o in node.outputs if o in leading]
        if not outputs:
            continue
        for name in set(node.reads()) - leading:
            moved = {name}
            spread([node], moved, graph.types.get, graph.straight_through)
            if any(o in moved for o in outputs):
                leading.add(name)
    return leading


def _reads_integers(node: Node, active: set[str], type_of: Callable[[str], TensorType | None]) -> bool:
    """Whether the node hands on quantised integers that carry a derivative (a Reshape or a MaxPool of them, say)."""
    return any(i in active and not carries(type_of(i)) for i in node.inputs)


def _quantised(type_: TensorType | None) -> bool:
    """Whether a value of this type may stand for real numbers; indices and lengths are int64, and truth values stand for none."""
    return type_ is not None and type_.dtype in QUANTISED


def _moved_by_subgraphs(node: Node, active: set[str]) -> list[str]:
    """The outputs of an If, Loop or Scan that `active` reaches inside it."""
    lead = 1 if node.op == "Loop" else 0
    moved: set[str] = set()
    for graph, inside in _insides(node, active):
        moved.update(o for o, inner in zip(node.outputs, graph.outputs[lead:], strict=False) if inner in inside)
    return list(moved)


def _insides(node: Node, active: set[str]) -> list[tuple[Graph, set[str]]]:
    """The subgraphs of an If, Loop or Scan, each with what `active` reaches inside it."""
    if node.op not in ("Loop", "Scan"):
        return [(graph, active_inside(graph, active)) for _, graph in node.subgraphs()]
    lead = 1 if node.op == "Loop" else 0
    inputs = node.inputs[2 * lead :]
    states = len(inputs) - (0 if lead else int(node.attributes["num_scan_inputs"]))
    body: Graph = node.attributes["body"]
    return [(body, active_inside(body, active, inputs, states, lead))]


def active_inside(graph: Graph, active: set[str], inputs: Sequence[str] = (), states: int = 0, lead: int = 0) -> set[str]:
    """What `active` reaches inside a subgraph, its own values and outer ones together. A loop's body has `inputs` outside (after
    its `lead` trip count and condition); the first `states` of them come back as its outputs."""
    inside = set(active)
    own = graph.inputs[2 * lead :]
    inside.update(inner for outer, inner in zip(inputs, own, strict=False) if outer in active)
    while True:
        spread(graph.nodes, inside, graph.types.get, graph.straight_through)
        back = {i for i, o in zip(own[:states], graph.outputs[lead:], strict=False) if o in inside and carries(graph.types.get(i))}
        if back <= inside:
            return inside
        inside |= back


def is_active(node: Node, active: set[str]) -> bool:
    return any(name in active for name in node.reads())


@dataclass(frozen=True, slots=True)
class Cut:
    """A place where the path from `wrt` to `of` ends: the node, and why no derivative passes it."""

    node: Node
    why: str
    piecewise: bool  # whether the function is piecewise constant there, so that zero is its true derivative


def cuts_between(graph: Graph, wrt: str, of: str) -> list[Cut]:
    """The nodes that cut every path from `wrt` to `of`; empty where a path is whole, or where there is none at all."""
    active = active_values(graph, [wrt])
    if of in active:
        return []
    needed, found = {of}, []
    for node in reversed(graph.nodes):
        if not any(o in needed for o in node.outputs):
            continue
        read_on = [o for o in node.outputs if o in needed]  # a TopK's values pass derivatives, though only its indices may be read
        needed.update(node.reads())
        if is_active(node, active) and not any(o in active for o in read_on):
            found += cuts_at(node, active, graph.types)
    return found[::-1]


def cuts_at(node: Node, active: set[str], types: Mapping[str, TensorType]) -> list[Cut]:
    """Why nothing passes a node that `active` values go into: the node itself, or nodes inside its subgraphs."""
    if node.op in CONTROL_FLOW and any(node.subgraphs()):
        inner = [
            cut for graph, inside in _insides(node, active) for n in graph.nodes
            if is_active(n, inside) and not any(o in inside for o in n.outputs) for cut in cuts_at(n, inside, {**types, **graph.types})
        ]  # fmt: skip
        return inner[::-1] or [Cut(node, "none of its outputs is computed smoothly from what it reads", True)]
    rule = rule_of(node)
    reads_float = any(i in active and carries(types.get(i)) for i in node.reads())
    if rule is not None and rule.quantizes:
        return [Cut(node, "rounding has derivative zero; --quantized straight-through lets it pass", True)]
    if rule is not None and rule.status == "flat" and reads_float:
        return [Cut(node, rule.why, any(carries(types.get(o)) and types.get(o) is not None for o in node.outputs))]
    return [Cut(node, "its output holds no floating point numbers", False)]


def depends(graph: Graph, wrt: str, of: str) -> bool:
    """Whether `of` is computed from `wrt` at all."""
    return wrt in needed_for(graph, of)


def needed_for(graph: Graph, of: str) -> set[str]:
    """Every value that `of` is computed from, itself included."""
    needed = {of}
    for node in reversed(graph.nodes):
        if any(o in needed for o in node.outputs):
            needed.update(node.reads())
    return needed
