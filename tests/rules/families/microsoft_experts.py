"""Mixtures of experts: over the number chosen, their shares, activations, biases and the ways in which weights are packed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rules.families.microsoft import RANDOM, Foreign, own

ROUTER = np.asarray([[0.9, -0.4, 0.3, 1.7], [-1.1, 0.6, 1.2, 0.1], [0.2, 1.9, -0.7, 0.8], [1.4, 0.5, -0.2, -1.6], [0.7, -1.3, 1.6, 2.3], [-0.3, 1.5, 0.4, 1.1]])
TIED = np.asarray([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, -1.0]])


def mixture(settings: str, wide: int = 1, biases: tuple[bool, bool] = (True, True), tokens: tuple[int, ...] = (2, 3), **more: Any) -> Foreign:
    """Four experts from 4 numbers to `wide` times 3 and back."""
    inputs: dict[str, Any] = {"x": (*tokens, 4), "r": ROUTER[: int(np.prod(tokens))], "u": (4, 3 * wide, 4), "v": (4, 4, 3)}
    if biases[0]:
        inputs["b"] = (4, 3 * wide)
    if biases[1]:
        inputs["c"] = (4, 4)
    text = f"y = MoE<{settings}>(x, r, u, {'b' if biases[0] else ''}, v{', c' if biases[1] else ''})"
    return own("MoE", text, inputs, constants=more.pop("constants", ("u", "v")), domain=(-1.0, 1.0), **more)


def packed(settings: str, bits: int = 4, size: int = 0, wide: int = 1, zeros: bool = False, weighing: bool = False, bias: bool = True, router: Any = ROUTER[:3]) -> Foreign:  # fmt: skip
    """Four experts from 32 numbers to `wide` times 16 and back, their weights a few bits each, with scales a row or a block of `size`."""
    rows, columns, each = {"u": 16 * wide, "v": 32}, {"u": 32, "v": 16}, 8 // bits
    tokens = len(router)
    inputs: dict[str, Any] = {"x": (tokens, 32), "r": np.asarray(router)}
    for name, count in rows.items():
        blocks = columns[name] // size if size else 1
        inputs[name] = RANDOM.integers(0, 256, (4, count, columns[name] // each)).astype(np.uint8)
        inputs[f"{name}s"] = RANDOM.uniform(0.01, 0.02, (4, count, blocks) if size else (4, count)) * 2.0 ** (4 - bits)
        if zeros:
            shape = (4, count, -(-blocks // each)) if size else (4, count // each)
            inputs[f"{name}z"] = RANDOM.integers(0, 256, shape).astype(np.uint8)
    if bias:
        inputs |= {"b": (4, rows["u"]), "c": (4, 32)}
    if weighing:
        inputs["w"] = RANDOM.uniform(0.1, 1.0, (tokens, 4))
    b, c = ("b", "c") if bias else ("", "")
    operands = ["x", "r", "u", "us", b, "v", "vs", c, "", "", "", *(("uz", "vz") if zeros else ("", "")), "", "w" if weighing else ""]
    while not operands[-1]:
        operands.pop()
    text = f"y = QMoE<expert_weight_bits={bits}{f', block_size={size}' if size else ''}, {settings}>({', '.join(operands)})"
    return own(
        "QMoE",
        text,
        inputs,
        constants=[k for k in ("u", "us", "uz", "v", "vs", "vz") if k in inputs],
        wrt=[k for k in ("x", "r", "b", "w", "us") if k in inputs],
    )


CASES = [
    mixture("k=1"),
    mixture("k=2", constants=()),
    mixture("k=2, normalize_routing_weights=1"),
    mixture("k=4", biases=(False, False), tokens=(5,)),
    mixture("k=1, normalize_routing_weights=1", biases=(False, True)),
    mixture('k=3, normalize_routing_weights=1, activation_type="gelu"', biases=(True, False)),
    mixture('k=2, activation_type="silu"'),
    mixture('k=2, activation_type="identity"'),
    mixture('k=2, activation_type="swiglu", swiglu_fusion=1', wide=2),
    mixture('k=2, normalize_routing_weights=1, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.7, activation_beta=0.6, swiglu_limit=0.4', wide=2),
    own("MoE", "y = MoE<k=2>(x, r, u, , v)", {"x": (2, 4), "r": TIED, "u": (4, 3, 4), "v": (4, 4, 3)}, constants=("r", "u", "v"), wrt=("x", "u", "v")),
    packed("k=1"),
    packed("k=2", zeros=True, bias=False),
    packed("k=2, normalize_routing_weights=1", size=16),
    packed("k=2", size=16, zeros=True),
    packed("k=2", bits=8, zeros=True),
    packed("k=3", bits=2, zeros=True),
    packed("k=2", bits=2, size=16, zeros=True),
    packed("k=2", weighing=True),
    packed("k=2, normalize_routing_weights=1", bits=8, weighing=True),
    packed('k=2, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.702, activation_beta=1.0, swiglu_limit=0.5', wide=2),
    packed('k=2, activation_type="gelu", fc2_expert_weight_bits=4'),
]  # fmt: skip
