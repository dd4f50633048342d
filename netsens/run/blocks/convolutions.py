"""Convolutions, their transposes, and what becomes part of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from netsens.graph.blocked_layout import BLOCKED, DEPTHWISE_WEIGHT
from netsens.graph.dtypes import FLOAT
from netsens.graph.graph import Node
from netsens.run.blocks.waiting import Pending, Phased, convolution
from netsens.run.blocks.writing import Writing, written_by

# Up to so many places along an axis a kernel that looks beyond the edges costs less than a padded copy (960 channels of 7x7: 14 us to 85; 144 of 56x56: 273 to 180).
LARGE = 14
MANY = 1024  # places from which a sum of products is taken line by line


def pending(b: Writing, x: str, weight: str, shape: list[int], bias: str = "", group: int = 1, **attributes: Any) -> Pending | None:
    """A convolution of the value x, four axes, by a weight of this shape; None where onnxruntime has no kernel in blocks for it."""
    outputs, inputs = shape[:2]
    common = {"shape": shape, "kernel_shape": shape[2:], **attributes}
    if group > 1 and inputs == 1 and outputs == group:
        if not b.comes_inside(x) or outputs % 4:
            return None
        return Pending(b.flat(x), weight, bias, {**common, "direct": True, "group": b.filled(outputs)})
    if group > 1:
        if inputs % b.block or (outputs // group) % b.block or not b.comes_inside(x):
            return None
        return Pending(b.flat(x), weight, bias, {**common, "direct": False, "group": group})
    if inputs < b.block and not b.inside(x):
        return Pending(x, weight, bias, {**common, "direct": True, "group": 1}) if b.fits(x) else None
    if not b.comes_inside(x):
        return None
    return Pending(b.flat(x), weight, bias, {**common, "direct": False, "group": 1})


@written_by("Conv")
def _conv(b: Writing, node: Node) -> bool:
    x, weight = node.inputs[:2]
    y, shape = node.outputs[0], b.shape(weight)
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    if b.dtype(y) != FLOAT or not b.fits(y) or not b.fits(x) or shape is None or len(shape) != 4 or None in shape:
        return False
    if weight not in b.fixed or (bias and bias not in b.fixed) or not all(isinstance(d, int) for d in shape):
        return False
    attributes = {k: v for k, v in node.attributes.items() if k in ("auto_pad", "dilations", "pads", "strides")}
    found = pending(b, x, weight, [int(d) for d in shape if isinstance(d, int)], bias, int(node.attributes.get("group", 1)), **attributes)
    if found is None:
        return False
    b.pending[y] = found
    return True


# What follows a convolution -----------------------------------------------------------------------------------------------


def absorbed_factor(b: Writing, name: str, factor: str, summand: str, output: str) -> bool:
    """`name` times a factor a channel, plus a summand, both [C] or none and computed from constants: part of the convolution that gives `name`, or one of its own
    with a number a channel."""
    c = b.pending.get(name)
    if c is not None and b.read_once(name) and not c.added and not c.activation:
        del b.pending[name]
        outputs = c.attributes["shape"][0]
        weight, bias = c.weight, c.bias
        if factor:
            weight = b.emit("Mul", [weight, b.reshaped(factor, [outputs, 1, 1, 1])])
            bias = b.emit("Mul", [bias, factor]) if bias else ""
        if summand:
            bias = b.emit("Add", [bias, summand]) if bias else summand
        b.pending[output] = replace(c, weight=weight, bias=bias)
        return True
    channels = b.channels(name)
    if not b.inside(name) or len(b.places(name)) != 2 or channels % 4:
        return False
    if not factor:
        factor = b.array(np.ones(channels, np.float32))
    found = pending(b, name, b.reshaped(factor, [channels, 1, 1, 1]), [channels, 1, 1, 1], summand, group=channels)
    assert found is not None
    b.pending[output] = found
    return True


@written_by("BatchNormalization")
def _normalization(b: Writing, node: Node) -> bool:
    x, scale, shift, mean, variance = node.inputs
    if node.attributes.get("training_mode") or not b.inside(x) or any(o for o in node.outputs[1:]) or not all(i in b.fixed for i in node.inputs[1:]):
        return False
    epsilon = b.array(np.asarray(node.attributes.get("epsilon", 1e-5), np.float32))
    factor = b.emit("Div", [scale, b.emit("Sqrt", [b.emit("Add", [variance, epsilon])])])
    summand = b.emit("Sub", [shift, b.emit("Mul", [mean, factor])])
    return absorbed_factor(b, x, factor, summand, node.outputs[0])


def absorbed_sum(b: Writing, name: str, other: str, output: str) -> bool:
    """`name` plus another value of its shape, part of the convolution that gives `name`."""
    c = b.pending.get(name)
    if c is None or c.added or c.activation or not b.read_once(name) or name == other:
        return False
    del b.pending[name]
    b.pending[output] = replace(c, added=b.flat(other))
    return True


# Transposes -----------------------------------------------------------------------------------------------------------------


class _Grid(NamedTuple):
    """Where a transposed convolution puts what, a number an axis: its kernel, strides and pads, and how many places each phase of its output has."""

    kernel: list[int]
    strides: list[int]
    pads: list[int]
    sizes: list[int]

    def seen(self, axis: int, place: int) -> int:
        """How many positions of the kernel reach the places (i * stride + place)."""
        return ceil((self.kernel[axis] - (place + self.pads[axis]) % self.strides[axis]) / self.strides[axis])


@written_by("ConvTranspose")
def _transposed(b: Writing, node: Node) -> bool:
    """A transposed convolution with strides as one convolution for each phase of its output, whose places a stride apart see the same part of the kernel."""
    g, weight = node.inputs[:2]
    x, shape, group = node.outputs[0], b.shape(weight), int(node.attributes.get("group", 1))
    strides, pads = list(node.attributes.get("strides") or [1, 1]), list(node.attributes.get("pads") or [0] * 4)
    if len(node.inputs) > 2 or set(node.attributes.get("dilations") or [1]) != {1} or node.attributes.get("output_shape") or b.dtype(x) != FLOAT:
        return False
    if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET", "") or weight not in b.fixed or shape is None or len(shape) != 4:
        return False
    if not b.fits(g) or not b.fits(x) or not b.comes_inside(g) or set(strides) == {1}:
        return False
    kernel = [int(d or 0) for d in shape[2:]]
    if len(strides) != 2:
        return False
    depthwise = group > 1 and shape[1] == 1 and shape[0] == group
    if group > 1 and not depthwise:
        return False
    if b.channels(x) % 4 or b.channels(x) < b.block:
        return False
    sizes = [ceil(size / s) for size, s in zip(b.places(x), strides, strict=True)]
    grid = _Grid(kernel, strides, pads, sizes)
    phases: list[Pending | None] = []
    for place in product(*map(range, strides)):
        reached = all(grid.seen(k, p) > 0 for k, p in enumerate(place))
        found = _phase(b, node, grid, place, depthwise) if reached else None
        if reached and found is None:
            return False
        phases.append(found)
    b.phased[x] = Phased(phases, strides, sizes)
    return True


def _phase(b: Writing, node: Node, grid: _Grid, place: tuple[int, ...], depthwise: bool) -> Pending | None:
    """The convolution that gives the places (i * stride + place) of the output."""
    g, weight = node.inputs[:2]
    begins, ends, firsts = [], [], []
    lengths = [grid.seen(k, p) for k, p in enumerate(place)]
    for k, length in enumerate(lengths):
        ahead, first = divmod(place[k] + grid.pads[k], grid.strides[k])
        begins.append(length - 1 - ahead)
        ends.append(grid.sizes[k] - 1 + ahead - (b.places(g)[k] - 1))
        firsts.append(first)
    if min(*begins, *ends) < 0:
        return None
    # Every stride-th position from the first on, the last one first.
    lasts = [first + (length - 1) * s for first, length, s in zip(firsts, lengths, grid.strides, strict=True)]
    stops = [first - 1 if first else -(2**62) for first in firsts]
    part = b.emit("Slice", [weight, b.ints(*lasts), b.ints(*stops), b.ints(2, 3), b.ints(*(-s for s in grid.strides))])
    outputs, inputs = (b.channels(g), 1) if depthwise else (b.channels(node.outputs[0]), b.channels(g))
    turned = part if depthwise else b.emit("Transpose", [part], perm=[1, 0, 2, 3])
    return pending(b, g, turned, [outputs, inputs, *lengths], group=b.channels(g) if depthwise else 1, pads=[*begins, *ends])


def added_phases(b: Writing, name: str, other: str, output: str) -> bool:
    """The sum of two values that come in the same phases, phase by phase."""
    one, two = b.phased.get(name), b.phased.get(other)
    if one is None or two is None or one.strides != two.strides or not b.read_once(name) or not b.read_once(other) or name == other:
        return False
    if any(p is not None and q is not None and p.added and q.added for p, q in zip(one.phases, two.phases, strict=True)):
        return False
    del b.phased[name], b.phased[other]
    b.phased[output] = Phased([_both(b, p, q) for p, q in zip(one.phases, two.phases, strict=True)], one.strides, one.sizes)
    return True


def _both(b: Writing, one: Pending | None, two: Pending | None) -> Pending | None:
    if one is None or two is None:
        return one or two
    return replace(one, added=convolution(b, two)) if not one.added else replace(two, added=convolution(b, one))


# Correlations ----------------------------------------------------------------------------------------------------------------


def correlated(b: Writing, x: str, g: str, pads: list[int], strides: list[int], dilations: list[int]) -> tuple[str, list[int]] | None:
    """What x and g, [N, C, *places] both, have in common at each shift, channel by channel: a depthwise convolution of x whose kernels are the images of g, and
    whose channels are those of all samples. On 96 channels of 112x112, a stride of 2 and 9 shifts it takes 0.1 ms; 9 products and sums take 2.9. Its flat name,
    [N, C', *shifts], and how many shifts there are; None where it can't be written."""
    shape, other = b.shape(x), b.shape(g)
    if shape is None or other is None or len(shape) != 4 or shape[:2] != other[:2] or not isinstance(shape[0], int) or b.channels(x) % 4:
        return None
    if not b.fits(x) or not b.fits(g) or not b.comes_inside(x) or not b.comes_inside(g) or (b.dtype(x), b.dtype(g)) != (FLOAT, FLOAT):
        return None
    samples, channels = shape[0], b.filled(b.channels(x))
    image = b.flat(x)
    if any(pads) and max(b.places(x)) > LARGE:
        begins, ends = pads[:2], pads[2:]
        places = [n + p + q for n, p, q in zip(b.places(x), begins, ends, strict=True)]
        padded = b.emit("Pad", [b.apart(x), b.ints(0, 0, *begins, 0, 0, 0, *ends, 0)])
        image, pads = padded, [0] * 4
    else:
        places = b.places(x)
    every = b.reshaped(image, [1, samples * channels, *places])
    kernels = b.reshaped(b.flat(g), [samples * channels, 1, *b.places(g)])
    found = b.emit(
        "Conv", [every, kernels], BLOCKED, group=samples * channels, kernel_shape=b.places(g), pads=pads, strides=dilations, dilations=strides
    )  # fmt: skip
    shifts = [(n + pads[k] + pads[2 + k] - (b.places(g)[k] - 1) * strides[k] - 1) // dilations[k] + 1 for k, n in enumerate(places)]
    return b.reshaped(found, [samples, channels, *shifts]), shifts


def mean(b: Writing, name: str, channels: int, places: list[int]) -> str:
    """The mean over places of a value in blocks, [N, C', 1, 1]; of each line first, or the kernel, which adds up one place after the other, would lose digits."""
    lines, length = prod(places[:-1]), places[-1]
    if lines > 1 and length > 1:
        name = b.emit("GlobalAveragePool", [b.reshaped(name, [0, channels * lines, length, 1])], BLOCKED)
        length = 1
    return b.emit("GlobalAveragePool", [b.reshaped(name, [0, channels, lines * length, 1])], BLOCKED)


def dotted(b: Writing, x: str, g: str) -> str | None:
    """The sum over places of x * g, of one shape, [N, C', 1, 1]; for large images line by line. None where it can't be written."""
    shape = b.shape(x)
    if shape != b.shape(g) or shape is None:
        return None
    if prod(b.places(x)) <= MANY or len(shape) != 4 or not isinstance(shape[0], int) or not b.comes_inside(x) or not b.comes_inside(g):
        found = correlated(b, x, g, [0] * 4, [1, 1], [1, 1])
        return None if found is None else found[0]
    channels, (lines, length) = b.filled(b.channels(x)), b.places(x)
    every = shape[0] * channels * lines
    sums = b.emit(
        "Conv", [b.reshaped(b.flat(x), [1, every, 1, length]), b.reshaped(b.flat(g), [every, 1, 1, length])], BLOCKED, group=every, kernel_shape=[1, length]
    )
    means = b.emit("GlobalAveragePool", [b.reshaped(sums, [shape[0], channels, lines, 1])], BLOCKED)
    return b.emit("Mul", [means, b.array(np.asarray(lines, np.float32))])


@written_by(DEPTHWISE_WEIGHT)
def _depthwise_weight(b: Writing, node: Node) -> bool:
    x, g = node.inputs
    if b.shape(x) is None or b.shape(g) is None or len(b.shape(x) or ()) != 4 or not b.fits(x) or not b.fits(g):
        return False
    kernel, strides, dilations, pads = (list(node.attributes[k]) for k in ("kernel_shape", "strides", "dilations", "pads"))
    # Just so far as the windows reach.
    reach = [(out - 1) * s + (k - 1) * d + 1 for out, s, k, d in zip(b.places(g), strides, kernel, dilations, strict=True)]
    ends = [r - size - begin for r, size, begin in zip(reach, b.places(x), pads[:2], strict=True)]
    found = correlated(b, x, g, [*pads[:2], *(max(e, 0) for e in ends)], strides, dilations)
    if found is None:
        return False
    name, shifts = found
    channels, samples = b.channels(x), (b.shape(x) or ())[0]
    blocks = b.filled(channels) // b.block
    total = b.reshaped(name, [0, blocks, *shifts, b.block])
    if shifts != kernel:
        total = b.emit("Slice", [total, b.ints(0, 0), b.ints(*kernel), b.ints(2, 3)])
    if samples != 1:
        total = b.emit("ReduceSum", [total, b.ints(0)])
    ordered = b.emit("ReorderOutput", [b.reshaped(total, [1, blocks * b.block, *kernel])], BLOCKED, channels=channels)
    b.write("Reshape", [ordered, b.ints(channels, kernel[0] * kernel[1])], node.outputs[0])
    b.plain.add(node.outputs[0])
    return True
