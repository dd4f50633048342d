"""onnxruntime's own operators (`com.microsoft`) that came before the standard's, or say the same in other words."""

from __future__ import annotations

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import INT64
from netsens.graph.emit import Builder, Value
from netsens.rules.microsoft import DOMAIN, operand, setting
from netsens.rules.placement import lengths, positions
from netsens.rules.words import NodeView, expansion, flat, jvp, refuse, transpose

refuse("BeamSearch GreedySearch Sampling WhisperBeamSearch", domain=DOMAIN,
       why="it chooses token after token; differentiate the decoder that it holds, a model of its own")  # fmt: skip
flat("Tokenizer MurmurHash3 NGramHashMapping VarlenNGramHashMapping NGramRepeatBlock BifurcationDetector", domain=DOMAIN, why="it works on tokens")
flat("DynamicTimeWarping", domain=DOMAIN, why="its output holds indices")
flat("IsAllFinite", domain=DOMAIN, why="its output is a truth value")


@expansion("SampleOp", domain=DOMAIN)
def sample(op: Builder, n: NodeView) -> Value:
    return op.Identity(n.x)


@expansion("ExpandDims", domain=DOMAIN)
def expand_dims(op: Builder, n: NodeView) -> Value:
    return op.Unsqueeze(n.x, op.Reshape(op.Cast(operand(n, 1), to=INT64), [1]))


@expansion("Range", domain=DOMAIN)
def range_of(op: Builder, n: NodeView) -> Value:
    start, limit = (op.Reshape(operand(n, k), []) for k in (0, 1))
    step = n.input(2)
    return op.Range(start, limit, op.constant(1, n.x) if step is None else op.Reshape(step, []))


@expansion("GatherND", domain=DOMAIN)
def gather(op: Builder, n: NodeView) -> Value:
    return op.GatherND(n.x, op.Cast(operand(n, 1), to=INT64))


@expansion("Pad", domain=DOMAIN)
def padded(op: Builder, n: NodeView) -> Value:
    number = n.input(2)
    return op.Pad(n.x, op.Reshape(operand(n, 1), [-1]), None if number is None else op.Reshape(number, []), mode=setting(n, "mode", "constant"))


@expansion("Unique", domain=DOMAIN)
def unique(op: Builder, n: NodeView) -> list[Value | None]:
    values, _, inverse, counts = op.Unique(n.x, sorted=0, outputs=4)
    outputs: list[Value | None] = [values, inverse, counts]
    return outputs[: len(n.outputs)]


@expansion("GridSample", domain=DOMAIN)
def grid_sample(op: Builder, n: NodeView) -> Value:
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(str(setting(n, "mode", "bilinear")), "nearest")
    return op.GridSample(n.x, operand(n, 1), mode=mode, padding_mode=setting(n, "padding_mode", "zeros"), align_corners=int(setting(n, "align_corners", 0)))


@expansion("CDist", domain=DOMAIN)
def distances(op: Builder, n: NodeView) -> Value:
    """Between rows: [M, K], [N, K] -> [M, N]. From the differences themselves, not from the squared norms, which cancel where rows are close."""
    apart = op.Unsqueeze(n.x, [1]) - op.Unsqueeze(operand(n, 1), [0])
    if str(setting(n, "metric", "sqeuclidean")) == "euclidean":
        return op.ReduceL2(apart, [2], keepdims=0)
    return op.ReduceSumSquare(apart, [2], keepdims=0)


@jvp("Inverse", domain=DOMAIN)
def inverse(op: Builder, n: NodeView, t: Value) -> Value:
    return -op.MatMul(op.MatMul(n.y, t), n.y)


@transpose("Inverse", domain=DOMAIN)
def inverse_back(op: Builder, n: NodeView, g: Value) -> Value:
    across = op.Transpose(n.y, perm=[*range(n.y.rank - 2), n.y.rank - 1, n.y.rank - 2])
    return -op.MatMul(op.MatMul(across, g), across)


@expansion("UnfoldTensor", domain=DOMAIN)
def unfolded(op: Builder, n: NodeView) -> Value:
    """Windows along an axis, their elements as a new last axis: [.., L, ..] -> [.., windows, .., size]."""
    axis, size, step = int(setting(n, "dim", -1)) % n.x.rank, int(n["size"]), int(setting(n, "step", 1))
    count = op.Div(op.dim(n.x, axis) - size, step) + 1
    begins = op.Unsqueeze(positions(op, count) * step, [1])
    windows = op.Gather(n.x, begins + op.constant(np.arange(size)), axis=axis)
    return op.Transpose(windows, perm=[*range(axis + 1), *range(axis + 2, n.x.rank + 1), axis + 1])


@expansion("ConvTransposeWithDynamicPads", domain=DOMAIN)
def transposed_convolution(op: Builder, n: NodeView) -> Value:
    """The whole output, then what the pads leave of it."""
    kept = {k: v for k, v in n.node.attributes.items() if k not in ("auto_pad", "pads")}
    if setting(n, "auto_pad", "NOTSET") != "NOTSET":
        raise UnsupportedError(f"{n.node.label} has both pads and auto_pad; set auto_pad to NOTSET.")
    whole = op.emit("ConvTranspose", [n.x, n.inputs[1], n.input(3)], kept)
    pads = n.input(2)
    if pads is None:
        return whole
    spatial = whole.rank - 2
    ends = op.vector(lengths(op, whole)[2:]) - op.Slice(pads, [spatial], [2 * spatial], [0])
    return op.Slice(whole, op.Slice(pads, [0], [spatial], [0]), ends, list(range(2, whole.rank)))


@expansion("CropAndResize", domain=DOMAIN)
def crop_and_resize(op: Builder, n: NodeView) -> Value:
    """Each box (y1, x1, y2, x2, as shares of the image) sampled at `crop_size` places between its corners, those included."""
    boxes, which, size = operand(n, 1), operand(n, 2), op.Cast(operand(n, 3), to=INT64)
    nearest = str(setting(n, "mode", "bilinear")) == "nearest"
    places, inside = [], []
    for k in range(2):
        extent = op.Cast(op.dim(n.x, 2 + k) - 1, to=n.x.dtype)
        count = op.Slice(size, [k], [k + 1], [0])
        first, last = (op.Slice(boxes, [c], [c + 1], [1]) * extent for c in (k, k + 2))
        # A single place lies in the middle.
        steps = op.Cast(op.Max(count - 1, op.constant(np.asarray([1]))), to=n.x.dtype)
        share = op.Cast(op.Unsqueeze(positions(op, count), [0]), to=n.x.dtype) / steps
        share = op.Where(op.Equal(count, op.constant(np.asarray([1]))), op.constant(0.5, n.x), share)
        place = first + (last - first) * share  # [R, count]
        inside.append(op.And(place >= 0.0, op.Not(place > extent)))
        if nearest:
            place = op.Floor(place + 0.5)
        places.append(place / op.Max(extent, op.constant(0.5, n.x)) * 2 - 1)
    down, across = op.Unsqueeze(places[0], [2, 3]), op.Unsqueeze(places[1], [1, 3])
    shape = op.Concat(op.dim(boxes, 0), size, op.constant(np.asarray([1])), axis=0)
    grid = op.Concat(op.Expand(across, shape), op.Expand(down, shape), axis=3)
    y = op.GridSample(op.Gather(n.x, op.Cast(which, to=INT64), axis=0), grid, mode="nearest" if nearest else "linear", align_corners=1, padding_mode="border")
    seen = op.And(op.Unsqueeze(inside[0], [1, 3]), op.Unsqueeze(inside[1], [1, 2]))
    return op.Where(seen, y, float(setting(n, "extrapolation_value", 0.0)))
