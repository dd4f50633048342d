"""Types of operators that slide windows along axes: convolutions, pools, short-time transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from netsens.graph.dtypes import INT8, INT32, INT64, UINT8
from netsens.graph.graph import Array, Dim, TensorType
from netsens.graph.shapes import ShapeFormula, shape_of, sizes_of, whole_numbers
from netsens.graph.sizes import dim_of, named, product, quotient, size_of


def _windows(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    """Convolutions and pools; those over static shapes are left to ONNX, whose word on rounding counts."""
    x = shape_of(types[0])
    spatial, convolution = x[2:], len(types) > 1
    dtype = INT32 if types[0].dtype in (UINT8, INT8) and convolution else types[0].dtype
    kernel: list[Any] = list(attributes.get("kernel_shape") or shape_of(types[1])[2:])
    if not all(isinstance(k, int) for k in kernel):
        return [TensorType(dtype, (x[0], shape_of(types[1])[0], *(None for _ in kernel)))]
    if all(isinstance(d, int) for d in spatial):
        return None
    rank, mode = len(spatial), attributes.get("auto_pad", "NOTSET")
    strides, dilations = attributes.get("strides") or [1] * rank, attributes.get("dilations") or [1] * rank
    pads = (attributes.get("pads") or [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
    dims: list[Dim] = []
    for k, dim in enumerate(spatial):
        size = size_of(dim)
        if size is None:
            dims.append(None)
        elif mode.startswith("SAME"):
            dims.append(dim_of(quotient(size + (strides[k] - 1), strides[k])))
        elif attributes.get("ceil_mode"):
            dims.append(dim_of(named(f"pooled {kernel[k]} {dilations[k]} {strides[k]} {pads[k]} {pads[rank + k]}", size)))
        else:
            extent = (kernel[k] - 1) * dilations[k] + 1
            # floor((size + pads - extent) / stride) + 1
            dims.append(dim_of(quotient(size + (pads[k] + pads[rank + k] - extent + strides[k]), strides[k])))
    channels = shape_of(types[1])[0] if convolution else x[1]
    result = TensorType(dtype, (x[0], channels, *dims))
    return [result, replace(result, dtype=INT64)][: 1 if convolution else 2]


def _transposed_windows(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    x, w = shape_of(types[0]), shape_of(types[1])
    rank, kernel = len(x) - 2, w[2:]
    channels = product([w[1], attributes.get("group", 1)])
    if attributes.get("output_shape"):
        return [TensorType(types[0].dtype, (x[0], channels, *attributes["output_shape"][-rank:]))]
    if all(isinstance(d, int) for d in x[2:]) or attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    strides, dilations = attributes.get("strides") or [1] * rank, attributes.get("dilations") or [1] * rank
    pads, more = attributes.get("pads") or [0] * 2 * rank, attributes.get("output_padding") or [0] * rank
    dims: list[Dim] = []
    for k, dim in enumerate(x[2:]):
        size, window = size_of(dim), kernel[k]
        if size is None or not isinstance(window, int):
            return None
        # (size - 1) * stride + extent - pads
        dims.append(dim_of(size * strides[k] - strides[k] + (window - 1) * dilations[k] + 1 + more[k] - pads[k] - pads[rank + k]))
    return [TensorType(types[0].dtype, (x[0], channels, *dims))]


def _unpooled(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    if len(types) < 3 or not types[2].dtype:
        return None
    sizes = sizes_of(constants[2])
    return [TensorType(types[0].dtype, (None,) * len(shape_of(types[0])) if sizes is None else tuple(dim_of(d) for d in sizes))]


def _stft(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    signal, step = shape_of(types[0]), whole_numbers(constants[1])
    window = shape_of(types[2])[0] if len(types) > 2 and types[2].dtype else None
    length = whole_numbers(constants[3]) if len(constants) > 3 else None
    frame = length[0] if length else window
    if not isinstance(frame, int) or not step:
        return [TensorType(types[0].dtype, (signal[0], None, None, 2))]
    size = size_of(signal[1])
    frames = None if size is None else dim_of(quotient(size - frame + step[0], step[0]))
    return [TensorType(types[0].dtype, (signal[0], frames, frame // 2 + 1 if attributes.get("onesided", 1) else frame, 2))]


def _causal_convolution(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    width = shape_of(types[1])[2]
    return [types[0], TensorType(types[0].dtype, (*shape_of(types[0])[:2], width - 1 if isinstance(width, int) else None))]


FORMULAS: dict[str, ShapeFormula] = {
    "CausalConvWithState": _causal_convolution,
    **dict.fromkeys(("Conv", "ConvInteger", "AveragePool", "LpPool", "MaxPool"), _windows),
    "ConvTranspose": _transposed_windows,
    "MaxUnpool": _unpooled,
    "STFT": _stft,
}
