"""Arithmetic with broadcasting, the powers, the choices between operands (Max, Min, Clip, Where), casts, and Dropout."""

from __future__ import annotations

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import FLOATS
from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, elementwise, jvp, linear, vjp

elementwise("Add Sum", lambda op, inputs, k, y: 1)
elementwise("Mean", lambda op, inputs, k, y: 1 / len(inputs))
elementwise("Sub", 1, -1)
elementwise("Mul", lambda op, a, b, y: b, lambda op, a, b, y: a)
elementwise("Div", lambda op, a, b, y: 1 / b, lambda op, a, b, y: -y / b)
elementwise("Neg", -1)
elementwise("Identity", 1)
elementwise("Reciprocal", lambda op, x, y: -y * y)
elementwise("Abs", lambda op, x, y: op.Sign(x))
elementwise("Sqrt", lambda op, x, y: 0.5 / y)
elementwise("Exp", lambda op, x, y: y)
elementwise("Log", lambda op, x, y: 1 / x)
# y = a - q*b with a whole q, whichever way it was rounded: q is told best from y.
elementwise("Mod", 1, lambda op, a, b, y: op.Round((y - a) / b))


@vjp("Sub")
def subtraction_reverse(op: Builder, n: NodeView, g: Value) -> list[Value | None]:
    """As the transpose, but the sum over a broadcast comes before the change of sign."""
    a, b = _two(n)
    return [op.unbroadcast(g, a) if n.wanted[0] else None, -op.unbroadcast(g, b) if n.wanted[1] else None]


@vjp("Div")
def division_reverse(op: Builder, n: NodeView, g: Value) -> list[Value | None]:
    """As the transpose, but the sum over a broadcast comes before the division by what was broadcast."""
    a, b = _two(n)
    return [op.unbroadcast(g / b, a) if n.wanted[0] else None, -op.unbroadcast(g * n.y, b) / b if n.wanted[1] else None]


@vjp("Log")
def logarithm_reverse(op: Builder, n: NodeView, g: Value) -> Value:
    """One division instead of a reciprocal and a product."""
    return g / n.x


def _two(n: NodeView) -> tuple[Value, Value]:
    a, b = n.inputs
    assert a is not None
    assert b is not None
    return a, b


# Powers --------------------------------------------------------------------------------------------------------------------


@jvp("Pow")
def power(op: Builder, n: NodeView, base: Value | None, exponent: Value | None) -> Value | None:
    """The exponent may be of another dtype than base and result."""
    a, b = _two(n)
    parts: list[Value] = []
    if base is not None and (by_base := _by_base(op, a, b, n)) is not None:
        parts.append(base * by_base)
    if exponent is not None:
        parts.append(op.Cast(exponent, to=a.dtype) * _by_exponent(op, a, op.Cast(b, to=a.dtype), n.y))
    return _sum(op, parts, n.y)


def _sum(op: Builder, parts: list[Value], like: Value) -> Value | None:
    """The sum of what the inputs contribute, in the shape of `like`; None for nothing."""
    total = None
    for part in parts:
        total = part if total is None else total + part
    return None if total is None else op.expand_like(total, like)


def _by_base(op: Builder, a: Value, b: Value, n: NodeView) -> Value | float | None:
    """b a^(b-1), and 0 where both are 0."""
    known = None if n.wanted[1] else b.constant  # an exponent that is differentiated by must stay visible
    if known is not None and known.size == 1 and b.rank <= a.rank:
        match float(known.reshape(-1)[0]):
            case 0.0:
                return None
            case 1.0:
                return 1.0
            case 2.0:
                return 2.0 * a
            case 3.0:
                return 3.0 * (a * a)
            case 0.5:
                return 0.5 / n.y
            case -1.0:
                return -n.y * n.y
            case number:
                return number * op.Pow(a, number - 1.0)
    b = op.Cast(b, to=a.dtype)
    if known is None or not known.all():
        # 0 * 0^-1 is not a number; with 1 for the exponent there it is 1 * 0^0, times the true exponent's 0.
        both = op.And(op.Equal(a, 0.0), op.Equal(b, 0.0))
        return b * op.Pow(a, op.Where(both, 1.0, b) - 1.0)
    return b * op.Pow(a, b - 1.0)


def _by_exponent(op: Builder, a: Value, b: Value, y: Value) -> Value:
    """a^b log a, and 0 where a is 0 and b isn't negative."""
    nothing = op.And(op.Equal(a, 0.0), b >= 0.0)
    return y * op.Log(op.Where(nothing, 1.0, a))


# Choices -------------------------------------------------------------------------------------------------------------------


def _tied(op: Builder, inputs: tuple[Value, ...], k: int, y: Value) -> Value | float:
    """Which share of the result input k is: ties are split evenly."""
    if len(inputs) == 1:
        return 1.0
    assert op.node is not None
    if len(inputs) == 2:
        a, b = inputs[k], inputs[1 - k]
        ahead = a > b if op.node.node.op == "Max" else a < b
        return op.Where(ahead, 1.0, op.Where(op.Equal(a, b), op.constant(0.5, y), op.constant(0.0, y)))
    masks = [op.Cast(op.Equal(x, y), to=y.dtype) for x in inputs]
    return masks[k] / op.Sum(*masks)


elementwise("Max Min", lambda op, inputs, k, y: _tied(op, inputs, k, y))


@jvp("Clip")
def clip(op: Builder, n: NodeView, t: Value | None, low: Value | None = None, high: Value | None = None) -> Value | None:
    """1 inside and at the bounds, as PyTorch's clamp: where the output is the input. A bound gets what was set to it.

    Right behind a layer it is an activation, ReLU6 for one, and 0 at its bounds, as Relu is and as PyTorch's ReLU6: so the output tells it alone, and onnxruntime can
    compute the Clip as part of the layer (MobileNetV2's forward pass, as part of its gradient by the input: 6.1 ms instead of 7.4)."""
    x, lower, upper = n.x, n.input(1), n.input(2)
    if lower is None and upper is None:
        return t
    parts: list[Value] = []
    if t is not None:
        parts.append(op.Where(_between(op, n) or op.Equal(x, n.y), t, 0.0))
    if low is not None and lower is not None:
        below = x < lower
        parts.append(op.Where(below if upper is None else op.And(below, lower < upper), low, 0.0))
    if high is not None and upper is not None:
        above = x > upper
        parts.append(op.Where(above if lower is None else op.Or(above, upper < lower), high, 0.0))
    return _sum(op, parts, n.y)


def _between(op: Builder, n: NodeView) -> Value | None:
    """Where the output of a Clip right behind a layer lies between its bounds."""
    layer, bounds = op.producer(n.x), [None if b is None else b.constant for b in (n.input(1), n.input(2))]
    if layer is None or layer.op not in ("Conv", "ConvTranspose", "BatchNormalization") or n.x.linear:
        return None
    if any(b is None or b.size != 1 for b in bounds) or not bounds[0] < bounds[1]:  # type: ignore[operator]
        return None
    return op.And(n.y > n.inputs[1], n.y < n.inputs[2])


def _unchosen(op: Builder, n: NodeView, g: Value) -> list[Value | None]:
    chosen, a, b = n.inputs
    assert a is not None
    assert b is not None
    return [op.unbroadcast(op.Where(chosen, g, 0.0), a) if n.wanted[1] else None, op.unbroadcast(op.Where(chosen, 0.0, g), b) if n.wanted[2] else None]


linear("Where", _unchosen, operands=(1, 2))


# Casts ---------------------------------------------------------------------------------------------------------------------

# A cast to whole numbers or truth values ends the path: its output carries nothing, so no rule is asked.
linear("Cast", lambda op, n, g: op.Cast(g, to=op.derivative_dtype(n.x)))


@jvp("CastLike")
def cast_like(op: Builder, n: NodeView, t: Value | None, like: Value | None = None) -> Value | None:
    """The second input lends its dtype alone."""
    return None if t is None or n.y.dtype not in FLOATS else op.Cast(t, to=n.y.dtype)


@jvp("BitCast")
def bit_cast(op: Builder, n: NodeView, t: Value) -> Value | None:
    """Nothing passes to whole numbers, and nothing is changed between equal types."""
    if n.y.dtype == n.x.dtype:
        return t
    if n.y.dtype not in FLOATS:
        return None
    raise UnsupportedError(f"{n.node.label} reads the bits of one floating point type as another, which has no derivative; use Cast to convert values.")


# Dropout -------------------------------------------------------------------------------------------------------------------


@jvp("Dropout")
def dropout(op: Builder, n: NodeView, t: Value | None, ratio: Value | None = None, training: Value | None = None) -> Value | None:
    """An identity, unless it trains: then x mask / (1 - ratio), the mask held still."""
    mode, share = n.input(2), n.input(1)
    if mode is None or (mode.constant is not None and not mode.constant.any()):
        return t
    mask = n.outputs[1] if len(n.outputs) > 1 else None
    if mask is None:
        raise UnsupportedError(
            f"{n.node.label} is in training mode and doesn't give its mask, which its derivative needs; add its second output, or set training_mode to false."
        )
    share = op.constant(0.5, n.y) if share is None else op.Cast(share, to=n.y.dtype)
    parts: list[Value] = []
    always = mode.constant is not None
    if t is not None:
        # Outside training the mask is all true, but nothing is scaled.
        scale = 1.0 / (1.0 - share)
        parts.append(t * (op.Cast(mask, to=n.y.dtype) * (scale if always else op.Where(mode, scale, 1.0))))
    if ratio is not None:
        by_ratio = n.y / (1.0 - share)
        moved = op.Cast(ratio, to=n.y.dtype)
        parts.append(moved * (by_ratio if always else op.Where(mode, by_ratio, 0.0)))
    return _sum(op, parts, n.y)
