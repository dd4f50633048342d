"""Many directions at once: a program that is linear in its seeds, with a leading axis K of directions on everything that the seeds reach.

One rule an operator as it stands in a tangent program; `t` is the operand that carries the directions, [K, ...] where the node expects [...].
An operator without a rule runs in an ONNX Scan over K, which is exact for any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Graph, Node, Shape, TensorType, pruned
from netsens.graph.shapes import known
from netsens.rules.words import attribute_default

DIRECTIONS = "K"  # the symbol of the leading axis


@dataclass(frozen=True, slots=True)
class BatchView:
    """A linear node as a batching rule sees it. `xs` are its operands in the new graph, those in `moving` with the leading axis; `types` and
    `results` are what its inputs and outputs were without it. `count` is K as a vector of length 1."""

    op: Builder
    node: Node
    xs: tuple[Value | None, ...]
    moving: tuple[bool, ...]
    types: tuple[TensorType, ...]
    results: tuple[TensorType, ...]
    count: Value

    def __getitem__(self, key: str) -> Any:
        if key in self.node.attributes:
            return self.node.attributes[key]
        opset = self.op.graph.domains.get(self.node.domain, 1) if self.node.domain else self.op.graph.opset
        return attribute_default(self.node.op, self.node.domain, opset, key)

    @property
    def t(self) -> Value:
        """The first operand."""
        assert self.xs[0] is not None
        return self.xs[0]

    def x(self, position: int) -> Value | None:
        return self.xs[position] if position < len(self.xs) else None

    def ints(self, position: int) -> list[int] | None:
        """A constant operand as integers; None where it isn't constant or isn't there."""
        value = self.x(position)
        constant = None if value is None else value.constant
        return None if constant is None else [int(v) for v in constant.reshape(-1)]

    def rank(self, position: int = 0) -> int:
        shape = self.types[position].shape
        if shape is None:
            raise _Unknown
        return len(shape)

    def shape(self, position: int = 0) -> tuple[int, ...]:
        return _numbers(self.types[position].shape)

    def result_shape(self, position: int = 0) -> tuple[int, ...]:
        return _numbers(self.results[position].shape)

    def same(self, *operands: Any, **attributes: Any) -> Any:
        """The node's operator over these operands, its attributes unless given anew."""
        return self.op.emit(self.node.op, operands, {**self.node.attributes, **attributes}, len(self.node.outputs), self.node.domain)


class _Unknown(Exception):
    """A rule needs a shape or a constant that isn't known; the node goes through Scan instead."""


Rule = Callable[[BatchView], Any]
RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Rule], Rule]:
    """Declares how operators take a leading axis."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return register


def batched(graph: Graph, seeds: Sequence[str], directions: int | None = None) -> Graph:
    """The graph with a leading axis on its `seeds` and on all that follows from them; other inputs (residuals) stay as they are. `directions` fixes
    K, otherwise it is a symbol. Outputs that no seed reaches are repeated K times."""
    target = Graph([], [], [], dict(graph.constants), {}, graph.opset, dict(graph.domains), name=graph.name)
    target.types.update({k: graph.types[k] for k in graph.constants if k in graph.types})
    target.inputs = [i for i in graph.inputs if i not in seeds]
    target.types.update({i: graph.types.get(i, TensorType(0)) for i in target.inputs})
    op = Builder(target, "batch")
    op.take(graph.names())
    found: dict[str, Value] = {}
    lead = DIRECTIONS if directions is None else directions
    for seed in seeds:
        type_ = graph.types[seed]
        found[seed] = op.input(seed, TensorType(type_.dtype, (lead, *(type_.shape or ()))))
        op.anchor(seed)
    count = op.dim(found[seeds[0]], 0)
    for node in graph.nodes:
        if not any(name in found for name in node.reads()):
            op.add(node, [graph.types.get(o, TensorType(0)) for o in node.outputs])
            continue
        values = _batch_node(op, node, graph, found, count)
        for name, value in zip(node.outputs, values, strict=True):
            if name:
                type_ = graph.types.get(name, TensorType(0))
                found[name] = op.retyped(value, (lead, *type_.shape)) if known(type_.shape) and type_.shape is not None else value
    outputs = []
    for name in graph.outputs:
        value = found.get(name) or _repeated(op, op.value(name), count)
        # A graph's output is a name of its own, even where it is an input or another output too.
        outputs.append(_copy(op, value, name) if name in seeds or value.name in outputs or value.name in target.constants else value.name)
    target.outputs = outputs
    return pruned(target)


def _copy(op: Builder, value: Value, name: str) -> str:
    fresh = op.fresh(f"{name}/directions")
    op.add(Node("Identity", (value.name,), (fresh,)), [value.type])
    return fresh


def _batch_node(op: Builder, node: Node, graph: Graph, found: dict[str, Value], count: Value) -> list[Value]:
    xs = tuple((found.get(i) or op.value(i)) if i else None for i in node.inputs)
    types = tuple(graph.types.get(i) or (TensorType(0) if not i else op.value(i).type) for i in node.inputs)
    b = BatchView(op, node, xs, tuple(i in found for i in node.inputs), types, tuple(graph.types.get(o, TensorType(0)) for o in node.outputs), count)
    chosen = RULES.get(node.op) if not node.domain and not any(node.subgraphs()) else None
    if chosen is not None:
        try:
            result = chosen(b)
            return list(result) if isinstance(result, (tuple, list)) else [result]
        except _Unknown:
            pass
    return scanned(b, found)


def scanned(b: BatchView, found: dict[str, Value]) -> list[Value]:
    """The node, once a direction, in a Scan."""
    op, node = b.op, b.node
    moving = list(dict.fromkeys(name for name in node.reads() if name in found))
    inner = {name: op.fresh(f"{name}/direction") for name in moving}
    results = {o: op.fresh(f"{o}/direction") for o in node.outputs if o}
    types: dict[str, TensorType] = {}
    for name in moving:
        outer = found[name].type
        types[inner[name]] = TensorType(outer.dtype, None if outer.shape is None else outer.shape[1:])
    for o, type_ in zip(node.outputs, b.results, strict=True):
        if o:
            types[results[o]] = type_
    body_node = node.renamed({**inner, **results})
    body = Graph([body_node], list(inner.values()), list(results.values()), {}, types, op.graph.opset, dict(op.graph.domains), name="one_direction")
    outputs = tuple(op.fresh(f"{o}/directions") for o in results)
    lead = found[moving[0]].type.shape
    first = lead[0] if lead else None
    out_types = [TensorType(types[r].dtype, None if (s := types[r].shape) is None else (first, *s)) for r in results.values()]
    op.add(Node("Scan", tuple(found[m].name for m in moving), outputs, {"body": body, "num_scan_inputs": len(moving)}), out_types)
    given = dict(zip(results, outputs, strict=True))
    return [op.value(given[o]) if o else op.constant(0.0) for o in node.outputs]


# Shapes --------------------------------------------------------------------------------------------------------------------


def _numbers(shape: Shape | None) -> tuple[int, ...]:
    if shape is None or not known(shape):
        raise _Unknown
    return tuple(int(d) for d in shape if isinstance(d, int))


def _ahead(b: BatchView, shape: Sequence[int]) -> Value | list[int]:
    """The vector [K, *shape]."""
    return [-1, *shape] if all(shape) else b.op.vector([b.count, *shape])


def _reshaped(b: BatchView, t: Value, shape: Sequence[int]) -> Value:
    """`t` as [K, *shape]."""
    return b.op.retyped(b.op.Reshape(t, _ahead(b, shape), allowzero=None if all(shape) else 1), (t.shape[0], *shape))


def _lifted(b: BatchView, position: int, rank: int) -> Value:
    """A moving operand [K, *x] with ones after K, so that x has `rank` axes; one that stands still is left alone."""
    x = b.xs[position]
    assert x is not None
    missing = rank - b.rank(position)
    if not b.moving[position] or missing <= 0:
        return x
    return b.op.Unsqueeze(x, list(range(1, missing + 1)))


def _repeated(op: Builder, x: Value, count: Value) -> Value:
    """A value without directions, given K times."""
    rank = x.rank
    return op.Expand(op.Unsqueeze(x, [0]), op.vector([count, *([1] * rank)]))


def _all_moving(b: BatchView, position: int) -> Value:
    x = b.xs[position]
    assert x is not None
    return x if b.moving[position] else _repeated(b.op, x, b.count)


def _axis(axis: int, rank: int) -> int:
    """An axis of the node as an axis of [K, ...]."""
    return int(axis) % rank + 1


def _require(*conditions: bool) -> None:
    if not all(conditions):
        raise _Unknown


# Elementwise and layout ------------------------------------------------------------------------------------------------------


@rule("Add Sub Mul Div Sum Mean Where Neg Identity Cast")
def _elementwise(b: BatchView) -> Any:
    rank = max(b.rank(k) for k in range(len(b.xs)))
    return b.same(*(_lifted(b, k, rank) for k in range(len(b.xs))))


@rule("Transpose")
def _transpose(b: BatchView) -> Any:
    perm = b["perm"] or list(range(b.rank()))[::-1]
    return b.op.Transpose(b.t, perm=[0, *(p + 1 for p in perm)])


@rule("Reshape Squeeze Unsqueeze Flatten")
def _reshape(b: BatchView) -> Any:
    _require(b.moving[0])
    if known(b.results[0].shape):
        return _reshaped(b, b.t, b.result_shape())
    _require(b.node.op == "Reshape")
    # A 0 copies the dimension at its own place, and both sides move by one place.
    target = b.x(1)
    return b.op.Reshape(b.t, b.op.vector([b.count, target]), allowzero=b.node.attributes.get("allowzero"))


@rule("Expand")
def _expand(b: BatchView) -> Any:
    _require(b.moving[0])
    if known(b.results[0].shape):
        shape = b.result_shape()
        return b.op.Expand(_lifted(b, 0, len(shape)), [1, *shape])
    target = b.x(1)
    assert target is not None
    length = target.shape[0]
    _require(isinstance(length, int))
    return b.op.Expand(_lifted(b, 0, int(length or 0)), b.op.vector([1, target]))


@rule("Tile")
def _tile(b: BatchView) -> Any:
    return b.op.Tile(b.t, b.op.vector([1, b.x(1)]))


@rule("Slice")
def _slice(b: BatchView) -> Any:
    starts, ends, axes, steps = (b.x(k) for k in (1, 2, 3, 4))
    if axes is None:
        assert starts is not None
        length = starts.shape[0]
        _require(isinstance(length, int))
        chosen = list(range(int(length or 0)))
    else:
        listed = b.ints(3)
        _require(listed is not None)
        chosen = listed or []
    return b.op.Slice(b.t, starts, ends, [_axis(a, b.rank()) for a in chosen], steps)


@rule("Concat")
def _concat(b: BatchView) -> Any:
    return b.op.Concat(*(_all_moving(b, k) for k in range(len(b.xs))), axis=_axis(b["axis"], b.rank()))


@rule("Split")
def _split(b: BatchView) -> Any:
    return b.same(b.t, b.x(1), axis=_axis(b["axis"], b.rank()))


@rule("Pad")
def _pad(b: BatchView) -> Any:
    pads, axes = b.ints(1), b.ints(3) if b.x(3) is not None else list(range(b.rank()))
    _require(b.moving[0], axes is not None)
    rank = b.rank()
    chosen = [_axis(a, rank) for a in axes or []]
    if pads is not None:
        begins, ends = [0] * (rank + 1), [0] * (rank + 1)
        for k, axis in enumerate(chosen):
            begins[axis], ends[axis] = pads[k], pads[len(chosen) + k]
        return b.same(b.t, [*begins, *ends], b.x(2))
    return b.same(b.t, b.x(1), b.x(2), chosen)


@rule("Gather")
def _gather(b: BatchView) -> Any:
    _require(b.moving[0])
    return b.op.Gather(b.t, b.x(1), axis=_axis(b["axis"], b.rank()))


@rule("GatherElements")
def _gather_elements(b: BatchView) -> Any:
    _require(b.moving[0])
    return b.op.GatherElements(b.t, _all_moving(b, 1), axis=_axis(b["axis"], b.rank()))


@rule("ScatterElements")
def _scatter_elements(b: BatchView) -> Any:
    _require(not b.moving[1])
    return b.same(_all_moving(b, 0), _all_moving(b, 1), _all_moving(b, 2), axis=_axis(b["axis"], b.rank()))


def _last(b: BatchView, position: int) -> Value:
    """[K, ...] -> [..., K]"""
    rank = b.rank(position)
    return b.op.Transpose(_all_moving(b, position), perm=[*range(1, rank + 1), 0])


def _first(b: BatchView, t: Value) -> Value:
    """[..., K] -> [K, ...]"""
    return b.op.Transpose(t, perm=[t.rank - 1, *range(t.rank - 1)])


@rule("GatherND")
def _gather_nd(b: BatchView) -> Any:
    # Indices run over leading axes, so the directions go behind.
    _require(b.moving[0])
    result = b.same(_last(b, 0), b.x(1))
    _require(result.type.shape is not None)
    return _first(b, result)


@rule("ScatterND")
def _scatter_nd(b: BatchView) -> Any:
    _require(not b.moving[1])
    return _first(b, b.same(_last(b, 0), b.x(1), _last(b, 2)))


@rule("Compress")
def _compress(b: BatchView) -> Any:
    _require(b.moving[0])
    axis = b.node.attributes.get("axis")
    if axis is None:
        size = 1
        for d in b.shape():
            size *= d
        return b.op.Compress(_reshaped(b, b.t, [size]), b.x(1), axis=1)
    return b.op.Compress(b.t, b.x(1), axis=_axis(axis, b.rank()))


@rule("Trilu")
def _trilu(b: BatchView) -> Any:
    return b.same(b.t, b.x(1))


# Sums along axes -------------------------------------------------------------------------------------------------------------


@rule("ReduceSum ReduceMean")
def _reduce(b: BatchView) -> Any:
    axes = b.ints(1) if b.x(1) is not None else []
    _require(axes is not None)
    if not axes:
        if b["noop_with_empty_axes"]:
            return b.t
        axes = list(range(b.rank()))
    if b.rank() == 0:
        return b.t
    return b.op.emit(b.node.op, [b.t, [_axis(a, b.rank()) for a in axes]], {"keepdims": b["keepdims"]})


@rule("CumSum")
def _cumsum(b: BatchView) -> Any:
    import numpy as np

    axis = b.ints(1)
    _require(axis is not None)
    return b.same(b.t, b.op.constant(np.asarray(_axis((axis or [0])[0], b.rank()), np.int64)))


# Products --------------------------------------------------------------------------------------------------------------------


@rule("MatMul")
def _matmul(b: BatchView) -> Any:
    op, left, right = b.op, b.xs[0], b.xs[1]
    assert left is not None
    assert right is not None
    a, c = b.rank(0), b.rank(1)
    if a >= 2 and c >= 2:
        rank = max(a, c)
        return op.MatMul(_lifted(b, 0, rank), _lifted(b, 1, rank))
    if b.moving[0] and a == 1 and c > 2:
        # [K, D] @ [.., D, E]: K becomes a matrix of its own, since MatMul would take it for a batch axis.
        ones = list(range(1, c))
        return op.Squeeze(op.MatMul(op.Unsqueeze(left, ones), right), [-2])
    if b.moving[1] and c == 1:
        if a == 1:
            return op.MatMul(right, left)
        # [.., M, D] @ [K, D]: [K, 1.., D, 1] -> [K, .., M, 1] -> [K, .., M]
        column = op.Unsqueeze(right, [*range(1, a - 1), a])
        return op.Squeeze(op.MatMul(left, column), [-1])
    return op.MatMul(left, right)


@rule("Gemm")
def _gemm(b: BatchView) -> Any:
    op = b.op
    parts = []
    if b.moving[0] or b.moving[1]:
        _require(not (b.moving[0] and b.moving[1]))
        left, right = b.xs[0], b.xs[1]
        assert left is not None
        assert right is not None
        if b["transA"]:
            left = op.Transpose(left, perm=[0, 2, 1] if b.moving[0] else [1, 0])
        if b["transB"]:
            right = op.Transpose(right, perm=[0, 2, 1] if b.moving[1] else [1, 0])
        product = op.MatMul(left, right)
        parts.append(product * float(b["alpha"]) if b["alpha"] != 1 else product)
    if b.x(2) is not None:
        # A C that stands still beside moving factors would not be linear; it is a zero that the rule put there.
        c = _lifted(b, 2, 2)
        parts.append(c * float(b["beta"]) if b["beta"] != 1 else c)
        if len(parts) == 1:
            rows, columns = b.result_shape()
            return op.Expand(parts[0], [1, rows, columns])
    return parts[0] if len(parts) == 1 else op.Add(*parts)


@rule("Einsum")
def _einsum(b: BatchView) -> Any:
    equation = str(b["equation"]).replace(" ", "")
    _require("->" in equation)
    letter = next(c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in equation)
    terms, result = equation.split("->")
    new = [letter + term if moving else term for term, moving in zip(terms.split(","), b.moving, strict=True)]
    return b.op.Einsum(*b.xs, equation=f"{','.join(new)}->{letter}{result}")


def _folded(b: BatchView) -> Value:
    """[K, N, ...] -> [K*N, ...]"""
    shape = b.shape()
    _require(len(shape) > 1, all(shape))
    return b.op.retyped(b.op.Reshape(b.t, [-1, *shape[1:]]), (None, *shape[1:]))


def _unfolded(b: BatchView, y: Value) -> Value:
    """[K*N, ...] -> [K, N, ...]"""
    shape = b.result_shape()
    _require(all(shape))
    return b.op.retyped(b.op.Reshape(y, [-1, *shape]), (b.t.shape[0], *shape))


@rule("Conv ConvTranspose")
def _conv(b: BatchView) -> Any:
    _require(b.x(2) is None, not (b.moving[0] and b.moving[1]))
    if b.moving[0]:
        return _unfolded(b, b.same(_folded(b), b.x(1)))
    # The directions of a filter become output channels, group by group.
    op, filters = b.op, b.xs[1]
    assert filters is not None
    shape, group = b.shape(1), int(b["group"])
    result = b.result_shape()
    _require(all(shape), all(result))
    r = len(shape)
    if b.node.op == "Conv":
        # [K, g*M, C, ..] -> [K, g, M, C, ..] -> [g, K, M, C, ..] -> [g*K*M, C, ..]
        split = _reshaped(b, filters, [group, shape[0] // group, *shape[1:]])
        joined = op.Reshape(op.Transpose(split, perm=[1, 0, *range(2, r + 2)]), [-1, *shape[1:]])
    else:
        # [K, g*C, M, ..] -> [g*C, K, M, ..] -> [g*C, K*M, ..]
        joined = op.Reshape(op.Transpose(filters, perm=[1, 0, *range(2, r + 1)]), [shape[0], -1, *shape[2:]])
    y = op.emit(b.node.op, [b.xs[0], joined], dict(b.node.attributes))
    # [N, g*K*M, ..] -> [N, g, K, M, ..] -> [K, N, g, M, ..] -> [K, N, g*M, ..]
    apart = op.Reshape(y, [result[0], group, -1, result[1] // group, *result[2:]])
    return _reshaped(b, op.Transpose(apart, perm=[2, 0, 1, 3, *range(4, r + 2)]), result)


@rule("AveragePool GlobalAveragePool DepthToSpace SpaceToDepth Col2Im")
def _sample_by_sample(b: BatchView) -> Any:
    _require(b.moving[0], not any(b.moving[1:]))
    return _unfolded(b, b.same(_folded(b), *b.xs[1:]))


@rule("Resize")
def _resize(b: BatchView) -> Any:
    _require(b.moving[0], not any(b.moving[1:]), b["axes"] is None)
    scales, sizes = b.ints(2) if b.x(2) is not None else None, b.ints(3) if b.x(3) is not None else None
    values = b.x(2).constant if b.x(2) is not None else None  # type: ignore[union-attr]
    rank = b.rank()
    _require(b.shape()[0] == b.result_shape()[0])
    if b.x(3) is not None:
        _require(sizes is not None, b["coordinate_transformation_mode"] != "tf_crop_and_resize")
        return _unfolded(b, b.same(_folded(b), b.x(1), None, (sizes or [])[1:], axes=list(range(1, rank))))
    _require(scales is not None, values is not None and values.size == rank and values[0] == 1, b.x(1) is None)
    return _unfolded(b, b.same(_folded(b), b.x(1), b.x(2)))


@rule("MaxUnpool")
def _max_unpool(b: BatchView) -> Any:
    import numpy as np

    _require(b.moving[0], not b.moving[1], known(b.results[0].shape))
    # The indices count over the whole result, directions included: [N, C, ..] -> [K, N, C, ..] + K * size -> [K*N, C, ..]
    op, shape, result = b.op, b.shape(), b.result_shape()
    size = int(np.prod(result))
    steps = op.Range(np.asarray(0, np.int64), op.Squeeze(b.count, [0]), np.asarray(1, np.int64)) * size
    indices = op.Unsqueeze(b.x(1), [0]) + op.Unsqueeze(steps, list(range(1, len(shape) + 1)))
    sizes = None if b.x(2) is None else op.vector([b.count * result[0], *result[1:]])
    return _unfolded(b, b.same(_folded(b), op.Reshape(indices, [-1, *shape[1:]]), sizes))
