"""Types of operators that rearrange, pick, join, pad, repeat or resize what they read, and of those that make shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from netsens.graph.dtypes import INT64
from netsens.graph.graph import Array, Dim, Shape, TensorType
from netsens.graph.shapes import ShapeFormula, broadcast, constant_type, shape_of, sizes_of, whole_numbers
from netsens.graph.sizes import Expression, Size, at_least_zero, dim_of, is_integer, less_but_not_below_zero, product, quotient, scaled, size_of, smaller, total


def _transpose(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape = shape_of(types[0])
    perm = attributes.get("perm") or range(len(shape))[::-1]
    return [TensorType(types[0].dtype, tuple(shape[p] for p in perm))]


def _reshape(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    target = sizes_of(constants[1])
    if target is None:
        length = shape_of(types[1])[0]
        return [TensorType(types[0].dtype, (None,) * length if isinstance(length, int) else None)]
    old = shape_of(types[0])
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
    target = sizes_of(constants[1])
    if target is None:
        length = shape_of(types[1])[0]
        rank = max(length, len(shape_of(types[0]))) if isinstance(length, int) else None
        return [TensorType(types[0].dtype, (None,) * rank if rank is not None else None)]
    return [TensorType(types[0].dtype, broadcast(shape_of(types[0]), tuple(dim_of(d) for d in target)))]


def _shape_vector(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    rank = len(shape_of(types[0])[attributes.get("start", 0) : attributes.get("end")])
    return [TensorType(INT64, (rank,))]


def _unsqueeze(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    axes = whole_numbers(constants[1])
    shape: list[Dim] = list(shape_of(types[0]))
    if axes is None:
        return _of_unknown_lengths(types, 1)
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return [TensorType(types[0].dtype, tuple(shape))]


def _of_unknown_lengths(types: Sequence[TensorType], sign: int) -> list[TensorType] | None:
    """The rank alone, where axes that are known only at run time come in or go."""
    count = shape_of(types[1])[0] if shape_of(types[1]) else None
    return [TensorType(types[0].dtype, (None,) * (len(shape_of(types[0])) + sign * count))] if isinstance(count, int) else None


def _squeeze(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    axes = whole_numbers(constants[1]) if len(constants) > 1 else None
    if axes is None:
        return _of_unknown_lengths(types, -1) if len(types) > 1 and types[1].dtype else None
    shape = shape_of(types[0])
    gone = {a % len(shape) for a in axes}
    return [TensorType(types[0].dtype, tuple(d for k, d in enumerate(shape) if k not in gone))]


def _concat(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shapes = [shape_of(t) for t in types]
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
    data, indices = shape_of(types[0]), shape_of(types[1])
    axis = int(attributes.get("axis", 0)) % len(data)
    return [TensorType(types[0].dtype, (*data[:axis], *indices, *data[axis + 1 :]))]


def _slice(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    shape: list[Dim] = list(shape_of(types[0]))
    starts, ends = sizes_of(constants[1]), sizes_of(constants[2])
    count = len(starts or ends or range(types[1].shape[0] if types[1].shape and isinstance(types[1].shape[0], int) else len(shape)))
    axes = whole_numbers(constants[3]) if len(types) > 3 and types[3].dtype else list(range(count))
    steps = whole_numbers(constants[4]) if len(types) > 4 and types[4].dtype else [1] * count
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
    data, indices = shape_of(types[0]), shape_of(types[1])
    if not isinstance(indices[-1], int):
        return None
    return [TensorType(types[0].dtype, (*indices[:-1], *data[attributes.get("batch_dims", 0) + indices[-1] :]))]


def _indexed_like_indices(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(types[0].dtype, types[1].shape)]


def _pad(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape: list[Dim] = list(shape_of(types[0]))
    pads = sizes_of(constants[1])
    axes: list[int] | None = list(range(len(shape)))
    if len(types) > 3 and types[3].dtype:
        axes = whole_numbers(constants[3])
    if axes is None or pads is None:
        return [TensorType(types[0].dtype, (None,) * len(shape))]
    for k, axis in enumerate(axes):
        shape[axis] = total([shape[axis], dim_of(pads[k]), dim_of(pads[len(axes) + k])])
    return [TensorType(types[0].dtype, tuple(shape))]


def _tile(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    repeats = sizes_of(constants[1])
    if repeats is None:
        return [TensorType(types[0].dtype, (None,) * len(shape_of(types[0])))]
    return [TensorType(types[0].dtype, tuple(product([d, dim_of(r)]) for d, r in zip(shape_of(types[0]), repeats, strict=True)))]


def _constant_of_shape(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    value = attributes.get("value")
    dtype = 1 if value is None else constant_type(value).dtype
    target, length = sizes_of(constants[0]), shape_of(types[0])[0]
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
    parts: list[Any] | None = whole_numbers(constants[1]) if len(constants) > 1 else None
    if parts is None:
        count = shape_of(types[1])[0] if len(types) > 1 and types[1].dtype else None
        parts = [None] * count if isinstance(count, int) else None
    if parts is None:
        return None
    shape, axis = shape_of(types[0]), int(attributes.get("axis", 0)) % len(shape_of(types[0]))
    return [TensorType(types[0].dtype, (*shape[:axis], part, *shape[axis + 1 :])) for part in parts]


def _center_crop_pad(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape, target = list(shape_of(types[0])), whole_numbers(constants[1])
    for k, axis in enumerate(attributes.get("axes") or range(len(shape))):
        shape[axis] = None if target is None else target[k]
    return [TensorType(types[0].dtype, tuple(shape))]


def _flatten(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape, axis = shape_of(types[0]), int(attributes.get("axis", 1))
    axis += len(shape) if axis < 0 else 0
    return [TensorType(types[0].dtype, (product(shape[:axis]), product(shape[axis:])))]


def _resize(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    shape: list[Dim] = list(shape_of(types[0]))
    axes = [a % len(shape) for a in attributes.get("axes") or range(len(shape))]
    sizes = sizes_of(constants[3]) if len(constants) > 3 and types[3].dtype else None
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
        shape, block = shape_of(types[0]), int(attributes["blocksize"])
        c, h, w = (size_of(d) for d in shape[1:])
        if c is None or h is None or w is None:
            return None
        if sign > 0:
            return [TensorType(types[0].dtype, (shape[0], dim_of(quotient(c, block * block)), dim_of(h * block), dim_of(w * block)))]
        return [TensorType(types[0].dtype, (shape[0], dim_of(c * (block * block)), dim_of(quotient(h, block)), dim_of(quotient(w, block))))]

    return formula


FORMULAS: dict[str, ShapeFormula] = {
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Expand": _expand,
    "Shape": _shape_vector,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _indexed_like_indices,
    "GatherND": _gather_nd,
    "Slice": _slice,
    "Pad": _pad,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Split": _split,
    "Flatten": _flatten,
    "CenterCropPad": _center_crop_pad,
    "Resize": _resize,
    "DepthToSpace": _blocks(1),
    "SpaceToDepth": _blocks(-1),
}
