"""Convolutions that aren't written yet, since what reads them may become part of them, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from netsens.graph.blocked_layout import BLOCKED
from netsens.run.blocks.nodes import Nodes


@dataclass(slots=True)
class Pending:
    """A convolution that isn't written yet, since what reads it may become part of it: a factor and a summand a channel, a sum, an activation."""

    x: str
    weight: str  # [outputs, inputs of a group, *kernel], computed from constants alone
    bias: str  # [outputs], or none
    attributes: dict[str, Any]
    added: str = ""
    activation: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Phased:
    """A value that comes as the phases of its places, (i * stride + phase), and isn't interleaved yet; a phase that is None is zero."""

    phases: list[Pending | None]
    strides: list[int]
    sizes: list[int]  # of a phase


def convolution(b: Nodes, c: Pending) -> str:
    """A convolution written; its output's flat name."""
    inputs = [c.x, _ordered(b, c), *([_filled(b, c.bias, c)] if c.bias else [])]
    if c.added:
        inputs = [*inputs, *([] if c.bias else [""]), c.added]
    return b.emit("Conv", inputs, BLOCKED, **{k: v for k, v in c.attributes.items() if k not in ("shape", "direct")}, **c.activation)


def _ordered(b: Nodes, c: Pending) -> str:
    """The weight in the order of its kernel: [O / b, I / b, *kernel, b of I, b of O], and [O / b, I, *kernel, b] for few inputs and for depthwise ones."""
    key = ("weight", c.weight, c.attributes["direct"])
    if key in b.memory:
        return b.memory[key]
    outputs, inputs, *kernel = c.attributes["shape"]
    direct, block = c.attributes["direct"], b.block
    more = [b.filled(outputs) - outputs, 0 if direct else b.filled(inputs) - inputs]
    weight = c.weight
    if any(more):
        weight = b.emit("Pad", [weight, b.ints(0, 0, 0, 0, *more, 0, 0)])
    outputs, inputs = outputs + more[0], inputs + more[1]
    positions = prod(kernel)
    if direct:
        apart = b.reshaped(weight, [outputs // block, block, inputs * positions])
        turned = b.emit("Transpose", [apart], perm=[0, 2, 1])
    else:
        apart = b.reshaped(weight, [outputs // block, block, inputs // block, block, positions])
        turned = b.emit("Transpose", [apart], perm=[0, 2, 4, 3, 1])
    b.memory[key] = b.reshaped(turned, [outputs, inputs, *kernel])
    return b.memory[key]


def _filled(b: Nodes, bias: str, c: Pending) -> str:
    outputs = c.attributes["shape"][0]
    missing = b.filled(outputs) - outputs
    return b.emit("Pad", [bias, b.ints(0, missing)]) if missing else bias


def interleaved(b: Nodes, phased: Phased, channels: int, places: list[int]) -> str:
    """The value, apart, whose place (i * stride + a, j * stride + c) is phase (a, c) at (i, j)."""
    strides, sizes = phased.strides, phased.sizes
    written = [None if p is None else convolution(b, p) for p in phased.phases]
    some = next(w for w in written if w is not None)
    zeros = b.emit("ConstantOfShape", [b.emit("Shape", [some])]) if None in written else ""
    phases = [w or zeros for w in written]
    blocks = b.filled(channels) // b.block
    rows = []
    for a in range(strides[0]):
        line = [b.reshaped(phases[a * strides[1] + c], [0, blocks, *sizes, 1, b.block]) for c in range(strides[1])]
        joined = b.emit("Concat", line, axis=4) if len(line) > 1 else line[0]
        rows.append(b.reshaped(joined, [0, blocks, sizes[0], 1, sizes[1] * strides[1], b.block]))
    stacked = b.emit("Concat", rows, axis=3) if len(rows) > 1 else rows[0]
    lengths = [n * s for n, s in zip(sizes, strides, strict=True)]
    whole = b.reshaped(stacked, [0, blocks, *lengths, b.block])
    if lengths != places:
        whole = b.emit("Slice", [whole, b.ints(0, 0), b.ints(*places), b.ints(2, 3)])
    return whole
