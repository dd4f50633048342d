"""Functions of one number."""

import numpy as np

from tests.rules.case import Case

NEW = "onnxruntime 1.31 has no opset 28"
# On both sides of every kink of HardSwish, HardSigmoid and Shrink.
WIDE = np.array([[-5.1, -3.4, -2.6, -0.8, -0.3], [0.2, 0.7, 1.4, 2.8, 4.6]])


KINKED = ["HardSwish", "HardSigmoid", "Shrink", "ThresholdedRelu", "LeakyRelu", "Elu", "Celu", "Selu", "Relu"]
PLAIN = ["Sin", "Tanh", "Erf", "Sigmoid", "Softplus", "Softsign", "Mish", "Gelu", *KINKED]
# Their bodies hold constants of float32's precision.
ROUNDED = {"HardSwish", "Gelu", "Celu"}


def one(op: str, *shape: int, low: float = -2.0, high: float = 2.0, attributes: str = "", opset: int = 22) -> Case:
    body = op not in ROUNDED or not (attributes or op == "HardSwish")
    return Case(op, f"y = {op}{attributes}(x)", {"x": shape or (2, 3)}, domain=(low, high), opset=opset, against_body=body)


CASES = [
    *(one(op) for op in ["Sin", "Cos", "Tanh", "Sinh", "Cosh", "Asinh", "Atan", "Erf", "Sigmoid", "Softplus", "Softsign", "Mish", "Gelu", "Relu", "HardSwish"]),
    *(one(op, 4, 1, 3) for op in PLAIN),
    one("Tan", low=-1.2, high=1.2),
    one("Asin", low=-0.9, high=0.9),
    one("Acos", low=-0.9, high=0.9),
    one("Atanh", low=-0.9, high=0.9),
    one("Acosh", low=1.2, high=4.0),
    # Large inputs, where a formula that overflows would give NaN
    *(one(op, 3, 4, low=-60.0, high=60.0) for op in ["Tanh", "Sigmoid", "Softplus", "Softsign", "Mish", "Gelu", "Elu", "Selu", "Celu", "Erf", "Atan", "Asinh"]),
    one("Gelu", 3, 4, low=-60.0, high=60.0, attributes='<approximate="tanh">'),
    one("Gelu", attributes='<approximate="tanh">'),
    one("Gelu", attributes='<approximate="none">'),
    one("Swish", opset=24),
    one("Swish", 3, 1, 2, low=-40.0, high=40.0, attributes="<alpha=1.7>", opset=24),
    one("Swish", attributes="<alpha=-0.6>", opset=24),
    Case("SwiGLU", "y = SwiGLU(a, b)", {"a": (2, 3), "b": (2, 3)}, opset=28, float32=False, because=NEW),
    Case("SwiGLU", "y = SwiGLU<alpha=0.6>(a, b)", {"a": (2, 1, 4), "b": (2, 1, 4)}, opset=28, float32=False, because=NEW),
    Case("SwiGLU", "y = SwiGLU(a, b)", {"a": (5,), "b": (5,)}, wrt=("b",), opset=28, float32=False, because=NEW),
    *(Case(op, f"y = {op}(x)", {"x": WIDE}, opset=22, against_body=op != "HardSwish") for op in KINKED),
    *(one("LeakyRelu", attributes=f"<alpha={a}>") for a in (0.3, 0.0, -0.5, 1.5)),
    *(one("Elu", attributes=f"<alpha={a}>") for a in (0.3, 2.0)),
    Case("Elu", "y = Elu<alpha=-0.5>(x)", {"x": (2, 3)}, opset=22),
    one("Selu", attributes="<alpha=0.7, gamma=2.0>"),
    Case("Selu", "y = Selu<alpha=0.7, gamma=-2.0>(x)", {"x": (2, 3)}, opset=22),
    one("Celu", attributes="<alpha=0.4>"),
    one("Celu", attributes="<alpha=3.0>"),
    one("HardSigmoid", attributes="<alpha=0.6, beta=0.3>"),
    one("HardSigmoid", attributes="<alpha=-0.6, beta=0.3>"),
    one("ThresholdedRelu", attributes="<alpha=0.5>"),
    one("ThresholdedRelu", attributes="<alpha=-0.5>"),
    one("Shrink", attributes="<lambd=1.1, bias=0.4>"),
    one("Shrink", attributes="<lambd=0.3, bias=-0.2>"),
    Case("PRelu", "y = PRelu(x, s)", {"x": (2, 3), "s": (2, 3)}),
    Case("PRelu", "y = PRelu(x, s)", {"x": (2, 3, 4), "s": (3, 1)}, constants=("s",)),
    Case("PRelu", "y = PRelu(x, s)", {"x": (2, 3), "s": (1,)}),
    Case("PRelu", "y = PRelu(x, s)", {"x": (2, 3, 4), "s": (4,)}, wrt=("s",)),
    # Flat: nothing passes, and what goes round it does
    *(Case(op, f"f = {op}(x) y = Mul(f, x)", {"x": np.array([[0.3, 1.7, -2.4], [5.2, -0.8, 3.1]])}, opset=22) for op in ["Floor", "Ceil", "Round", "Sign"]),
    Case("Hardmax", "f = Hardmax(x) y = Mul(f, x)", {"x": (3, 4)}),
    Case("Hardmax", "f = Hardmax<axis=0>(x) y = Mul(f, x)", {"x": (3, 4)}),
    Case("ArgMax", "i = ArgMax<axis=1, keepdims=0>(x) f = CastLike(i, x) m = ReduceSum<keepdims=0>(x) y = Mul(f, m)", {"x": (3, 4)}),
    Case("IsNaN", "n = IsNaN(x) y = Where(n, x, z)", {"x": (2, 3), "z": (2, 3)}),
    Case("EyeLike", "e = EyeLike(x) y = Mul(e, x)", {"x": (3, 4)}, float32=False, because="its dtype attribute is float32's by default"),
    Case("RandomUniformLike", "e = RandomUniformLike<seed=3.0>(x) y = Mul(e, x)", {"x": (3, 4)}, float32=False, because="onnxruntime draws other numbers"),
]
