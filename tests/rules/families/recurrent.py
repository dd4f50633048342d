"""RNN, GRU and LSTM: directions, layouts, lengths, initial states, peepholes, clipping, activations; by every operand, of every output."""

import numpy as np

from tests.rules.case import Case

STEPS, BATCH, WIDTH, HIDDEN = 3, 2, 2, 3
LENGTHS = np.asarray([3, 1], np.int32)


def operands(gates: int, directions: int = 1, more: str = "", layout: int = 0) -> dict[str, object]:
    """The operands that `more` names, of small sizes that all differ where they can."""
    states = (BATCH, directions, HIDDEN) if layout else (directions, BATCH, HIDDEN)
    shapes: dict[str, object] = {
        "x": (BATCH, STEPS, WIDTH) if layout else (STEPS, BATCH, WIDTH), "w": (directions, gates * HIDDEN, WIDTH), "r": (directions, gates * HIDDEN, HIDDEN),
        "b": (directions, 2 * gates * HIDDEN), "lens": LENGTHS, "h0": states, "c0": states, "p": (directions, 3 * HIDDEN),
    }  # fmt: skip
    return {k: v for k, v in shapes.items() if k in ("x", "w", "r") or k in more.split()}


def node(op: str, outputs: str, attributes: str, more: str) -> str:
    names = more.split()
    order = ["b", "lens", "h0", *(["c0", "p"] if op == "LSTM" else [])]
    inputs = ["x", "w", "r", *(name if name in names else "" for name in order)]
    while not inputs[-1]:
        inputs.pop()
    return f"{outputs} = {op} <hidden_size={HIDDEN}{', ' if attributes else ''}{attributes}> ({', '.join(inputs)})"


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def case(op: str, more: str = "", attributes: str = "", outputs: str = "y", after: str = "", **options: object) -> Case:
    directions = 2 if "bidirectional" in attributes else 1
    layout = 1 if "layout=1" in attributes else 0
    options.setdefault("domain", (-0.9, 0.9))
    text = node(op, outputs, attributes, more) + after
    if layout:
        options |= {"float32": False, "because": "onnxruntime's CPU provider has no layout 1"}
    return Case(op, text, operands(GATES[op], directions, more, layout), **options)  # type: ignore[arg-type]


ALL = {"RNN": "b h0", "GRU": "b h0", "LSTM": "b h0 c0 p"}
CASES = []
for _op in ("RNN", "GRU", "LSTM"):
    _states = "y, yh, yc" if _op == "LSTM" else "y, yh"
    _last = ", y" if _op != "LSTM" else ", , y"
    CASES += [
        case(_op),
        case(_op, "b"),
        case(_op, ALL[_op], 'direction="reverse"'),
        case(_op, ALL[_op], 'direction="bidirectional"', outputs=_last, symbolic=False),
        case(_op, ALL[_op] + " lens", 'direction="bidirectional"', symbolic=False),
        case(_op, ALL[_op] + " lens", outputs=_last),
        case(_op, "b lens", 'direction="reverse"', outputs=", y"),
        case(_op, ALL[_op], "layout=1"),
        case(_op, "b", 'layout=1, direction="bidirectional"', outputs=", y", symbolic=False),
        case(_op, "b h0", "clip=0.4"),
        case(_op, "b h0", outputs="all, last", after=" t = Tanh(all) u = ReduceSum(t) y = Mul(u, last)"),
    ]
CASES += [
    case("RNN", "b", 'activations=["Affine"], activation_alpha=[0.7], activation_beta=[0.2]'),
    case("RNN", "b", 'activations=["ScaledTanh", "LeakyRelu"], activation_alpha=[0.7, 0.3], activation_beta=[1.2], direction="bidirectional"', symbolic=False),
    case("GRU", "b h0", "linear_before_reset=1"),
    case("GRU", "h0", "linear_before_reset=1"),
    case("GRU", "b h0 lens", 'linear_before_reset=1, direction="bidirectional"', symbolic=False),
    case("GRU", "b h0", 'linear_before_reset=1, activations=["HardSigmoid", "Softsign"], activation_alpha=[0.3], activation_beta=[0.4]'),
    case("LSTM", "b h0 c0", 'activations=["HardSigmoid", "ScaledTanh", "Elu"], activation_alpha=[0.3, 0.8, 0.9], activation_beta=[0.4, 1.1]'),
    case("LSTM", "b c0 p", "input_forget=1"),
    case("LSTM", "b h0 c0", outputs="all, last, cell", after=" t = ReduceSum(all) u = Mul(t, cell) y = Add(u, last)"),
    case(
        "LSTM", "b h0 c0", 'direction="bidirectional"', outputs="all, last, cell", after=" t = ReduceSum(all) u = Mul(t, cell) y = Add(u, last)", symbolic=False
    ),
    case("LSTM", "b h0 c0 lens", outputs="all, last, cell", after=" t = ReduceSum(all) u = Mul(t, cell) y = Add(u, last)"),
    case("LSTM", "b h0 c0 lens", 'direction="bidirectional"', outputs="all, , cell", after=" t = ReduceSum(all) y = Mul(t, cell)", symbolic=False),
    case("LSTM", "b h0 c0", 'activations=["Sigmoid", "Softplus", "Relu"]'),
]
