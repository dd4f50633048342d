"""Types that ONNX's own inference gets wrong where a size is known only when the model runs: which nodes those are, and what is true of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from netsens.graph.graph import Array, Dim, Node, TensorType
from netsens.graph.shapes import ShapeFormula, broadcast, known, shape_of
from netsens.graph.sizes import product, total


def is_mistaken(node: Node, found: TensorType | None, constants: Collection[str]) -> bool:
    """Whether what ONNX's inference found for a node's first output may be false. It takes the first of several axes under an ellipsis for all of them, a transform of a
    length that is an input for one of the signal's, an unknown width of heads for 0, and an output_shape below the input's for no axis at all."""
    if node.domain or found is None or found.shape is None:
        return False
    if node.op == "Einsum":
        return "..." in node.attributes["equation"] and not known(found.shape)
    if node.op == "DFT":
        return len(node.inputs) > 1 and bool(node.inputs[1]) and node.inputs[1] not in constants
    if node.op == "Attention":
        return 0 in found.shape
    return node.op == "ConvTranspose" and len(node.attributes.get("output_shape") or ()) > len(found.shape) - 2


def _einsum(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    """Of equations with an ellipsis; those without are left to ONNX."""
    equation = str(attributes["equation"]).replace(" ", "")
    if "..." not in equation:
        return None
    left, arrow, right = equation.partition("->")
    lengths: dict[str, Dim] = {}
    middle: tuple[Dim, ...] = ()
    for term, t in zip(left.split(","), types, strict=True):
        before, dots, behind = term.partition("...")
        shape = shape_of(t)
        letters = [*zip(before, shape, strict=False), *zip(behind, shape[len(shape) - len(behind) :], strict=True)]
        for letter, dim in letters:
            if not isinstance(lengths.get(letter), int):
                lengths[letter] = dim
        if dots:
            middle = broadcast(middle, shape[len(before) : len(shape) - len(behind)])
    if not arrow:
        right = "..." + "".join(sorted(c for c in lengths if left.count(c) == 1))
    before, dots, behind = right.partition("...")
    dims = (*(lengths[c] for c in before), *(middle if dots else ()), *(lengths[c] for c in behind))
    return [TensorType(types[0].dtype, dims)]


def _fourier(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    """Of a length that isn't known; the others are left to ONNX."""
    if len(types) < 2 or not types[1].dtype or constants[1] is not None:
        return None
    given = len(types) > 2 and bool(types[2].dtype)
    place = constants[2] if given else None
    dims = list(shape_of(types[0]))
    if given and place is None:
        dims[1:-1] = [None] * (len(dims) - 2)
    else:
        dims[-2 if place is None else int(place.reshape(-1)[0])] = None
    dims[-1] = 1 if attributes.get("inverse") and attributes.get("onesided") else 2
    return [TensorType(types[0].dtype, tuple(dims))]


def _attention(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    """Of operands [B, L, H * D]; those with an axis of heads are left to ONNX."""
    q, k, v = (shape_of(t) for t in types[:3])
    if len(q) != 3:
        return None
    heads, groups, dtype = int(attributes["q_num_heads"]), int(attributes["kv_num_heads"]), types[0].dtype
    past = shape_of(types[4])[2] if len(types) > 4 and types[4].dtype else 0
    keys = total([past, k[1]])
    key, value = (d // groups if isinstance(d, int) else None for d in (k[2], v[2]))
    width = v[2] if heads == groups else None if value is None else product([heads, value])
    return [
        TensorType(dtype, (*q[:2], width)),
        TensorType(types[1].dtype, (q[0], groups, keys, key)),
        TensorType(types[2].dtype, (q[0], groups, keys, value)),
        TensorType(dtype, (q[0], heads, q[1], keys)),
    ]


FORMULAS: dict[str, ShapeFormula] = {"Einsum": _einsum, "DFT": _fourier, "Attention": _attention}
