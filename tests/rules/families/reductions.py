"""Reductions: axes given, absent, empty, negative, known only at run time; and the cumulative sum and product."""

import numpy as np

from tests.rules.case import Case

ALL = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"]
ONE_ZERO = np.array([[0.0, 2.0, -1.5, 0.5], [1.0, 2.0, 0.7, -0.4]])
TWO_ZEROS = np.array([[0.0, 2.0, 0.0, 0.5], [1.0, 2.0, 0.7, -0.4]])
MANY_ZEROS = np.array([[0.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.7, -0.4], [0.0, 0.0, 0.0, 0.0]])
LARGE = np.array([[800.0, 801.5, 799.0], [-900.0, -900.5, -899.0]])
# Along each axis no element is the largest or smallest of two lines by chance alone.
POSITIVE = (0.4, 2.0)


def axes(numbers: str, count: int) -> str:
    return f"a = Constant<value = int64[{count}] {{{numbers}}}>()"


def over(op: str, text: str, x: object, **facts: object) -> Case:
    # The specification computes ReduceL2's root in float32.
    inputs = x if isinstance(x, dict) else {"x": x}
    return Case(op, text.replace("OP", op), inputs, **{"domain": POSITIVE, "against_body": op != "ReduceL2", **facts})


CASES = [
    *(over(op, "y = OP(x)", {"x": (2, 3, 4)}) for op in ALL),
    *(over(op, "y = OP<keepdims=0>(x)", {"x": (2, 3)}) for op in ALL),
    *(over(op, f"{axes('1', 1)} y = OP(x, a)", {"x": (2, 3, 4)}) for op in ALL),
    *(over(op, f"{axes('-1, 0', 2)} y = OP<keepdims=0>(x, a)", {"x": (2, 3, 4)}) for op in ALL),
    *(over(op, f"{axes('0', 1)} y = OP<keepdims=0>(x, a)", {"x": (4, 3)}) for op in ALL),
    *(over(op, f"{axes('1', 1)} y = OP<keepdims=0>(x, a)", {"x": (3, 1, 2)}) for op in ALL),
    *(over(op, f"{axes('-2', 1)} y = OP(x, a)", {"x": (2, 3, 2, 2)}, domain=(-2.0, -0.4)) for op in ALL if op != "ReduceLogSum"),
    # Axes that are a run-time value
    *(over(op, "y = OP(x, a)", {"x": (2, 3, 4), "a": np.array([0, -1])}) for op in ALL),
    *(over(op, "y = OP<keepdims=0>(x, a)", {"x": (2, 3, 4), "a": np.array([1])}) for op in ALL),
    *(over(op, "y = OP<noop_with_empty_axes=1>(x, a)", {"x": (2, 3), "a": np.array([1])}) for op in ALL),
    # Nothing to reduce over
    *(over(op, "y = OP<noop_with_empty_axes=1>(x)", {"x": (2, 3)}) for op in ALL),
    *(over(op, f"{axes('', 0)} y = OP<noop_with_empty_axes=1, keepdims=0>(x, a)", {"x": (2, 3)}) for op in ALL),
    *(over(op, f"{axes('', 0)} y = OP(x, a)", {"x": (2, 3)}) for op in ALL),
    *(over(op, "y = OP(x)", {"x": ()}) for op in ALL),
    # Both signs, large numbers, zeros
    *(over(op, f"{axes('1', 1)} y = OP(x, a)", {"x": (3, 4)}, domain=(-2.0, 2.0)) for op in ALL if op != "ReduceLogSum"),
    Case("ReduceLogSumExp", f"{axes('1', 1)} y = ReduceLogSumExp<keepdims=0>(x, a)", {"x": LARGE}, against_body=False, because="the body overflows"),
    *(Case("ReduceProd", f"{axes('1', 1)} y = ReduceProd<keepdims={k}>(x, a)", {"x": x}) for k, x in ((0, ONE_ZERO), (1, TWO_ZEROS), (0, MANY_ZEROS))),
    Case("ReduceProd", "y = ReduceProd(x)", {"x": TWO_ZEROS}),
    Case("ReduceMax", f"{axes('1', 1)} s = Mul(x, x) y = ReduceMax<keepdims=0>(s, a)", {"x": (3, 4)}),
    # Cumulative
    *(
        Case("CumSum", f"i = Constant<value = int64 {{{axis}}}>() y = CumSum<exclusive={e}, reverse={r}>(x, i)", {"x": (2, 3, 4)})
        for axis, e, r in ((1, 0, 0), (-1, 1, 0), (0, 0, 1), (-2, 1, 1))
    ),
    Case("CumSum", "y = CumSum(x, i)", {"x": (3, 2), "i": np.array(0)}),
    Case("CumSum", "y = CumSum<exclusive=1>(x, i)", {"x": (4,), "i": np.array(-1)}),
    *(
        Case("CumProd", f"i = Constant<value = int64 {{{axis}}}>() y = CumProd<exclusive={e}, reverse={r}>(x, i)", {"x": (2, 3, 4)}, opset=26)
        for axis, e, r in ((1, 0, 0), (-1, 1, 0), (0, 0, 1), (-2, 1, 1))
    ),
    *(
        Case("CumProd", f"i = Constant<value = int64 {{1}}>() y = CumProd<exclusive={e}, reverse={r}>(x, i)", {"x": x}, opset=26)
        for e, r, x in ((0, 0, ONE_ZERO), (0, 1, TWO_ZEROS), (1, 0, TWO_ZEROS), (1, 1, MANY_ZEROS), (0, 0, MANY_ZEROS))
    ),
]
