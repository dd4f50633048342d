"""Arithmetic with broadcasting, powers, choices, casts, Dropout; Range and OneHot."""

import numpy as np

from tests.rules.case import Case

NEW = "onnxruntime 1.31 has no opset 28"
TABLE = np.array([[0, 2, 1], [-1, 0, 5]])
HALF = np.array([[True, False, True], [False, False, True]])
# Each side of 0 and 0 itself, whole and broken powers of which have derivatives that must not become NaN.
ZEROS = np.array([0.0, 0.0, 1.5, -0.7])

CASES = [
    Case("Add", "y = Add(a, b)", {"a": (2, 3), "b": (2, 3)}),
    Case("Add", "y = Add(a, b)", {"a": (2, 3, 4), "b": (4,)}),
    Case("Add", "y = Add(a, b)", {"a": (1, 3, 1), "b": (2, 1, 4)}),
    Case("Add", "y = Add(a, b)", {"a": (), "b": (2, 3)}),
    Case("Sub", "y = Sub(a, b)", {"a": (4,), "b": (3, 4)}),
    Case("Sub", "y = Sub(a, b)", {"a": (3, 4), "b": (3, 1)}),
    Case("Sub", "y = Sub(a, b)", {"a": (3, 4), "b": ()}, wrt=("b",)),
    Case("Mul", "y = Mul(a, b)", {"a": (2, 1, 4), "b": (3, 1)}),
    Case("Mul", "y = Mul(a, a)", {"a": (2, 3)}),
    Case("Mul", "y = Mul(a, b)", {"a": (2, 3), "b": ()}, constants=("b",)),
    # A parameter that happens to be 1, 0 or -1 is a parameter all the same.
    *(Case(op, f"y = {op}(a, b)", {"a": (2, 3), "b": np.array(b)}, constants=("b",)) for op, b in (("Mul", 1.0), ("Mul", -1.0), ("Add", 0.0), ("Div", 1.0))),
    Case("Mul", "e = Expand(a, s) y = Mul(e, b)", {"a": (3, 1), "s": np.array([3, 4]), "b": (3, 4)}, constants=("s",)),
    Case("Div", "y = Div(a, b)", {"a": (3, 4), "b": (3, 1)}, domain=(0.5, 2.0)),
    Case("Div", "y = Div(a, b)", {"a": (4,), "b": (2, 3, 4)}, domain=(-2.0, -0.5)),
    Case("Div", "y = Div(a, b)", {"a": (2, 3), "b": (2, 3)}, domain=(0.5, 2.0), wrt=("b",)),
    Case("Neg", "y = Neg(x)", {"x": (2, 3)}),
    Case("Identity", "y = Identity(x)", {"x": (2, 3)}),
    Case("Reciprocal", "y = Reciprocal(x)", {"x": (2, 3)}, domain=(0.4, 3.0)),
    Case("Abs", "y = Abs(x)", {"x": (2, 3, 4)}),
    Case("Sqrt", "y = Sqrt(x)", {"x": (2, 3)}, domain=(0.2, 4.0)),
    Case("Exp", "y = Exp(x)", {"x": (2, 3)}),
    Case("Log", "y = Log(x)", {"x": (2, 3)}, domain=(0.2, 4.0)),
    Case("Sum", "y = Sum(a)", {"a": (2, 3)}),
    Case("Sum", "y = Sum(a, b, c)", {"a": (2, 3), "b": (3,), "c": (2, 1)}),
    Case("Sum", "y = Sum(a, b)", {"a": (2, 3), "b": (3,)}, wrt=("b",)),
    Case("Mean", "y = Mean(a)", {"a": (2, 3)}),
    Case("Mean", "y = Mean(a, b, c)", {"a": (2, 3), "b": (3,), "c": (2, 1)}),
    Case("Mod", "y = Mod<fmod=1>(a, b)", {"a": (3, 4), "b": (4,)}, domain=(0.9, 5.0)),
    Case("Mod", "y = Mod<fmod=1>(a, b)", {"a": np.array([-5.3, -2.2, 7.1]), "b": np.array([2.0, -1.5, -3.0])}),
    Case("Mod", "y = Mod(a, b)", {"a": np.array([-5.3, -2.2, 7.1]), "b": np.array([2.0, -1.5, -3.0])}, opset=28, float32=False, because=NEW),
    Case("Mod", "y = Mod(a, b)", {"a": (3, 4), "b": (3, 1)}, domain=(0.9, 5.0), opset=28, float32=False, because=NEW),
    # Powers
    Case("Pow", "y = Pow(a, b)", {"a": (2, 3), "b": (2, 3)}, domain=(0.3, 3.0)),
    Case("Pow", "y = Pow(a, b)", {"a": (2, 1, 4), "b": (3, 1)}, domain=(0.3, 3.0)),
    Case("Pow", "y = Pow(a, b)", {"a": (), "b": (2, 3)}, domain=(0.3, 3.0)),
    Case("Pow", "y = Pow(a, b)", {"a": (2, 3), "b": (2, 3)}, domain=(0.3, 3.0), wrt=("b",)),
    *(
        Case("Pow", f"e = Constant<value = int64 {{{e}}}>() y = Pow(a, e)", {"a": (2, 3)}, domain=(0.3, 2.0))
        for e in (-2, -1, 0, 1, 2, 3, 4)
    ),
    Case("Pow", "e = Constant<value = int32[3] {2, 3, 1}>() y = Pow(a, e)", {"a": (2, 3)}),
    Case("Pow", "y = Pow(a, e)", {"a": (2, 3), "e": np.array(2)}),
    Case("Pow", "y = Pow(a, e)", {"a": (2, 3), "e": np.array(0.5)}, domain=(0.3, 2.0), constants=("e",), wrt=("a",)),
    Case("Pow", "y = Pow(a, e)", {"a": (2, 3), "e": np.array(1.7)}, domain=(0.3, 2.0), constants=("e",), wrt=("a",)),
    Case("Pow", "y = Pow(a, e)", {"a": (2, 3), "e": np.array(2.0)}, domain=(0.3, 2.0), constants=("e",)),
    Case("Pow", "y = Pow(a, e)", {"a": ZEROS, "e": np.array(2.0)}, constants=("e",), wrt=("a",)),
    Case("Pow", "y = Pow(a, e)", {"a": ZEROS, "e": np.array(3.0)}, wrt=("a",)),
    Case("Pow", "y = Pow(a, e)", {"a": ZEROS, "e": np.array([2, 0, 3, 2])}),
    Case("Pow", "y = Pow(a, e)", {"a": ZEROS, "e": np.array([0.0, 4.0, 3.0, 2.0])}, wrt=("a",), against_body=False),
    # Choices
    Case("Max", "y = Max(a)", {"a": (2, 3)}),
    Case("Max", "y = Max(a, b)", {"a": (2, 3), "b": (2, 3)}, seed=3),
    Case("Max", "y = Max(a, b)", {"a": (2, 3, 4), "b": (3, 1)}),
    Case("Max", "y = Max(a, b, c)", {"a": (2, 3), "b": (3,), "c": (2, 1)}),
    Case("Max", "y = Max(a, b, c, d)", {"a": (2, 3), "b": (3,), "c": (2, 1), "d": ()}, wrt=("a", "c")),
    Case("Min", "y = Min(a)", {"a": (2, 3)}),
    Case("Min", "y = Min(a, b)", {"a": (2, 3), "b": (2, 1)}),
    Case("Min", "y = Min(a, b)", {"a": (2, 3), "b": ()}, constants=("b",), wrt=("a",)),
    Case("Min", "y = Min(a, b, c)", {"a": (2, 3), "b": (3,), "c": (2, 1)}),
    Case("Clip", "y = Clip(x)", {"x": (2, 3)}),
    Case("Clip", "y = Clip(x, low, high)", {"x": (3, 4), "low": np.array(-0.7), "high": np.array(0.9)}),
    Case("Clip", "y = Clip(x, low, high)", {"x": (3, 4), "low": np.array(-0.7), "high": np.array(0.9)}, constants=("low", "high"), wrt=("x",)),
    Case("Clip", "y = Clip(x, low)", {"x": (3, 4), "low": np.array(-0.7)}),
    Case("Clip", "y = Clip(x, , high)", {"x": (3, 4), "high": np.array(0.7)}),
    Case("Clip", "y = Clip(x, low, high)", {"x": (3, 4), "low": np.array(0.7), "high": np.array(-0.2)}),
    Case("Clip", "s = Mul(x, x) y = Clip(s, low, high)", {"x": (3, 4), "low": np.array(0.7), "high": np.array(2.1)}, constants=("low", "high"), wrt=("x",)),
    Case("Where", "y = Where(c, a, b)", {"c": HALF, "a": (2, 3), "b": (2, 3)}),
    Case("Where", "y = Where(c, a, b)", {"c": HALF, "a": (3,), "b": (2, 1)}),
    Case("Where", "y = Where(c, a, b)", {"c": HALF[:1], "a": (2, 3), "b": ()}),
    Case("Where", "y = Where(c, a, b)", {"c": HALF, "a": (), "b": (2, 3)}, wrt=("a",)),
    Case("Where", "y = Where(c, a, b)", {"c": HALF, "a": (1,), "b": (2, 2, 3)}, wrt=("b",)),
    Case("Where", "s = Mul(a, b) y = Where(c, s, b)", {"c": HALF, "a": (2, 3), "b": (3,)}),
    # Casts, Dropout
    Case("Cast", "z = Cast<to=11>(x) y = Mul(z, z)", {"x": (2, 3)}, float32=False, because="float32 becomes float64 here"),
    Case("Cast", "c = Cast<to=9>(b) y = Where(c, a, b)", {"a": (2, 3), "b": (2, 3)}),
    Case("CastLike", "y = CastLike(x, b)", {"x": (2, 3), "b": (1,)}, wrt=("x",)),
    Case("CastLike", "z = CastLike(x, b) y = Mul(z, b)", {"x": (2, 3), "b": (1,)}),
    Case("CastLike", "i = CastLike(x, k) z = CastLike(i, x) y = Mul(z, x)", {"x": np.array([0.4, 1.7, -2.3]), "k": np.array([1])}),
    Case("BitCast", "b = BitCast<to=7>(x) n = Cast<to=9>(b) y = Where(n, x, x)", {"x": (2, 3)}, opset=26, float32=False, because="float32 has 32 bits"),
    Case("Dropout", "y = Dropout(x)", {"x": (2, 3)}),
    Case("Dropout", "y, m = Dropout(x)", {"x": (2, 3)}),
    Case("Dropout", "t = Constant<value = bool {0}>() y, m = Dropout(x, r, t)", {"x": (2, 3), "r": np.array(0.3)}),
    Case(
        "Dropout", "t = Constant<value = bool {1}>() y, m = Dropout<seed=5>(x, r, t)", {"x": (5, 6), "r": np.array(0.3)},
        float32=False, because="onnxruntime draws other numbers",
    ),
    Case(
        "Dropout", "t = Constant<value = bool {1}>() y, m = Dropout<seed=5>(x, , t)", {"x": (5, 6)},
        float32=False, because="onnxruntime draws other numbers",
    ),
    Case(
        "Dropout", "y, m = Dropout<seed=5>(x, r, t)", {"x": (5, 6), "r": np.array(0.3), "t": np.array(True)},
        float32=False, because="onnxruntime draws other numbers",
    ),
    Case("Dropout", "y, m = Dropout<seed=5>(x, r, t)", {"x": (5, 6), "r": np.array(0.3), "t": np.array(False)}),
    # Flat but for one operand
    Case("Range", "y = Range(a, b, c)", {"a": np.array(0.3), "b": np.array(4.2), "c": np.array(0.7)}, against_body=False),
    Case("Range", "y = Range(a, b, c)", {"a": np.array(0.3), "b": np.array(-4.2), "c": np.array(-0.7)}, against_body=False),
    Case("Range", "y = Range(a, b, c)", {"a": np.array(0.3), "b": np.array(4.2), "c": np.array(0.7)}, against_body=False, constants=("a", "b"), wrt=("c",)),
    Case("Range", "b = Constant<value = int64 {5}>() r = Range(o, b, k) c = CastLike(r, x) y = Mul(c, x)", {"x": (5,), "o": np.array(0), "k": np.array(1)}),
    Case("OneHot", "y = OneHot(i, d, v)", {"i": TABLE, "d": np.array(4), "v": (2,)}),
    Case("OneHot", "y = OneHot<axis=0>(i, d, v)", {"i": TABLE, "d": np.array(4), "v": (2,)}, constants=("d",)),
    Case("OneHot", "y = OneHot<axis=-2>(i, d, v)", {"i": TABLE, "d": np.array(4), "v": (2,)}, constants=("v",)),
    Case("OneHot", "y = OneHot<axis=1>(i, d, v)", {"i": np.array([2, 1]), "d": np.array(3), "v": (2,)}),
    # Linear algebra and layout that arithmetic leans on
    Case("MatMul", "y = MatMul(a, b)", {"a": (2, 3, 4), "b": (4, 5)}),
    Case("MatMul", "y = MatMul(a, b)", {"a": (2, 3, 4), "b": (2, 4, 5)}, constants=("b",)),
    Case("Transpose", "y = Transpose<perm=[1, 2, 0]>(x)", {"x": (2, 3, 4)}),
]
