"""Operators whose outputs don't follow their inputs smoothly, each with the reason why nothing passes; and two that nearly are such, but for one
operand (Range, OneHot)."""

from __future__ import annotations

import numpy as np

from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, flat, jvp, refuse

flat("Equal Less Greater LessOrEqual GreaterOrEqual And Or Xor Not IsNaN IsInf", why="its output is a truth value")
flat("BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot", why="it works on the bits of whole numbers")
flat("Floor Ceil Round", why="it rounds, so it is piecewise constant")
flat("Sign", why="it is piecewise constant")
flat("Hardmax", why="it marks the largest element with a 1, so it is piecewise constant")
flat("ArgMax ArgMin NonZero NonMaxSuppression", why="its output holds indices")
flat("Shape Size", why="a shape doesn't depend on values")
flat("ConstantOfShape EyeLike", why="its output depends on a shape, not on values")
flat("Constant", why="it has no inputs")
flat("RandomNormal RandomUniform RandomNormalLike RandomUniformLike", why="it draws numbers that don't depend on the values of its input")
flat("Bernoulli Multinomial", why="it draws a sample, and a sample doesn't follow its probabilities smoothly")
flat("HannWindow HammingWindow BlackmanWindow", why="its output depends on a whole number alone, the size of the window")
flat("MelWeightMatrix", why="its edges are rounded to whole frequency bins, so it is piecewise constant")
flat("TfIdfVectorizer", why="it counts tokens, which are whole numbers or text")
flat("StringConcat StringNormalizer StringSplit RegexFullMatch", why="it works on text")
flat("ImageDecoder", why="it reads the bytes of an encoded image; differentiate by the decoded image")


@jvp("Range")
def number_range(op: Builder, n: NodeView, start: Value | None, limit: Value | None, delta: Value | None) -> Value | None:
    """y[i] = start + i delta. The limit decides how many numbers there are, and none of their values."""
    parts: list[Value] = []
    if start is not None:
        parts.append(op.expand_like(start, n.y))
    if delta is not None:
        if n.y.static:
            places = op.constant(np.arange(int(n.y.shape[0] or 0)), n.y)
        else:
            zero, one = op.constant(np.asarray(0, np.int64)), op.constant(np.asarray(1, np.int64))
            places = op.Cast(op.Range(zero, op.Squeeze(op.dim(n.y, 0), [0]), one), to=n.y.dtype)
        parts.append(delta * places)
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]


@jvp("OneHot")
def one_hot(op: Builder, n: NodeView, indices: Value | None, depth: Value | None, values: Value | None) -> Value | None:
    """Linear in the two values, off and on; flat in the rest."""
    if values is None:
        return None
    here = op.OneHot(n.inputs[0], n.inputs[1], op.constant(np.asarray([0, 1]), n.y), axis=n["axis"])
    off = op.ReduceSum(values * op.constant(np.asarray([1, 0]), n.y), keepdims=0)
    on = op.ReduceSum(values * op.constant(np.asarray([0, 1]), n.y), keepdims=0)
    return off * (1.0 - here) + on * here


refuse("Adagrad Adam Momentum", domain="ai.onnx.preview.training", why="it is a training step; differentiate the model that it trains")
