"""Carries what is known of shapes through a graph, node by node: dimensions as expressions of the inputs' symbols, small integer
tensors by their contents, branches and loops from within. What comes out known is settled: shape arithmetic becomes constants, an
If whose condition is known becomes its branch.

Every dimension that nothing is known of gets a symbol of its own, `value[axis]`, so that what depends on it can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from netsens.errors import ModelError, RuleError
from netsens.graph.contents import MOST, contents_of, is_known
from netsens.graph.dtypes import BOOL, INT64
from netsens.graph.emitted import CHANCE
from netsens.graph.graph import Array, Dim, Graph, Node, Shape, TensorType
from netsens.graph.infer import infer_node, onnx_types
from netsens.graph.shapes import constant_type, known
from netsens.graph.sizes import Expression, at_least_zero, dim_of, is_integer, symbols_of


def infer_types(graph: Graph) -> Graph:
    """The graph, of opset 21 or newer, with a type on every value, those in subgraphs included."""
    return _Propagation(graph, onnx_types(graph)).run(graph, top=True)


class _Propagation:
    def __init__(self, graph: Graph, inferred: Mapping[str, TensorType]) -> None:
        self.opset = graph.opset
        self.domains = graph.domains
        self.inferred = inferred
        self.types: dict[str, TensorType] = {}
        self.contents: dict[str, Array] = {}
        self.declared: dict[str, TensorType] = {}
        self.fed = {d for name in graph.inputs for d in (graph.types[name].shape if name in graph.types else None) or ()}
        self.better: dict[str, Dim] = {}  # ONNX's symbols for what has an expression here

    # Graphs ---------------------------------------------------------------------------------------------------------

    def run(self, graph: Graph, top: bool = False, inputs: Mapping[str, TensorType] | None = None) -> Graph:
        """The graph with what is known settled; `inputs` are the types of a subgraph's inputs."""
        self.declared.update(graph.types)
        for name, array in graph.constants.items():
            self.types[name] = constant_type(array)
            if array.size <= MOST and array.dtype.kind in "iubf":
                self.contents[name] = array
        for name in graph.inputs:
            onnx, given = self._from_onnx(name), (graph.types if top else inputs or {}).get(name, TensorType(0))
            whole = TensorType(given.dtype or onnx.dtype, onnx.shape if given.shape is None else given.shape, given.container or onnx.container)
            self.types[name] = self._own_symbols(name, self._named(whole) if top else whole)
            self.contents.pop(name, None)
        nodes, constants, parameters = [], dict(graph.constants), list(graph.parameters)
        for node in self._flattened(graph.nodes, constants, parameters):
            changed = self.node(node)
            outputs = [o for o in changed.outputs if o]
            if outputs and node.op not in CHANCE and all(self._settles(o) and o not in graph.outputs for o in outputs):
                constants.update({o: self.contents[o] for o in outputs})
            else:
                nodes.append(changed)
        values = {*graph.inputs, *graph.outputs, *constants, *(o for n in nodes for o in n.outputs if o)}
        types = {name: self.types[name] for name in values if name in self.types}
        return replace(graph, nodes=nodes, constants=constants, types=types, parameters=parameters)

    def _settles(self, name: str) -> bool:
        content = self.contents.get(name)
        return is_known(content) and content is not None and content.dtype.kind in "iub"

    def _flattened(self, nodes: Sequence[Node], constants: dict[str, Array], parameters: list[str]) -> Iterator[Node]:
        """The nodes, an If whose condition is known by the time it is met replaced by the branch that it takes."""
        for node in nodes:
            condition = self.contents.get(node.inputs[0]) if node.op == "If" and not node.domain else None
            if condition is None or not is_known(condition) or condition.size != 1:
                yield node
                continue
            branch: Graph = node.attributes["then_branch" if condition.reshape(-1)[0] else "else_branch"]
            self.declared.update(branch.types)
            for name, array in branch.constants.items():
                constants[name] = array
                self.types[name] = constant_type(array)
                if array.size <= MOST and array.dtype.kind in "iubf":
                    self.contents[name] = array
            parameters += branch.parameters
            yield from self._flattened(branch.nodes, constants, parameters)
            for inner, outer in zip(branch.outputs, node.outputs, strict=True):
                if outer:
                    yield Node("Identity", (inner,), (outer,))

    # Nodes ----------------------------------------------------------------------------------------------------------

    def node(self, node: Node) -> Node:
        """Sets the types and contents of the node's outputs; the node comes back with its subgraphs settled."""
        types = [self.types.get(i, TensorType(0)) if i else TensorType(0, ()) for i in node.inputs]
        control = {"If": self._if, "Loop": self._loop, "Scan": self._scan}.get(node.op) if not node.domain else None
        if control is not None:
            node, found = control(node, types)
        else:
            if any(node.subgraphs()):
                node = replace(node, attributes={k: self.run(v) if isinstance(v, Graph) else v for k, v in node.attributes.items()})
            found = self._found(node, types)
        for k, name in enumerate(node.outputs):
            if name:
                self.types[name] = self._joined(name, found[k] if k < len(found) else TensorType(0))
                self.contents.pop(name, None)
        if control is None and len(node.outputs) == 1 and node.outputs[0]:
            out = self.types[node.outputs[0]]
            content = contents_of(node, [self.contents.get(i) if i else None for i in node.inputs], types, out)
            if content is not None and _fits(content, out):
                self.contents[node.outputs[0]] = content
                if not known(out.shape):
                    self.types[node.outputs[0]] = replace(out, shape=content.shape)
        return node

    def _found(self, node: Node, types: Sequence[TensorType]) -> list[TensorType]:
        """What this floor's own formulas say, and ONNX's inference of the node alone where they are silent and it could know more now."""
        if node.domain == "com.microsoft" or node.op == "SimplifiedLayerNormalization":  # which onnxruntime writes into the standard's domain
            return _microsoft_types(node, types) or []
        if node.domain not in ("", "ai.onnx.ml") or any(t.container for t in types):
            return []
        enough = all(known(self._from_onnx(o).shape) for o in node.outputs if o)
        if enough or any(t.shape is None and i for t, i in zip(types, node.inputs, strict=True)):
            return []
        contents = [self.contents.get(i) if i else None for i in node.inputs]
        try:
            return infer_node(node, types, contents, self.opset, self.domains)
        except (RuleError, ValueError, IndexError, KeyError, TypeError, ArithmeticError, AssertionError):
            return []  # a node that cannot run, or that breaks its specification: run time says so better

    def _from_onnx(self, name: str) -> TensorType:
        found = self.inferred.get(name, TensorType(0))
        if found.shape is None:
            return found
        return replace(found, shape=tuple(self.better.get(d, d) if isinstance(d, str) else d for d in found.shape))

    def _joined(self, name: str, own: TensorType) -> TensorType:
        """The most that this pass, ONNX's inference and, of the rank alone, the file say."""
        onnx, declared = self._from_onnx(name), self.declared.get(name, TensorType(0))
        dtype = onnx.dtype or own.dtype or declared.dtype
        container = onnx.container or own.container or declared.container
        if own.shape is None or (onnx.shape is not None and len(onnx.shape) != len(own.shape)):
            shape = onnx.shape
        elif onnx.shape is None:
            shape = own.shape
        else:
            shape = tuple(self._better(a, b) for a, b in zip(own.shape, onnx.shape, strict=True))
        if shape is not None:
            shape = tuple(self._renamed(name, k, d) for k, d in enumerate(shape))
        if shape is None and not container and declared.shape is not None:
            shape = (None,) * len(declared.shape)  # files lie about lengths, seldom about ranks
        return self._own_symbols(name, TensorType(dtype, shape, container))

    def _better(self, own: Dim, onnx: Dim) -> Dim:
        if isinstance(onnx, int) or own is None:
            return onnx
        if isinstance(onnx, str) and onnx.startswith("unk__") and onnx not in self.fed:
            self.better[onnx] = own
        return own

    def _renamed(self, name: str, axis: int, dim: Dim) -> Dim:
        """A symbol that ONNX made up, named after where it first stands."""
        if not isinstance(dim, str) or not dim.startswith("unk__") or dim in self.fed:
            return dim
        return self.better.setdefault(dim, f"{name}[{axis}]")

    def _own_symbols(self, name: str, type_: TensorType) -> TensorType:
        if type_.shape is None or None not in type_.shape or type_.container:
            return type_
        return replace(type_, shape=tuple(f"{name}[{k}]" if d is None else d for k, d in enumerate(type_.shape)))

    def _named(self, type_: TensorType) -> TensorType:
        """An input's type without the symbols that name nothing: some exporters write '?' for every length that they don't know."""
        if type_.shape is None:
            return type_
        return replace(type_, shape=tuple(None if isinstance(d, str) and not any(c.isalnum() for c in d) else d for d in type_.shape))

    # Control flow ---------------------------------------------------------------------------------------------------

    def _counted(self, node: Node, body: Graph, inputs: int, outputs: int) -> None:
        if len(body.inputs) != inputs or len(body.outputs) != outputs:
            raise ModelError(
                f"{node.label} does not fit its body, which takes {len(body.inputs)} values and gives {len(body.outputs)} "
                f"where {inputs} and {outputs} are called for; the model is damaged."
            )

    def _if(self, node: Node, types: Sequence[TensorType]) -> tuple[Node, list[TensorType]]:
        for _, branch in node.subgraphs():
            self._counted(node, branch, 0, len(node.outputs))
        branches = {key: self.run(graph) for key, graph in node.subgraphs()}
        found = []
        for ends in zip(*(g.outputs for g in branches.values()), strict=True):
            a, b = (self.types.get(e, TensorType(0)) for e in ends)
            found.append(TensorType(a.dtype or b.dtype, _shared(a.shape, b.shape), a.container or b.container))
        return replace(node, attributes={**node.attributes, **branches}), found

    def _body(self, body: Graph, given: Sequence[TensorType], states: range, first: int) -> tuple[Graph, list[TensorType]]:
        """The body with its inputs' types, those of the states weakened until a turn keeps them; and what they are at last.
        `states` are their places among the inputs, `first` the place of the first among the outputs."""
        assumed = list(given)
        # Anything that holds at the start and is kept by a turn holds always.
        for _ in range(4):
            better, inferred = dict(self.better), self.inferred
            body_types = {name: self._own_symbols(name, t) for name, t in zip(body.inputs, assumed, strict=True)}
            settled = self.run(body, inputs=body_types)
            weaker = list(assumed)
            for k, place in enumerate(states):
                after, before = self.types.get(body.outputs[first + k], TensorType(0)), body_types[body.inputs[place]]
                if after.shape != before.shape:
                    kept = _shared(before.shape, after.shape)
                    # A length that changes has the symbol of this turn; one that a turn passes on has it too.
                    own = body.inputs[place]
                    weaker[place] = replace(
                        assumed[place],
                        shape=None if kept is None or assumed[place].shape is None
                        else tuple(None if d is None or d == f"{own}[{axis}]" else d for axis, d in enumerate(kept)),
                    )  # fmt: skip
            if weaker == assumed:
                return settled, assumed
            assumed, self.better, self.inferred = weaker, better, inferred
        assumed = [replace(t, shape=None) if k in states else t for k, t in enumerate(given)]
        return self.run(body, inputs=dict(zip(body.inputs, assumed, strict=True))), assumed

    def _loop(self, node: Node, types: Sequence[TensorType]) -> tuple[Node, list[TensorType]]:
        body: Graph = node.attributes["body"]
        seen = self._symbols()
        initial = list(types[2:])
        self._counted(node, body, len(types), 1 + len(node.outputs))
        given = [TensorType(INT64, ()), TensorType(BOOL, ()), *initial]
        settled, assumed = self._body(body, given, range(2, 2 + len(initial)), 1)
        found = [self._outside(t, seen) for t in assumed[2:]]
        turns = self._turns(node, settled)
        for name in settled.outputs[1 + len(initial) :]:
            each = self._outside(self.types.get(name, TensorType(0)), seen)
            found.append(each if each.shape is None else replace(each, shape=(turns, *each.shape)))
        return replace(node, attributes={**node.attributes, "body": settled}), found

    def _turns(self, loop: Node, body: Graph) -> Dim:
        """How often a Loop goes round, where nothing in it can end it early."""
        most = self.contents.get(loop.inputs[0]) if loop.inputs[0] else None
        begins = self.contents.get(loop.inputs[1]) if loop.inputs[1] else np.asarray(True)
        goes_on = body.outputs[0]
        for node in reversed(body.nodes):
            if goes_on in node.outputs and node.op == "Identity":
                goes_on = node.inputs[0]
        always = self.contents.get(goes_on)
        if goes_on != body.inputs[1] and (always is None or not is_known(always) or not always.all()):
            return None
        if most is None or begins is None or not is_known(begins) or not begins.all():
            return None
        size = most.reshape(-1)[0]
        if is_integer(size):
            return max(int(size), 0)
        return dim_of(size) if isinstance(size, Expression) and at_least_zero(size) else None

    def _scan(self, node: Node, types: Sequence[TensorType]) -> tuple[Node, list[TensorType]]:
        body: Graph = node.attributes["body"]
        scanned = int(node.attributes["num_scan_inputs"])
        count = len(types) - scanned
        axes = node.attributes.get("scan_input_axes") or [0] * scanned
        self._counted(node, body, len(types), len(node.outputs))
        seen = self._symbols()
        length: Dim = None
        slices = []
        for t, axis in zip(types[count:], axes, strict=True):
            if t.shape is None:
                slices.append(t)
                continue
            place = axis % len(t.shape)
            length = t.shape[place] if length is None or isinstance(t.shape[place], int) else length
            slices.append(replace(t, shape=(*t.shape[:place], *t.shape[place + 1 :])))
        settled, assumed = self._body(body, [*types[:count], *slices], range(count), 0)
        found = [self._outside(t, seen) for t in assumed[:count]]
        out_axes = node.attributes.get("scan_output_axes") or [0] * (len(body.outputs) - count)
        for name, axis in zip(settled.outputs[count:], out_axes, strict=True):
            each = self._outside(self.types.get(name, TensorType(0)), seen)
            if each.shape is not None:
                place = axis % (len(each.shape) + 1)
                each = replace(each, shape=(*each.shape[:place], length, *each.shape[place:]))
            found.append(each)
        return replace(node, attributes={**node.attributes, "body": settled}), found

    def _symbols(self) -> set[str]:
        return {s for t in self.types.values() for d in t.shape or () if isinstance(d, str) for s in symbols_of(d)}

    def _outside(self, type_: TensorType, seen: set[str]) -> TensorType:
        """A body's type as seen from outside, where the lengths of one turn mean nothing."""
        if type_.shape is None:
            return type_
        return replace(type_, shape=tuple(None if isinstance(d, str) and not symbols_of(d) <= seen else d for d in type_.shape))


def _shared(a: Shape | None, b: Shape | None) -> Shape | None:
    """What two shapes have in common."""
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else None for x, y in zip(a, b, strict=True))


def _fits(content: Array, type_: TensorType) -> bool:
    """A content that contradicts a type is nobody's to trust."""
    return type_.shape is None or (
        len(type_.shape) == content.ndim and all(not isinstance(d, int) or d == n for d, n in zip(type_.shape, content.shape, strict=True))
    )


def _microsoft_types(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    try:
        from netsens.graph.infer_microsoft import microsoft_types
    except ImportError:
        return None
    result: Any = microsoft_types(node, types)
    return None if result is None else list(result)
