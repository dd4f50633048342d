"""What only a run can tell of a graph's types: ranks and dtypes where inference is silent, and whether the lengths that are fed agree with
the symbols that a model declares for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from netsens.errors import NetsensError
from netsens.graph.graph import Array, Graph, Node, TensorType, walk
from netsens.graph.propagate import infer_types
from netsens.graph.shapes import constant_type
from netsens.graph.sizes import Expression, size_of

Run = Callable[[Graph, Sequence[str], Mapping[str, Array]], Sequence[Array]]
_ROUNDS = 8  # of branches within branches


def unknown_ranks(graph: Graph) -> list[str]:
    """The values, subgraphs' own included, of unknown rank or dtype."""
    found = [o for n in graph.nodes for o in n.outputs if o and _is_unknown(graph.types.get(o))]
    return found + [name for node in graph.nodes for _, sub in node.subgraphs() for name in unknown_ranks(sub)]


def _is_unknown(type_: TensorType | None) -> bool:
    return type_ is None or (not type_.container and (type_.shape is None or not type_.dtype))


def observed(graph: Graph, feeds: Mapping[str, Array], run: Run) -> Graph:
    """The graph with the ranks and dtypes that these feeds bring about, where inference could not tell them; lengths are left open.

    `run(graph, outputs, feeds)` computes values. A value inside of a branch is seen where the branch is taken. What is seen holds for feeds
    that take the same branches, and is to be asked anew for others."""
    return _with_seen(graph, _followed(graph, feeds, run)[1]) if unknown_ranks(graph) else graph


def specialised(graph: Graph, feeds: Mapping[str, Array], run: Run) -> Graph:
    """The graph for feeds that take the branches that these take: each If outside of loops gives way to its branch, and ranks are known."""
    return _with_seen(*_followed(graph, feeds, run))


def _followed(graph: Graph, feeds: Mapping[str, Array], run: Run) -> tuple[Graph, dict[str, TensorType]]:
    unknown = set(unknown_ranks(graph))
    seen: dict[str, TensorType] = {}
    for _ in range(_ROUNDS):
        wanted = [o for n in graph.nodes for o in n.outputs if o in unknown and o not in seen]
        conditions = [n.inputs[0] for n in graph.nodes if n.op == "If" and not n.domain and n.inputs[0] not in graph.constants]
        values = _computed(graph, list(dict.fromkeys([*wanted, *conditions])), feeds, run)
        seen.update({name: _open(values[name]) for name in wanted if name in values})
        taken = _taken(graph, values)
        if taken is graph:
            break
        graph = taken
    return graph, seen


def _with_seen(graph: Graph, seen: Mapping[str, TensorType]) -> Graph:
    def add(g: Graph) -> Graph:
        own = {o for n in g.nodes for o in n.outputs}
        return replace(g, types={**g.types, **{k: t for k, t in seen.items() if k in own}})

    return infer_types(walk(graph, add))


def _open(array: Array) -> TensorType:
    return replace(constant_type(array), shape=(None,) * array.ndim)


def _computed(graph: Graph, names: Sequence[str], feeds: Mapping[str, Array], run: Run) -> dict[str, Array]:
    """The values that are arrays; asked for one by one where they cannot be had together (a sequence among them, say)."""
    fed = {name: feeds[name] for name in names if name in feeds}
    if fed:
        return {**fed, **_computed(graph, [n for n in names if n not in fed], feeds, run)}
    if not names:
        return {}
    try:
        found = dict(zip(names, run(graph, names, feeds), strict=True))
    except NetsensError:
        if len(names) == 1:
            return {}
        half = len(names) // 2
        return {**_computed(graph, names[:half], feeds, run), **_computed(graph, names[half:], feeds, run)}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


def _taken(graph: Graph, values: Mapping[str, Array]) -> Graph:
    """The graph with each If on its own level replaced by the branch that was taken; the same graph where there is none."""
    result = graph.copy()
    result.nodes = []
    changed = False
    for node in graph.nodes:
        condition = values.get(node.inputs[0], graph.constants.get(node.inputs[0])) if node.op == "If" and not node.domain else None
        if condition is None:
            result.nodes.append(node)
            continue
        changed = True
        branch: Graph = node.attributes["then_branch" if bool(np.reshape(condition, -1)[0]) else "else_branch"]
        result.nodes += [*branch.nodes, *(Node("Identity", (i,), (o,)) for i, o in zip(branch.outputs, node.outputs, strict=True) if o)]
        result.constants.update(branch.constants)
        result.types.update(branch.types)
    return result if changed else graph


# Symbols -------------------------------------------------------------------------------------------------------------------


def contradictions(graph: Graph, feeds: Mapping[str, Array]) -> list[str]:
    """The symbols of the inputs that these feeds give two lengths; a sentence each. onnxruntime doesn't mind, but a derivative leans on them."""
    lengths: dict[str, tuple[int, str]] = {}
    found = []
    for name, axis, symbol in _symbols(graph):
        if name not in feeds or np.ndim(feeds[name]) <= axis:
            continue
        length = np.shape(feeds[name])[axis]
        first, where = lengths.setdefault(symbol, (length, f"axis {axis} of '{name}'"))
        if first != length:
            found.append(f"The model calls two lengths '{symbol}': {first} on {where}, and {length} on axis {axis} of '{name}'.")
    return found


def symbols_apart(graph: Graph) -> Graph:
    """The graph with a symbol of its own for every input dimension that has one twice."""
    taken: set[str] = set()
    types = dict(graph.types)
    for name, axis, symbol in _symbols(graph):
        if symbol in taken:
            shape = list(types[name].shape or ())
            shape[axis] = None
            types[name] = replace(types[name], shape=tuple(shape))
        taken.add(symbol)
    return infer_types(replace(graph, types=types))


def _symbols(graph: Graph) -> Iterator[tuple[str, int, str]]:
    for name in graph.inputs:
        type_ = graph.types.get(name)
        for axis, dim in enumerate((type_.shape if type_ else None) or ()):
            if isinstance(dim, str) and isinstance(size_of(dim), Expression):
                yield name, axis, dim
