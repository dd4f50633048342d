"""Linear attention, causal convolutions and rotary embeddings as onnxruntime has them: over update rules, heads, layouts, dilations and sections."""

from __future__ import annotations

from typing import Any

from tests.rules.families.microsoft import RANDOM, Foreign, own


def linear(rule: str, heads: int, groups: int, *, each: bool = False, past: bool = False, rates: int = 0, of: str = "y, p", more: str = "") -> Foreign:
    """Two sequences of three steps, with keys of 2 numbers a head and values of 3; the decay is negative."""
    inputs: dict[str, Any] = {"q": (2, 3, heads * 2), "k": (2, 3, groups * 2), "v": (2, 3, groups * 3)}
    if past:
        inputs["s"] = (2, groups, 2, 3)
    if "gated" in rule:
        inputs["g"] = -RANDOM.uniform(0.1, 1.0, (2, 3, groups * (2 if each else 1)))
    if "delta" in rule:
        inputs["b"] = RANDOM.uniform(0.2, 0.9, (2, 3, rates or groups))
    operands = ", ".join(["q", "k", "v", *(name if name in inputs else "" for name in ("s", "g", "b"))]).rstrip(", ")
    text = f'{of} = LinearAttention<q_num_heads={heads}, kv_num_heads={groups}, update_rule="{rule}"{more}>({operands})'
    return own("LinearAttention", text, inputs, domain=(-1.0, 1.0))


def causal(settings: str, x: tuple[int, ...], past: tuple[int, ...] | None = None, bias: bool = True, of: str = "y, p") -> Foreign:
    """Four channels, over three positions."""
    inputs: dict[str, Any] = {"x": x, "w": (4, 1, 3)} | ({"b": (4,)} if bias else {}) | ({"s": past} if past else {})
    operands = ", ".join(["x", "w", *(name if name in inputs else "" for name in ("b", "s"))]).rstrip(", ")
    return own("CausalConvWithState", f"{of} = CausalConvWithState{f'<{settings}>' if settings else ''}({operands})", inputs, constants=("w",))


def rotary(settings: str, x: tuple[int, ...], angles: int) -> Foreign:
    positions = RANDOM.integers(0, 7, (3, 2, 3))
    return own("MRotaryEmbedding", f"y = MRotaryEmbedding<{settings}>(x, p, c, s)", {"x": x, "p": positions, "c": (8, angles), "s": (8, angles)})


CASES = [
    linear("linear", 4, 2),
    linear("gated", 2, 2, each=True, past=True),
    linear("gated", 4, 2, of="h, y"),
    linear("delta", 2, 2, past=True, rates=1, more=", scale=0.3"),
    linear("gated_delta", 4, 2, past=True),
    linear("gated_delta", 2, 2, each=True, of="h, y"),
    linear("gated_delta", 2, 4, past=True),
    linear("linear", 1, 3, past=True, of="h, y"),
    causal("", (2, 4, 5)),
    causal('activation="silu"', (2, 4, 5), past=(2, 4, 2), bias=False),
    causal("dilation=2", (2, 4, 3), past=(2, 4, 4), of="h, y"),
    causal('channels_last=1, activation="swish"', (2, 5, 4), past=(2, 2, 4)),
    causal("channels_last=1, dilation=2", (2, 3, 2, 2), past=(2, 4, 2, 2)),
    causal("channels_last=1", (2, 3, 2, 2), of="h, y"),
    rotary("mrope_section=[2, 3, 1], num_heads=2", (2, 3, 24), 6),
    rotary("mrope_section=[2, 2, 2], num_heads=2, interleaved=1, mrope_layout=1", (2, 3, 24), 6),
    rotary("mrope_section=[2, 2, 2], mrope_layout=1", (2, 2, 3, 12), 6),
    rotary("mrope_section=[0, 3, 3], mrope_layout=1", (2, 2, 3, 12), 6),
    rotary("mrope_section=[4, 2, 2], num_heads=2, mrope_layout=1", (2, 3, 32), 8),
    rotary("mrope_section=[1, 0, 3], num_heads=2, rotary_embedding_dim=8, interleaved=1", (2, 3, 20), 4),
]
