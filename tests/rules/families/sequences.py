"""Sequences and optionals of which it is known what they hold, resolved into tensors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from tests.rules.case import Case

PAIR = {"a": (2, 3), "b": (2, 3)}
INTS = {"one": np.array(1), "two": np.array(2), "last": np.array(-1), "zero": np.array(0)}


def pair(text: str, runtime: str = "", **more: object) -> Case:
    """Over a and b; the numbers are constants, but for those of `runtime`."""
    used = {k: v for k, v in INTS.items() if k in text.replace(",", " ").replace(")", " ").split()}
    constants = tuple(k for k in used if k not in runtime.split())
    return Case(text.split("= ")[-1].split("(")[0].split("<")[0], text, {**PAIR, **used, **more}, constants=constants)


def split(text: str, shape: Sequence[int], constants: Sequence[str] = (), **more: object) -> Case:
    return Case("SplitToSequence", text, {"x": tuple(shape), **more}, constants=constants)


THREE, TRUE = np.asarray(3, np.int64), np.asarray(True)
# A list that grows by an element a turn, as a scripted loop writes it; and a list that a loop reads from.
_GROWING = """h, s = Loop (m, c, x, e) <body = b (int64 i, bool go, real[2,3] h, seq(real[2,3]) before) =>
 (bool on, real[2,3] after, seq(real[2,3]) grown)
 { on = Identity(go) v = Mul(h, w) after = Sin(v) grown = SequenceInsert(before, after) }>"""
_MAPPED = """s = SequenceConstruct(a, b) t = SequenceMap(s, w) <body = m (real[2,3] p, real[3] v) => (real[2,3] r) { q = Mul(p, v) r = Tanh(q) }>
 y = ConcatFromSequence<axis=0>(t)"""
_READING = """s = SequenceConstruct(a, b, a) y = Loop (m, c, x) <body = l (int64 i, bool go, real[2,3] h) => (bool on, real[2,3] after)
 { on = Identity(go) v = SequenceAt(s, i) t = Mul(h, v) after = Sin(t) }>"""
_PASSED = """s = SequenceConstruct(a, b, a) y, t = Loop (m, c, x, s) <body = l (int64 i, bool go, real[2,3] h, seq(real[2,3]) r) =>
 (bool on, real[2,3] after, seq(real[2,3]) q)
 { on = Identity(go) v = SequenceAt(r, i) t = Mul(h, v) after = Sin(t) q = Identity(r) }>"""


@dataclasses.dataclass(frozen=True)
class Growing(Case):
    """A case that begins with an empty sequence, which needs its dtype said."""

    def model(self, dtype: Any = np.float64, symbolic: bool = False) -> onnx.ModelProto:
        model = super().model(dtype, symbolic)
        kind = onnx.TensorProto.DOUBLE if dtype == np.float64 else onnx.TensorProto.FLOAT
        model.graph.node.insert(0, onnx.helper.make_node("SequenceEmpty", [], ["e"], dtype=kind))
        return model


CASES = [
    pair("s = SequenceConstruct(a, b) p = SequenceAt(s, one) q = SequenceAt(s, zero) y = Mul(p, q)"),
    pair("s = SequenceConstruct(a, b) y = SequenceAt(s, last)"),
    pair("s = SequenceConstruct(a, b, a) y = SequenceAt(s, two)", runtime="two"),
    pair("s = SequenceConstruct(a, b) y = SequenceAt(s, last)", runtime="last"),
    pair("s = SequenceConstruct(a, b, a) y = ConcatFromSequence<axis=1>(s)"),
    pair("s = SequenceConstruct(a, b) y = ConcatFromSequence<axis=0, new_axis=1>(s)"),
    pair("s = SequenceConstruct(a, b) y = ConcatFromSequence<axis=-1, new_axis=1>(s)"),
    pair("s = SequenceConstruct(a) t = SequenceInsert(s, b, zero) u = SequenceInsert(t, a) y = ConcatFromSequence<axis=0>(u)"),
    pair("s = SequenceConstruct(a, b, a) t = SequenceErase(s, zero) u = SequenceErase(t) y = ConcatFromSequence<axis=0>(u)"),
    pair("s = SequenceConstruct(a, b) t = SequenceInsert(s, a, last) y = ConcatFromSequence<axis=1>(t)"),
    pair("s = SequenceConstruct(a, b) n = SequenceLength(s) f = CastLike(n, a) y = Mul(a, f)"),
    Case("SequenceMap", _MAPPED, {**PAIR, "w": (3,)}),
    pair("o = Optional(a) h = OptionalHasElement(o) g = OptionalGetElement(o) f = CastLike(h, a) k = Mul(g, f) y = Mul(k, b)"),
    pair("g = OptionalGetElement(a) y = Mul(g, b)"),
    split("s = SplitToSequence<axis=1>(x) p = SequenceAt(s, i) q = SequenceAt(s, j) y = Mul(p, q)", (2, 3), ("i", "j"), i=np.array(0), j=np.array(-1)),
    split("s = SplitToSequence<axis=0, keepdims=0>(x) p = SequenceAt(s, i) y = Exp(p)", (3, 2), ("i",), i=np.array(1)),
    split("s = SplitToSequence<axis=0, keepdims=0>(x) p = SequenceAt(s, i) y = Exp(p)", (3, 2), i=np.array(1)),
    split("s = SplitToSequence<axis=0>(x) p = SequenceAt(s, i) y = Exp(p)", (3, 2), i=np.array(-1)),
    split("s = SplitToSequence<axis=0>(x) y = ConcatFromSequence<axis=0>(s)", (3, 2)),
    split("s = SplitToSequence<axis=0>(x) y = ConcatFromSequence<axis=1>(s)", (3, 2)),
    split("s = SplitToSequence<axis=0, keepdims=0>(x) y = ConcatFromSequence<axis=1, new_axis=1>(s)", (3, 2, 4)),
    split("s = SplitToSequence<axis=0, keepdims=0>(x) y = ConcatFromSequence<axis=0>(s)", (3, 2, 4)),
    split("s = SplitToSequence<axis=1>(x, l) p = SequenceAt(s, i) y = Exp(p)", (2, 6), ("l", "i"), l=np.array([1, 3, 2]), i=np.array(1)),
    split("s = SplitToSequence<axis=1>(x, l) p = SequenceAt(s, i) y = Exp(p)", (2, 5), ("l", "i"), l=np.array(2), i=np.array(2)),
    split("s = SplitToSequence<axis=-1>(x, l) y = ConcatFromSequence<axis=0>(s)", (2, 6), ("l",), l=np.array(2)),
    split("s = SplitToSequence<axis=0>(x) n = SequenceLength(s) f = CastLike(n, x) y = Mul(x, f)", (3, 2)),
    *(
        Growing("Loop", f"{_GROWING} y = {joined}", {"m": THREE, "c": TRUE, "x": (2, 3), "w": (2, 3)}, constants=("m", "c"), symbolic=False)
        for joined in ("ConcatFromSequence<axis=0>(s)", "ConcatFromSequence<axis=1, new_axis=1>(s)", "Mul(h, h)")
    ),
    Growing("Loop", f"{_GROWING} p = SequenceAt(s, k) y = Mul(h, p)", {"m": THREE, "c": TRUE, "k": np.array(1), "x": (2, 3), "w": (2, 3)}, symbolic=False),
    *(Case("Loop", text, {"m": THREE, "c": TRUE, "x": (2, 3), **PAIR}, constants=("m", "c"), symbolic=False) for text in (_READING, _PASSED)),
]
