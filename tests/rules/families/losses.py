"""Losses on class labels."""

import numpy as np

from tests.rules.case import Case

FLAT = np.array([2, 0, 3])
PIXELS = np.array([[2, 0, 3], [1, 1, 2]])
IMAGES = np.array([[[2, 0], [3, 1], [1, 1]], [[0, 0], [2, 3], [3, 3]]])
SHAPES = [({"x": (3, 4)}, FLAT), ({"x": (2, 4, 3)}, PIXELS), ({"x": (2, 4, 3, 2)}, IMAGES)]
BOTH = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
WEIGHTS = np.array([0.5, 1.5, 2.0, 0.3])

CASES = [
    *(
        Case(op, f'y = {op}<reduction="{reduction}">(x, t)', {**x, "t": t}, opset=22 if op[0] == "N" else 21)
        for op in BOTH
        for x, t in SHAPES
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(op, f'y = {op}<reduction="{reduction}">(x, t, w)', {**x, "t": t, "w": WEIGHTS})
        for op in BOTH
        for x, t in SHAPES
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(op, f'y = {op}<reduction="{reduction}", ignore_index=1>(x, t)', {"x": (2, 4, 3), "t": PIXELS})
        for op in BOTH
        for reduction in ("mean", "sum", "none")
    ),
    *(
        Case(op, f'y = {op}<reduction="{reduction}", ignore_index=-100>(x, t, w)', {"x": (4, 4), "t": np.array([2, -100, 1, -100]), "w": WEIGHTS})
        for op in BOTH
        for reduction in ("mean", "sum", "none")
    ),
    *(Case(op, f"y = {op}<ignore_index=3>(x, t, w)", {"x": (3, 4), "t": FLAT.astype(np.int32), "w": WEIGHTS}, constants=("w",), wrt=("x",)) for op in BOTH),
    Case("SoftmaxCrossEntropyLoss", "y, p = SoftmaxCrossEntropyLoss(x, t)", {"x": (3, 4), "t": FLAT}, of="p"),
    Case("SoftmaxCrossEntropyLoss", "y, p = SoftmaxCrossEntropyLoss(x, t)", {"x": (3, 4), "t": FLAT}),
    Case("SoftmaxCrossEntropyLoss", "l, p = SoftmaxCrossEntropyLoss<ignore_index=0>(x, t, w) y = Mul(l, p)", {"x": (2, 4, 3), "t": PIXELS, "w": WEIGHTS}),
    Case("SoftmaxCrossEntropyLoss", "y = SoftmaxCrossEntropyLoss(x, t)", {"x": (2, 1), "t": np.array([0, 0])}),
]
