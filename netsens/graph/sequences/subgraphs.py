"""Graphs whose sequences are known, and the graphs inside them: the branches of an If, the turns of a Loop, the body of a SequenceMap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from netsens.graph.graph import Graph, Node, TensorType
from netsens.graph.sequences.known import Known, Listed, Rows
from netsens.graph.sequences.operators import RULES
from netsens.graph.sequences.scope import Scope


def resolved(s: Scope, graph: Graph, known: Mapping[str, Known], extra: Sequence[str] = ()) -> Graph:
    """The graph without known sequences; `known` are those of its inputs and of the graphs around it, `extra` its outputs in the end (its own where
    none are given)."""
    with s.inside(graph, known):
        for node in graph.nodes:
            append(s, node)
        outputs = list(extra) or list(graph.outputs)
        return replace(graph, nodes=s.needed(outputs), outputs=outputs, constants=s.constants)


def append(s: Scope, node: Node) -> None:
    """Appends what the node becomes. An operator over a sequence stays beside what stands for it, in case someone still wants the sequence."""
    if any(node.subgraphs()):
        s.nodes.append(_around(s, node))
        return
    rule = RULES.get(node.op) if not node.domain else None
    if rule is None or not rule(s, node):
        s.nodes.append(node)


def _around(s: Scope, node: Node) -> Node:
    """A node with subgraphs, which may read the sequences known here."""
    if node.op == "SequenceMap" and not node.domain:
        return _mapped(s, node)
    if node.op == "Loop" and not node.domain:
        return _loop(s, node)
    inner = {k: resolved(s, g, s.known) for k, g in node.subgraphs()}
    return replace(node, attributes={**node.attributes, **inner})


def _mapped(s: Scope, node: Node) -> Node:
    """SequenceMap's body once for each element; the SequenceMap itself stays until it is found unread."""
    body: Graph = node.attributes["body"]
    first = s.listed(node.inputs[0])
    if first is None:
        return _scanned(s, node)
    sources: list[tuple[str, ...] | None] = [s.listed(i) for i in node.inputs]
    if any(held is None and s.type(i).container for held, i in zip(sources, node.inputs, strict=True)):
        return node
    results: list[list[str]] = [[] for _ in body.outputs]
    for k in range(len(first)):
        mapping = {inner: held[k] if held is not None else outer for inner, held, outer in zip(body.inputs, sources, node.inputs, strict=True)}
        own = [*body.constants, *(o for n in body.nodes for o in n.outputs if o)]
        mapping |= {name: s.fresh(f"{name}/{k}") for name in own}
        s.copied.update({mapping[name]: body.types[name] for name in own if name in body.types})
        s.constants.update({mapping[name]: array for name, array in body.constants.items()})
        for inner_node in body.nodes:
            append(s, _with_own_names(inner_node.renamed(mapping), s))
        for result, name in zip(results, body.outputs, strict=True):
            result.append(mapping.get(name, name))
    for output, result in zip(node.outputs, results, strict=True):
        s.known[output] = Listed(tuple(result))
    return node


def _scanned(s: Scope, node: Node) -> Node:
    """SequenceMap over slices of tensors as a Scan over these; the outputs are the slices of what it stacks."""
    body: Graph = node.attributes["body"]
    sources = [s.known.get(i) for i in node.inputs]
    rows = [held for held in sources if isinstance(held, Rows)]
    if any(not isinstance(held, Rows) and s.type(i).container for held, i in zip(sources, node.inputs, strict=True)):
        return node
    mapping = {inner: outer for inner, held, outer in zip(body.inputs, sources, node.inputs, strict=True) if not isinstance(held, Rows)}
    inputs, lead, types = [], [], dict(body.types)
    for inner, source in zip(body.inputs, sources, strict=True):
        if isinstance(source, Rows):
            name, shape = s.fresh(f"{inner}/slice"), s.shape(source.tensor)
            inputs.append(name)
            types[name] = TensorType(s.type(source.tensor).dtype, None if shape is None else (*shape[: source.axis], *shape[source.axis + 1 :]))
            axes = s.constant(np.asarray([source.axis], np.int64), f"{inner}/axes")
            lead.append(Node("Unsqueeze", (name, axes), (inner,)) if source.kept else Node("Identity", (name,), (inner,)))
    turn = replace(body.renamed(mapping), inputs=inputs, nodes=[*lead, *body.renamed(mapping).nodes], types=types)
    stacks = tuple(s.fresh(f"{o or inner}/stack") for o, inner in zip(node.outputs, body.outputs, strict=True))
    for output, stack, inner in zip(node.outputs, stacks, body.outputs, strict=True):
        type_ = body.types.get(inner, TensorType(0))
        s.copied[stack] = replace(type_, shape=None if type_.shape is None else (None, *type_.shape))
        if output:
            s.known[output] = Rows(stack, 0, False)
    turn = resolved(s, turn, s.known)
    attributes = {"body": turn, "num_scan_inputs": len(rows), "scan_input_axes": [r.axis for r in rows]}
    return Node("Scan", tuple(r.tensor for r in rows), stacks, attributes, name=node.name)


def _loop(s: Scope, node: Node) -> Node:
    """A Loop whose states hold sequences: one that every turn passes on is known inside; one that starts empty and gets an element more in every
    turn becomes a scanned output."""
    body: Graph = node.attributes["body"]
    states = len(node.inputs) - 2
    producers = body.producers()
    inside, gone, scanned, outside = dict(s.known), set[int](), [], dict[str, Known]()
    for k in range(states):
        outer, before, after = s.known.get(node.inputs[2 + k]), body.inputs[2 + k], body.outputs[1 + k]
        while after in producers and producers[after].op == "Identity" and not producers[after].domain:
            after = producers[after].inputs[0]
        if outer is None:
            continue
        if after == before:
            inside[before] = outer
            gone.add(k)
            outside[node.outputs[k]] = outer
            continue
        insert = producers.get(after)
        reads = sum(before in n.reads() for n in body.nodes) + sum(o == before for o in body.outputs)
        if insert is None or insert.op != "SequenceInsert" or insert.inputs[0] != before or len(insert.inputs) > 2 or reads != 1 or outer != Listed(()):
            continue
        if sum(insert.outputs[0] in n.reads() for n in body.nodes if n.op != "Identity"):
            continue
        shape = body.types[insert.inputs[1]].shape if insert.inputs[1] in body.types else None
        if shape is None or not s.fixed(shape):
            continue
        gone.add(k)
        scanned.append((k, insert.inputs[1]))
    kept = [k for k in range(states) if k not in gone]
    inputs = [*body.inputs[:2], *(body.inputs[2 + k] for k in kept)]
    if not s.loops:
        return replace(node, attributes={**node.attributes, "body": resolved(s, body, s.known)})
    copies = [Node("Identity", (element,), (s.fresh(f"{element}/element"),)) for _, element in scanned]
    outputs = [body.outputs[0], *(body.outputs[1 + k] for k in kept), *body.outputs[1 + states :], *(c.outputs[0] for c in copies)]
    changed = resolved(s, replace(body, inputs=inputs, nodes=[*body.nodes, *copies]), inside, outputs)
    names = {k: s.fresh(f"{node.outputs[k] or body.outputs[1 + k]}/stack") for k, _ in scanned}
    for k, element in scanned:
        type_ = body.types[element]
        s.copied[names[k]] = replace(type_, shape=(None, *(type_.shape or ())))
        if node.outputs[k]:
            outside[node.outputs[k]] = Rows(names[k], 0, False)
    if not gone:
        return replace(node, attributes={**node.attributes, "body": changed})
    s.known.update({name: known for name, known in outside.items() if name})
    results = (*(node.outputs[k] for k in kept), *node.outputs[states:], *names.values())
    return Node("Loop", (*node.inputs[:2], *(node.inputs[2 + k] for k in kept)), results, {**node.attributes, "body": changed}, name=node.name)


def _with_own_names(node: Node, scope: Scope) -> Node:
    """A copy of a node whose subgraphs' own values have names that nothing else has."""

    def own(graph: Graph) -> Graph:
        names = [*graph.inputs, *graph.constants, *(o for n in graph.nodes for o in n.outputs if o)]
        inner = replace(graph, nodes=[_with_own_names(n, scope) for n in graph.nodes])
        return inner.renamed({name: scope.fresh(name) for name in names})

    changed = {k: own(g) for k, g in node.subgraphs()}
    return replace(node, attributes={**node.attributes, **changed}) if changed else node
