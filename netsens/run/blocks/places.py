"""What moves along places, joins and parts channels, pools and sums."""

from __future__ import annotations

from math import prod

import numpy as np

from netsens.graph.blocked_layout import BLOCKED
from netsens.graph.dtypes import FLOAT
from netsens.graph.graph import Node
from netsens.run.blocks.convolutions import dotted, mean
from netsens.run.blocks.writing import Writing, written_by

# Pools -----------------------------------------------------------------------------------------------------------------------


@written_by("MaxPool", "AveragePool")
def _pool(b: Writing, node: Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if not b.inside(x) or len(b.places(x)) != 2 or not b.fits(y) or any(node.outputs[1:]) or b.dtype(x) != FLOAT or node.attributes.get("storage_order"):
        return False
    if node.attributes.get("ceil_mode") and node.attributes.get("count_include_pad"):
        return False  # there onnxruntime divides by the whole kernel where it hangs over the edge of the padding, by what lies in it elsewhere
    return b.settle(y, flat=b.emit(node.op, [b.flat(x)], BLOCKED, **node.attributes))


@written_by("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(b: Writing, node: Node) -> bool:
    x = node.inputs[0]
    if not b.inside(x) or len(b.places(x)) != 2 or b.dtype(x) != FLOAT:
        return False
    return b.settle(node.outputs[0], flat=b.emit(node.op, [b.flat(x)], BLOCKED))


@written_by("ReduceSum", "ReduceMean")
def _reduced(b: Writing, node: Node) -> bool:
    """A sum or a mean over all places."""
    x, y = node.inputs[0], node.outputs[0]
    axes = b.numbers(node, 1)
    if not b.inside(x) or axes is None or b.dtype(x) != FLOAT:
        return False
    shape = b.shape(x)
    assert shape is not None
    if sorted(a % len(shape) for a in axes) != list(range(2, len(shape))):
        return False
    channels = b.channels(x)
    factors = b.producers.get(x)
    total = None
    if node.op == "ReduceSum" and len(shape) == 4 and factors is not None and factors.op == "Mul" and not factors.domain:
        total = dotted(b, *factors.inputs)
    if total is None:
        total = mean(b, b.flat(x) if len(shape) == 4 else b.apart(x), b.filled(channels), b.places(x))
        if node.op == "ReduceSum":
            total = b.emit("Mul", [total, b.array(np.asarray(prod(b.places(x)), np.float32))])
    if node.attributes.get("keepdims", 1) and len(shape) == 4:
        return b.settle(y, flat=total)
    if not b.whole(x):
        total = b.emit("Slice", [total, b.ints(0), b.ints(channels), b.ints(1)])
    b.write("Reshape", [total, b.ints(0, channels, *([1] * (len(shape) - 2) if node.attributes.get("keepdims", 1) else []))], y)
    b.plain.add(y)
    return True


@written_by("Resize")
def _resized(b: Writing, node: Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    scales = b.constant(node.inputs[2]) if len(node.inputs) == 3 and node.inputs[2] else None
    plain = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    if scales is None or scales.size != 4 or not b.inside(x) or len(b.places(x)) != 2 or not b.fits(y) or b.dtype(x) != FLOAT:
        return False
    if any(_text(node.attributes.get(k, "")) != v for k, v in plain.items()) or set(node.attributes) - set(plain):
        return False
    whole = [int(s) for s in scales]
    if any(w != s for w, s in zip(whole, scales, strict=True)) or whole[:2] != [1, 1]:
        return False
    return b.settle(y, flat=b.emit("Upsample", [b.flat(x)], BLOCKED, scales=whole, mode="nearest"))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


# Channels --------------------------------------------------------------------------------------------------------------------


@written_by("Concat")
def _joined(b: Writing, node: Node) -> bool:
    y = node.outputs[0]
    if not b.fits(y) or not any(b.inside(i) for i in node.inputs) or not all(b.comes_inside(i) for i in node.inputs):
        return False
    axis = int(node.attributes["axis"]) % len(b.shape(y) or ())
    if axis == 0 or (axis == 1 and not all(b.whole(i) for i in node.inputs)):
        return False
    return b.settle(y, apart=b.emit("Concat", [b.apart(i) for i in node.inputs], axis=axis))


@written_by("Split")
def _parted(b: Writing, node: Node) -> bool:
    x, outputs = node.inputs[0], node.outputs
    if not b.inside(x) or not all(o and b.fits(o) for o in outputs):
        return False
    axis = int(node.attributes.get("axis", 0)) % len(b.shape(x) or ())
    if axis == 0 or (axis == 1 and not all(b.whole(o) for o in outputs)):
        return False
    shapes = [b.shape(o) for o in outputs]
    lengths = [int(s[axis] or 0) // (b.block if axis == 1 else 1) for s in shapes if s is not None]
    start = 0
    for output, length in zip(outputs, lengths, strict=True):
        b.settle(output, apart=b.emit("Slice", [b.apart(x), b.ints(start), b.ints(start + length), b.ints(axis)]))
        start += length
    return True


# Places ----------------------------------------------------------------------------------------------------------------------


@written_by("Slice")
def _cut(b: Writing, node: Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if x in b.deep:
        return _cut_in_steps(b, node)
    starts, ends = b.numbers(node, 1), b.numbers(node, 2)
    if not b.inside(x) or not b.fits(y) or starts is None or ends is None:
        return False
    rank = len(b.shape(x) or ())
    axes = b.numbers(node, 3) if len(node.inputs) > 3 and node.inputs[3] else list(range(len(starts)))
    steps = b.numbers(node, 4) if len(node.inputs) > 4 and node.inputs[4] else [1] * len(starts)
    if axes is None or steps is None:
        return False
    axes = [a % rank for a in axes]
    for k, axis in enumerate(axes):
        if axis == 0:
            return False
        if axis == 1:
            start, end, step = slice(starts[k], ends[k], steps[k]).indices(b.channels(x))
            if step != 1 or start % b.block or end % b.block:
                return False
            starts[k], ends[k] = start // b.block, end // b.block
    inputs = [b.apart(x), b.ints(*starts), b.ints(*ends), b.ints(*axes)]
    return b.settle(y, apart=b.emit("Slice", [*inputs, b.ints(*steps)] if set(steps) != {1} else inputs))


def _cut_in_steps(b: Writing, node: Node) -> bool:
    x, size = b.deep[node.inputs[0]]
    found = _phase(b, node, b.channels(x))
    assert found is not None
    phase, starts, ends = found
    firsts = [s * size + p for s, p in zip(starts, divmod(phase, size), strict=True)]
    lasts = [min((e - 1) * size + p + 1, n) for e, p, n in zip(ends, divmod(phase, size), b.places(x), strict=True)]
    if x in b.around:
        # What lies wholly inside a padded value need not be padded.
        inner, begins = b.around[x]
        if all(f >= p and e - p <= n for f, e, p, n in zip(firsts, lasts, begins, b.places(inner), strict=True)):
            x, firsts, lasts = inner, [f - p for f, p in zip(firsts, begins, strict=True)], [e - p for e, p in zip(lasts, begins, strict=True)]
    return b.settle(node.outputs[0], apart=b.emit("Slice", [b.apart(x), b.ints(*firsts), b.ints(*lasts), b.ints(2, 3), b.ints(size, size)]))


@written_by("Pad")
def _padded(b: Writing, node: Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    pads = b.numbers(node, 1)
    if not b.inside(x) or not b.fits(y) or pads is None or _text(node.attributes.get("mode", "constant")) != "constant":
        return False
    rank = len(b.shape(x) or ())
    fill = b.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if len(node.inputs) > 2 and node.inputs[2] and fill is None:
        return False
    if fill is not None and not b.whole(x) and not np.isfinite(fill).all():
        return False
    axes = b.numbers(node, 3) if len(node.inputs) > 3 and node.inputs[3] else list(range(rank))
    if axes is None:
        return False
    around = {a % rank: (p, q) for a, p, q in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)}
    if any(around.get(a, (0, 0)) != (0, 0) for a in (0, 1)):
        return False
    sides = [around.get(a, (0, 0)) for a in range(rank)]
    b.around[y] = x, [s[0] for s in sides[2:]]
    padding = b.ints(*(s[0] for s in sides), 0, *(s[1] for s in sides), 0)
    return b.settle(y, apart=b.emit("Pad", [b.apart(x), padding, *([node.inputs[2]] if fill is not None else [])]))


@written_by("Unsqueeze", "Squeeze", "Reshape", "Flatten")
def _reshaped(b: Writing, node: Node) -> bool:
    """Places under other axes."""
    x, y = node.inputs[0], node.outputs[0]
    if not b.inside(x) or not b.fits(y):
        return False
    before, after = b.shape(x), b.shape(y)
    if before is None or after is None or before[:2] != after[:2] or prod(b.places(x)) != prod(b.places(y)):
        return False
    b.views[y] = b.views.get(x, x)
    return True


@written_by("Expand")
def _expanded(b: Writing, node: Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    if not b.inside(x) or not b.fits(y):
        return False
    before, after = b.shape(x), b.shape(y)
    if before is None or after is None or before[:2] != after[:2] or len(before) != len(after):
        return False
    return b.settle(y, apart=b.emit("Expand", [b.apart(x), b.ints(1, 1, *b.places(y), 1)]))


@written_by("SpaceToDepth")
def _in_depth(b: Writing, node: Node) -> bool:
    """Written where it is read: what slices one phase of it slices its operand in steps."""
    x, y = node.inputs[0], node.outputs[0]
    readers = b.readers_of(y)
    if not b.inside(x) or not b.fits(y) or not all(r.op == "Slice" and _phase(b, r, b.channels(x)) is not None for r in readers):
        return False
    b.deep[y] = x, int(node.attributes["blocksize"])
    return True


def _phase(b: Writing, node: Node, channels: int) -> tuple[int, list[int], list[int]] | None:
    """Which phase of a SpaceToDepth a Slice takes whole, and from where to where."""
    starts, ends, axes = (b.numbers(node, k) for k in (1, 2, 3))
    if starts is None or ends is None or axes != [1, 2, 3] or len(node.inputs) > 4 or starts[0] % channels or ends[0] - starts[0] != channels:
        return None
    return (starts[0] // channels, starts[1:], ends[1:]) if min(*starts, *ends) >= 0 else None


@written_by("Transpose")
def _channels_last(b: Writing, node: Node) -> bool:
    """[N, C, *places] -> [N, *places, C], on the way out of the blocks."""
    x, y = node.inputs[0], node.outputs[0]
    rank = len(b.shape(x) or ())
    if not b.inside(x) or x in b.plain or b.dtype(x) != FLOAT or list(node.attributes.get("perm") or []) != [0, *range(2, rank), 1]:
        return False
    channels, places = b.channels(x), b.places(x)
    base = b.views.get(x, x)
    if rank == 4 and base == x:
        b.write("ReorderOutput", [b.flat(x)], y, BLOCKED, channels=channels, channels_last=1)
    else:
        line = b.flat(base) if len(b.places(base)) == 2 else b.reshaped(b.apart(base), [0, b.filled(channels), prod(places), 1])
        ordered = b.emit("ReorderOutput", [line], BLOCKED, channels=channels, channels_last=1)
        b.write("Reshape", [ordered, b.ints(0, *places, channels)], y)
    b.plain.add(y)
    return True


@written_by("Shape")
def _shape(b: Writing, node: Node) -> bool:
    x = node.inputs[0]
    if x in b.plain or not b.inside(x):
        return False
    shape = b.shape(x)
    assert shape is not None
    first, last, _ = slice(node.attributes.get("start", 0), node.attributes.get("end")).indices(len(shape))
    dims = [b.emit("Shape", [b.flat(x)], start=0, end=1) if k == 0 and not isinstance(d, int) else b.ints(int(d or 0)) for k, d in enumerate(shape)]
    wanted = dims[first:last]
    if not wanted:
        return False
    b.write("Concat", wanted, node.outputs[0], axis=0)
    b.plain.add(node.outputs[0])
    return True
