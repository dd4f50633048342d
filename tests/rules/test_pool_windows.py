"""Drawn windows of MaxPool, as onnxruntime runs the gradient, against every window looked at by itself: axes from one to three, strides, dilations, padding, ties, images of
known and of unknown size, a Relu before them, several channels (onnxruntime's Col2Im mixes them up where it is dilated along one axis or three)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import netsens
from netsens.errors import UnsupportedError
from netsens.graph.graph import Array


def _drawn(seed: int) -> tuple[dict[str, list[int]], Array, list[Any], bool]:
    """A pool's attributes, an image, its declared shape, and whether a Relu is before the pool."""
    rng = np.random.default_rng(seed)
    rank = int(rng.choice([1, 2, 2, 3]))
    kernel = [int(k) for k in rng.integers(1, 6 if rank < 3 else 4, rank)]
    dilations = [int(d) for d in rng.integers(1, 3, rank)] if rng.random() < 0.5 else [1] * rank
    pads = [int(rng.integers(0, k)) if rng.random() < 0.5 else 0 for k in (*kernel, *kernel)]
    attributes = {"kernel_shape": kernel, "strides": [int(s) for s in rng.integers(1, 4, rank)], "dilations": dilations, "pads": pads}
    sizes = [(k - 1) * d + 1 + int(rng.integers(0, 8)) for k, d in zip(kernel, dilations, strict=True)]
    shape = (int(rng.integers(1, 3)), int(rng.choice([1, 3, 16, 24, 32])), *sizes)
    x = rng.integers(-3, 4, shape) if rng.random() < 0.5 else rng.standard_normal(shape)
    declared = list(shape) if rng.random() < 0.6 else ["N", shape[1], *(f"d{k}" for k in range(rank))]
    return attributes, x.astype(np.float32), declared, bool(rng.random() < 0.5)


def _back(x: Array, g: Array, attributes: dict[str, list[int]]) -> Array:
    """g at the first maximum of each window, row by row."""
    result = np.zeros_like(x)
    kernel, strides, dilations, pads = (attributes[key] for key in ("kernel_shape", "strides", "dilations", "pads"))
    for n, c, *out in product(*map(range, g.shape)):
        best: tuple[float, tuple[int, ...]] | None = None
        for place in product(*map(range, kernel)):
            at = tuple(o * s - b + p * d for o, s, b, p, d in zip(out, strides, pads, place, dilations, strict=False))
            inside = all(0 <= a < size for a, size in zip(at, x.shape[2:], strict=True))
            if inside and (best is None or x[(n, c, *at)] > best[0]):
                best = float(x[(n, c, *at)]), at
        assert best is not None
        result[(n, c, *best[1])] += g[(n, c, *out)]
    return result


@pytest.mark.parametrize("seed", range(60))
def test_drawn_windows_give_back_to_their_first_maximum(seed: int) -> None:
    attributes, x, declared, rectified = _drawn(seed)
    nodes = [helper.make_node("Relu", ["x"], ["r"])] if rectified else []
    nodes.append(helper.make_node("MaxPool", ["r" if rectified else "x"], ["y"], **attributes))
    graph = helper.make_graph(nodes, "pool", [helper.make_tensor_value_info("x", 1, declared)], [helper.make_tensor_value_info("y", 1, [None] * x.ndim)])
    model = netsens.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    y = model.run(x)["y"]
    g = np.random.default_rng(seed).standard_normal(y.shape).astype(np.float32)
    expected = _back(np.maximum(x, 0), g, attributes) * (x > 0) if rectified else _back(x, g, attributes)
    np.testing.assert_allclose(model.grad(x, cotangent=g)["x"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [1, 3])
def test_dilated_columns_over_other_than_two_axes_are_refused(axes: int) -> None:
    """onnxruntime's own Col2Im is wrong there, so a model that holds it computes something else than what would be differentiated."""
    block = helper.make_node("Col2Im", ["x", "s", "k"], ["y"], "fold", dilations=[2] * axes)
    constants = [numpy_helper.from_array(np.full(axes, value), name) for name, value in (("s", 5), ("k", 2))]
    shapes = [helper.make_tensor_value_info("x", 1, [2, 3 * 2**axes, 3**axes]), helper.make_tensor_value_info("y", 1, [None] * (axes + 2))]
    graph = helper.make_graph([block], "fold", shapes[:1], shapes[1:], constants)
    model = netsens.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    x = np.ones((2, 3 * 2**axes, 3**axes), np.float32)
    with pytest.raises(UnsupportedError, match=r"fold.*mixes up"):
        model.grad(x)
    with pytest.raises(UnsupportedError, match=r"fold.*mixes up"):
        model.linearize(x).jvp(x)
