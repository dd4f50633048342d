"""Sequences and optionals turned into the tensors that they hold, wherever which tensors those are is known without running the model, so that rules meet
tensors alone. What stays (a sequence that only the data decides) is left as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netsens.graph.graph import Array, Dim, Graph, Node, TensorType, numbered_name, walk
from netsens.graph.sequence_branches import inserted_after_branches

OPERATORS = {
    "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "SequenceMap", "SplitToSequence",
    "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
}  # fmt: skip
_MOST_PARTS = 1024


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


def without_sequences(graph: Graph) -> Graph:
    """The graph, typed, with the sequences that are known resolved; the types of new values are for inference to find."""
    if not holds_sequences(graph):
        return graph
    graph = walk(graph, inserted_after_branches)
    resolved = _Resolver(graph, loops=True).resolved(graph, {}, [])
    # A Loop that no longer carries a sequence which someone still reads is left as it was.
    return resolved if _is_closed(resolved, set()) else _Resolver(graph, loops=False).resolved(graph, {}, [])


def _is_closed(graph: Graph, outer: set[str]) -> bool:
    """Whether everything that is read is there."""
    there = {*outer, *graph.inputs, *graph.constants}
    for node in graph.nodes:
        if not there.issuperset(i for i in node.inputs if i) or not all(_is_closed(g, there) for _, g in node.subgraphs()):
            return False
        there.update(node.outputs)
    return there.issuperset(graph.outputs)


def holds_sequences(graph: Graph) -> bool:
    return any((n.op in OPERATORS and not n.domain) or any(holds_sequences(g) for _, g in n.subgraphs()) for n in graph.nodes)


class _Resolver:
    def __init__(self, graph: Graph, loops: bool) -> None:
        self.loops = loops
        self.used = graph.names()
        self.made: set[str] = set()  # the values that are new
        self.copied: dict[str, TensorType] = {}  # types of values in copies of a SequenceMap's body
        self.fed = {d for name in graph.inputs for d in (graph.types[name].shape if name in graph.types else None) or () if isinstance(d, str)}
        # The scope at hand.
        self.graphs: list[Graph] = []
        self.known: dict[str, Known] = {}
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}

    # Scopes ---------------------------------------------------------------------------------------------------------

    def resolved(self, graph: Graph, known: Mapping[str, Known], around: Sequence[Graph], extra: Sequence[str] = ()) -> Graph:
        """The graph without known sequences; `known` are those of its inputs and of the graphs around it, `extra` its outputs in the end (its own where
        none are given)."""
        scope = self.graphs, self.known, self.nodes, self.constants
        self.graphs, self.known, self.nodes, self.constants = [graph, *around], dict(known), [], dict(graph.constants)
        for node in graph.nodes:
            self.node(node)
        outputs = list(extra) or list(graph.outputs)
        result = replace(graph, nodes=self.needed(outputs), outputs=outputs, constants=self.constants)
        self.graphs, self.known, self.nodes, self.constants = scope
        return result

    def type(self, name: str) -> TensorType:
        return self.copied.get(name) or next((g.types[name] for g in self.graphs if name in g.types), TensorType(0))

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        if name in self.constants:
            return self.constants[name].shape
        return self.type(name).shape

    def array(self, name: str) -> Array | None:
        found = self.constants.get(name)
        return found if found is not None else next((g.constants[name] for g in self.graphs if name in g.constants), None)

    def number(self, name: str) -> int | None:
        found = self.array(name)
        return None if found is None or found.size != 1 else int(found.reshape(-1)[0])

    def fresh(self, base: str) -> str:
        return numbered_name(base, self.used)

    def needed(self, outputs: Sequence[str]) -> list[Node]:
        """The scope's nodes without those over sequences, and those made here, that nobody reads."""
        read, kept = set(outputs), []
        for node in reversed(self.nodes):
            spare = (node.op in OPERATORS and not node.domain) or all(o in self.made or self.type(o).container for o in node.outputs if o)
            if spare and not any(o in read for o in node.outputs):
                continue
            read.update(node.reads())
            kept.append(node)
        return kept[::-1]

    # Nodes ----------------------------------------------------------------------------------------------------------

    def emit(self, op: str, inputs: Sequence[str], hint: str, attributes: Mapping[str, Any] | None = None, to: str = "") -> str:
        """A node with one output, called `to` where that is given."""
        output = to or self.fresh(hint)
        self.made.add(output)
        self.nodes.append(Node(op, tuple(inputs), (output,), dict(attributes or {})))
        return output

    def constant(self, array: Any, hint: str) -> str:
        name = self.fresh(hint)
        self.constants[name] = np.asarray(array)
        return name

    def node(self, node: Node) -> None:
        """Appends what the node becomes. An operator over a sequence stays beside what stands for it, in case someone still wants the sequence."""
        if any(node.subgraphs()):
            self.nodes.append(self.around(node))
            return
        rule = getattr(self, f"_{node.op}", None) if not node.domain else None
        if rule is None or not rule(node):
            self.nodes.append(node)

    def listed(self, name: str) -> tuple[str, ...] | None:
        known = self.known.get(name)
        return known.names if isinstance(known, Listed) else None

    def keep(self, node: Node, known: Known) -> bool:
        """The node's output is known; the node itself goes away later, where nobody reads it."""
        self.known[node.outputs[0]] = known
        self.nodes.append(node)
        return True

    def copy(self, node: Node, source: str) -> bool:
        """The node's output is this value."""
        known = self.known.get(source)
        if known is not None:
            self.known[node.outputs[0]] = known
        self.emit("Identity", [source], "", to=node.outputs[0])
        return True

    def _Identity(self, node: Node) -> bool:
        known = self.known.get(node.inputs[0])
        return known is not None and self.keep(node, known)

    def _SequenceConstruct(self, node: Node) -> bool:
        return self.keep(node, Listed(node.inputs))

    def _SequenceEmpty(self, node: Node) -> bool:
        return self.keep(node, Listed(()))

    def _SequenceInsert(self, node: Node) -> bool:
        names = self.listed(node.inputs[0])
        at = len(names or ()) if len(node.inputs) < 3 or not node.inputs[2] else self.number(node.inputs[2])
        if names is None or at is None:
            return False
        at += len(names) if at < 0 else 0
        return self.keep(node, Listed((*names[:at], node.inputs[1], *names[at:])))

    def _SequenceErase(self, node: Node) -> bool:
        names = self.listed(node.inputs[0])
        at = -1 if len(node.inputs) < 2 or not node.inputs[1] else self.number(node.inputs[1])
        if not names or at is None:
            return False
        at += len(names) if at < 0 else 0
        return self.keep(node, Listed((*names[:at], *names[at + 1 :])))

    def _SequenceAt(self, node: Node) -> bool:
        known, at, output = self.known.get(node.inputs[0]), self.number(node.inputs[1]), node.outputs[0]
        if isinstance(known, Listed) and known.rows is not None and at is None:
            known = known.rows
        if isinstance(known, Rows):
            index = self.emit("Reshape", [node.inputs[1], self.constant(np.asarray([1] if known.kept else [], np.int64), f"{output}/shape")], f"{output}/index")
            self.emit("Gather", [known.tensor, index], "", {"axis": known.axis}, to=output)
            return True
        if isinstance(known, Chunks):
            self.chunk(known, node.inputs[1], output)
            return True
        if known is None:
            return False
        if at is not None:
            return -len(known.names) <= at < len(known.names) and self.copy(node, known.names[at])
        # Which of them is known only at run time: they are stacked, where they are of one shape.
        shapes = {self.shape(name) for name in known.names}
        shape = next(iter(shapes), None)
        if len(shapes) != 1 or shape is None or not self.fixed(shape):
            return False
        index = self.emit("Reshape", [node.inputs[1], self.constant(np.zeros(0, np.int64), f"{output}/shape")], f"{output}/index")
        self.emit("Gather", [self.stacked(known.names, 0, output), index], "", {"axis": 0}, to=output)
        return True

    def chunk(self, known: Chunks, which: str, output: str) -> None:
        """One of the stretches, counted from the end where the number is negative."""
        at, size = (
            self.emit("Reshape", [which, self.vector(1, output)], f"{output}/at"),
            self.emit("Reshape", [known.size, self.vector(1, output)], f"{output}/size"),
        )
        from_end = self.emit("Add", [at, self.chunk_count(known, output)], f"{output}/from_end")
        at = self.emit("Where", [self.emit("Less", [at, self.vector(0, output)], f"{output}/back"), from_end, at], f"{output}/number")
        begin = self.emit("Mul", [at, size], f"{output}/begin")
        end = self.emit("Add", [begin, size], f"{output}/end")
        self.emit("Slice", [known.tensor, begin, end, self.vector(known.axis, output)], "", to=output)

    def chunk_count(self, known: Chunks, hint: str) -> str:
        """How many stretches there are, a vector of length 1."""
        size = self.emit("Reshape", [known.size, self.vector(1, hint)], f"{hint}/size")
        length = self.emit("Shape", [known.tensor], f"{hint}/length", {"start": known.axis, "end": known.axis + 1})
        most = self.emit("Add", [length, self.emit("Sub", [size, self.vector(1, hint)], f"{hint}/rest")], f"{hint}/most")
        return self.emit("Div", [most, size], f"{hint}/count")

    def vector(self, number: int, hint: str) -> str:
        return self.constant(np.asarray([number], np.int64), f"{hint}/number")

    def fixed(self, shape: Sequence[Dim]) -> bool:
        """Whether the shape is the same whenever it is met, in every turn of a loop too."""
        return all(isinstance(d, int) or d in self.fed for d in shape)

    def stacked(self, names: Sequence[str], axis: int, hint: str, to: str = "") -> str:
        axes = self.constant(np.asarray([axis], np.int64), f"{hint}/axes")
        return self.emit("Concat", [self.emit("Unsqueeze", [n, axes], f"{hint}/{k}") for k, n in enumerate(names)], f"{hint}/stack", {"axis": axis}, to)

    def _SequenceLength(self, node: Node) -> bool:
        known, output = self.known.get(node.inputs[0]), node.outputs[0]
        if known is None:
            return False
        if isinstance(known, Listed):
            self.constants[output] = np.asarray(len(known.names), np.int64)
        elif isinstance(known, Chunks):
            self.emit("Squeeze", [self.chunk_count(known, output)], "", to=output)
        else:
            shape = self.emit("Shape", [known.tensor], f"{output}/shape")
            self.emit("Gather", [shape, self.constant(np.asarray(known.axis, np.int64), f"{output}/axis")], "", {"axis": 0}, output)
        return True

    def _SplitToSequence(self, node: Node) -> bool:
        x, output, shape = node.inputs[0], node.outputs[0], self.shape(node.inputs[0])
        if shape is None:
            return False
        axis = int(node.attributes.get("axis", 0)) % len(shape)
        size, alone = shape[axis], len(node.inputs) < 2 or not node.inputs[1]
        kept = bool(node.attributes.get("keepdims", 1)) or not alone
        given = None if alone else self.array(node.inputs[1])
        parts: list[int | None]
        if alone:
            if not isinstance(size, int) or size > _MOST_PARTS:
                return self.keep(node, Rows(x, axis, kept))
            parts = [1] * size
        elif given is None and self.shape(node.inputs[1]) == ():
            return self.keep(node, Chunks(x, axis, self.whole(node.inputs[1], output)))
        elif given is None:
            lengths = self.shape(node.inputs[1])
            if lengths is None or not isinstance(lengths[0], int) or not 0 < lengths[0] <= _MOST_PARTS:
                return False
            parts = [None] * lengths[0]
        elif given.ndim:
            parts = [int(v) for v in given]
        elif isinstance(size, int) and size <= _MOST_PARTS * int(given):
            each = int(given)
            parts = [min(each, size - begin) for begin in range(0, size, each)]
        else:
            return self.keep(node, Chunks(x, axis, self.whole(node.inputs[1], output)))
        names = tuple(self.fresh(f"{output}/{k}") for k in range(len(parts)))
        self.made.update(names)
        dtype = self.type(x).dtype
        self.copied.update((name, TensorType(dtype, (*shape[:axis], part, *shape[axis + 1 :]))) for name, part in zip(names, parts, strict=True))
        if len(parts) == 1:
            self.emit("Identity", [x], "", to=names[0])
        elif parts:
            split = node.inputs[1] if None in parts else self.constant(np.asarray(parts, np.int64), f"{output}/split")
            self.nodes.append(Node("Split", (x, split), names, {"axis": axis}))
        if not kept:
            axes = self.constant(np.asarray([axis], np.int64), f"{output}/axes")
            names = tuple(self.emit("Squeeze", [name, axes], f"{name}/element") for name in names)
            self.copied.update((name, TensorType(dtype, (*shape[:axis], *shape[axis + 1 :]))) for name in names)
        return self.keep(node, Listed(names, Rows(x, axis, kept) if alone else None))

    def whole(self, number: str, hint: str) -> str:
        """A number as int64, which shapes are."""
        return number if self.type(number).dtype in (0, 7) else self.emit("Cast", [number], f"{hint}/number", {"to": 7})

    def _ConcatFromSequence(self, node: Node) -> bool:
        known, output, axis = self.known.get(node.inputs[0]), node.outputs[0], int(node.attributes["axis"])
        new = bool(node.attributes.get("new_axis", 0))
        if isinstance(known, Rows):
            return self.joined_rows(known, axis, new, output)
        if isinstance(known, Chunks):
            return self.joined_chunks(known, axis, new, output)
        if known is None or not known.names:
            return False
        if new:
            rank = len(self.shape(known.names[0]) or ()) if self.shape(known.names[0]) is not None else None
            if axis < 0 and rank is None:
                return False
            self.stacked(known.names, axis + (rank or 0) + 1 if axis < 0 else axis, output, to=output)
        else:
            self.emit("Concat", known.names, "", {"axis": axis}, to=output)
        return True

    def joined_rows(self, rows: Rows, axis: int, new: bool, output: str) -> bool:
        shape = self.shape(rows.tensor)
        if shape is None:
            return False
        x, place = rows.tensor, rows.axis
        element: list[Dim] = [*shape[:place], *([1] if rows.kept else []), *shape[place + 1 :]]
        if rows.kept:
            if not new and axis % len(element) == place:
                self.emit("Identity", [x], "", to=output)
                return True
            x = self.emit("Unsqueeze", [x, self.constant(np.asarray([place + 1], np.int64), f"{output}/axes")], f"{output}/apart")
        axis %= len(element) + new
        # [.., n, ..] with the axis of the elements where they are stacked
        order = [k for k in range(len(element) + 1) if k != place]
        order.insert(axis, place)
        if new:
            self.emit("Transpose", [x], "", {"perm": order}, to=output)
            return True
        after = element[axis + 1 :]
        if not all(isinstance(d, int) for d in after) or 0 in after:
            return False
        # [.., n, d, ..] -> [.., n d, ..]
        stack = self.emit("Transpose", [x], f"{output}/stack", {"perm": order})
        self.emit("Reshape", [stack, self.constant(np.asarray([*([0] * axis), -1, *after], np.int64), f"{output}/shape")], "", to=output)
        return True

    def joined_chunks(self, known: Chunks, axis: int, new: bool, output: str) -> bool:
        shape = self.shape(known.tensor)
        if shape is None:
            return False
        axis %= len(shape) + new
        if not new:
            if axis == known.axis:
                self.emit("Identity", [known.tensor], "", to=output)
            return axis == known.axis
        # Stacked, which only runs where all are of one length: [.., n c, ..] -> [.., n, c, ..] -> n where it is wanted
        size = self.emit("Reshape", [known.size, self.vector(1, output)], f"{output}/size")
        before = self.emit("Shape", [known.tensor], f"{output}/before", {"start": 0, "end": known.axis})
        after = self.emit("Shape", [known.tensor], f"{output}/after", {"start": known.axis + 1})
        apart = self.emit("Concat", [before, self.vector(-1, output), size, after], f"{output}/apart", {"axis": 0})
        split = self.emit("Reshape", [known.tensor, apart], f"{output}/split")
        order = [k for k in range(len(shape) + 1) if k != known.axis]
        order.insert(axis, known.axis)
        self.emit("Transpose", [split], "", {"perm": order}, to=output)
        return True

    # Optionals ------------------------------------------------------------------------------------------------------

    def _Optional(self, node: Node) -> bool:
        return self.keep(node, Listed(tuple(i for i in node.inputs if i)))

    def _OptionalHasElement(self, node: Node) -> bool:
        source = node.inputs[0] if node.inputs else ""
        if source and self.type(source).container == "optional" and self.listed(source) is None:
            return False
        held = self.listed(source) if self.type(source).container == "optional" else (source,) if source else ()
        self.constants[node.outputs[0]] = np.asarray(bool(held))
        return True

    def _OptionalGetElement(self, node: Node) -> bool:
        source = node.inputs[0]
        if self.type(source).container != "optional":
            return self.copy(node, source)
        held = self.listed(source)
        return bool(held) and held is not None and self.copy(node, held[0])

    # Subgraphs ------------------------------------------------------------------------------------------------------

    def around(self, node: Node) -> Node:
        """A node with subgraphs, which may read the sequences known here."""
        if node.op == "SequenceMap" and not node.domain:
            return self.mapped(node)
        if node.op == "Loop" and not node.domain:
            return self.loop(node)
        inner = {k: self.resolved(g, self.known, self.graphs) for k, g in node.subgraphs()}
        return replace(node, attributes={**node.attributes, **inner})

    def mapped(self, node: Node) -> Node:
        """SequenceMap's body once for each element; the SequenceMap itself stays until it is found unread."""
        body: Graph = node.attributes["body"]
        first = self.listed(node.inputs[0])
        if first is None:
            return self.scanned(node)
        sources: list[tuple[str, ...] | None] = [self.listed(i) for i in node.inputs]
        if any(s is None and self.type(i).container for s, i in zip(sources, node.inputs, strict=True)):
            return node
        results: list[list[str]] = [[] for _ in body.outputs]
        for k in range(len(first)):
            mapping = {inner: s[k] if s is not None else outer for inner, s, outer in zip(body.inputs, sources, node.inputs, strict=True)}
            own = [*body.constants, *(o for n in body.nodes for o in n.outputs if o)]
            mapping |= {name: self.fresh(f"{name}/{k}") for name in own}
            self.copied.update({mapping[name]: body.types[name] for name in own if name in body.types})
            self.constants.update({mapping[name]: array for name, array in body.constants.items()})
            for inner_node in body.nodes:
                self.node(_with_own_names(inner_node.renamed(mapping), self))
            for result, name in zip(results, body.outputs, strict=True):
                result.append(mapping.get(name, name))
        for output, result in zip(node.outputs, results, strict=True):
            self.known[output] = Listed(tuple(result))
        return node

    def scanned(self, node: Node) -> Node:
        """SequenceMap over slices of tensors as a Scan over these; the outputs are the slices of what it stacks."""
        body: Graph = node.attributes["body"]
        sources = [self.known.get(i) for i in node.inputs]
        rows = [s for s in sources if isinstance(s, Rows)]
        if any(not isinstance(s, Rows) and self.type(i).container for s, i in zip(sources, node.inputs, strict=True)):
            return node
        mapping = {inner: outer for inner, s, outer in zip(body.inputs, sources, node.inputs, strict=True) if not isinstance(s, Rows)}
        inputs, lead, types = [], [], dict(body.types)
        for inner, source in zip(body.inputs, sources, strict=True):
            if isinstance(source, Rows):
                name, shape = self.fresh(f"{inner}/slice"), self.shape(source.tensor)
                inputs.append(name)
                types[name] = TensorType(self.type(source.tensor).dtype, None if shape is None else (*shape[: source.axis], *shape[source.axis + 1 :]))
                axes = self.constant(np.asarray([source.axis], np.int64), f"{inner}/axes")
                lead.append(Node("Unsqueeze", (name, axes), (inner,)) if source.kept else Node("Identity", (name,), (inner,)))
        turn = replace(body.renamed(mapping), inputs=inputs, nodes=[*lead, *body.renamed(mapping).nodes], types=types)
        stacks = tuple(self.fresh(f"{o or inner}/stack") for o, inner in zip(node.outputs, body.outputs, strict=True))
        for output, stack, inner in zip(node.outputs, stacks, body.outputs, strict=True):
            type_ = body.types.get(inner, TensorType(0))
            self.copied[stack] = replace(type_, shape=None if type_.shape is None else (None, *type_.shape))
            if output:
                self.known[output] = Rows(stack, 0, False)
        turn = self.resolved(turn, self.known, self.graphs)
        attributes = {"body": turn, "num_scan_inputs": len(rows), "scan_input_axes": [r.axis for r in rows]}
        return Node("Scan", tuple(r.tensor for r in rows), stacks, attributes, name=node.name)

    def loop(self, node: Node) -> Node:
        """A Loop whose states hold sequences: one that every turn passes on is known inside; one that starts empty and gets an element more in every
        turn becomes a scanned output."""
        body: Graph = node.attributes["body"]
        states = len(node.inputs) - 2
        producers = body.producers()
        inside, gone, scanned, outside = dict(self.known), set[int](), [], dict[str, Known]()
        for k in range(states):
            outer, before, after = self.known.get(node.inputs[2 + k]), body.inputs[2 + k], body.outputs[1 + k]
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
            if shape is None or not self.fixed(shape):
                continue
            gone.add(k)
            scanned.append((k, insert.inputs[1]))
        kept = [k for k in range(states) if k not in gone]
        inputs = [*body.inputs[:2], *(body.inputs[2 + k] for k in kept)]
        if not self.loops:
            return replace(node, attributes={**node.attributes, "body": self.resolved(body, self.known, self.graphs)})
        copies = [Node("Identity", (element,), (self.fresh(f"{element}/element"),)) for _, element in scanned]
        outputs = [body.outputs[0], *(body.outputs[1 + k] for k in kept), *body.outputs[1 + states :], *(c.outputs[0] for c in copies)]
        changed = self.resolved(replace(body, inputs=inputs, nodes=[*body.nodes, *copies]), inside, self.graphs, outputs)
        names = {k: self.fresh(f"{node.outputs[k] or body.outputs[1 + k]}/stack") for k, _ in scanned}
        for k, element in scanned:
            type_ = body.types[element]
            self.copied[names[k]] = replace(type_, shape=(None, *(type_.shape or ())))
            if node.outputs[k]:
                outside[node.outputs[k]] = Rows(names[k], 0, False)
        if not gone:
            return replace(node, attributes={**node.attributes, "body": changed})
        self.known.update({name: known for name, known in outside.items() if name})
        results = (*(node.outputs[k] for k in kept), *node.outputs[states:], *names.values())
        return Node("Loop", (*node.inputs[:2], *(node.inputs[2 + k] for k in kept)), results, {**node.attributes, "body": changed}, name=node.name)


def _with_own_names(node: Node, resolver: _Resolver) -> Node:
    """A copy of a node whose subgraphs' own values have names that nothing else has."""

    def own(graph: Graph) -> Graph:
        names = [*graph.inputs, *graph.constants, *(o for n in graph.nodes for o in n.outputs if o)]
        inner = replace(graph, nodes=[_with_own_names(n, resolver) for n in graph.nodes])
        return inner.renamed({name: resolver.fresh(name) for name in names})

    changed = {k: own(g) for k, g in node.subgraphs()}
    return replace(node, attributes={**node.attributes, **changed}) if changed else node
