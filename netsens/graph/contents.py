"""What small integer tensors hold before anything runs: numbers, sizes (`N * T`), or None where nobody can tell. Shape arithmetic
(Shape, Gather, Concat, ...) is followed through them, so that a Reshape by it keeps its symbols.

An array of numbers has its own dtype; one that holds a size or a None is an array of objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netsens.graph.dtypes import BOOL, FLOATS, INT32, INT64, numpy_dtype
from netsens.graph.fold import FOLDS, fold
from netsens.graph.graph import Array, Node, TensorType
from netsens.graph.sizes import Expression, Size, at_least_zero, is_integer, larger, quotient, remainder, size_of, smaller

MOST = 1024  # elements of a content that is followed


def is_known(content: Array | None) -> bool:
    """Whether every element is a number."""
    return content is not None and content.dtype != object


def contents_of(node: Node, inputs: Sequence[Array | None], types: Sequence[TensorType], out: TensorType) -> Array | None:
    """What the node's first output holds, from what its inputs hold; `out` is the output's type."""
    if node.domain or out.container or not _is_small(out):
        return None
    if node.op in ("Shape", "Size"):
        result = _lengths(node, types[0])
    elif node.op == "ConstantOfShape":
        result = _filled(node, inputs[0])
    elif any(i is None for i, name in zip(inputs, node.inputs, strict=True) if name):
        return None
    elif all(i is None or i.dtype != object for i in inputs):
        return _computed(node, inputs, out)
    else:
        result = _symbolic(node, inputs, out)
    return None if result is None or result.size > MOST else _settled(result, out.dtype)


def _is_small(out: TensorType) -> bool:
    count = 1
    for dim in out.shape or ():
        if not isinstance(dim, int):
            return True  # its content may tell
        count *= dim
    return count <= MOST


def _settled(content: Array, dtype: int) -> Array | None:
    """Numbers in their own dtype where there are only such; None where nothing at all is known."""
    if content.dtype != object:
        return content
    flat = list(content.reshape(-1))
    if any(v is None or isinstance(v, Expression) for v in flat):
        return None if all(v is None for v in flat) else content
    if not dtype:
        return None
    return content.astype(numpy_dtype(dtype))


def _lengths(node: Node, x: TensorType) -> Array | None:
    if x.shape is None or x.container:
        return None
    sizes = [size_of(d) for d in x.shape]
    if node.op == "Size":
        total: Size = 1
        for size in sizes:
            if size is None:
                return None
            total = total * size
        return _objects(total)
    return _objects(sizes[node.attributes.get("start", 0) : node.attributes.get("end")])


def _objects(values: Any) -> Array:
    array = np.empty(len(values) if isinstance(values, list) else (), object)
    array[...] = values
    return array


def _filled(node: Node, shape: Array | None) -> Array | None:
    if shape is None or shape.dtype == object or int(np.prod(shape)) > MOST:
        return None
    value = node.attributes.get("value")
    return np.full([int(d) for d in shape], 0.0 if value is None else value.reshape(-1)[0], np.float32 if value is None else value.dtype)


def _computed(node: Node, inputs: Sequence[Array | None], out: TensorType) -> Array | None:
    """All inputs are numbers: NumPy computes."""
    if any(i is not None and i.dtype.kind not in "iubf" for i in inputs):
        return None
    if not inputs or not out.dtype:
        return None
    try:
        if node.op in NUMBERS:
            result = NUMBERS[node.op](node, *inputs)
        elif any(i is None for i in inputs):
            return None
        else:
            result = fold(node.op, [i for i in inputs if i is not None], dict(node.attributes))
    except (ValueError, IndexError, KeyError, TypeError, ArithmeticError):
        return None  # a node that cannot run: run time says so better
    if result is None or np.size(result) > MOST:
        return None
    return np.asarray(result).astype(numpy_dtype(out.dtype))


def _range(node: Node, start: Array, limit: Array, delta: Array) -> Array | None:
    if delta == 0 or abs((float(limit) - float(start)) / float(delta)) > MOST:
        return None
    return np.asarray(np.arange(start.item(), limit.item(), delta.item()))


def _cast(node: Node, x: Array) -> Array | None:
    if node.attributes["to"] == 8 or (x.dtype.kind == "f" and not np.isfinite(x).all()):
        return None
    return x.astype(numpy_dtype(int(node.attributes["to"])))


def _expand(node: Node, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(d) for d in shape)))


def _remainder(node: Node, a: Array, b: Array) -> Array | None:
    if (np.asarray(b) == 0).any():
        return None
    return np.fmod(a, b) if node.attributes.get("fmod") else np.mod(a, b)


NUMBERS: dict[str, Callable[..., Any]] = {
    "Abs": lambda n, x: np.abs(x),
    "Cast": _cast,
    "Ceil": lambda n, x: np.ceil(x),
    "Expand": _expand,
    "Floor": lambda n, x: np.floor(x),
    "GreaterOrEqual": lambda n, a, b: a >= b,
    "Identity": lambda n, x: x,
    "LessOrEqual": lambda n, a, b: a <= b,
    "Mod": _remainder,
    "NonZero": lambda n, x: np.stack(np.nonzero(np.atleast_1d(x))),
    "Pow": lambda n, a, b: np.sqrt(a) if b.size == 1 and b == 0.5 and a.dtype.kind == "f" and (a >= 0).all() else None,
    "Range": _range,
    "Sign": lambda n, x: np.sign(x),
    "Slice": lambda n, *inputs: FOLDS["Slice"](*inputs),
    "Tile": lambda n, x, repeats: np.tile(x, [int(r) for r in repeats]) if int(np.prod(repeats)) * x.size <= MOST else None,
}


# Where some elements are sizes, or nothing is known of them --------------------------------------------------------------


def _lifted(function: Callable[..., Any]) -> Callable[..., Array]:
    def known(*values: Any) -> Any:
        return None if any(v is None for v in values) else function(*(_plain(v) for v in values))

    def apply(node: Node, *arrays: Array) -> Array:
        return np.asarray(np.frompyfunc(known, len(arrays), 1)(*arrays), object)

    return apply


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's; a float that is whole as an integer, since sizes go through floats on their way to a Resize."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _divided(a: Any, b: Any) -> Any:
    if not isinstance(a, (int, Expression)) or not isinstance(b, (int, Expression)) or b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)
    return quotient(a, b) if at_least_zero(a) else None


def _divided_exactly(a: Any, b: Any) -> Any:
    """Division of floats: a size stays one only where it comes out whole."""
    if isinstance(b, Expression) or b == 0:
        return None
    if not isinstance(a, Expression):
        return a / b
    whole = quotient(a, b) if isinstance(b, int) and b > 0 else None
    return whole if whole is not None and whole * b == a else None


def _times(a: Any, b: Any) -> Any:
    if isinstance(a, float) or isinstance(b, float):
        return a * b if not isinstance(a, Expression) and not isinstance(b, Expression) else None
    return a * b


def _plus(a: Any, b: Any) -> Any:
    return None if any(isinstance(v, float) for v in (a, b)) and any(isinstance(v, Expression) for v in (a, b)) else a + b


def _equal(a: Any, b: Any) -> Any:
    if not isinstance(a, Expression) and not isinstance(b, Expression):
        return a == b
    if a == b:
        return True
    difference = _plus(a, -b)
    # A difference that is always above zero, or always below, is never zero.
    return False if difference is not None and (_above_zero(difference) or _above_zero(-difference)) else None


def _above_zero(size: Any) -> bool:
    return size > 0 if not isinstance(size, Expression) else at_least_zero(size - 1)


def _less(a: Any, b: Any) -> Any:
    difference = _plus(b, -a)
    if difference is None:
        return None
    if _above_zero(difference):
        return True
    return False if (at_least_zero(-difference) if isinstance(difference, Expression) else difference <= 0) else None


def _extreme(best: Callable[[Size, Size], Size]) -> Callable[..., Any]:
    def choose(*values: Any) -> Any:
        result = values[0]
        for value in values[1:]:
            if isinstance(result, float) or isinstance(value, float):
                return None
            result = best(result, value)
        return result

    return choose


def _where(node: Node, condition: Array, a: Array, b: Array) -> Array:
    def pick(c: Any, x: Any, y: Any) -> Any:
        return (x if x is not None and y is not None and _plain(x) == _plain(y) else None) if c is None else x if c else y

    return np.asarray(np.frompyfunc(pick, 3, 1)(condition, a, b), object)


def _product(node: Node, x: Array, axes: Array | None = None) -> Array | None:
    if x.ndim != 1:
        return None
    total: Any = 1
    for value in x:
        if value is None:
            return None
        total = _times(total, _plain(value))
    return _objects([total] if node.attributes.get("keepdims", 1) else total)


def _structural(node: Node, *inputs: Array) -> Array | None:
    """Elements only move: NumPy moves objects too. What says where to must be numbers."""
    return None if any(i.dtype == object for i in inputs[1:]) else np.asarray(FOLDS[node.op](*inputs, **node.attributes), object)


def _whole(node: Node, x: Array) -> Array:
    return _lifted(lambda v: v if isinstance(v, Expression) or is_integer(v) else int(np.floor(v) if node.op == "Floor" else np.ceil(v)))(node, x)


def _kept(node: Node, x: Array) -> Array | None:
    """A cast between numbers; sizes are whole and small enough for any of them."""
    if node.op == "Identity":
        return x
    to = int(node.attributes["to"])
    if to == BOOL:
        return _lifted(lambda v: True if _above_zero(v) else None)(node, x)
    if to in FLOATS:
        return x
    return _lifted(lambda v: v if isinstance(v, Expression) else int(v))(node, x) if to in (INT32, INT64) else None


SYMBOLIC: dict[str, Callable[..., Array | None]] = {
    "Add": _lifted(_plus),
    "And": _lifted(lambda a, b: bool(a and b)),
    "Cast": _kept,
    "Ceil": _whole,
    "Concat": lambda node, *arrays: np.concatenate([a.astype(object) for a in arrays], int(node.attributes["axis"])),
    "Div": _lifted(_divided),
    "Equal": _lifted(_equal),
    "Expand": lambda node, x, shape: None if shape.dtype == object else _expand(node, x, shape),
    "Floor": _whole,
    "Gather": _structural,
    "Greater": _lifted(lambda a, b: _less(b, a)),
    "Identity": _kept,
    "Less": _lifted(_less),
    "Max": _lifted(_extreme(larger)),
    "Min": _lifted(_extreme(smaller)),
    "Mod": _lifted(lambda a, b: remainder(a, b) if isinstance(b, int) and b > 0 and at_least_zero(a) else None),
    "Mul": _lifted(_times),
    "Neg": _lifted(lambda a: -a),
    "Not": _lifted(lambda a: not a),
    "Or": _lifted(lambda a, b: bool(a or b)),
    "ReduceProd": _product,
    "Reshape": _structural,
    "Slice": lambda node, *inputs: None if any(i is not None and i.dtype == object for i in inputs[1:]) else FOLDS["Slice"](*inputs),
    "Squeeze": _structural,
    "Sub": _lifted(lambda a, b: _plus(a, -b)),
    "Transpose": _structural,
    "Unsqueeze": _structural,
    "Where": _where,
}


def _symbolic(node: Node, inputs: Sequence[Array | None], out: TensorType) -> Array | None:
    function = SYMBOLIC.get(node.op)
    if node.op == "Div" and out.dtype in FLOATS:
        function = _lifted(_divided_exactly)
    if function is None or (node.op != "Slice" and any(i is None for i in inputs)):
        return None
    try:
        return function(node, *inputs)
    except (ValueError, IndexError, KeyError, TypeError, ArithmeticError):
        return None  # a node that cannot run: run time says so better
