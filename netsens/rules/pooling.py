"""Pools over windows and over whole images, and MaxUnpool."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from netsens.graph.dtypes import DOUBLE, FLOATS, INT64
from netsens.graph.emit import Builder, Value
from netsens.rules.convolution import convolved_back
from netsens.rules.phases import summed_by_phases
from netsens.rules.placement import added_at
from netsens.rules.windows import Windows, layout, places, summed_back, taps
from netsens.rules.words import NodeView, jvp, linear, vjp

MANY = 32  # comparisons from which maxima are better found by index


# The maximum of each window ------------------------------------------------------------------------------------------------


def _own_maxima(n: NodeView) -> Value | None:
    """Where in the whole input each maximum is, row by row, if the node says so itself."""
    return n.outputs[1] if len(n.outputs) > 1 and not n["storage_order"] else None


def _first_maxima(op: Builder, n: NodeView) -> Value:
    """Where in the whole input each maximum is, row by row; the first where several are equal."""
    own = _own_maxima(n)
    if own is not None:
        return own
    attributes = {k: v for k, v in n.node.attributes.items() if k != "storage_order"}
    found: Value = op.MaxPool(n.x, outputs=2, **attributes)[1]
    return found


def _picked(op: Builder, t: Value, flat: Value, like: Value) -> Value:
    """The elements of `t` at places of the flattened whole."""
    return op.reshape_like(op.GatherElements(op.Reshape(t, [-1]), op.Reshape(flat, [-1]), axis=0), like)


@jvp("MaxPool")
def max_pool(op: Builder, n: NodeView, t: Value) -> Value:
    return _picked(op, t, _first_maxima(op, _in_floats(op, n)), n.y)


def _in_floats(op: Builder, n: NodeView) -> NodeView:
    """The node over quantised integers as one over floats, which hold them exactly."""
    if n.x.dtype in FLOATS:
        return n
    dtype = op.derivative_dtype(n.x)
    return replace(n, inputs=(op.Cast(n.x, to=dtype),), outputs=(op.Cast(n.y, to=dtype), *n.outputs[1:]))


@vjp("MaxPool")
def max_pool_reverse(op: Builder, n: NodeView, g: Value | None, indices: Value | None = None) -> Value | None:
    """Back to the first maximum of each window, found by comparing each position of the window with the maximum. Measured on 1x64x112x112 this is 2 to 3 times as fast as
    MaxPool with Indices and a scatter, most of whose time is the Indices; where the model computes those itself, the scatter wins."""
    if g is None:
        return None
    before = op.producer(n.x)
    n = _in_floats(op, n)
    spread = layout(op, n, n["kernel_shape"], -np.inf)
    sized = all(isinstance(d, int) for d in (*n.x.shape[2:], *n.y.shape[2:]))
    summable = sized or n.x.dtype != DOUBLE  # onnxruntime's Col2Im, which sums where sizes are unknown, knows float32 alone
    if _own_maxima(n) is not None or _comparisons(spread.windows) > MANY or not summable:
        flat = op.Reshape(_first_maxima(op, n), [-1])
        zeros = op.Expand(op.constant(0.0, g), op.ReduceProd(op.shape(n.x)))
        return op.reshape_like(added_at(op, zeros, flat, op.Reshape(g, [-1]), 0), n.x)
    # A Relu gives back only where it is positive, as a maximum is or isn't where it came from: there are fewer maxima to ask.
    rectified = before is not None and before.op == "Relu" and not before.domain
    back = spread.cropped(_back_to_maxima(op, spread.x, n.y, op.Where(n.y > 0.0, g, 0.0) if rectified else g, spread.windows))
    if rectified:
        op.derivative.rectified[back.name] = n.x.name
    return back


def _along(windows: Windows, axes: Collection[int]) -> Windows:
    """Windows as wide as these along some axes, and of one position along the others."""

    def chosen(values: Sequence[int], other: int) -> tuple[int, ...]:
        return tuple(v if k in axes else other for k, v in enumerate(values))

    return Windows(
        chosen(windows.kernel, 1), chosen(windows.strides, 1), chosen(windows.dilations, 1), chosen(windows.begins, 0), chosen(windows.ends, 0), windows.ceil
    )  # fmt: skip


def _comparisons(windows: Windows) -> int:
    """How many comparisons find the maxima, each of as many numbers as there are windows; a maximum found nowhere else is at the last position."""
    steps = _steps(windows)
    return windows.count - 1 if steps is None else _compared_by_axes(*steps)


def _compared_by_axes(last: Windows, others: Windows) -> int:
    return (last.count - 1) * prod(others.strides) + _comparisons(others)


def _steps(windows: Windows) -> tuple[Windows, Windows] | None:
    """The windows along the last axis and along the others, where the maxima of the others' maxima take fewer comparisons, or where only one axis can be summed along."""
    axes = windows.axes
    if len(axes) < 2:
        return None
    last, others = _along(windows, axes[-1:]), _along(windows, axes[:-1])
    one_by_one = len(windows.kernel) > 2 and set(windows.dilations) != {1}
    return (last, others) if one_by_one or _compared_by_axes(last, others) < windows.count - 1 else None


def _back_to_maxima(op: Builder, x: Value, y: Value, g: Value, windows: Windows) -> Value:
    """g at the first maximum of each window, row by row: along the other axes to the maxima along the last, where fewer comparisons do (3x3 windows in steps of 2, in
    blocks of channels 1x96x111x111: 3.5 ms to 2.3), from these to x."""
    steps = _steps(windows)
    if steps is not None:
        last, others = steps
        maxima = op.MaxPool(x, **last.attributes(), ceil_mode=int(windows.ceil))
        return _back_to_maxima(op, x, maxima, _back_to_maxima(op, maxima, y, g, others), last)
    *ahead, _ = taps(op, x, windows, places(op, y), -np.inf)
    parts: list[Value] = []
    for seen in ahead:
        parts.append(op.Cast(op.Equal(seen, y), to=g.dtype) * g)
        g = g - parts[-1]
    return _returned(op, [*parts, g], windows, x, y)


def _returned(op: Builder, parts: Sequence[Value], windows: Windows, like: Value, y: Value) -> Value:
    """What each position of each window gets, put back where the windows saw it."""
    outs = places(op, y)
    by_phases = summed_by_phases(op, parts, windows, like, outs)
    return summed_back(op, parts, windows, like, outs) if by_phases is None else by_phases


def _fitted(op: Builder, value: Value, like: Value) -> Value:
    """Cut, or filled with zeros, at the end of its spatial axes; both of known size."""
    pairs = [(h, w) for h, w in zip(value.shape[2:], like.shape[2:], strict=True) if isinstance(h, int) and isinstance(w, int)]
    axes = list(range(2, value.rank))
    if any(have > want for have, want in pairs):
        value = op.Slice(value, [0] * len(axes), [want for _, want in pairs], axes)
    missing = [max(want - have, 0) for have, want in pairs]
    if any(missing):
        value = op.Pad(value, [0, 0, *([0] * len(axes)), 0, 0, *missing])
    return op.retyped(value, like.shape)


@jvp("GlobalMaxPool")
def global_max_pool(op: Builder, n: NodeView, t: Value) -> Value:
    first = op.ArgMax(op.Reshape(n.x, [0, 0, -1]), axis=2)
    return op.reshape_like(op.GatherElements(op.Reshape(t, [0, 0, -1]), first, axis=2), n.y)


# Averages --------------------------------------------------------------------------------------------------------------------


def _counts(op: Builder, windows: Windows, x: Value, y: Value, padding: bool) -> Value | float:
    """How many positions each window averages over, those in the padding included if `padding`: a number, or a value that broadcasts with y."""
    if not windows.ceil and (padding or not any(windows.pads)):
        return windows.count
    factors: list[Value] = []
    rank = len(windows.kernel)
    lengths = zip(places(op, x), places(op, y), strict=True)
    for k, (size, out) in enumerate(lengths):
        first = -windows.begins[k] if padding else 0
        steps = np.arange(windows.kernel[k]) * windows.dilations[k] - windows.begins[k]
        beyond = windows.ends[k] if padding else 0
        trailing = [1] * (rank - 1 - k)
        if isinstance(size, int) and isinstance(out, int):
            seen = np.arange(out)[:, None] * windows.strides[k] + steps
            inside = ((seen >= first) & (seen < size + beyond)).sum(1)
            factors.append(op.constant(inside.reshape(-1, *trailing), y))
            continue
        numbers = op.Range(op.constant(np.asarray(0, np.int64)), op.Squeeze(out, [0]) if isinstance(out, Value) else op.constant(np.asarray(out, np.int64)),
                           op.constant(np.asarray(1, np.int64)))  # fmt: skip
        at = op.Unsqueeze(numbers, [1]) * windows.strides[k] + op.constant(steps)
        inside_of = op.And(op.GreaterOrEqual(at, first), op.Less(at, size + beyond))
        sums = op.ReduceSum(op.Cast(inside_of, to=INT64), [1], keepdims=0)
        factors.append(op.Cast(op.Reshape(sums, [-1, *trailing]), to=y.dtype))
    total = factors[0]
    for factor in factors[1:]:
        total = total * factor
    constant = total.constant
    if constant is not None and constant.size and (constant == constant.flat[0]).all():
        return float(constant.flat[0])
    return total


def _shared_out(op: Builder, g: Value, windows: Windows, x: Value) -> Value:
    """Each value of g at every position its window sees, summed where windows overlap."""
    if set(windows.strides) == set(windows.dilations) == {1}:
        # 3 times as fast as the ConvTranspose below.
        begins = [k - 1 - b for k, b in zip(windows.kernel, windows.begins, strict=True)]
        ends = [k - 1 - e for k, e in zip(windows.kernel, windows.ends, strict=True)]
        mean = op.AveragePool(g, kernel_shape=list(windows.kernel), pads=[*begins, *ends], count_include_pad=1)
        return op.retyped(mean * float(windows.count), x.shape)
    known = all(isinstance(d, int) for d in (*x.shape[2:], *g.shape[2:]))
    if known and windows.kernel == windows.strides and set(windows.dilations) == {1} and not any(windows.begins):
        # 2.5 times as fast again.
        scales = op.constant(np.asarray([1, 1, *windows.strides], np.float32))
        return _fitted(op, op.Resize(g, None, scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"), x)
    # A convolution of each image with ones, backwards: [N, C, ..] -> [N * C, 1, ..]
    ones = op.constant(np.ones((1, 1, *windows.kernel)), g)
    images = op.Reshape(g, op.vector([-1, 1, *places(op, g)]))
    exact = windows
    if known and windows.ceil:
        # The last window may reach further than the padding that the node asks for, or end before the image does.
        lengths = zip(x.shape[2:], g.shape[2:], windows.begins, strict=True)
        exact = replace(windows, ends=tuple(max(windows.reach(k, int(o)) - int(s) - b, 0) for k, (s, o, b) in enumerate(lengths)))  # type: ignore[arg-type]
    return op.reshape_like(convolved_back(op, images, ones, exact, places(op, x), 1), x)


def _average_back(op: Builder, n: NodeView, g: Value) -> Value:
    spread = layout(op, n, n["kernel_shape"])
    padding = bool(n["count_include_pad"])
    if spread.padded and not padding:
        # How much of each window lies in the image: the mean of ones, with zeros around them.
        ones = op.Expand(op.constant(1.0, g), op.vector([1, 1, *places(op, n.x)]))
        share = g / (op.AveragePool(ones, **{**n.node.attributes, "count_include_pad": 1}) * float(spread.windows.count))
    else:
        share = g / _counts(op, spread.windows, spread.x, n.y, padding)
    return spread.cropped(_shared_out(op, share, spread.windows, spread.x))


linear("AveragePool", _average_back)
linear("GlobalAveragePool", lambda op, n, g: op.expand_like(g / op.count(n.x, range(2, n.x.rank), g), n.x))


# Norms -----------------------------------------------------------------------------------------------------------------------


def _slope(op: Builder, x: Value, p: int) -> Value:
    """The derivative of |x|^p / p."""
    if p == 1:
        return op.Sign(x)
    return x if p == 2 else x * op.Pow(op.Abs(x), float(p - 2))


def _divided(op: Builder, total: Value, y: Value, p: int) -> Value:
    """By y^(p - 1); 0 where the norm is 0."""
    if p == 1:
        return total
    return total / op.Pow(op.Where(op.Equal(y, 0.0), 1.0, y), float(p - 1))


@jvp("LpPool")
def norm_pool(op: Builder, n: NodeView, t: Value) -> Value:
    p, kernel = int(n["p"]), list(n["kernel_shape"])
    spread = layout(op, n, kernel)
    attributes = {k: v for k, v in n.node.attributes.items() if k != "p"}
    mean = op.AveragePool(t * _slope(op, n.x, p), **{**attributes, "count_include_pad": 1})
    return _divided(op, mean * _counts(op, spread.windows, spread.x, n.y, True), n.y, p)


@jvp("GlobalLpPool")
def global_norm_pool(op: Builder, n: NodeView, t: Value) -> Value:
    p = int(n["p"])
    return _divided(op, op.ReduceSum(t * _slope(op, n.x, p), list(range(2, n.x.rank))), n.y, p)


# The inverse of a maximum's choice ---------------------------------------------------------------------------------------------


def _unpooled(op: Builder, n: NodeView, g: Value) -> Value:
    indices = n.inputs[1]
    assert indices is not None
    picked = _picked(op, g, indices, n.x)
    if _are_distinct(op, indices):
        return picked
    # Of two values that meet in one place the later one stays: a value counts if its own number comes back from where it was put.
    start, step = op.constant(np.asarray(0, np.int64)), op.constant(np.asarray(1, np.int64))
    count = op.ReduceProd(op.shape(n.x), keepdims=0)
    numbers = op.Reshape(op.Cast(op.Mod(op.Range(start, count, step), 1 << 23) + 1, to=g.dtype), op.shape(n.x))
    written = op.emit("MaxUnpool", [numbers, *n.inputs[1:]], dict(n.node.attributes))
    return picked * op.Cast(op.Equal(_picked(op, written, indices, n.x), numbers), to=g.dtype)


def _are_distinct(op: Builder, indices: Value) -> bool:
    """Whether they are those of a MaxPool whose windows don't overlap."""
    node = op.producer(indices)
    if node is None or node.op != "MaxPool" or node.domain:
        return False
    kernel: list[int] = list(node.attributes["kernel_shape"])
    strides = node.attributes.get("strides") or [1] * len(kernel)
    return not node.attributes.get("dilations") and all(k <= s for k, s in zip(kernel, strides, strict=True))


linear("MaxUnpool", _unpooled)
