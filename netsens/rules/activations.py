"""Functions of one number: trigonometric, hyperbolic and error functions, and the activations of neural networks.

Where the output tells the derivative as well as the input does, the output is what is kept, so that onnxruntime may still fuse
an activation into the Conv or MatMul before it."""

from __future__ import annotations

import math

from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, elementwise, jvp


def _attribute(op: Builder, key: str) -> float:
    assert op.node is not None
    return float(op.node[key])


def _select(op: Builder, condition: Value, yes: float, no: float, like: Value) -> Value:
    return op.Where(condition, op.constant(yes, like), op.constant(no, like))


# Trigonometric, hyperbolic and error functions -----------------------------------------------------------------------------

elementwise("Sin", lambda op, x, y: op.Cos(x))
elementwise("Cos", lambda op, x, y: -op.Sin(x))
elementwise("Tan", lambda op, x, y: 1 + y * y)
elementwise("Asin", lambda op, x, y: 1 / op.Sqrt((1 - x) * (1 + x)))
elementwise("Acos", lambda op, x, y: -1 / op.Sqrt((1 - x) * (1 + x)))
elementwise("Atan", lambda op, x, y: 1 / (1 + x * x))
elementwise("Sinh", lambda op, x, y: op.Cosh(x))
elementwise("Cosh", lambda op, x, y: op.Sinh(x))
elementwise("Tanh", lambda op, x, y: 1 - y * y)
elementwise("Asinh", lambda op, x, y: 1 / op.Sqrt(1 + x * x))
elementwise("Acosh", lambda op, x, y: 1 / (op.Sqrt(x - 1) * op.Sqrt(x + 1)))
elementwise("Atanh", lambda op, x, y: 1 / ((1 - x) * (1 + x)))
elementwise("Erf", lambda op, x, y: (2 / math.sqrt(math.pi)) * op.Exp(-(x * x)))


# Smooth activations --------------------------------------------------------------------------------------------------------


def _sigmoid(op: Builder, x: Value, y: Value) -> Value:
    """The probabilities that a model ends with are often tiny, and runtimes keep but their absolute accuracy (onnxruntime gives 0 below -18): there
    e^-|x| / (1 + e^-|x|)^2 keeps the digits that y (1 - y) has lost. Within the model nothing would show of them, and y is cheaper."""
    if y.name not in op.derivative.exposed:
        return y * (1 - y)
    e = op.Exp(-op.Abs(x))
    d = 1 + e
    return e / d / d


elementwise("Sigmoid", _sigmoid)
elementwise("Softplus", lambda op, x, y: op.Sigmoid(x))


def _softsign(op: Builder, x: Value, y: Value) -> Value:
    # From the output it would be (1 - |y|)^2, in which large inputs lose all digits.
    d = 1 + op.Abs(x)
    return 1 / (d * d)


def _mish(op: Builder, x: Value, y: Value) -> Value:
    t = op.Tanh(op.Softplus(x))
    return t + x * op.Sigmoid(x) * (1 - t * t)


def _gelu(op: Builder, x: Value, y: Value) -> Value:
    assert op.node is not None
    if op.node["approximate"] == "tanh":
        c, k = math.sqrt(2 / math.pi), 0.044715
        square = x * x
        t = op.Tanh(x * (c + (c * k) * square))
        return 0.5 * (1 + t) + x * (1 - t * t) * (0.5 * c + (1.5 * c * k) * square)
    return 0.5 * (1 + op.Erf(x * math.sqrt(0.5))) + x * op.Exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))


def _swish(op: Builder, x: Value, y: Value) -> Value:
    alpha = _attribute(op, "alpha")
    s = op.Sigmoid(alpha * x)
    return s + alpha * y * (1 - s)


def _gate(op: Builder, a: Value, b: Value, y: Value) -> Value:
    return b * _swish(op, a, a * op.Sigmoid(_attribute(op, "alpha") * a))


elementwise("Softsign", _softsign)
elementwise("Mish", _mish)
elementwise("Gelu", _gelu)
elementwise("Swish", _swish)
elementwise("SwiGLU", _gate, lambda op, a, b, y: a * op.Sigmoid(_attribute(op, "alpha") * a))


# Activations with a kink ---------------------------------------------------------------------------------------------------


@jvp("Relu")
def relu(op: Builder, n: NodeView, t: Value) -> Value:
    """0 at 0.

    On 1x64x112x112 float32 in onnxruntime 1.31, one thread: t * Cast(y > 0) 0.54 ms, Where(y > 0, t, 0) 0.74 ms, t * Sign(y) 1.18 ms. Where it is
    all the same: a product turns an infinite cotangent, such as sqrt(relu(x)) has at every x < 0, into NaN instead of 0."""
    return op.Where(n.y > 0.0, t, 0.0)


@jvp("ThresholdedRelu")
def thresholded_relu(op: Builder, n: NodeView, t: Value) -> Value:
    alpha = float(n["alpha"])
    return op.Where(n.y > 0.0 if alpha >= 0 else n.x > alpha, t, 0.0)


@jvp("Shrink")
def shrink(op: Builder, n: NodeView, t: Value) -> Value:
    """0 in the band, its edges included."""
    return op.Where(op.Abs(n.x) > float(n["lambd"]), t, 0.0)


def _rising(op: Builder, x: Value, y: Value, rises: bool) -> Value:
    """Where the input is positive; told from the output if that rises with the input."""
    return (y if rises else x) > 0.0


def _leaky_relu(op: Builder, x: Value, y: Value) -> Value:
    alpha = _attribute(op, "alpha")
    return _select(op, _rising(op, x, y, alpha >= 0), 1.0, alpha, y)


def _elu(op: Builder, x: Value, y: Value) -> Value:
    alpha = _attribute(op, "alpha")
    return op.Where(_rising(op, x, y, alpha >= 0), 1.0, y + alpha)


def _selu(op: Builder, x: Value, y: Value) -> Value:
    alpha, gamma = _attribute(op, "alpha"), _attribute(op, "gamma")
    return op.Where(_rising(op, x, y, alpha >= 0 and gamma > 0), gamma, y + gamma * alpha)


def _celu(op: Builder, x: Value, y: Value) -> Value:
    return op.Where(y > 0.0, 1.0, y / _attribute(op, "alpha") + 1.0)


def _hard_sigmoid(op: Builder, x: Value, y: Value) -> Value:
    return _select(op, op.And(y > 0.0, y < 1.0), _attribute(op, "alpha"), 0.0, y)


def _hard_swish(op: Builder, x: Value, y: Value) -> Value:
    return op.Where(op.Abs(x) < 3.0, x / 3.0 + 0.5, op.Cast(x > 0.0, to=x.dtype))


elementwise("LeakyRelu", _leaky_relu)
elementwise("Elu", _elu)
elementwise("Selu", _selu)
elementwise("Celu", _celu)
elementwise("HardSigmoid", _hard_sigmoid)
elementwise("HardSwish", _hard_swish)
elementwise("PRelu", lambda op, x, slope, y: op.Where(x > 0.0, 1.0, slope), lambda op, x, slope, y: op.Where(x > 0.0, 0.0, x))
