"""Convolutions and their transposes, by input, weight and bias; Col2Im, which sums columns back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.blocked_layout import BLOCK, DEPTHWISE_WEIGHT
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Node, Shape
from netsens.rules.windows import Place, Windows, columns, kernel_of, layout, places, taps, taps_last
from netsens.rules.words import NodeView, bilinear, linear, view

# A weight's gradient is a product a position of the window. With MANY_CHANNELS positions are read from the input with its channels last, where what a window
# sees is whole runs of memory: measured from 1x32x128x128 to 8x512x7x7, 1.15 to 1.5 times as fast as with the channels second, whose every position needs a
# transpose; with FEW_PLACES one product over all positions is faster again (512 channels of 7x7: 2.8 ms to 3.3), since the products are larger than what goes
# into them. With fewer channels the positions are stacked, at most MOST_COLUMNS numbers. A 1x1 kernel is one product over the batch up to MANY_PLACES, one a
# sample above.
MANY_CHANNELS, FEW_PLACES, MANY_PLACES, MOST_COLUMNS = 32, 200, 400, 1 << 26
# A depthwise weight's products are summed position by position up to so many, twice as fast as columns for 7x7 (96 channels of 56x56: 7 ms to 18).
MANY_PRODUCTS = 64


def convolved_back(op: Builder, g: Value, weight: Value, windows: Windows, sizes: Sequence[Place], group: int) -> Value:
    """The transpose of a convolution whose weight is held: what each output hands back to the inputs it saw, of spatial `sizes`."""
    begins = [e - 1 - b for e, b in zip(windows.extents, windows.begins, strict=True)]
    ends = [e - 1 - b for e, b in zip(windows.extents, windows.ends, strict=True)]
    depthwise = weight.shape[1] == 1 and weight.shape[0] == group
    g, weight, fixed = _scaled_weight(op, g, weight)
    if set(windows.strides) == {1} and fixed and (group == 1 or depthwise) and min(*begins, *ends) >= 0:
        # A Conv with the kernel turned round, which onnxruntime does once: 1.15 times as fast as ConvTranspose, 3 times where depthwise. Turning a weight
        # that is no constant costs more than that, and with a stride ConvTranspose was 1.2 to 20 times as fast as a Conv between zeros.
        turned = weight if depthwise else op.Transpose(weight, perm=[1, 0, *range(2, weight.rank)])
        axes = [k + 2 for k, size in enumerate(windows.kernel) if size > 1]
        if axes:
            turned = op.Slice(turned, [-1] * len(axes), [-(2**62)] * len(axes), axes, [-1] * len(axes))
        return op.Conv(g, turned, group=group, dilations=list(windows.dilations), pads=[*begins, *ends])
    unseen: list[int] = []  # inputs at the end that no window reached, for want of a whole stride
    longer = False
    for k, (size, out, stride) in enumerate(zip(sizes, g.shape[2:], windows.strides, strict=True)):
        if isinstance(size, int) and isinstance(out, int):
            unseen.append(size + windows.begins[k] + windows.ends[k] - windows.reach(k, out))
        else:
            unseen.append(stride - 1)
            longer = longer or stride > 1
    x = op.ConvTranspose(g, weight, group=group, output_padding=unseen if any(unseen) else None, **windows.attributes(kernel=False))
    if longer:
        x = op.Slice(x, [0] * len(sizes), op.vector(sizes), list(range(2, 2 + len(sizes))))
    return x


def _scaled_weight(op: Builder, g: Value, weight: Value) -> tuple[Value, Value, bool]:
    """What stands for `g` and `weight` where g is a value times one constant a channel, as behind a batch normalisation: the weight takes the
    constants once, when the graph is opened, instead of every g at every run. And whether the weight is computed from constants alone."""
    fixed = weight.constant is not None
    scaled = _channel_factor(op, g) if fixed else None
    if scaled is not None and op.is_fixed(scaled[1]):
        return scaled[0], weight * op.Reshape(scaled[1], [-1, *([1] * (weight.rank - 1))]), fixed
    return g, weight, fixed


def channel_parts(op: Builder, g: Value, axis: int, shapes: Sequence[Shape | None]) -> list[Value] | None:
    """The parts of g along the channels, each of one of these shapes, as convolutions of their own, where g is what one Conv gives back: then nothing has to be split,
    and onnxruntime, which splits no value in its blocks of BLOCK channels, keeps them there. None elsewhere."""
    node = op.producer(g)
    if axis != 1 or node is None or node.op != "Conv" or node.domain or len(node.inputs) > 2 or int(node.attributes.get("group", 1)) > 1:
        return None
    x, weight = map(op.value, node.inputs)
    lengths = [s[1] for s in shapes if s is not None and isinstance(s[1], int)]
    if len(lengths) < len(shapes) or any(length % BLOCK for length in lengths) or not op.is_fixed(weight):
        return None
    ends = [sum(lengths[: k + 1]) for k in range(len(lengths))]
    return [op.Conv(x, op.Slice(weight, [e - n], [e], [0]), **node.attributes) for e, n in zip(ends, lengths, strict=True)]


def correlated(op: Builder, x: Value, g: Value, windows: Windows, weight: Value, group: int) -> Value:
    """A convolution's cotangent by its weight: what the windows saw, times what came back to them, for each position of the window."""
    channels = weight.shape[1]
    if not isinstance(channels, int):
        raise UnsupportedError(f"The gradient by the weight '{weight.name}' needs its second dimension, which is not known; give that input a shape.")
    scaled = _channel_factor(op, g) if _few_weights(weight, g) else None
    if scaled is not None:
        # A factor a channel, as a batch normalisation behind the convolution leaves, is put on the weights, which are fewer than the places.
        inner, factor = scaled
        return correlated(op, x, inner, windows, weight, group) * op.Reshape(factor, [-1, *([1] * (weight.rank - 1))])
    if group > 1:
        # [N, g * M, *out] -> [N, g, M, out]
        each = op.dim(weight, 0) / group
        rows = op.Reshape(g, op.vector([0, group, each, -1]))
        if channels == 1 and windows.count <= MANY_PRODUCTS:
            result = _by_channel(op, taps(op, x, windows, places(op, g)), rows)
            if weight.shape[0] == group:
                op.graph.wholes[result.name] = Node(DEPTHWISE_WEIGHT, (x.name, g.name), (result.name,), windows.attributes())
        else:
            result = _by_group(op, columns(op, x, windows, places(op, g)), rows, group, channels * windows.count)
    else:
        result = _by_places(op, x, g, windows, channels)
    return op.retyped(op.Reshape(result, op.shape(weight)), weight.shape)


def _by_places(op: Builder, x: Value, g: Value, windows: Windows, channels: int) -> Value:
    lengths = [d for d in g.shape[2:] if isinstance(d, int)]
    known = prod(lengths) if len(lengths) == g.rank - 2 else None  # places of one sample
    if windows.count == 1 and channels >= MANY_CHANNELS:
        (alone,) = taps(op, x, windows, places(op, g))
        return _product(op, op.Reshape(g, [0, 0, -1]), op.Reshape(alone, [0, 0, -1]), known is None or known < MANY_PLACES)
    size = g.shape[0] if isinstance(g.shape[0], int) else 1
    if channels < MANY_CHANNELS and (known is None or known * size * channels * windows.count <= MOST_COLUMNS):
        return _product(op, op.Reshape(g, [0, 0, -1]), columns(op, x, windows, places(op, g)), known is not None and known < MANY_PLACES)
    # [N, M, *out] -> [M, N * out]; a position of the window sees [N, *out, C] -> [N * out, C]
    rows = op.Flatten(op.Transpose(op.Reshape(g, [0, 0, -1]), perm=[1, 0, 2]), axis=1)
    each = [op.Reshape(t, [-1, channels]) for t in taps_last(op, x, windows, places(op, g))]
    few = known is not None and known < FEW_PLACES
    joined = _joined(op, each if few else [op.MatMul(rows, t) for t in each], 1)
    # [N * out, positions * C] or [M, positions * C] -> [.., C * positions]
    ordered = op.Flatten(op.Transpose(op.Reshape(joined, [0, windows.count, channels]), perm=[0, 2, 1]), axis=1)
    return op.MatMul(rows, ordered) if few else ordered


def _few_weights(weight: Value, g: Value) -> bool:
    """Whether a pass over the weights of a channel costs less than the passes over its places that it replaces."""
    each = [d for d in weight.shape[1:] if isinstance(d, int)]
    along = [d for d in g.shape[2:] if isinstance(d, int)]
    return len(along) < g.rank - 2 or prod(each) <= 2 * prod(along)


def _product(op: Builder, rows: Value, seen: Value, joined: bool) -> Value:
    """The sum over batch and places of [N, M, out] times [N, C, out], as [M, C]: as one product where `joined`, else as one a sample."""
    seen = op.Transpose(seen, perm=[0, 2, 1])
    if rows.shape[0] == 1:
        return op.MatMul(op.Squeeze(rows, [0]), op.Squeeze(seen, [0]))
    if not joined:
        return op.ReduceSum(op.MatMul(rows, seen), [0], keepdims=0)
    # [N, M, out] -> [M, N * out], [N, out, C] -> [N * out, C]
    return op.MatMul(op.Flatten(op.Transpose(rows, perm=[1, 0, 2]), axis=1), op.Flatten(seen, axis=2))


def along_output(op: Builder, y: Value, g: Value) -> Value | None:
    """The sum of g * y over all but the channels, [M], where y is what a Conv gives whose weight's gradient is wanted anyway: that gradient times the weight is
    the same sum, so y itself need not be kept, and onnxruntime can fuse the Conv with what follows it. None for any other y."""
    node = op.producer(y)
    if node is None or node.op != "Conv" or node.domain or node.inputs[1] not in op.derivative.active or y.linear:
        return None
    n = view(op, node, [True] * len(node.inputs))
    weight, bias = n.inputs[1], n.input(2)
    assert weight is not None
    if not _few_weights(weight, g):
        return None
    total = op.ReduceSum(_by_weight(op, n, g) * weight, list(range(1, weight.rank)), keepdims=0)
    return total if bias is None else total + bias * over_places(op, g)


def over_places(op: Builder, g: Value) -> Value:
    """The sum over all but the channels: over the places first, which in onnxruntime is up to 1.9 times as fast as over the batch as well (8x1024x14x14)."""
    if g.rank > 2:
        g = op.ReduceSum(g, list(range(2, g.rank)), keepdims=0)
    return op.ReduceSum(g, [0], keepdims=0)


def _channel_factor(op: Builder, g: Value) -> tuple[Value, Value] | None:
    """g as a value and one factor a channel that multiplies it, where it is such a product."""
    node = op.producer(g)
    if node is None or node.op != "Mul" or node.domain or g.type.shape is None:
        return None
    ones = (1,) * (g.rank - 2)
    for inner, factor in (map(op.value, node.inputs), map(op.value, reversed(node.inputs))):
        a_channel = factor.type.shape in ((g.shape[1], *ones), (1, g.shape[1], *ones)) and isinstance(g.shape[1], int)
        if a_channel and inner.type.shape == g.type.shape and not factor.linear:
            return inner, factor
    return None


def _by_group(op: Builder, seen: Value, rows: Value, group: int, length: int) -> Value:
    # [N, g, M, out] @ [N, g, out, C * positions]
    seen = op.Reshape(seen, [0, group, length, -1])
    return op.ReduceSum(op.MatMul(rows, op.Transpose(seen, perm=[0, 1, 3, 2])), [0], keepdims=0)


def _by_channel(op: Builder, seen: Sequence[Value], rows: Value) -> Value:
    """Depthwise: products summed, position by position, which is 1.3 to 3 times as fast as columns or a Conv. [C * multiplier, positions]"""
    if rows.shape[2] == 1:
        rows = op.Squeeze(rows, [2])
        each = [op.ReduceSum(op.Reshape(t, [0, 0, -1]) * rows, [0, 2], keepdims=0) for t in seen]
    else:
        each = [op.ReduceSum(op.Reshape(t, [0, 0, 1, -1]) * rows, [0, 3], keepdims=0) for t in seen]
    return _joined(op, [op.Reshape(e, [-1, 1]) for e in each], 1)


def _joined(op: Builder, parts: Sequence[Value], axis: int) -> Value:
    return op.Concat(*parts, axis=axis) if len(parts) > 1 else parts[0]


# Convolution ---------------------------------------------------------------------------------------------------------------


def _by_input(op: Builder, n: NodeView, g: Value) -> Value:
    weight = n.inputs[1]
    assert weight is not None
    spread = layout(op, n, kernel_of(n, weight))
    x = convolved_back(op, g, weight, spread.windows, places(op, spread.x), int(n["group"]))
    return spread.cropped(op.retyped(x, spread.x.shape))


def _by_weight(op: Builder, n: NodeView, g: Value) -> Value:
    weight = n.inputs[1]
    assert weight is not None
    spread = layout(op, n, kernel_of(n, weight))
    return correlated(op, spread.x, g, spread.windows, weight, int(n["group"]))


def _by_bias(op: Builder, n: NodeView, g: Value) -> Value:
    bias = n.inputs[2]
    assert bias is not None
    return op.retyped(over_places(op, g), bias.shape)


def _bias(op: Builder, n: NodeView, t: Value) -> Value:
    # [M] -> [M, 1, ..] -> [N, M, ..]
    return op.expand_like(op.Reshape(t, [-1, *([1] * (n.y.rank - 2))]), n.y)


bilinear("Conv", _by_input, _by_weight, _by_bias, bias=_bias)


# Its transpose -------------------------------------------------------------------------------------------------------------


def _adjoint(op: Builder, n: NodeView, y: Value) -> tuple[Value, Windows]:
    """ConvTranspose is a convolution's transpose; the windows of that convolution, and `y` (of the shape of the node's output) as it takes it."""
    weight = n.inputs[1]
    assert weight is not None
    kernel = kernel_of(n, weight)
    rank = len(kernel)
    plain = Windows(kernel, tuple(n["strides"] or [1] * rank), tuple(n["dilations"] or [1] * rank), (0,) * rank, (0,) * rank)
    extra = n["output_padding"] or [0] * rank
    mode, shape = n["auto_pad"] or "NOTSET", n["output_shape"]
    begins: list[int] = []
    ends: list[int] = []
    for k in range(rank):
        stride, extent = plain.strides[k], plain.extents[k]
        size = n.x.shape[2 + k]
        if not shape and mode in ("NOTSET", "", "VALID"):
            pads = (n["pads"] or [0] * 2 * rank) if mode != "VALID" else [0] * 2 * rank
            begins.append(pads[k])
            ends.append(pads[rank + k] - extra[k])
            continue
        if not shape:
            total = max(extent + extra[k] - stride, 0)  # where it would have to pad, onnxruntime makes a shorter output
        elif isinstance(size, int):
            total = (size - 1) * stride + extra[k] + extent - shape[len(shape) - rank + k]
        else:
            return _adjoint_at_run_time(op, n, plain, y), plain
        before = max(total, 0) // 2 if mode == "SAME_UPPER" else max(total, 0) - max(total, 0) // 2
        begins.append(before)
        ends.append(total - before - extra[k])
    beyond = [k for k in range(rank) if ends[k] < 0]  # outputs at the end that no input reaches
    if beyond:
        y = op.Slice(y, [0] * len(beyond), [ends[k] for k in beyond], [k + 2 for k in beyond])
    return y, replace(plain, begins=tuple(begins), ends=tuple(max(e, 0) for e in ends))


def _adjoint_at_run_time(op: Builder, n: NodeView, windows: Windows, y: Value) -> Value:
    """An output_shape over inputs of unknown size: what was cut off from all that the windows reach, put back as zeros."""
    axes = list(range(2, n.x.rank))
    sizes = op.vector([op.dim(n.x, a) for a in axes])
    extra = op.constant(np.asarray(n["output_padding"] or [0] * len(axes), np.int64))
    reach = (sizes - 1) * op.constant(np.asarray(windows.strides)) + op.constant(np.asarray(windows.extents))
    cut = reach + extra - op.vector([op.dim(n.y, a) for a in axes])
    padding = op.Max(cut, 0)
    before = padding / 2 if n["auto_pad"] == "SAME_UPPER" else padding - padding / 2
    return op.Pad(y, op.Concat(before, cut - before - extra, axis=0), None, axes)


def _transposed_by_input(op: Builder, n: NodeView, g: Value) -> Value:
    g, windows = _adjoint(op, n, g)
    return op.retyped(op.Conv(g, n.inputs[1], group=int(n["group"]), **windows.attributes(kernel=False)), n.x.shape)


def _transposed_by_weight(op: Builder, n: NodeView, g: Value) -> Value:
    weight = n.inputs[1]
    assert weight is not None
    g, windows = _adjoint(op, n, g)
    return correlated(op, g, n.x, windows, weight, int(n["group"]))


bilinear("ConvTranspose", _transposed_by_input, _transposed_by_weight, _by_bias, bias=_bias)


# Columns -------------------------------------------------------------------------------------------------------------------


def _columns(op: Builder, n: NodeView, g: Value) -> Value:
    block = n.inputs[2]
    assert block is not None
    rank = g.rank - 2
    pads, strides, dilations = n["pads"] or [0] * 2 * rank, n["strides"] or [1] * rank, n["dilations"] or [1] * rank
    if block.constant is None:
        return _columns_at_run_time(op, n, g, pads, strides, dilations)
    windows = Windows(tuple(int(k) for k in block.constant), tuple(strides), tuple(dilations), tuple(pads[:rank]), tuple(pads[rank:]))
    outs = [
        (size + (windows.begins[k] + windows.ends[k] - windows.extents[k])) // windows.strides[k] + 1
        if isinstance(size, int)
        else (size + (windows.begins[k] + windows.ends[k] - windows.extents[k])) / windows.strides[k] + 1
        for k, size in enumerate(places(op, g))
    ]
    return op.retyped(columns(op, g, windows, outs), n.x.shape)


def _columns_at_run_time(op: Builder, n: NodeView, g: Value, pads: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Value:
    """A block whose shape isn't known before: what each position of each window sees, by index."""
    rank = g.rank - 2
    flat: Value | None = None
    inside: Value | None = None
    for k in range(rank):
        size, length = op.dim(g, k + 2), op.Slice(n.inputs[2], [k], [k + 1])
        outs = (size + (pads[k] + pads[rank + k] - 1) - (length - 1) * dilations[k]) / strides[k] + 1
        # [kernel, out], among the axes [*kernel, *out]
        at = op.Unsqueeze(_counted(op, length) * dilations[k], [1]) + (op.Unsqueeze(_counted(op, outs) * strides[k], [0]) - pads[k])
        at = op.Unsqueeze(at, [a for a in range(2 * rank) if a not in (k, rank + k)])
        here = op.And(op.GreaterOrEqual(at, 0), op.Less(at, size))
        at = op.Max(op.Min(at, size - 1), 0)
        flat = at if flat is None else flat * size + at
        inside = here if inside is None else op.And(inside, here)
    assert flat is not None
    # [N, C, pixels] -> [N, C, *kernel, *out] -> [N, C * positions, places]
    seen = op.Gather(op.Reshape(g, [0, 0, -1]), flat, axis=2) * op.Cast(inside, to=g.dtype)
    return op.retyped(op.Reshape(seen, op.shape(n.x)), n.x.shape)


def _counted(op: Builder, length: Value) -> Value:
    """0, 1, .. up to a length."""
    return op.Range(op.constant(np.asarray(0, np.int64)), op.Squeeze(length, [0]), op.constant(np.asarray(1, np.int64)))


def _unmixed(n: NodeView) -> None:
    """onnxruntime 1.31 mixes up the channels of dilated blocks unless images have two axes, and what it computes is then not what is differentiated."""
    dilations = n["dilations"] or []
    if len(dilations) not in (0, 2) and max(dilations) > 1:
        raise UnsupportedError(
            f"{n.node.label} has dilated blocks over {len(dilations)} ax{'is' if len(dilations) == 1 else 'es'}, whose channels onnxruntime mixes up: neither its output nor a derivative "
            "could be trusted. Write it over two axes, of which one may have length 1."
        )


linear("Col2Im", _columns, check=_unmixed)
