"""Softmax and LogSoftmax."""

import numpy as np

from tests.rules.case import Case

LARGE = np.array([[800.0, 801.5, 799.0, -100.0], [-900.0, -900.5, -899.0, -899.0]])

CASES = [
    *(Case(op, f"y = {op}(x)", {"x": shape}) for op in ("Softmax", "LogSoftmax") for shape in ((3,), (2, 3), (2, 1, 4))),
    *(Case(op, f"y = {op}<axis={axis}>(x)", {"x": (2, 3, 4)}) for op in ("Softmax", "LogSoftmax") for axis in (0, 1, -2, -1)),
    *(Case(op, f"y = {op}<axis=1>(x)", {"x": (2, 1)}) for op in ("Softmax", "LogSoftmax")),
    *(Case(op, f"y = {op}(x)", {"x": LARGE}, against_body=op != "Softmax") for op in ("Softmax", "LogSoftmax")),
    *(Case(op, f"s = Mul(x, x) y = {op}<axis=0>(s)", {"x": (3, 2, 2, 2)}) for op in ("Softmax", "LogSoftmax")),
]
