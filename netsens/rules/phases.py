"""Sums over windows with strides, phase by phase: what lies at one offset modulo the stride is summed by itself, then the phases are interleaved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from netsens.graph.emit import Builder, Value
from netsens.rules.windows import Place, Windows


def summed_by_phases(op: Builder, parts: Sequence[Value], windows: Windows, like: Value, outs: Sequence[Place]) -> Value | None:
    """What each position of each window holds, [N, C, *outs] each, summed where the windows saw it, in the shape of `like`. None where sizes are unknown."""
    sizes, outputs = ([d for d in lengths if isinstance(d, int)] for lengths in (like.shape[2:], outs))
    if len(sizes) != len(outputs) or len(outputs) != len(windows.kernel):
        return None
    offsets = windows.positions()
    # In blocks of a stride each: how many there are, and in which one each position of the first window lies.
    blocks = [
        max(-(-(begin + size) // stride), max(p[k] for p in offsets) // stride + out)
        for k, (size, out, begin, stride) in enumerate(zip(sizes, outputs, windows.begins, windows.strides, strict=True))
    ]
    sums: dict[tuple[int, ...], Value] = {}
    for part, offset in zip(parts, offsets, strict=True):
        phase = tuple(o % s for o, s in zip(offset, windows.strides, strict=True))
        first = [o // s for o, s in zip(offset, windows.strides, strict=True)]
        last = [b - out - f for b, out, f in zip(blocks, outputs, first, strict=True)]
        moved = op.Pad(part, [0, 0, *first, 0, 0, *last]) if any(first) or any(last) else part
        sums[phase] = op.Add(sums[phase], moved) if phase in sums else moved
    return cut(op, interleaved(op, sums, windows.strides), windows.begins, like)


def interleaved(op: Builder, phases: Mapping[tuple[int, ...], Value], strides: Sequence[int]) -> Value:
    """The image whose every place (i * stride + a, j * stride + b, ..) is phase (a, b, ..) at (i, j, ..); a phase left out is zero. As two Concats this is 3 times as fast as
    DepthToSpace (0.5 ms and 1.6 for 1x96x112x112)."""
    some = next(iter(phases.values()))
    lengths = [d for d in some.shape[2:] if isinstance(d, int)]
    every = list(product(*map(range, strides)))
    zeros = some if len(phases) == len(every) else op.zeros_like(some)
    images = {place: phases.get(place, zeros) for place in every}
    for axis in reversed(range(len(strides))):
        lengths[axis] *= strides[axis]
        images = {
            ahead: _alternated(op, [images[(*ahead, b)] for b in range(strides[axis])], axis + 3, lengths) for ahead in product(*map(range, strides[:axis]))
        }
    return images[()]


def _alternated(op: Builder, images: Sequence[Value], axis: int, lengths: Sequence[int]) -> Value:
    """Images whose places alternate along the axis before `axis`: [N, C, .., length, ..] each -> [N, C, .., length, images, ..] -> [N, C, *lengths]."""
    if len(images) == 1:
        return images[0]
    return op.Reshape(op.Concat(*(op.Unsqueeze(v, [axis]) for v in images), axis=axis), [0, 0, *lengths])


def cut(op: Builder, value: Value, begins: Sequence[int], like: Value) -> Value:
    """The part of an image that begins at `begins` and is as long as `like`."""
    lengths = [d for d in like.shape[2:] if isinstance(d, int)]
    if any(begins) or tuple(lengths) != value.shape[2:]:
        axes = list(range(2, value.rank))
        value = op.Slice(value, list(begins), [b + n for b, n in zip(begins, lengths, strict=True)], axes)
    return op.retyped(value, like.shape)
