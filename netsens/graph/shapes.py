"""What the formulas of types share: broadcasting, contents as whole numbers or sizes, ONNX's codes of element types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from netsens.graph.graph import Array, Dim, Shape, TensorType
from netsens.graph.sizes import Expression, Size

ShapeFormula = Callable[[Sequence[TensorType], dict[str, Any], Sequence[Array | None]], list[TensorType] | None]


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


def known(shape: Shape | None) -> bool:
    """Whether every dimension is a number."""
    return shape is not None and all(isinstance(d, int) for d in shape)


def shape_of(t: TensorType) -> Shape:
    assert t.shape is not None
    return t.shape


def whole_numbers(content: Array | None) -> list[int] | None:
    """The numbers that a small tensor holds, if all of them are known."""
    return None if content is None or content.dtype == object else [int(v) for v in content.reshape(-1)]


def sizes_of(content: Array | None) -> list[Size | None] | None:
    """The same where some may be sizes that are known only by their symbols, or not known."""
    return None if content is None else [v if isinstance(v, Expression) or v is None else int(v) for v in content.reshape(-1)]


def constant_type(array: Array) -> TensorType:
    from onnx import helper

    return TensorType(helper.np_dtype_to_tensor_dtype(array.dtype) if array.dtype != object else 8, array.shape)


def same_shape(a: Shape | None, b: Shape | None) -> bool:
    """Whether two shapes are surely the same."""
    return a is not None and a == b and None not in a
