"""Gathering and scattering: indices that are constants or inputs, negative, repeated, of every rank; every reduction."""

from collections.abc import Sequence

import numpy as np

from tests.rules.case import Case

ML = {"ai.onnx.ml": 4}
REDUCTIONS = ("none", "add", "mul", "min", "max")


def gather(shape: Sequence[int], indices: object, axis: int = 0, constant: bool = True) -> Case:
    return Case("Gather", f"y = Gather<axis={axis}>(x, i)", {"x": tuple(shape), "i": np.array(indices)}, constants=("i",) if constant else ())


def gather_nd(shape: Sequence[int], indices: object, batch: int = 0, constant: bool = True) -> Case:
    return Case("GatherND", f"y = GatherND<batch_dims={batch}>(x, i)", {"x": tuple(shape), "i": np.array(indices)}, constants=("i",) if constant else ())


def scatter(
    op: str, shape: Sequence[int], indices: object, updates: object, reduction: str = "none", axis: int | None = None, wrt: Sequence[str] | None = None,
    constant: bool = False,
) -> Case:  # fmt: skip
    """`updates` is a shape or an array."""
    along = f"axis={axis}, " if axis is not None else ""
    inputs = {"x": tuple(shape), "i": np.array(indices), "u": updates}
    return Case(op, f'y = {op}<{along}reduction="{reduction}">(x, i, u)', inputs, wrt=wrt, constants=("i",) if constant else ())


THREE = np.array([3])
COLUMNS = [[0, 2, 1], [3, 0, 2]]
REPEATED = [[0, 2, 0], [-1, 0, 2], [0, 2, -1]]
POINTS = [[0, 1], [-1, 2], [1, 0]]
SAME_POINTS = [[0, 1], [-1, 2], [0, 1], [0, -2]]


CASES = [
    # Gather with constant indices: alone, in a row, backwards, in steps, in a few runs, all of them in another order
    gather((5, 3), 2),
    gather((5, 3), -1, axis=1),
    gather((5, 3), [1]),
    gather((5, 3), [1, 2, 3]),
    gather((2, 6, 3), [4, 3, 2], axis=1),
    gather((2, 7, 3), [0, 2, 4, 6], axis=-2),
    gather((2, 8), [7, 4, 1], axis=1),
    gather((2, 7), [1, 3, 5], axis=1),
    gather((3, 6), [0, 1, 4, 5, 5, 5, 2, 1], axis=1),
    gather((3, 6), [2, 1, 0, 1, 2, 3, 4, 5, 4], axis=1),
    gather((4,), [2, 2, 2]),
    gather((20, 2), [3, 9, 1, 7, 19, 0, 12, 5, 15, 11]),
    gather((12, 2), [3, 9, 1, 7, 10, 0, 8, 5, 6, 11, 2, 4]),
    gather((2, 12, 3), [3, 9, 1, 7, 3, 10, 0, 5, 3, 11, 3, 8], axis=1),
    gather((5, 3), [[0, -1], [2, 2]]),
    gather((2, 5, 3), [[0, 1, 2], [2, 3, 4]], axis=1),
    gather((5, 2), np.zeros(0, np.int64)),
    # and with indices known only at run time
    gather((5, 3), 2, constant=False),
    gather((5, 3), -2, axis=-1, constant=False),
    gather((5, 3), [1, 1, -5, 4], constant=False),
    gather((4, 5, 3), [[0, 4], [0, -1]], axis=1, constant=False),
    gather((4, 5, 3), [2, 0, 2], axis=2, constant=False),
    gather((4,), [[3], [0], [3]], constant=False),
    Case("Gather", "y = Gather<axis=1>(x, i)", {"x": (3, 4), "i": np.array([1, 3], np.int32)}),
    Case("GatherElements", "y = GatherElements<axis=1>(x, i)", {"x": (2, 4), "i": np.array(COLUMNS)}, constants=("i",)),
    Case("GatherElements", "y = GatherElements<axis=0>(x, i)", {"x": (4, 3), "i": np.array(REPEATED)}),
    Case("GatherElements", "y = GatherElements<axis=-2>(x, i)", {"x": (3, 4, 2), "i": np.array([[[0, 1]], [[-4, 3]]])}),
    Case("GatherElements", "y = GatherElements(x, i)", {"x": (4,), "i": np.array([1, 1, 3, -1, 0])}),
    gather_nd((3, 4), POINTS),
    gather_nd((3, 4), SAME_POINTS, constant=False),
    gather_nd((3, 4, 2), [[1], [0], [-3], [1]], constant=False),
    gather_nd((2, 3, 4), [[[1], [0]], [[-1], [1]]], batch=1, constant=False),
    gather_nd((2, 3, 4), [[1], [-1]], batch=1),
    gather_nd((2, 3, 4, 2), [[[1, -1]], [[0, 3]]], batch=1, constant=False),
    gather_nd((2, 2, 3, 2), [[[2], [0]], [[1], [1]]], batch=2, constant=False),
    gather_nd((2, 3), [1, 2]),
    gather_nd((2, 3, 4), [[[[0, 1], [1, 2]]], [[[0, 1], [0, 1]]]], constant=False),
    # Scatter, every reduction by data and by updates
    *(
        case
        for r in REDUCTIONS
        for case in (
            scatter("ScatterElements", (2, 4), COLUMNS, (2, 3), r, axis=1),
            scatter("ScatterElements", (4, 5), [[0, 2], [-1, 1]], (2, 2), r, axis=0),
            scatter("ScatterElements", (2, 4), [[0, 2, -1]], (1, 3), r, axis=-1, wrt=("x",)),
            scatter("ScatterND", (3, 4), POINTS, (3,), r),
            scatter("ScatterND", (4, 3, 2), [[1], [-1]], (2, 3, 2), r),
            scatter("ScatterND", (4, 3), [[[2], [0]]], (1, 2, 3), r, wrt=("u",)),
        )
    ),
    *(
        case
        for r in REDUCTIONS[1:]
        for case in (
            scatter("ScatterElements", (3, 4), REPEATED, (3, 3), r, axis=1),
            scatter("ScatterElements", (2,), [0, 0, 0, 0, 1], (5,), r, axis=0),
            scatter("ScatterND", (3, 4), SAME_POINTS, (4,), r),
            scatter("ScatterND", (4, 3), [[1], [1], [-3], [0]], (4, 3), r),
        )
    ),
    # Of updates to the same element onnxruntime keeps the last
    *(
        case
        for constant in (True, False)
        for case in (
            scatter("ScatterElements", (3, 4), REPEATED, (3, 3), axis=1, constant=constant),
            scatter("ScatterElements", (2, 3), [[0, -1], [1, 0], [-2, 1], [1, 1]], (4, 2), axis=0, constant=constant),
            scatter("ScatterND", (3, 4), SAME_POINTS, (4,), constant=constant),
            scatter("ScatterND", (4, 3), [[1], [1], [-3], [0]], (4, 3), constant=constant),
        )
    ),
    # A product with one, two and three zeros at one place, and ties in a maximum with the data and among updates, split evenly
    scatter("ScatterElements", (4,), [0, 0, 1, 1, 1, 2, 2, 2, 2, 3], np.array([0.0, 2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 5.0, 1.5]), "mul", axis=0),
    scatter("ScatterND", (3,), [[0], [0], [1]], np.array([0.0, 2.0, 0.0]), "mul"),
    Case("ScatterElements", "y = ScatterElements(x, i, u)", {"x": (3,), "i": np.array([2, 0]), "u": (2,)}, constants=("i",)),
    Case("Scatter", "y = Scatter<axis=1>(x, i, u)", {"x": (2, 4), "i": np.array(COLUMNS), "u": (2, 3)}, opset=10),
    *(
        Case("TensorScatter", f'y = TensorScatter<axis={axis}, mode="{mode}">(x, u, i)', {"x": shape, "u": part, "i": np.array(at)}, opset=24)
        for mode, axis, shape, part, at in (
            ("linear", 1, (2, 5, 3), (2, 2, 3), (1, 3)),
            ("circular", 1, (2, 5, 3), (2, 2, 3), (4, 2)),
            ("linear", -2, (2, 2, 4, 3), (2, 2, 1, 3), (3, 0)),
            ("circular", 2, (2, 2, 4, 3), (2, 2, 3, 3), (3, 0)),
        )
    ),
    Case("TensorScatter", "y = TensorScatter(x, u)", {"x": (2, 3, 4, 2), "u": (2, 3, 2, 2)}, opset=24),
    # Choosing
    Case("Compress", "y = Compress<axis=1>(x, c)", {"x": (2, 4), "c": np.array([True, False, True, True])}),
    Case("Compress", "y = Compress<axis=0>(x, c)", {"x": (4, 3), "c": np.array([False, True, True])}, constants=("c",)),
    Case("Compress", "y = Compress<axis=-1>(x, c)", {"x": (2, 3, 4), "c": np.array([False, True])}),
    Case("Compress", "y = Compress(x, c)", {"x": (2, 3), "c": np.array([False, True, True, False, True])}),
    Case("TopK", "y, i = TopK(x, k)", {"x": (3, 5), "k": np.array([2])}, constants=("k",)),
    Case("TopK", "y, i = TopK<axis=0, largest=0>(x, k)", {"x": (5, 3), "k": np.array([3])}, constants=("k",)),
    Case("TopK", "v, i = TopK<axis=-2, sorted=0>(x, k) y = ReduceSumSquare(v, a)", {"x": (2, 4, 3), "k": THREE, "a": np.array([1])}, constants=("k", "a")),
    Case("TopK", "y, i = TopK(x, k)", {"x": (3, 5), "k": np.array([2])}, symbolic=False),
    Case("Unique", "y, i, j, c = Unique(x)", {"x": (2, 3)}, symbolic=False),
    Case("Unique", "y = Unique<sorted=0>(x)", {"x": (5,)}, symbolic=False),
    Case("Unique", "y, i, j, c = Unique<axis=1>(x)", {"x": (2, 3)}, symbolic=False),
    Case("ArrayFeatureExtractor", "y = ai.onnx.ml.ArrayFeatureExtractor(x, i)", {"x": (3, 5), "i": np.array([4, 0, 4])}, domains=ML),
    Case("ArrayFeatureExtractor", "y = ai.onnx.ml.ArrayFeatureExtractor(x, i)", {"x": (2, 3, 4), "i": np.array([[1, 2]])}, domains=ML, constants=("i",)),
]
