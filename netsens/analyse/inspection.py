"""What a model is made of, and what netsens knows of each of its operators; nothing runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netsens.rules  # noqa: F401  # declares every operator
from netsens.graph.dtypes import STRING, numpy_dtype
from netsens.graph.graph import Graph, Node, Shape, TensorType
from netsens.modes.activity import carries
from netsens.rules.words import rule_of

STATUSES = {
    "exact": "",
    "expanded": "exact, through simpler operators",
    "flat": "derivative zero by definition",
    "differenced": "no rule: finite differences inside the graph",
    "refused": "no derivative that could be meant",
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input, an output or a parameter. A symbolic dimension is its name, an unknown one None; shape None: the rank is not known. `place` is
    the first layer and slot that reads a parameter, as `--wrt` takes it."""

    name: str
    dtype: str
    shape: Shape | None
    place: str = ""

    def as_dict(self) -> dict[str, Any]:
        shape = None if self.shape is None else list(self.shape)
        return {"name": self.name, "dtype": self.dtype, "shape": shape, **({"place": self.place} if self.place else {})}


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One operator. `name` is the shortest that `--of` takes for it; `value` is its first output; `parameters` are the floating point constants it
    reads, `elements` how many numbers they hold. `status` is a key of `STATUSES`, `why` says more. `differentiable`: it holds floating point numbers."""

    name: str
    node: str
    value: str
    operator: str
    shape: Shape | None
    dtype: str
    parameters: Sequence[str]
    elements: int
    status: str
    why: str
    differentiable: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "node": self.node, "value": self.value, "operator": self.operator,
            "shape": None if self.shape is None else list(self.shape), "dtype": self.dtype, "parameters": list(self.parameters), "elements": self.elements,
            "rule": self.status, "why": self.why, "differentiable": self.differentiable,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class OperatorInfo:
    """An operator, how often it occurs (in subgraphs too), and what netsens knows of it."""

    operator: str
    count: int
    status: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return {"operator": self.operator, "count": self.count, "rule": self.status, "why": self.why}


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model as `netsens inspect` shows it. `opset` and `domains` are the file's own where it is at hand, else those it was brought to."""

    path: str | None
    file_bytes: int | None
    opset: int
    domains: Mapping[str, int]
    ir_version: int | None
    producer: str
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    parameters: Sequence[TensorInfo]
    parameter_count: int
    parameter_bytes: int
    layers: Sequence[LayerInfo]
    operators: Sequence[OperatorInfo]

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "path": self.path, "file_bytes": self.file_bytes, "opset": self.opset, "domains": dict(self.domains), "ir_version": self.ir_version,
            "producer": self.producer, "inputs": [t.as_dict() for t in self.inputs], "outputs": [t.as_dict() for t in self.outputs],
            "parameter_count": self.parameter_count, "parameter_bytes": self.parameter_bytes, "parameters": [t.as_dict() for t in self.parameters],
            "operators": [o.as_dict() for o in self.operators], "layers": [layer.as_dict() for layer in self.layers],
        }  # fmt: skip


def inspect_graph(graph: Graph, path: Path | None = None) -> Inspection:
    """What the graph is made of; `path` is the file that it was read from."""
    unknown = {"opset": graph.opset, "domains": dict(graph.domains), "ir_version": None, "producer": "", "file_bytes": None}
    header = _header(path) if path is not None else unknown
    names = layer_names(graph)
    layers = [_layer(graph, node, names) for node in graph.nodes]
    parameters = [_tensor(graph, name, _place(graph, name, names)) for name in graph.parameters]
    return Inspection(
        path=None if path is None else str(path),
        inputs=[_tensor(graph, name) for name in graph.inputs],
        outputs=[_tensor(graph, name) for name in graph.outputs],
        parameters=parameters,
        parameter_count=sum(int(graph.constants[p].size) for p in graph.parameters),
        parameter_bytes=sum(int(graph.constants[p].nbytes) for p in graph.parameters),
        layers=layers,
        operators=_operators(graph),
        **header,
    )


def status_of(node: Node, graph: Graph) -> tuple[str, str]:
    """What netsens knows of a node's operator (a key of `STATUSES`), and why. A node that holds no floating point numbers is flat, whatever it is."""
    rule = rule_of(node)
    if rule is not None:
        return rule.status, rule.why
    if not (any(carries(_type(graph, i)) for i in node.reads()) and any(carries(_type(graph, o)) for o in node.outputs if o)):
        return "flat", "it holds no floating point numbers"
    return "differenced", "netsens has no rule for it"


def layer_names(graph: Graph) -> dict[str, str]:
    """For each node's first output the shortest name that a user can type for it, and that means nothing else."""
    values = {*graph.inputs, *graph.constants, *(o for n in graph.nodes for o in n.outputs if o)}
    nodes: dict[str, set[str]] = {}
    ends: dict[str, set[str]] = {}
    for node in graph.nodes:
        first = _first(node)
        if node.name and first:
            nodes.setdefault(node.name, set()).add(first)
            for end in (*_ends(node.name), *_ends(_scope(node.name))):
                ends.setdefault(end, set()).add(first)
    for value in values:
        for end in (*_ends(value), *_ends(_scope(value))):
            ends.setdefault(end, set()).add(value)

    def means(selector: str) -> set[str]:
        return {selector} if selector in values else nodes[selector] if len(nodes.get(selector, ())) == 1 else ends.get(selector, set())

    result: dict[str, str] = {}
    for node in graph.nodes:
        first = _first(node)
        if first:
            candidates = [*_ends(_scope(node.name)), *_ends(node.name), *_ends(_scope(first)), *_ends(first), node.name]
            result[first] = next((c for c in candidates if c and not c.isdigit() and not set(c) & set("*?[") and means(c) == {first}), first)
    return result


def _ends(name: str) -> Iterator[str]:
    """The ends of a name that begin after a separator, shortest first, then the name itself."""
    for k in range(len(name) - 1, 0, -1):
        if name[k - 1] in "/.:":
            yield name[k:]
    if name:
        yield name


def _scope(name: str) -> str:
    """What an exporter put around an operator's name: `/features/relu1` of `/features/relu1/Relu`."""
    return name.rpartition("/")[0]


def _first(node: Node) -> str:
    return next((o for o in node.outputs if o), "")


def _type(graph: Graph, name: str) -> TensorType | None:
    return graph.types.get(name)


def _dtype(type_: TensorType | None) -> str:
    if type_ is None or not type_.dtype:
        return "?"
    name = "string" if type_.dtype == STRING else numpy_dtype(type_.dtype).name
    return f"{type_.container}({name})" if type_.container else name


def _tensor(graph: Graph, name: str, place: str = "") -> TensorInfo:
    type_ = _type(graph, name)
    return TensorInfo(name, _dtype(type_), type_.shape if type_ is not None else None, place)


def _operator(node: Node) -> str:
    return f"{node.domain}.{node.op}" if node.domain else node.op


def _layer(graph: Graph, node: Node, names: Mapping[str, str]) -> LayerInfo:
    value = _first(node)
    type_ = _type(graph, value)
    status, why = status_of(node, graph)
    read = list(dict.fromkeys(i for i in node.reads() if i in graph.constants and carries(_type(graph, i)) and i in set(graph.parameters)))
    return LayerInfo(
        names.get(value, value), node.name, value, _operator(node), type_.shape if type_ is not None else None, _dtype(type_), read,
        sum(int(graph.constants[p].size) for p in read), status, why, carries(type_),
    )  # fmt: skip


def _place(graph: Graph, parameter: str, names: Mapping[str, str]) -> str:
    """`LAYER:SLOT` of the first layer that reads the parameter, the slot by ONNX's name for it where it has one."""
    import onnx

    for node in graph.nodes:
        if parameter not in node.inputs or not _first(node):
            continue
        slot = node.inputs.index(parameter)
        try:
            schema = onnx.defs.get_schema(node.op, graph.domains.get(node.domain, 1) if node.domain else graph.opset, node.domain)
            named = slot < len(schema.inputs) and schema.inputs[slot].option != onnx.defs.OpSchema.FormalParameterOption.Variadic
            label = schema.inputs[slot].name if named else str(slot)
        except onnx.defs.SchemaError:
            label = str(slot)
        return f"{names.get(_first(node), _first(node))}:{label}"
    return ""


def _operators(graph: Graph) -> list[OperatorInfo]:
    """Each operator once, the most frequent first; where its nodes differ (some hold floats and some do not), what concerns a derivative most."""
    order = list(STATUSES)
    counts: dict[str, int] = {}
    worst: dict[str, tuple[str, str]] = {}

    def visit(g: Graph) -> None:
        for node in g.nodes:
            name, (status, why) = _operator(node), status_of(node, g)
            counts[name] = counts.get(name, 0) + 1
            if name not in worst or order.index(status) > order.index(worst[name][0]):
                worst[name] = status, why
            for _, inner in node.subgraphs():
                visit(inner)

    visit(graph)
    return [OperatorInfo(name, counts[name], *worst[name]) for name in sorted(counts, key=lambda n: (-counts[n], n))]


def _header(path: Path) -> dict[str, Any]:
    """What the file says of itself; its weights are not read."""
    from netsens.graph.read import read_model

    proto, _, _ = read_model(path)
    domains = {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in proto.opset_import}
    return {
        "opset": domains.pop("", 0), "domains": domains, "ir_version": int(proto.ir_version),
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(), "file_bytes": path.stat().st_size,
    }  # fmt: skip
