"""Less memory for more time: inner values of the forward pass that only the backward pass reads are not kept but computed again, a segment of the model at a time,
once the backward pass has come to it (checkpointing; Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod

import numpy as np

from netsens.graph.dtypes import BOOL, INT64, numpy_dtype
from netsens.graph.emitted import NEVER_SHARED
from netsens.graph.graph import Graph, Node, TensorType, pruned

VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}  # they hand on the memory of what they read
ELEMENTWISE = {
    "Relu",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Clip",
    "Sigmoid",
    "Tanh",
    "Exp",
    "Sqrt",
    "Neg",
    "BatchNormalization",
    "Gelu",
    "Erf",
}  # and these write over it


def value_bytes(type_: TensorType | None) -> int | None:
    """The bytes of a value; None where they aren't known."""
    if type_ is None or type_.shape is None or not type_.dtype or not all(isinstance(d, int) for d in type_.shape):
        return None
    return prod(d for d in type_.shape if isinstance(d, int)) * numpy_dtype(type_.dtype).itemsize


def sizes(graph: Graph) -> dict[str, int]:
    """The bytes of every value that a run computes; of those of unknown shape none."""
    return {o: value_bytes(graph.types.get(o)) or 0 for n in graph.nodes for o in n.outputs if o}


def peak_bytes(graph: Graph) -> int:
    """The most bytes that computed values take together while the nodes run in order and each value is freed after its last reader. Constants and inputs don't
    count; results stay."""
    size, root = sizes(graph), {name: name for name in graph.inputs}
    for node in graph.nodes:
        for output in node.outputs:
            root[output] = root.get(node.inputs[0], node.inputs[0]) if node.op in VIEWS and node.inputs else output
    last: dict[str, int] = {}
    for k, node in enumerate(graph.nodes):
        for name in node.reads():
            last[root.get(name, name)] = k
    for name in graph.outputs:
        last[root.get(name, name)] = len(graph.nodes)
    live = peak = 0
    for k, node in enumerate(graph.nodes):
        made = [o for o in node.outputs if o and root[o] == o]
        dying = {root.get(i, i) for i in node.reads() if last[root.get(i, i)] == k and root.get(i, i) in size}
        live += sum(size[o] for o in made)
        written_over = node.op in ELEMENTWISE and any(size[d] == size[o] for d in dying for o in made[:1])
        peak = max(peak, live - (size[made[0]] if written_over else 0))
        live -= sum(size[d] for d in dying) + sum(size[o] for o in made if o not in last)
    return peak


@dataclass(frozen=True, slots=True)
class _Forward:
    """The forward pass within a gradient graph. `reads` are the bytes that the backward pass reads of each node's outputs, `across` those that later nodes of the
    forward pass read from what lies up to each node."""

    nodes: list[Node]
    reads: list[int]
    across: list[int]


def recomputed(graph: Graph, forward: set[str], cotangents: Mapping[str, str], segments: int) -> Graph:
    """The gradient graph with the forward pass in so many segments of which all but the last run again for the backward pass. `forward` are the values that the
    model itself computes, `cotangents` say which value is whose cotangent. Values that cross from one segment to the next are kept."""
    ahead = _forward_of(graph, forward)
    place = {o: s for s, part in enumerate(_segments(ahead, segments)) for n in part for o in n.outputs if o}
    index = {o: k for k, n in enumerate(graph.nodes) for o in n.outputs if o}
    crossing = {i for n in ahead.nodes for i in n.reads() if i in place and any(o and place[o] != place[i] for o in n.outputs)} | set(graph.outputs)
    makers = {o: n for n in ahead.nodes for o in n.outputs if o}
    nodes: list[Node] = []
    made = graph.copy()
    again: dict[int, dict[str, str]] = {}  # by segment: what stands for its values in the backward pass
    for k, node in enumerate(graph.nodes):
        if node.outputs[0] in place:
            nodes.append(node)
            continue
        mapping: dict[str, str] = {}
        for name in node.reads():
            s = place.get(name)
            if s is None or s == segments - 1 or name in crossing:
                continue
            if s not in again:
                wanted = [r for later in graph.nodes[k:] if later.outputs[0] not in place for r in later.reads() if place.get(r) == s and r not in crossing]
                again[s] = _again(made, nodes, s, wanted, makers, place, crossing, _arriving(cotangents, place, s, index, k))
            mapping[name] = again[s].get(name, name)
        nodes.append(node.renamed(mapping) if mapping else node)
    made.nodes = nodes
    return pruned(made)


def _forward_of(graph: Graph, forward: set[str]) -> _Forward:
    nodes = [n for n in graph.nodes if n.outputs[0] in forward]
    size = sizes(graph)
    read = {i for n in graph.nodes if n.outputs[0] not in forward for i in n.reads()}
    last = {i: k for k, n in enumerate(nodes) for i in n.reads()}
    across = [0] * (len(nodes) + 1)
    for k, node in enumerate(nodes):
        for output in node.outputs:
            if output in last:
                across[k] += size[output]
                across[last[output]] -= size[output]
    return _Forward(nodes, [sum(size.get(o, 0) for o in n.outputs if o in read) for n in nodes], list(accumulate(across))[: len(nodes)])


def _segments(forward: _Forward, count: int) -> list[list[Node]]:
    """The forward pass cut in parts of which the backward pass reads about as much each, where little crosses."""
    sums = list(accumulate(forward.reads))
    total, cuts = sums[-1] if sums else 0, [0]
    for part in range(1, count):
        near = [k for k, s in enumerate(sums) if abs(s * count - part * total) <= total / 3 and k + 1 > cuts[-1]]
        cuts.append(min(near, key=lambda k: (forward.across[k], abs(sums[k] * count - part * total))) + 1 if near else cuts[-1])
    return [forward.nodes[a:b] for a, b in zip(cuts, [*cuts[1:], len(forward.nodes)], strict=True)]


def _arriving(cotangents: Mapping[str, str], place: Mapping[str, int], segment: int, index: Mapping[str, int], before: int) -> str | None:
    """The cotangent that the backward pass has computed last before it comes to the segment."""
    arrived = [c for c in cotangents.values() if c not in place and index.get(c, before) < before]
    return max(arrived, key=lambda c: index[c], default=None)


def _again(
    graph: Graph,
    nodes: list[Node],
    segment: int,
    wanted: Sequence[str],
    makers: Mapping[str, Node],
    place: Mapping[str, int],
    crossing: set[str],
    arriving: str | None,
) -> dict[str, str]:
    """Appends what computes the wanted values of a segment again, from values that are kept."""
    if arriving is None:
        return {}
    needed: set[str] = set()
    stack = list(wanted)
    while stack:
        name = stack.pop()
        if name in needed:
            continue
        needed.add(name)
        node = makers[name]
        stack += [i for i in node.reads() if place.get(i) == segment and i not in crossing]
    copies = list({id(n): n for n in makers.values() if any(o in needed for o in n.outputs)}.values())
    if any(n.op in NEVER_SHARED or any(n.subgraphs()) for n in copies):
        return {}  # what is drawn at random comes out otherwise the second time
    mapping: dict[str, str] = {}
    zero = _late_zero(graph, nodes, arriving, segment)
    for node in copies:
        for name in node.inputs:
            if name and name not in mapping and name not in graph.constants and name not in needed:
                mapping[name] = _after(graph, nodes, name, zero, segment)
        for output in node.outputs:
            if output:
                mapping[output] = f"again/{segment}/{output}"
                graph.types[mapping[output]] = graph.types[output]
        nodes.append(replace(node.renamed(mapping), name=""))
    return {name: mapping[name] for name in wanted}


def _late_zero(graph: Graph, nodes: list[Node], arriving: str, segment: int) -> str:
    """The number 0, [1], that is known when the cotangent is: whether its first element is above infinity. Nothing tells that before it runs."""
    name = f"again/{segment}"
    graph.constants |= {
        f"{name}/all": np.asarray([-1]),
        f"{name}/first": np.asarray([0]),
        f"{name}/infinity": np.asarray(np.inf, numpy_dtype(graph.types[arriving].dtype)),
    }
    nodes += [
        Node("Reshape", (arriving, f"{name}/all"), (f"{name}/flat",)),
        Node("Gather", (f"{name}/flat", f"{name}/first"), (f"{name}/element",), {"axis": 0}),
        Node("Greater", (f"{name}/element", f"{name}/infinity"), (f"{name}/above",)),
        Node("Cast", (f"{name}/above",), (f"{name}/zero",), {"to": INT64}),
    ]
    dtype = graph.types[arriving].dtype
    for part, type_ in (
        ("flat", TensorType(dtype, (None,))),
        ("element", TensorType(dtype, (1,))),
        ("above", TensorType(BOOL, (1,))),
        ("zero", TensorType(INT64, (1,))),
    ):
        graph.types[f"{name}/{part}"] = type_
    return f"{name}/zero"


def _after(graph: Graph, nodes: list[Node], value: str, zero: str, segment: int) -> str:
    """The value, by no copy, as onnxruntime can have it only after `zero`: else it would take the second computation for the first."""
    name, type_ = f"again/{segment}/{value}", graph.types[value]
    shape = np.asarray(type_.shape, np.int64)
    graph.constants[f"{name}/shape"] = shape
    graph.types[name], graph.types[f"{name}/late"] = type_, TensorType(INT64, (len(shape),))
    nodes += [Node("Add", (f"{name}/shape", zero), (f"{name}/late",)), Node("Reshape", (value, f"{name}/late"), (name,), {"allowzero": 1})]
    return name
