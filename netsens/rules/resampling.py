"""Resize: a linear map of each axis in turn, the same for all lines along it, so that its transpose is a product with each axis's matrix.

The matrix of an axis is what the operator itself makes of the identity, whatever its mode; where sizes are known onnxruntime computes it once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.emit import Builder, Value
from netsens.graph.shapes import same_shape
from netsens.rules.words import NodeView, jvp, transpose

_KEPT = ("mode", "coordinate_transformation_mode", "nearest_mode", "cubic_coeff_a", "exclude_outside", "antialias")
# Pairs for which nearest upsampling by a whole number repeats each element that often.
_REPEATS = {("asymmetric", "floor"), ("tf_half_pixel_for_nn", "floor")} | {
    (mode, rounding) for mode in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric") for rounding in ("round_prefer_floor", "round_prefer_ceil")
}


@jvp("Resize")
def resize(op: Builder, n: NodeView, x: Value | None, roi: Value | None = None, scales: Value | None = None, *sizes: None) -> Value | None:
    """The operator itself, with zeros for what it would fill in outside the image."""
    _hold_places(n, roi is not None, scales is not None)
    if x is None:
        return None
    attributes = {k: v for k, v in n.node.attributes.items() if k != "extrapolation_value"}
    return op.retyped(op.emit("Resize", [x, *n.inputs[1:]], attributes), n.y.shape)


def _hold_places(n: NodeView, region: bool, scales: bool) -> None:
    """Where the image is read is held still: by what moves that, the derivative is not known here (nearest pixels jump, and otherwise stay)."""
    moving = "region of interest" if region and n["coordinate_transformation_mode"] == "tf_crop_and_resize" else "scales" if scales else ""
    if moving and n["mode"] != "nearest":
        raise UnsupportedError(f"{n.node.label} is differentiated by its image, not by its {moving}; make the {moving} constant, or leave it out of --wrt.")


@transpose("Resize")
def resize_back(op: Builder, n: NodeView, g: Value | None) -> Value | None:
    _hold_places(n, len(n.wanted) > 1 and n.wanted[1], len(n.wanted) > 2 and n.wanted[2])
    if g is None or not n.wanted[0]:
        return None
    if same_shape(n.x.type.shape, n.y.type.shape):
        return g  # onnxruntime copies the image then, whatever its scales
    axes = [a % n.x.rank for a in n["axes"] or range(n.x.rank)]
    repeats = _repeats(n, axes)
    if repeats is not None:
        # Sums over blocks; 6 times as fast as the products below on 64 channels of 56x56.
        total = op.AveragePool(g, kernel_shape=repeats, strides=repeats) * float(np.prod(repeats))
        return op.retyped(total, n.x.shape)
    for k, axis in reversed(list(enumerate(axes))):
        if not _is_kept(n, k, axis):
            g = _along(op, g, axis, _matrix(op, n, axes, k), op.dim(n.x, axis))
    return op.retyped(g, n.x.shape)


def _scales(n: NodeView) -> Value | None:
    scales = n.input(2)
    return None if scales is None or scales.shape == (0,) else scales


def _repeats(n: NodeView, axes: Sequence[int]) -> list[int] | None:
    """How often nearest upsampling repeats each element along the spatial axes, where it does nothing else."""
    if n["mode"] != "nearest" or n.x.rank < 3 or (n["coordinate_transformation_mode"], n["nearest_mode"]) not in _REPEATS:
        return None
    scales = _scales(n)
    factors = [1] * n.x.rank
    for k, axis in enumerate(axes):
        have, get = n.x.shape[axis], n.y.shape[axis]
        if scales is not None:
            factor = None if scales.constant is None else float(scales.constant[k])
        elif isinstance(have, int) and isinstance(get, int) and have and n["keep_aspect_ratio_policy"] == "stretch":
            factor = get / have
        else:
            factor = 1.0 if have == get else None
        if factor is None or factor < 1 or factor != int(factor):
            return None
        factors[axis] = int(factor)
    return factors[2:] if factors[:2] == [1, 1] else None


def _is_kept(n: NodeView, k: int, axis: int) -> bool:
    """Whether this axis stays as it is: in onnxruntime one of scale 1 does, in every mode."""
    scales = _scales(n)
    if scales is not None and scales.constant is not None:
        return bool(scales.constant[k] == 1)
    return n["keep_aspect_ratio_policy"] == "stretch" and n.x.shape[axis] is not None and n.x.shape[axis] == n.y.shape[axis]


def _matrix(op: Builder, n: NodeView, axes: Sequence[int], k: int) -> Value:
    """What an axis of length S becomes, as [S, O]: the operator over the rows of the identity."""
    axis, count = axes[k], len(axes)
    length = op.dim(n.x, axis)
    identity = op.EyeLike(op.ConstantOfShape(op.Concat(length, length, axis=0)), dtype=n.x.dtype)
    attributes = {key: n[key] for key in _KEPT if key in n}
    roi = n.input(1) if n["coordinate_transformation_mode"] == "tf_crop_and_resize" else None
    if n["keep_aspect_ratio_policy"] == "stretch" or _scales(n) is not None:
        # [S, S] -> [S, 1, 1, S] -> [S, 1, 2, O] -> [S, O]; an axis that grows from 1 to 2 keeps onnxruntime from taking O = S for a mere copy.
        rows = op.Unsqueeze(identity, [1, 2])
        region = None if roi is None else op.Concat(op.constant([0.0], roi), op.Gather(roi, [k]), op.constant([1.0], roi), op.Gather(roi, [count + k]), axis=0)
        scales, sizes = _scales(n), n.input(3)
        factors = None if scales is None else op.Concat(op.constant([2.0], scales), op.Gather(scales, [k]), axis=0)
        lengths = None if scales is not None or sizes is None else op.Concat([2], op.Gather(sizes, [k]), axis=0)
        result = op.Resize(rows, region, factors, lengths, axes=[2, 3], **attributes)
        line = op.Squeeze(op.Slice(result, [0], [1], [2]), [1, 2])
        return op.retyped(line, (n.x.shape[axis], n.y.shape[axis]))
    # The scale is chosen from all axes together, so they all must be there: [S, 1, .., S] over the other axes' own lengths.
    if 0 in axes:
        raise UnsupportedError(f"{n.node.label} keeps the aspect ratio of an image that includes the batch axis; resize the spatial axes alone.")
    rank = n.x.rank
    others = [a for a in range(1, rank) if a != axis]
    whole = [length, *(op.dim(n.x, a) if a in axes else 1 for a in range(1, rank))]
    rows = op.Expand(op.Unsqueeze(identity, others), op.vector(whole))
    result = op.Resize(rows, roi, None, n.input(3), axes=list(axes), keep_aspect_ratio_policy=n["keep_aspect_ratio_policy"], **attributes)
    line = op.Slice(result, [0] * len(others), [1] * len(others), others)
    return op.retyped(op.Squeeze(line, others), (n.x.shape[axis], n.y.shape[axis]))


def _along(op: Builder, g: Value, axis: int, matrix: Value, length: Value) -> Value:
    """g [.., O, ..] times the matrix [S, O] along one axis, [.., S, ..]."""
    if axis == g.rank - 1:
        return op.MatMul(g, op.Transpose(matrix, perm=[1, 0]))
    if axis == g.rank - 2:
        return op.MatMul(matrix, g)
    # [.., O, rest] -> [.., S, rest] -> [.., S, ..]
    behind = [op.dim(g, a) for a in range(axis + 1, g.rank)]
    product = op.MatMul(matrix, op.Reshape(g, [*([0] * (axis + 1)), -1]))
    if axis == 0:
        return op.Reshape(product, op.vector([length, *behind]))
    return op.Reshape(product, op.vector([*([0] * axis), length, *behind]))
