"""Types of values: what ONNX's shape inference says of a whole graph, and those of a single new node through short formulas of its own
(ONNX's inference where there is none), since asking ONNX for every node would dominate building."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.errors import RuleError
from netsens.graph.graph import Array, Dim, Graph, Node, Shape, TensorType, walk
from netsens.graph.read import type_from_proto
from netsens.graph.save import model_proto, node_proto, tensor_proto, type_proto
from netsens.graph.sizes import (
    Expression,
    Size,
    at_least_zero,
    dim_of,
    is_integer,
    less_but_not_below_zero,
    named,
    product,
    quotient,
    scaled,
    size_of,
    smaller,
    total,
)

if TYPE_CHECKING:
    import onnx

FLOAT, UINT8, INT8, INT32, INT64, STRING, BOOL = 1, 2, 3, 6, 7, 8, 9
_SMALL = 1024  # bytes of a constant that shape inference may want to see

ShapeFormula = Callable[[Sequence[TensorType], dict[str, Any], Sequence[Array | None]], list[TensorType] | None]


def onnx_types(graph: Graph) -> dict[str, TensorType]:
    """The type of every value, in subgraphs too, that ONNX's own inference can tell. Weights are not looked at."""
    import onnx
    from onnx import shape_inference

    light = replace(graph, constants={}, inputs=list(graph.inputs), types=dict(graph.types))
    for name, array in graph.constants.items():
        if array.nbytes <= _SMALL:
            light.constants[name] = array
        else:
            light.inputs.append(name)
            light.types[name] = constant_type(array)
    light = walk(light, _without_promises)
    proto, _ = model_proto(light)
    try:
        inferred = shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except Exception:  # ONNX's inference raises a bare RuntimeError on models that it takes for broken; run time will tell
        inferred = proto
    found: dict[str, TensorType] = {}

    def collect(g: onnx.GraphProto) -> None:
        for value in [*g.value_info, *g.output, *g.input]:
            if value.type.WhichOneof("value"):
                found[value.name] = type_from_proto(value.type)
        for node in g.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    collect(attribute.g)

    collect(inferred.graph)
    return found


def _without_promises(graph: Graph) -> Graph:
    """ONNX's inference trusts an output's declared shape, and files lie: its dtype alone is kept."""
    types = dict(graph.types)
    for name in graph.outputs:
        known = types.get(name)
        if known is not None and name not in graph.inputs and name not in graph.constants:
            types[name] = replace(known, shape=None)
    return replace(graph, types=types)


def constant_type(array: Array) -> TensorType:
    from onnx import helper

    return TensorType(helper.np_dtype_to_tensor_dtype(array.dtype) if array.dtype != object else 8, array.shape)


def infer_node(node: Node, types: Sequence[TensorType], constants: Sequence[Array | None], opset: int, domains: dict[str, int]) -> list[TensorType]:
    """The types of one node's outputs (shape None where unknown)."""
    formula = {"": FORMULAS, "ai.onnx.ml": LEARNED}.get(node.domain, {}).get(node.op)
    if formula is not None and all(t.shape is not None for t in types):
        result = formula(types, dict(node.attributes), constants)
        if result is not None:
            return result + [TensorType(0)] * (len(node.outputs) - len(result))
    return _ask_onnx(node, types, constants, opset, domains)


def _ask_onnx(node: Node, types: Sequence[TensorType], constants: Sequence[Array | None], opset: int, domains: dict[str, int]) -> list[TensorType]:
    import onnx
    from onnx import helper, shape_inference

    try:
        schema = onnx.defs.get_schema(node.op, domains.get(node.domain, opset) if node.domain else opset, node.domain)
    except onnx.defs.SchemaError:
        return [TensorType(types[0].dtype if types else 0) for _ in node.outputs]
    names = [f"i{k}" if n else "" for k, n in enumerate(node.inputs)]
    alone = replace(node, inputs=tuple(names), outputs=tuple(f"o{k}" if o else "" for k, o in enumerate(node.outputs)))
    data = {f"i{k}": tensor_proto(c, f"i{k}") for k, c in enumerate(constants) if c is not None and c.dtype != object}
    versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in domains.items() if d)]
    try:
        found = shape_inference.infer_node_outputs(
            schema, node_proto(alone, opset, domains), {n: type_proto(t) for n, t in zip(names, types, strict=True) if n and t.dtype},
            data, opset_imports=versions, ir_version=10,
        )  # fmt: skip
    except Exception as error:  # ONNX raises its own C++ errors here
        raise RuleError(f"A rule emitted a {node.label} that ONNX's inference rejects: {error}") from error
    symbols = {d for t in types for d in t.shape or ()}
    return [_over(type_from_proto(found[o]), symbols) if o in found else TensorType(types[0].dtype if types else 0) for o in alone.outputs]


def _over(type_: TensorType, symbols: set[Dim]) -> TensorType:
    """Without the symbols that ONNX makes up for one node alone."""
    if type_.shape is None:
        return type_
    return replace(type_, shape=tuple(d if isinstance(d, int) or d in symbols else None for d in type_.shape))


def broadcast_dim(a: Dim, b: Dim) -> Dim:
    if a == b:
        return a
    if a == 1:
        return b
    if b == 1:
        return a
    # One of them is a symbol or unknown: a number other than 1 wins, since anything else would not run.
    if isinstance(a, int):
        return a
    return b if isinstance(b, int) else None


def broadcast(*shapes: Shape) -> Shape:
    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for k, dim in enumerate(shape):
            at = rank - len(shape) + k
            result[at] = broadcast_dim(result[at], dim)
    return tuple(result)


def _shape(t: TensorType) -> Shape:
    assert t.shape is not None
    return t.shape


def _ints(content: Array | None) -> list[int] | None:
    """The numbers that a small tensor holds, if all of them are known."""
    return None if content is None or content.dtype == object else [int(v) for v in content.reshape(-1)]


def _sizes(content: Array | None) -> list[Size | None] | None:
    """The same where some may be sizes that are known only by their symbols, or not known."""
    return None if content is None else [v if isinstance(v, Expression) or v is None else int(v) for v in content.reshape(-1)]


def _like_first(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [types[0]]


def _elementwise(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(types[0].dtype, broadcast(*map(_shape, types)))]


def _comparison(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(BOOL, broadcast(*map(_shape, types)))]


def _where(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(types[1].dtype, broadcast(*map(_shape, types)))]


def _cast(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(int(attributes["to"]), types[0].shape)]


def _matmul(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    a, b = _shape(types[0]), _shape(types[1])
    if len(a) < 2 or len(b) < 2:
        return None
    return [TensorType(types[0].dtype, (*broadcast(a[:-2], b[:-2]), a[-2], b[-1]))]


def _gemm(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    a, b = _shape(types[0]), _shape(types[1])
    return [TensorType(types[0].dtype, (a[1] if attributes.get("transA") else a[0], b[0] if attributes.get("transB") else b[1]))]


def _transpose(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape = _shape(types[0])
    perm = attributes.get("perm") or range(len(shape))[::-1]
    return [TensorType(types[0].dtype, tuple(shape[p] for p in perm))]


def _reshape(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    target = _sizes(constants[1])
    if target is None:
        length = _shape(types[1])[0]
        return [TensorType(types[0].dtype, (None,) * length if isinstance(length, int) else None)]
    old = _shape(types[0])
    if not attributes.get("allowzero"):
        target = [size_of(old[k]) if d == 0 else d for k, d in enumerate(target)]
    dims: list[Dim] = [dim_of(d) for d in target]
    if -1 in target:
        dims[target.index(-1)] = _quotient(old, [d for d in target if d != -1])
    elif target.count(None) == 1:
        dims[target.index(None)] = _quotient(old, [d for d in target if d is not None])  # a -1 or a length: the same either way
    return [TensorType(types[0].dtype, tuple(dims))]


def _quotient(whole: Shape, part: Sequence[Size | None]) -> Dim:
    """The dimension that makes `part` times it equal to `whole`, whose product it divides."""
    shared = [size_of(d) for d in whole]
    if None in shared or None in part:
        return None
    above: Size = 1
    below: Size = 1
    for size in part:
        if size in shared and size != 0:
            shared.remove(size)  # also where the product would not divide as a polynomial: [N + 1, 4] by N + 1
        elif size is not None:
            below = below * size
    for size in shared:
        if size is not None:
            above = above * size
    if below == 0:
        return 0 if above == 0 else None
    return dim_of(quotient(above, below))


def _expand(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    target = _sizes(constants[1])
    if target is None:
        length = _shape(types[1])[0]
        rank = max(length, len(_shape(types[0]))) if isinstance(length, int) else None
        return [TensorType(types[0].dtype, (None,) * rank if rank is not None else None)]
    return [TensorType(types[0].dtype, broadcast(_shape(types[0]), tuple(dim_of(d) for d in target)))]


def _reduce(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    shape = _shape(types[0])
    keep = attributes.get("keepdims", 1)
    if len(types) > 1 and types[1].dtype:
        axes = _ints(constants[1])
        if axes is None:
            length = types[1].shape[0] if types[1].shape else None
            if keep:
                return [TensorType(types[0].dtype, (None,) * len(shape))]
            return [TensorType(types[0].dtype, (None,) * (len(shape) - length) if isinstance(length, int) and length else None)]
    else:
        axes = []
    if not axes:
        axes = [] if attributes.get("noop_with_empty_axes") else list(range(len(shape)))
    gone = {a % len(shape) for a in axes} if shape else set()
    kept = tuple(1 if k in gone else d for k, d in enumerate(shape) if keep or k not in gone)
    return [TensorType(types[0].dtype, kept)]


def _shape_of(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    rank = len(_shape(types[0])[attributes.get("start", 0) : attributes.get("end")])
    return [TensorType(INT64, (rank,))]


def _unsqueeze(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    axes = _ints(constants[1])
    shape: list[Dim] = list(_shape(types[0]))
    if axes is None:
        return _of_unknown_lengths(types, 1)
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return [TensorType(types[0].dtype, tuple(shape))]


def _of_unknown_lengths(types: Sequence[TensorType], sign: int) -> list[TensorType] | None:
    """The rank alone, where axes that are known only at run time come in or go."""
    count = _shape(types[1])[0] if _shape(types[1]) else None
    return [TensorType(types[0].dtype, (None,) * (len(_shape(types[0])) + sign * count))] if isinstance(count, int) else None


def _squeeze(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    axes = _ints(constants[1]) if len(constants) > 1 else None
    if axes is None:
        return _of_unknown_lengths(types, -1) if len(types) > 1 and types[1].dtype else None
    shape = _shape(types[0])
    gone = {a % len(shape) for a in axes}
    return [TensorType(types[0].dtype, tuple(d for k, d in enumerate(shape) if k not in gone))]


def _concat(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shapes = [_shape(t) for t in types]
    axis = int(attributes["axis"]) % len(shapes[0])
    along = [s[axis] for s in shapes]
    dims: list[Dim] = []
    for k in range(len(shapes[0])):
        if k == axis:
            dims.append(total(along))
        else:
            dims.append(next((s[k] for s in shapes if isinstance(s[k], int)), shapes[0][k]))
    return [TensorType(types[0].dtype, tuple(dims))]


def _gather(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    data, indices = _shape(types[0]), _shape(types[1])
    axis = int(attributes.get("axis", 0)) % len(data)
    return [TensorType(types[0].dtype, (*data[:axis], *indices, *data[axis + 1 :]))]


def _slice(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    shape: list[Dim] = list(_shape(types[0]))
    starts, ends = _sizes(constants[1]), _sizes(constants[2])
    count = len(starts or ends or range(types[1].shape[0] if types[1].shape and isinstance(types[1].shape[0], int) else len(shape)))
    axes = _ints(constants[3]) if len(types) > 3 and types[3].dtype else list(range(count))
    steps = _ints(constants[4]) if len(types) > 4 and types[4].dtype else [1] * count
    if axes is None:
        return [TensorType(types[0].dtype, (None,) * len(shape))]
    for k, axis in enumerate(axes):
        shape[axis] = None if starts is None or ends is None or steps is None else _sliced(shape[axis], starts[k], ends[k], steps[k])
    return [TensorType(types[0].dtype, tuple(shape))]


def _sliced(dim: Dim, start: Size | None, end: Size | None, step: int) -> Dim:
    size = size_of(dim)
    if start == 0 and end == size and end is not None and step == 1:
        return dim
    if not isinstance(start, int) or end is None or size is None:
        return None
    if isinstance(end, Expression):
        if start >= 0 and step == 1 and at_least_zero(end):
            return dim_of(less_but_not_below_zero(end if at_least_zero(size - end) else smaller(size, end), start))
        # [0:N - 1] of N: for a difference of 1 or 2 the wrap of a negative end changes nothing.
        short = size - end if start == 0 and step == 1 else None
        return dim_of(less_but_not_below_zero(size, short)) if short in (1, 2) and isinstance(short, int) else None
    if isinstance(size, int):
        return len(range(*slice(start, end if end > -(2**31) or step > 0 else None, step).indices(size)))
    if step == -1 and start == -1 and end < -(2**31):
        return dim
    if step != 1:
        return None
    if start >= 0 and end >= 2**31 - 1:
        return dim_of(less_but_not_below_zero(size, start))
    if start == 0:
        return dim_of(smaller(size, end) if end >= 0 else less_but_not_below_zero(size, -end))
    return dim_of(smaller(size, -start)) if start < 0 and end >= 2**31 - 1 else None


def _gather_nd(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    data, indices = _shape(types[0]), _shape(types[1])
    if not isinstance(indices[-1], int):
        return None
    return [TensorType(types[0].dtype, (*indices[:-1], *data[attributes.get("batch_dims", 0) + indices[-1] :]))]


def _indexed_like_indices(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(types[0].dtype, types[1].shape)]


def _pad(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape: list[Dim] = list(_shape(types[0]))
    pads = _sizes(constants[1])
    axes: list[int] | None = list(range(len(shape)))
    if len(types) > 3 and types[3].dtype:
        axes = _ints(constants[3])
    if axes is None or pads is None:
        return [TensorType(types[0].dtype, (None,) * len(shape))]
    for k, axis in enumerate(axes):
        shape[axis] = total([shape[axis], dim_of(pads[k]), dim_of(pads[len(axes) + k])])
    return [TensorType(types[0].dtype, tuple(shape))]


def _tile(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    repeats = _sizes(constants[1])
    if repeats is None:
        return [TensorType(types[0].dtype, (None,) * len(_shape(types[0])))]
    return [TensorType(types[0].dtype, tuple(product([d, dim_of(r)]) for d, r in zip(_shape(types[0]), repeats, strict=True)))]


def _constant_of_shape(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    value = attributes.get("value")
    dtype = 1 if value is None else constant_type(value).dtype
    target, length = _sizes(constants[0]), _shape(types[0])[0]
    if target is not None:
        return [TensorType(dtype, tuple(dim_of(d) for d in target))]
    return [TensorType(dtype, (None,) * length if isinstance(length, int) else None)]


def _range(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    ends: list[Any] = [None if c is None else c.reshape(-1)[0] for c in constants]
    start, limit, delta = ends
    if all(isinstance(v, (int, float, np.number)) for v in ends):
        return [TensorType(types[0].dtype, (max(int(np.ceil((limit - start) / delta)), 0),))] if delta else None
    exact = delta == 1 and all(isinstance(v, Expression) or is_integer(v) for v in (start, limit))
    length: Size | None = limit - start if exact else None
    return [TensorType(types[0].dtype, (dim_of(length) if length is not None and at_least_zero(length) else None,))]


def _split(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    parts: list[Any] | None = _ints(constants[1]) if len(constants) > 1 else None
    if parts is None:
        count = _shape(types[1])[0] if len(types) > 1 and types[1].dtype else None
        parts = [None] * count if isinstance(count, int) else None
    if parts is None:
        return None
    shape, axis = _shape(types[0]), int(attributes.get("axis", 0)) % len(_shape(types[0]))
    return [TensorType(types[0].dtype, (*shape[:axis], part, *shape[axis + 1 :])) for part in parts]


def _center_crop_pad(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape, target = list(_shape(types[0])), _ints(constants[1])
    for k, axis in enumerate(attributes.get("axes") or range(len(shape))):
        shape[axis] = None if target is None else target[k]
    return [TensorType(types[0].dtype, tuple(shape))]


def _flatten(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape, axis = _shape(types[0]), int(attributes.get("axis", 1))
    axis += len(shape) if axis < 0 else 0
    return [TensorType(types[0].dtype, (product(shape[:axis]), product(shape[axis:])))]


def _windows(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    """Convolutions and pools; those over static shapes are left to ONNX, whose word on rounding counts."""
    x = _shape(types[0])
    spatial, convolution = x[2:], len(types) > 1
    kernel: list[Any] = list(_shape(types[1])[2:]) if convolution else list(attributes["kernel_shape"])
    if all(isinstance(d, int) for d in spatial) or not all(isinstance(k, int) for k in kernel):
        return None
    rank, mode = len(spatial), attributes.get("auto_pad", "NOTSET")
    strides, dilations = attributes.get("strides") or [1] * rank, attributes.get("dilations") or [1] * rank
    pads = (attributes.get("pads") or [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
    dims: list[Dim] = []
    for k, dim in enumerate(spatial):
        size = size_of(dim)
        if size is None:
            dims.append(None)
        elif mode.startswith("SAME"):
            dims.append(dim_of(quotient(size + (strides[k] - 1), strides[k])))
        elif attributes.get("ceil_mode"):
            dims.append(dim_of(named(f"pooled {kernel[k]} {dilations[k]} {strides[k]} {pads[k]} {pads[rank + k]}", size)))
        else:
            extent = (kernel[k] - 1) * dilations[k] + 1
            # floor((size + pads - extent) / stride) + 1
            dims.append(dim_of(quotient(size + (pads[k] + pads[rank + k] - extent + strides[k]), strides[k])))
    channels = _shape(types[1])[0] if convolution else x[1]
    result = TensorType(INT32 if types[0].dtype in (UINT8, INT8) and convolution else types[0].dtype, (x[0], channels, *dims))
    return [result, replace(result, dtype=INT64)][: 1 if convolution else 2]


def _transposed_windows(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    x, w = _shape(types[0]), _shape(types[1])
    rank, kernel = len(x) - 2, w[2:]
    if all(isinstance(d, int) for d in x[2:]) or attributes.get("output_shape") or attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    strides, dilations = attributes.get("strides") or [1] * rank, attributes.get("dilations") or [1] * rank
    pads, more = attributes.get("pads") or [0] * 2 * rank, attributes.get("output_padding") or [0] * rank
    dims: list[Dim] = []
    for k, dim in enumerate(x[2:]):
        size, window = size_of(dim), kernel[k]
        if size is None or not isinstance(window, int):
            return None
        # (size - 1) * stride + extent - pads
        dims.append(dim_of(size * strides[k] - strides[k] + (window - 1) * dilations[k] + 1 + more[k] - pads[k] - pads[rank + k]))
    return [TensorType(types[0].dtype, (x[0], product([w[1], attributes.get("group", 1)]), *dims))]


def _unpooled(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    if len(types) < 3 or not types[2].dtype:
        return None
    sizes = _sizes(constants[2])
    return [TensorType(types[0].dtype, (None,) * len(_shape(types[0])) if sizes is None else tuple(dim_of(d) for d in sizes))]


def _stft(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    signal, step = _shape(types[0]), _ints(constants[1])
    window = _shape(types[2])[0] if len(types) > 2 and types[2].dtype else None
    length = _ints(constants[3]) if len(constants) > 3 else None
    frame = length[0] if length else window
    if not isinstance(frame, int) or not step:
        return [TensorType(types[0].dtype, (signal[0], None, None, 2))]
    size = size_of(signal[1])
    frames = None if size is None else dim_of(quotient(size - frame + step[0], step[0]))
    return [TensorType(types[0].dtype, (signal[0], frames, frame // 2 + 1 if attributes.get("onesided", 1) else frame, 2))]


def _rows(count: Callable[[dict[str, Any]], Dim]) -> ShapeFormula:
    """Outputs of ai.onnx.ml's predictors: a row a sample, as float32."""

    def formula(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
        shape = _shape(types[0])
        return [TensorType(FLOAT, (shape[0] if len(shape) > 1 else 1, count(attributes)))]

    return formula


def _classes(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape = _shape(types[0])
    samples = shape[0] if len(shape) > 1 else 1
    names: list[Any] = next((attributes[k] for k in ("classlabels_strings", "classlabels_int64s", "classlabels_ints") if attributes.get(k)), [])
    label = STRING if attributes.get("classlabels_strings") else INT64
    return [TensorType(label, (samples,)), TensorType(FLOAT, (samples, len(names) if len(names) > 1 else None))]


def _as_float(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [replace(types[0], dtype=FLOAT)]


def _resize(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    shape: list[Dim] = list(_shape(types[0]))
    axes = [a % len(shape) for a in attributes.get("axes") or range(len(shape))]
    sizes = _sizes(constants[3]) if len(constants) > 3 and types[3].dtype else None
    if sizes is not None and attributes.get("keep_aspect_ratio_policy", "stretch") == "stretch":
        for axis, wanted in zip(axes, sizes, strict=True):
            shape[axis] = dim_of(wanted)
        return [TensorType(types[0].dtype, tuple(shape))]
    scales = constants[2] if len(constants) > 2 and types[2].dtype else None
    if any(t.dtype and c is None for t, c in zip(types[2:], constants[2:], strict=True)):
        return [TensorType(types[0].dtype, tuple(None if k in axes else d for k, d in enumerate(shape)))]
    if scales is None or scales.dtype == object or not scales.size or all(isinstance(d, int) for d in shape):
        return None
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    for axis, scale in zip(axes, scales, strict=True):
        size = size_of(shape[axis])
        shape[axis] = None if size is None else dim_of(scaled(size, float(scale)))
    return [TensorType(types[0].dtype, tuple(shape))]


def _blocks(sign: int) -> ShapeFormula:
    def formula(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
        shape, block = _shape(types[0]), int(attributes["blocksize"])
        c, h, w = (size_of(d) for d in shape[1:])
        if c is None or h is None or w is None:
            return None
        if sign > 0:
            return [TensorType(types[0].dtype, (shape[0], dim_of(quotient(c, block * block)), dim_of(h * block), dim_of(w * block)))]
        return [TensorType(types[0].dtype, (shape[0], dim_of(c * (block * block)), dim_of(quotient(h, block)), dim_of(quotient(w, block))))]

    return formula


def _layer_normalization(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape = _shape(types[0])
    axis = int(attributes.get("axis", -1)) % max(len(shape), 1)
    statistic = TensorType(int(attributes.get("stash_type", 1)), tuple(1 if k >= axis else d for k, d in enumerate(shape)))
    return [types[0], statistic, statistic]


def _causal_convolution(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    width = _shape(types[1])[2]
    return [types[0], TensorType(types[0].dtype, (*_shape(types[0])[:2], width - 1 if isinstance(width, int) else None))]


def _batch_normalization(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [types[0], types[3], types[4]]


FORMULAS: dict[str, ShapeFormula] = {
    **dict.fromkeys(
        ["Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos", "Cosh", "CumSum", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsFinite", "LeakyRelu", "GroupNormalization", "Hardmax", "InstanceNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization", "RMSNormalization", "Log", "LogSoftmax", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "ScatterElements", "ScatterND", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Trilu"],
        _like_first,
    ),
    **dict.fromkeys(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Mod", "And", "Or", "Xor", "PRelu", "BitwiseAnd", "BitwiseOr"], _elementwise),
    **dict.fromkeys(["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"], _comparison),
    "IsNaN": _comparison,
    "IsInf": _comparison,
    "Where": _where,
    "Cast": _cast,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Expand": _expand,
    **dict.fromkeys(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"], _reduce),
    "Shape": _shape_of,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _indexed_like_indices,
    "GatherND": _gather_nd,
    "Slice": _slice,
    "Pad": _pad,
    "LayerNormalization": _layer_normalization,
    "CausalConvWithState": _causal_convolution,
    "BatchNormalization": _batch_normalization,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Split": _split,
    "Flatten": _flatten,
    "CenterCropPad": _center_crop_pad,
    **dict.fromkeys(("Conv", "ConvInteger", "AveragePool", "LpPool", "MaxPool"), _windows),
    "ConvTranspose": _transposed_windows,
    "MaxUnpool": _unpooled,
    "STFT": _stft,
    "Resize": _resize,
    "DepthToSpace": _blocks(1),
    "SpaceToDepth": _blocks(-1),
}


# Those of ai.onnx.ml, whose inference in ONNX says little.
LEARNED: dict[str, ShapeFormula] = {
    "Imputer": _like_first,
    "Normalizer": _as_float,
    "Scaler": _as_float,
    "LinearClassifier": _classes,
    "LinearRegressor": _rows(lambda a: int(a.get("targets", 1))),
    "SVMClassifier": _classes,
    "SVMRegressor": _rows(lambda a: 1),
    "TreeEnsembleClassifier": _classes,
    "TreeEnsembleRegressor": _rows(lambda a: a.get("n_targets")),
}


def known(shape: Shape | None) -> bool:
    """Whether every dimension is a number."""
    return shape is not None and all(isinstance(d, int) for d in shape)
