"""If, Loop and Scan: captured values, nesting, trip counts and conditions known only at run time, axes and directions."""

import numpy as np

from tests.rules.case import Case

TRUE, FALSE = np.asarray(True), np.asarray(False)
THREE, NONE = np.asarray(3, np.int64), np.asarray(0, np.int64)

_IF = """y = If (c) <then_branch = t () => (real[2,3] a) { s = Sigmoid(x) a = Mul(s, z) },
 else_branch = e () => (real[2,3] b) { u = MatMul(x, w) b = Tanh(u) }>"""
_ONE_SIDED = """h = Tanh(x) p, q = If (c) <then_branch = t () => (real[2,3] a, real[2,3] a2) { a = Mul(h, h) a2 = Identity(z) },
 else_branch = e () => (real[2,3] b, real[2,3] b2) { b = Identity(z) b2 = Exp(h) }> y = Mul(p, q)"""
_NESTED_IF = """y = If (c) <then_branch = t () => (real[2,3] a) { v = Mul(x, z)
 a = If (d) <then_branch = tt () => (real[2,3] aa) { aa = Mul(v, x) }, else_branch = te () => (real[2,3] ab) { ab = Exp(v) }> },
 else_branch = e () => (real[2,3] b) { b = Tanh(x) }>"""
_RNN = """{last}{y} = Loop (m, c, x) <body = b (int64 i, bool go, real[2,3] h) => (bool on, real[2,3] after, real[2,3] out)
 {{ on = Identity(go) u = MatMul(h, w) v = Add(u, z) after = Tanh(v) out = Mul(after, h) }}>"""
_WHILE = """y, n = Loop (, c, x, zero) <body = b (int64 i, bool go, real[2,3] h, real[] k) => (bool on, real[2,3] after, real[] more)
 { one = Constant<value_float=1.0>() one_ = CastLike(one, k) more = Add(k, one_) limit = CastLike(four, k) on = Less(more, limit)
 f = Cast<to=1>(i) fi = CastLike(f, h)
 s = Mul(h, w) t = Sin(s) q = Mul(fi, h) after = Add(t, q) }>"""
_NESTED = """y = Loop (m, c, x) <body = b (int64 i, bool go, real[2,3] h) => (bool on, real[2,3] after)
 { on = Identity(go) even = Less(i, two) v = Mul(h, w)
   after = If (even) <then_branch = t () => (real[2,3] a) { a = Loop (two, c, v) <body = bb (int64 j, bool going, real[2,3] k) => (bool onn, real[2,3] kk) {
     onn = Identity(going) kw = Mul(k, w) kx = Add(kw, h) kk = Tanh(kx) }> }, else_branch = e () => (real[2,3] b2) { b2 = Exp(v) }> }>"""
_SCAN = """l, y = Scan <num_scan_inputs=1, {options} body = b (real[2,3] h, real[2,3] x) => (real[2,3] after, real[2,3] out)
 {{ u = MatMul(h, w) v = Add(u, x) after = Tanh(v) out = Mul(after, x) }}> (h0, xs)"""
_SCAN_LAST = _SCAN.replace("l, y", "y, l")
_TWO = """l, p, q = Scan <num_scan_inputs=2, scan_input_axes=[1, 0], scan_input_directions=[0, 1], scan_output_axes=[1, 0], scan_output_directions=[1, 0],
 body = b (real[2] h, real[2] a, real[3] g) => (real[2] after, real[2] o, real[3] r) { ha = Mul(h, a) after = Sin(ha) o = Add(after, a)
 s = ReduceSum<keepdims=0>(h) r = Mul(g, s) }> (h0, as, gs)
 prod = MatMul(p, q) lsum = Unsqueeze(l, axes2) y = Mul(prod, lsum)"""
_SUMS = """l, y = Scan <num_scan_inputs=1, body = b (real[3] h, real[3] x) => (real[3] after, real[3] out)
 { after = Add(h, x) out = Identity(after) }> (h0, xs)"""
_GROW = """y = Loop (m, c, x) <body = b (int64 i, bool go, real[N,3] h) => (bool on, real[M,3] after)
 { on = Identity(go) t = MatMul(h, w) s = Sin(t) after = Concat<axis=0>(h, s) }>"""


def scan(options: str = "", last: bool = False) -> str:
    return (_SCAN_LAST if last else _SCAN).replace("{options}", options).replace("{{", "{").replace("}}", "}")


def rnn(outputs: str) -> str:
    return _RNN.replace("{last}{y}", outputs).replace("{{", "{").replace("}}", "}")


X, Z, W = (2, 3), (2, 3), (3, 3)

CASES = [
    *(Case("If", _IF, {"x": X, "z": Z, "w": W, "c": c}, domain=(-1, 1)) for c in (TRUE, FALSE)),
    *(Case("If", _ONE_SIDED, {"x": X, "z": Z, "c": c}, domain=(-1, 1)) for c in (TRUE, FALSE)),
    *(Case("If", _NESTED_IF, {"x": X, "z": Z, "c": TRUE, "d": d}, domain=(-1, 1)) for d in (TRUE, FALSE)),
    Case("Loop", rnn("y, o"), {"x": X, "w": W, "z": Z, "m": THREE, "c": TRUE}, domain=(-1, 1)),
    Case("Loop", rnn("l, y"), {"x": X, "w": W, "z": Z, "m": THREE, "c": TRUE}, domain=(-1, 1)),
    Case("Loop", rnn("l, o") + " r = ReduceSum(l) y = Mul(r, o)", {"x": X, "w": W, "z": Z, "m": THREE, "c": TRUE}, domain=(-1, 1)),
    Case("Loop", rnn("y, o"), {"x": X, "w": W, "z": Z, "m": NONE, "c": TRUE}, domain=(-1, 1)),
    Case("Loop", rnn("y, o"), {"x": X, "w": W, "z": Z, "m": THREE, "c": TRUE}, domain=(-1, 1), wrt=["w"]),
    Case("Loop", _WHILE, {"x": X, "w": X, "zero": np.asarray(0.0), "four": np.asarray(4.0), "c": TRUE}, domain=(0.2, 1), wrt=["x", "w"]),
    Case("Loop", _NESTED, {"x": X, "w": X, "m": THREE, "two": np.asarray(2, np.int64), "c": TRUE}, domain=(0.2, 1)),
    Case("Loop", _GROW, {"x": X, "w": W, "m": THREE, "c": TRUE}, domain=(-1, 1)),
    Case("Loop", _GROW, {"x": X, "w": W, "m": NONE, "c": TRUE}, domain=(-1, 1)),
    Case("Scan", scan(), {"h0": X, "w": W, "xs": (4, 2, 3)}, domain=(-1, 1)),
    Case("Scan", scan(last=True), {"h0": X, "w": W, "xs": (4, 2, 3)}, domain=(-1, 1)),
    Case("Scan", scan("scan_input_axes=[-1], scan_output_axes=[1], scan_output_directions=[1],"), {"h0": X, "w": W, "xs": (2, 3, 4)}, domain=(-1, 1)),
    Case("Scan", scan("scan_input_directions=[1],"), {"h0": X, "w": W, "xs": (4, 2, 3)}, domain=(-1, 1), wrt=["xs"]),
    Case("Scan", _TWO, {"h0": (2,), "as": (2, 4), "gs": (4, 3), "axes2": np.asarray([1])}, constants=("axes2",), domain=(-1, 1)),
    Case("Scan", _SUMS, {"h0": (3,), "xs": (5, 3)}),
]  # fmt: skip
