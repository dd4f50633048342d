"""The structure of a Jacobian, from the graph and its shapes alone: which positions of a value may depend on which positions of `wrt`.

One rule an operator says how its outputs depend on its operands, axis by axis. An operator without one is judged by the linear nodes of its JVP (or by
its expansion); where those say nothing either, everything may depend on everything. Values are never looked at, save small constants
that are indices, so a structure holds for every input of the same shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from netsens.errors import NetsensError
from netsens.graph.emit import Builder
from netsens.graph.graph import Array, Graph, Node, TensorType
from netsens.graph.infer import known
from netsens.modes.activity import active_values, carries
from netsens.modes.pattern import LIMIT, Factor, Pattern, Relation, TooLarge, aligned, compose, identity, pattern, union
from netsens.rules.words import attribute_default, rule_of, view

Shape = tuple[int, ...]
Relations = dict[str, dict[str, Relation]]  # value -> wrt -> how the value depends on it
Link = tuple[int | tuple[int, ...], int | tuple[int, ...], Pattern | None]  # output axes, operand axes, None for the identity


def structure(graph: Graph, of: Sequence[str], wrt: Sequence[str]) -> dict[tuple[str, str], Relation]:
    """(of, wrt) to the relation between them; a pair without a path is missing. The graph's shapes should all be numbers; a value of unknown
    shape counts as depending on everything."""
    op = Builder(graph.copy(), "structure")
    walk = _Walk(op)
    for name in wrt:
        walk.start(name)
    walk.over(_between(graph, of, wrt))
    return {(y, w): r for y in of for w, r in walk.found.get(y, {}).items() if r.out is not None}


def _between(graph: Graph, of: Iterable[str], wrt: Iterable[str]) -> list[Node]:
    """The nodes on paths from `wrt` to `of`."""
    active, needed, nodes = active_values(graph, wrt), set(of), []
    for node in reversed(graph.nodes):
        if any(o in needed for o in node.outputs):
            needed.update(node.reads())
            if any(name in active for name in node.reads()):
                nodes.append(node)
    return nodes[::-1]


@dataclass(frozen=True, slots=True)
class StructureView:
    """A node as a structure rule sees it: the shapes of its operands and results, its attributes, and constants among its operands."""

    op: Builder
    node: Node
    shapes: tuple[Shape, ...]
    results: tuple[Shape, ...]

    def __getitem__(self, key: str) -> Any:
        if key in self.node.attributes:
            return self.node.attributes[key]
        opset = self.op.graph.domains.get(self.node.domain, 1) if self.node.domain else self.op.graph.opset
        return attribute_default(self.node.op, self.node.domain, opset, key)

    def constant(self, position: int) -> Array | None:
        if position >= len(self.node.inputs) or not self.node.inputs[position]:
            return None
        return self.op.constant_of(self.op.value(self.node.inputs[position]))

    def ints(self, position: int) -> list[int] | None:
        found = self.constant(position)
        return None if found is None else [int(v) for v in found.reshape(-1)]

    def has(self, position: int) -> bool:
        return position < len(self.node.inputs) and bool(self.node.inputs[position])


Rule = Callable[[StructureView, int, int], "Sequence[Link] | Relation"]
Declared = TypeVar("Declared", bound=Rule)
RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Declared], Declared]:
    """Declares operators' structure: `rule(s, k, j)` gives the links between axes of output j and axes of operand k."""

    def register(function: Declared) -> Declared:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return register


class _Walk:
    """Relations found so far, over one builder."""

    def __init__(self, op: Builder) -> None:
        self.op = op
        self.found: Relations = {}

    def start(self, name: str) -> None:
        shape = self.shape(name)
        if shape is not None:
            self.found[name] = {name: aligned(shape)}

    def shape(self, name: str) -> Shape | None:
        shape = self.op.value(name).type.shape
        return tuple(int(d) for d in shape if isinstance(d, int)) if shape is not None and known(shape) else None

    def over(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            reads = [name for name in node.reads() if name in self.found]
            if not reads:
                continue
            declared = rule_of(node)
            if declared is not None and declared.status == "flat":
                continue
            if not self.by_rule(node) and not self.derived(node, declared):
                self.full(node)

    def full(self, node: Node) -> None:
        for o in node.outputs:
            if o and carries(self.op.value(o).type):
                for name in node.reads():
                    for w, r in self.found.get(name, {}).items():
                        self.add(o, w, Relation(self.shape(o), r.in_))

    def add(self, name: str, w: str, relation: Relation) -> None:
        known_ones = self.found.setdefault(name, {})
        known_ones[w] = union(known_ones[w], relation) if w in known_ones else relation

    def by_rule(self, node: Node) -> bool:
        """Whether the table knew the node."""
        declared = rule_of(node)
        if node.domain or any(node.subgraphs()):
            return False
        chosen = RULES.get(node.op)
        if chosen is None and declared is not None and declared.partials:
            chosen = _elementwise
        if chosen is None:
            return False
        shapes = [self.shape(i) if i else () for i in node.inputs]
        results = [self.shape(o) if o else () for o in node.outputs]
        if any(s is None for s in (*shapes, *results)):
            return False
        s = StructureView(self.op, node, tuple(x or () for x in shapes), tuple(x or () for x in results))
        local: dict[tuple[int, int], Relation] = {}
        for j, o in enumerate(node.outputs):
            if not o or not carries(self.op.value(o).type):
                continue
            for k, i in enumerate(node.inputs):
                if i and i in self.found:
                    try:
                        links = chosen(s, k, j)
                    except TooLarge:
                        links = ()
                    local[k, j] = links if isinstance(links, Relation) else _relation(s.results[j], s.shapes[k], links)
        for (k, j), relation in local.items():
            for w, r in list(self.found[node.inputs[k]].items()):
                self.add(node.outputs[j], w, compose(relation, r))
        return True

    def derived(self, node: Node, declared: Any) -> bool:
        """Through the operator's expansion, or the linear nodes of its JVP; False where neither is there."""
        from netsens.modes.forward import expanded

        if declared is None or declared.transpose is not None or any(node.subgraphs()):
            return False  # a linear operator's JVP is the operator itself
        op = self.op
        n = view(op, node, [bool(i) and i in self.found for i in node.inputs])
        try:
            if declared.expansion is not None and declared.jvp is None:
                nodes, outputs = expanded(op, declared, n)
            elif declared.jvp is not None:
                leaves = {k: op.tangent(x) for k, x in enumerate(n.inputs) if x is not None and n.wanted[k]}
                previous, op.tape, before, op.node = op.tape, [], op.node, n
                try:
                    outputs = declared.jvp(op, n, [leaves.get(k) for k in range(len(n.inputs))])
                    nodes = list(op.tape)
                finally:
                    op.tape, op.node = previous, before
                for k, leaf in leaves.items():
                    self.found[leaf.name] = dict(self.found[node.inputs[k]])
            else:
                return False
        except NetsensError:
            return False
        self.over(nodes)
        for name, value in zip(node.outputs, outputs, strict=False):
            if name and value is not None and value.name in self.found:
                for w, r in self.found[value.name].items():
                    out = self.shape(name)
                    self.add(name, w, r if r.out == out else Relation(out, r.in_))
        return True


def _relation(out: Shape, in_: Shape, links: Iterable[Link]) -> Relation:
    factors = []
    for outs, ins, matrix in links:
        o = outs if isinstance(outs, tuple) else (outs,)
        i = ins if isinstance(ins, tuple) else (ins,)
        rows, columns = prod(out[a] for a in o), prod(in_[a] for a in i)
        if rows == columns == 1:
            continue
        if matrix is None:
            if rows > LIMIT:
                continue
            matrix = identity(rows)
        if matrix.count < rows * columns:
            factors.append(Factor(o, i, matrix))
    return Relation(out, in_, tuple(factors))


# Elementwise and layout ------------------------------------------------------------------------------------------------------


@rule(
    "Add Sub Mul Div Neg Sum Mean Max Min Where Identity Cast CastLike Pow PRelu Clip Mod BitShift Relu Tanh Sigmoid Exp Log Sqrt Abs Reciprocal Erf Gelu "
    "Softplus Softsign Elu Selu Celu LeakyRelu HardSigmoid HardSwish Mish ThresholdedRelu Shrink Swish Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh "
    "Atanh Dropout Trilu"
)
def _elementwise(s: StructureView, k: int, j: int) -> list[Link]:
    out, in_ = s.results[j], s.shapes[k]
    shift = len(out) - len(in_)
    if shift < 0:
        return []  # the operand that lends CastLike its dtype
    return [(a + shift, a, None) for a, d in enumerate(in_) if d == out[a + shift] and d != 1]


@rule("Expand")
def _expand(s: StructureView, k: int, j: int) -> list[Link]:
    return _elementwise(s, k, j) if k == 0 else []


@rule("Transpose")
def _transpose(s: StructureView, k: int, j: int) -> list[Link]:
    perm = s["perm"] or list(range(len(s.shapes[0])))[::-1]
    return [(a, p, None) for a, p in enumerate(perm)]


@rule("Reshape Squeeze Unsqueeze Flatten")
def _reshape(s: StructureView, k: int, j: int) -> list[Link]:
    return reshaped(s.shapes[0], s.results[0]) if k == 0 else []


def reshaped(old: Shape, new: Shape) -> list[Link]:
    """Runs of axes that hold the same elements in both shapes."""
    links: list[Link] = []
    a = b = 0
    while a < len(old) or b < len(new):
        ins: list[int] = []
        outs: list[int] = []
        left = right = 1
        while True:
            if left == right and (ins or outs):
                break
            if a < len(old) and (left <= right or b >= len(new)):
                left *= old[a]
                ins.append(a)
                a += 1
            elif b < len(new):
                right *= new[b]
                outs.append(b)
                b += 1
            else:
                break
        ins, outs = [x for x in ins if old[x] != 1], [x for x in outs if new[x] != 1]
        if ins and outs:
            links.append((tuple(outs), tuple(ins), None))
    return links


@rule("Tile")
def _tile(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    return [(a, a, pattern(n, d, np.arange(n), np.arange(n) % d)) for a, (n, d) in enumerate(zip(s.results[0], s.shapes[0], strict=True)) if d > 1]


def _picked(rows: int, columns: int, source: Any) -> Pattern:
    """Output position r takes input position source[r]; -1 takes none."""
    source = np.asarray(source, np.int64)
    taken = (source >= 0) & (source < columns)
    return pattern(rows, columns, np.flatnonzero(taken), source[taken])


def _others(s: StructureView, k: int, j: int, but: Iterable[int]) -> list[Link]:
    gone = set(but)
    return [(a, a, None) for a, d in enumerate(s.shapes[k]) if a not in gone and a < len(s.results[j]) and s.results[j][a] == d and d != 1]


@rule("Slice")
def _slice(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    rank = len(s.shapes[0])
    axes = s.ints(3) if s.has(3) else None
    starts, ends = s.ints(1), s.ints(2)
    steps = s.ints(4) if s.has(4) else [1] * len(starts or ())
    if s.has(3) and axes is None:
        return []
    if axes is None:
        axes = list(range(s.shapes[1][0]))
    axes = [a % rank for a in axes]
    links = _others(s, 0, 0, axes)
    if starts is None or ends is None or steps is None:
        return links
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        d = s.shapes[0][axis]
        source = range(d)[slice(start, None if step < 0 and end < -d else end, step)]
        if len(source) == s.results[0][axis]:
            links.append((axis, axis, _picked(len(source), d, list(source))))
    return links


@rule("Concat")
def _concat(s: StructureView, k: int, j: int) -> list[Link]:
    axis = int(s["axis"]) % len(s.results[0])
    before = sum(shape[axis] for shape in s.shapes[:k])
    d = s.shapes[k][axis]
    return [*((a, a, None) for a in range(len(s.results[0])) if a != axis), (axis, axis, pattern(s.results[0][axis], d, before + np.arange(d), np.arange(d)))]


@rule("Split")
def _split(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    axis = int(s["axis"]) % len(s.shapes[0])
    before = sum(shape[axis] for shape in s.results[:j])
    n = s.results[j][axis]
    return [*_others(s, 0, j, [axis]), (axis, axis, _picked(n, s.shapes[0][axis], before + np.arange(n)))]


@rule("Pad")
def _pad(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    rank = len(s.shapes[0])
    pads = s.ints(1)
    axes = [a % rank for a in s.ints(3) or []] if s.has(3) else list(range(rank))
    if pads is None:
        return _others(s, 0, 0, axes)
    links = _others(s, 0, 0, axes)
    mode = str(s["mode"] or "constant")
    for n, axis in enumerate(axes):
        d, begin, end = s.shapes[0][axis], pads[n], pads[len(axes) + n]
        source = np.arange(d)[max(-begin, 0) : d - max(-end, 0)]
        width = (max(begin, 0), max(end, 0))
        if source.size == 0:
            continue
        filled = np.pad(source, width, constant_values=-1) if mode == "constant" else np.pad(source, width, mode=mode)  # type: ignore[call-overload]
        links.append((axis, axis, _picked(len(filled), d, filled)))
    return links


@rule("Gather")
def _gather(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    rank, wide = len(s.shapes[0]), len(s.shapes[1])
    axis = int(s["axis"]) % rank
    links: list[Link] = [(a if a < axis else a + wide - 1, a, None) for a in range(rank) if a != axis]
    indices = s.constant(1)
    if indices is not None and wide and indices.size:
        d = s.shapes[0][axis]
        links.append((tuple(range(axis, axis + wide)), axis, _picked(indices.size, d, indices.reshape(-1) % d)))
    elif indices is not None and wide == 0:
        pass  # one position of the axis; a factor needs an output axis, so the axis stays unrestricted
    return links


@rule("GatherElements")
def _gather_elements(s: StructureView, k: int, j: int) -> list[Link]:
    return _others(s, 0, 0, [int(s["axis"]) % len(s.shapes[0])]) if k == 0 else []


@rule("ScatterElements")
def _scatter_elements(s: StructureView, k: int, j: int) -> list[Link]:
    # An update lands at its own place in every axis but one, though the updates may be shorter than the data.
    if k == 0:
        return [(a, a, None) for a in range(len(s.shapes[0]))]
    axis = int(s["axis"]) % len(s.shapes[0])
    both = zip(s.shapes[0], s.shapes[2], strict=True)
    return [(a, a, pattern(n, d, np.arange(d), np.arange(d))) for a, (n, d) in enumerate(both) if a != axis] if k == 2 else []


@rule("GatherND")
def _gather_nd(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    batch, depth = int(s["batch_dims"]), s.shapes[1][-1]
    first = batch + depth
    shift = len(s.results[0]) - len(s.shapes[0])
    return [*((a, a, None) for a in range(batch)), *((a + shift, a, None) for a in range(first, len(s.shapes[0])))]


@rule("ScatterND")
def _scatter_nd(s: StructureView, k: int, j: int) -> list[Link]:
    if k == 0:
        return [(a, a, None) for a in range(len(s.shapes[0]))]
    depth, rank = s.shapes[1][-1], len(s.shapes[0])
    shift = rank - len(s.shapes[2])
    return [(a, a - shift, None) for a in range(depth, rank)] if k == 2 else []


@rule("Compress")
def _compress(s: StructureView, k: int, j: int) -> list[Link]:
    axis = s.node.attributes.get("axis")
    if k or axis is None:
        return []
    axis = int(axis) % len(s.shapes[0])
    links = _others(s, 0, 0, [axis])
    chosen = s.constant(1)
    if chosen is not None:
        source = np.flatnonzero(chosen)
        links.append((axis, axis, _picked(len(source), s.shapes[0][axis], source)))
    return links


@rule("DepthToSpace")
def _depth_to_space(s: StructureView, k: int, j: int) -> Relation:
    n, c, h, w = s.shapes[0]
    size = int(s["blocksize"])
    if str(s["mode"]) == "CRD":
        return _moves(s.shapes[0], [("r", (n, c // size**2, size, size, h, w)), ("t", (0, 1, 4, 2, 5, 3)), ("r", s.results[0])])
    return _moves(s.shapes[0], [("r", (n, size, size, c // size**2, h, w)), ("t", (0, 3, 4, 1, 5, 2)), ("r", s.results[0])])


@rule("SpaceToDepth")
def _space_to_depth(s: StructureView, k: int, j: int) -> Relation:
    n, c, h, w = s.shapes[0]
    size = int(s["blocksize"])
    order = (0, 1, 3, 5, 2, 4) if s["mode"] == "CRD" else (0, 3, 5, 1, 2, 4)
    return _moves(s.shapes[0], [("r", (n, c, h // size, size, w // size, size)), ("t", order), ("r", s.results[0])])


def _moves(shape: Shape, steps: Sequence[tuple[str, Shape]]) -> Relation:
    """Reshapes ("r", new shape) and transposes ("t", permutation) one after the other."""
    total = aligned(shape)
    for kind, to in steps:
        old = total.out or ()
        if kind == "r":
            total = compose(_relation(to, old, reshaped(old, to)), total)
        else:
            total = compose(_relation(tuple(old[p] for p in to), old, [(a, p, None) for a, p in enumerate(to)]), total)
    return total


@rule("ReverseSequence")
def _reverse_sequence(s: StructureView, k: int, j: int) -> list[Link]:
    return _others(s, 0, 0, [int(s["time_axis"])]) if k == 0 else []


@rule("TopK")
def _top_k(s: StructureView, k: int, j: int) -> list[Link]:
    return _others(s, 0, j, [int(s["axis"]) % len(s.shapes[0])]) if k == 0 else []


# Along axes ------------------------------------------------------------------------------------------------------------------


@rule("ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp")
def _reduce(s: StructureView, k: int, j: int) -> list[Link]:
    rank = len(s.shapes[0])
    axes = s.ints(1) if s.has(1) else []
    if k or axes is None:
        return []
    if not axes:
        axes = [] if s["noop_with_empty_axes"] else list(range(rank))
    gone = {a % rank for a in axes} if rank else set()
    kept = [a for a in range(rank) if a not in gone]
    return [(a if s["keepdims"] else n, a, None) for n, a in enumerate(kept)]


@rule("CumSum")
def _cumsum(s: StructureView, k: int, j: int) -> list[Link]:
    axis = s.ints(1)
    if k or axis is None:
        return []
    at = axis[0] % len(s.shapes[0])
    d = s.shapes[0][at]
    links = _others(s, 0, 0, [at])
    if d * (d + 1) // 2 <= LIMIT:
        lower = np.tril(np.ones((d, d), bool), -1 if s["exclusive"] else 0)
        rows, columns = np.nonzero(lower[::-1, ::-1] if s["reverse"] else lower)
        links.append((at, at, pattern(d, d, rows, columns)))
    return links


@rule("Softmax LogSoftmax Hardmax LpNormalization")
def _softmax(s: StructureView, k: int, j: int) -> list[Link]:
    return _others(s, 0, 0, [int(s["axis"]) % max(len(s.shapes[0]), 1)])


@rule("LayerNormalization RMSNormalization")
def _layer_normalization(s: StructureView, k: int, j: int) -> list[Link]:
    rank = len(s.shapes[0])
    axis = int(s["axis"]) % rank
    if k == 0:
        return [(a, a, None) for a in range(axis) if s.results[j][a] == s.shapes[0][a]]
    return _elementwise(s, k, j) if j == 0 else []


@rule("BatchNormalization")
def _batch_normalization(s: StructureView, k: int, j: int) -> list[Link]:
    channel = 0 if j else 1
    if k:
        return [(channel, 0, None)] if len(s.results[j]) > channel else []
    if s["training_mode"]:
        return [(channel, 1, None)] if len(s.shapes[0]) > 1 else []
    return [(a, a, None) for a in range(len(s.shapes[0]))] if j == 0 else []


@rule("InstanceNormalization")
def _instance_normalization(s: StructureView, k: int, j: int) -> list[Link]:
    return [(0, 0, None), (1, 1, None)] if k == 0 else [(1, 0, None)]


@rule("LRN")
def _local_response(s: StructureView, k: int, j: int) -> list[Link]:
    c, size = s.shapes[0][1], int(s["size"])
    rows = np.repeat(np.arange(c), size)
    source = rows + np.tile(np.arange(size) - (size - 1) // 2, c)
    inside = (source >= 0) & (source < c)
    return [*_others(s, 0, 0, [1]), (1, 1, pattern(c, c, rows[inside], source[inside]))]


# Products --------------------------------------------------------------------------------------------------------------------


@rule("MatMul")
def _matmul(s: StructureView, k: int, j: int) -> list[Link]:
    out, in_ = s.results[0], s.shapes[k]
    left, right = len(s.shapes[0]), len(s.shapes[1])
    tail = (left > 1) + (right > 1)  # how many of the output's last axes are rows and columns
    links: list[Link] = []
    batch_out, batch_in = len(out) - tail, max(len(in_) - 2, 0)
    for a in range(batch_in):
        at = batch_out - batch_in + a
        if in_[a] == out[at]:
            links.append((at, a, None))
    if k == 0 and left > 1:
        links.append((len(out) - tail, left - 2, None))
    if k == 1 and right > 1:
        links.append((len(out) - 1, right - 1, None))
    return links


@rule("Gemm")
def _gemm(s: StructureView, k: int, j: int) -> list[Link]:
    if k == 2:
        return _elementwise(s, k, j)
    if k == 0:
        return [(0, 1 if s["transA"] else 0, None)]
    return [(1, 0 if s["transB"] else 1, None)]


@rule("Einsum")
def _einsum(s: StructureView, k: int, j: int) -> list[Link]:
    equation = str(s["equation"]).replace(" ", "")
    if "->" not in equation or "." in equation:
        return []
    terms, result = equation.split("->")
    term = terms.split(",")[k]
    if len(set(term)) < len(term) or len(set(result)) < len(result):
        return []
    return [(result.index(c), a, None) for a, c in enumerate(term) if c in result and s.results[0][result.index(c)] == s.shapes[k][a]]


def _window(n: int, d: int, kernel: int, stride: int, dilation: int, begin: int) -> Pattern:
    """Output position o sees input positions o * stride - begin + dilation * tap."""
    rows = np.repeat(np.arange(n), kernel)
    source = rows * stride - begin + dilation * np.tile(np.arange(kernel), n)
    inside = (source >= 0) & (source < d)
    return pattern(n, d, rows[inside], source[inside])


def _geometry(s: StructureView, kernel: Sequence[int], small: Sequence[int], large: Sequence[int]) -> tuple[list[int], list[int], list[int]] | None:
    """Strides, dilations and beginning pads of a window over `large` that yields `small`; None where `auto_pad` leaves the pads to a formula that is not
    certain here."""
    rank = len(kernel)
    strides = list(s["strides"] or [1] * rank)
    dilations = list(s["dilations"] or [1] * rank)
    auto = str(s["auto_pad"] or "NOTSET")
    if auto == "VALID":
        return strides, dilations, [0] * rank
    if auto == "NOTSET":
        return strides, dilations, list(s["pads"] or [0] * (2 * rank))[:rank]
    begins = []
    for a in range(rank):
        total = max((small[a] - 1) * strides[a] + dilations[a] * (kernel[a] - 1) + 1 - large[a], 0)
        begins.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
    return strides, dilations, begins


def _channels(out: int, in_: int, group: int) -> Pattern | None:
    """Output channels to the input channels of their group."""
    m, c = out // group, in_ // group
    rows = np.repeat(np.arange(out), c)
    return pattern(out, in_, rows, rows // m * c + np.tile(np.arange(c), out))


@rule("Conv")
def _conv(s: StructureView, k: int, j: int) -> list[Link]:
    x, w, y = s.shapes[0], s.shapes[1], s.results[0]
    if k:
        return [(1, 0, None)]
    links: list[Link] = [(0, 0, None)]
    group = int(s["group"])
    if group > 1:
        links.append((1, 1, _channels(y[1], x[1], group)))
    geometry = _geometry(s, w[2:], y[2:], x[2:])
    if geometry is not None:
        links += _windows(w[2:], y[2:], x[2:], *geometry)
    return links


def _windows(kernel: Sequence[int], n: Shape, d: Shape, strides: list[int], dilations: list[int], begins: list[int]) -> list[Link]:
    links: list[Link] = []
    for a in range(len(kernel)):
        if n[a] * kernel[a] <= 4 * LIMIT:
            try:
                links.append((a + 2, a + 2, _window(n[a], d[a], kernel[a], strides[a], dilations[a], begins[a])))
            except TooLarge:
                continue
    return links


@rule("ConvTranspose")
def _conv_transpose(s: StructureView, k: int, j: int) -> list[Link]:
    x, w, y = s.shapes[0], s.shapes[1], s.results[0]
    group = int(s["group"])
    if k == 2:
        return [(1, 0, None)]
    if k == 1:
        return [(1, 1, pattern(y[1], w[1], np.arange(y[1]), np.arange(y[1]) % w[1]))]
    links: list[Link] = [(0, 0, None)]
    if group > 1:
        links.append((1, 1, _channels(y[1], x[1], group)))
    rank = len(w) - 2
    if str(s["auto_pad"] or "NOTSET") not in ("NOTSET", "VALID") or s["output_shape"]:
        return links  # the pads follow from the output's shape by a rule that runtimes read differently
    strides, dilations = list(s["strides"] or [1] * rank), list(s["dilations"] or [1] * rank)
    begins = list(s["pads"] or [0] * (2 * rank))[:rank]
    for a in range(rank):
        links.append((a + 2, a + 2, _window(x[a + 2], y[a + 2], w[a + 2], strides[a], dilations[a], begins[a]).transposed()))
    return links


@rule("MaxPool AveragePool LpPool")
def _pool(s: StructureView, k: int, j: int) -> list[Link]:
    x, y = s.shapes[0], s.results[0]
    kernel = list(s["kernel_shape"])
    geometry = _geometry(s, kernel, y[2:], x[2:])
    links: list[Link] = [(0, 0, None), (1, 1, None)]
    return links if geometry is None else links + _windows(kernel, y[2:], x[2:], *geometry)


@rule("GlobalAveragePool GlobalMaxPool GlobalLpPool")
def _global_pool(s: StructureView, k: int, j: int) -> list[Link]:
    return [(0, 0, None), (1, 1, None)]


@rule("Col2Im RoiAlign MaxRoiPool")
def _first_axis(s: StructureView, k: int, j: int) -> list[Link]:
    return [(0, 0, None)] if k == 0 and s.node.op == "Col2Im" else []


@rule("GridSample")
def _grid_sample(s: StructureView, k: int, j: int) -> list[Link]:
    if k == 0:
        return [(0, 0, None), (1, 1, None)]
    rank = len(s.results[0]) - 2
    return [(0, 0, None), *((a + 2, a + 1, None) for a in range(rank))]


@rule("Resize Upsample")
def _resize(s: StructureView, k: int, j: int) -> list[Link]:
    if k:
        return []
    links: list[Link] = []
    for a, (n, d) in enumerate(zip(s.results[0], s.shapes[0], strict=True)):
        if n == d and _keeps(s, a):
            # A scale of one takes each position from itself in every mode but a crop.
            if str(s["coordinate_transformation_mode"] or "") != "tf_crop_and_resize":
                links.append((a, a, None))
            continue
        if d > 1:
            matrix = _interpolation(s, a, n, d)
            if matrix is not None:
                links.append((a, a, matrix))
    return links


def _keeps(s: StructureView, axis: int) -> bool:
    """Whether an axis that keeps its length has a scale of one: 5 times 1.1, rounded down, is 5 too."""
    position = 2 if s.node.op == "Resize" else 1
    scales = s.constant(position)
    if scales is None:
        return s.node.op == "Resize" and not (s.has(position) and s.shapes[position] != (0,))
    rank = len(s.shapes[0])
    axes = [a % rank for a in s["axes"]] if s["axes"] else list(range(rank))
    return not scales.size or axis not in axes or float(scales.reshape(-1)[axes.index(axis)]) == 1


def _interpolation(s: StructureView, axis: int, n: int, d: int) -> Pattern | None:
    """The input positions that each output position may weigh, widened by one where rounding could decide."""
    rank = len(s.shapes[0])
    axes = [a % rank for a in s["axes"]] if s["axes"] else list(range(rank))
    scales = s.constant(2) if s.node.op == "Resize" else s.constant(1)
    if axis not in axes:
        return None
    scale = float(scales.reshape(-1)[axes.index(axis)]) if scales is not None and scales.size else n / d
    if str(s["keep_aspect_ratio_policy"] or "stretch") != "stretch" or scale <= 0:
        return None
    o = np.arange(n, dtype=np.float64)
    mode = str(s["coordinate_transformation_mode"] or ("asymmetric" if s.node.op == "Upsample" else "half_pixel"))
    match mode:
        case "half_pixel":
            x = (o + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            x = (o + 0.5) / scale - 0.5 if n > 1 else np.zeros(1)
        case "asymmetric":
            x = o / scale
        case "align_corners":
            x = o * (d - 1) / (n - 1) if n > 1 else np.zeros(1)
        case _:
            return None
    # A scale that is a power of two has exact coordinates; with others rounding could decide between neighbours, so both count.
    slack = 0.0 if np.log2(scale).is_integer() and mode != "align_corners" else 1e-4
    kind = str(s["mode"] or "nearest")
    if kind == "nearest":
        rounding = str(s["nearest_mode"] or "round_prefer_floor") if s.node.op == "Resize" else "floor"
        ways: dict[str, Callable[[Any], Any]] = {
            "floor": np.floor, "ceil": np.ceil, "round_prefer_floor": lambda x: np.ceil(x - 0.5), "round_prefer_ceil": lambda x: np.floor(x + 0.5)
        }  # fmt: skip
        to_int = ways.get(rounding)
        if to_int is None:
            return None
        low, high = to_int(x - slack), to_int(x + slack)
    elif kind in ("linear", "cubic"):
        reach = 1.0 if kind == "linear" else 2.0
        wide = reach * max(1.0, 1 / scale) if s["antialias"] else reach
        low, high = np.floor(x - slack - wide) + 1, np.ceil(x + slack + wide) - 1
    else:
        return None
    first, last = np.clip(low, 0, d - 1).astype(np.int64), np.clip(high, 0, d - 1).astype(np.int64)
    lengths = last - first + 1
    if int(lengths.sum()) > LIMIT:
        return None
    rows = np.repeat(np.arange(n), lengths)
    offsets = np.arange(rows.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pattern(n, d, rows, first[rows] + offsets)


# Recurrent -------------------------------------------------------------------------------------------------------------------


@rule("LSTM GRU RNN")
def _recurrent(s: StructureView, k: int, j: int) -> list[Link]:
    # X [T, N, I] and states [D, N, H] to Y [T, D, N, H] and states [D, N, H]; samples don't meet.
    if s["layout"] or k in (1, 2, 3, 4, 7):
        return []
    batch_out = 2 if j == 0 else 1
    links: list[Link] = [(batch_out, 1, None)]
    steps = s.shapes[0][0]
    if k == 0 and j == 0 and str(s["direction"] or "forward") == "forward" and steps * steps <= LIMIT:
        rows, columns = np.nonzero(np.tril(np.ones((steps, steps), bool)))
        links.append((0, 0, pattern(steps, steps, rows, columns)))
    return links


def relation_between(relations: Mapping[tuple[str, str], Relation], of: str, wrt: str, out: Shape, in_: Shape) -> Relation:
    """The relation found, or an unrestricted one."""
    found = relations.get((of, wrt))
    return found if found is not None and found.out == out and found.in_ == in_ else Relation(out, in_)


__all__ = ["RULES", "StructureView", "TensorType", "relation_between", "reshaped", "rule", "structure"]
