"""Attention, rotary embedding, and what carries a state."""

import dataclasses
from typing import Any

import numpy as np
import onnx

from tests.rules.case import Case


@dataclasses.dataclass(frozen=True)
class Wide(Case):
    """A case whose softmax is computed in the precision of the model, where the attribute says another."""

    def model(self, dtype: Any = np.float64, symbolic: bool = False) -> onnx.ModelProto:
        model = super().model(dtype, symbolic)
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "softmax_precision" and dtype == np.float64:
                    attribute.i = 11
        return model


FOUR = {"q": (2, 2, 3, 4), "k": (2, 2, 5, 4), "v": (2, 2, 5, 3)}
GROUPED = {"q": (2, 4, 3, 4), "k": (2, 2, 5, 4), "v": (2, 2, 5, 3)}
THREE = {"q": (2, 3, 8), "k": (2, 4, 8), "v": (2, 4, 6)}
PAST = {"q": (1, 2, 2, 4), "k": (1, 2, 2, 4), "v": (1, 2, 2, 3), "pk": (1, 2, 3, 4), "pv": (1, 2, 3, 3)}
CAUSAL = np.tril(np.ones((3, 5), bool), 1)
HOLES = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 1, 1, 1]], bool)
BATCHED = np.array([[True, True, False, True, True], [True, False, True, True, False]]).reshape(2, 1, 1, 5)
HEADS = "q_num_heads=2, kv_num_heads=2"
ANGLES = {"c": (1, 6, 2), "s": (1, 6, 2)}
NEWER = "onnxruntime runs no opset beyond 26"
SHORT = "onnxruntime wants a mask over all keys"
WINDOWS = "onnxruntime knows no windows yet"


def attends(attributes: str, inputs: dict[str, Any], operands: str = "", opset: int = 23, outputs: str = "y", **more: Any) -> Case:
    named = f"Attention<{attributes}>" if attributes else "Attention"
    return Wide("Attention", f"{outputs} = {named}(q, k, v{operands})", inputs, opset=opset, **more)


def turns(attributes: str, inputs: dict[str, Any], operands: str = "", **more: Any) -> Case:
    named = f"RotaryEmbedding<{attributes}>" if attributes else "RotaryEmbedding"
    return Case("RotaryEmbedding", f"y = {named}(x, c, s{operands})", inputs, opset=23, **more)


STATE = (2, 2, 3, 4)


def linear(rule: str, more: dict[str, Any], heads: tuple[int, int] = (2, 2), scale: float = 0.0, of: str = "") -> Case:
    """Linear attention over two samples of five steps; `of` asks for the last state."""
    inputs = {"q": (2, 5, 3 * heads[0]), "k": (2, 5, 6), "v": (2, 5, 8), **more}
    operands = ", ".join(["q", "k", "v", *(name if name in more else "" for name in ("p", "d", "e"))]).rstrip(", ")
    factor = f", scale={scale}" if scale else ""
    text = f'{"z, " if of else ""}y = LinearAttention<q_num_heads={heads[0]}, kv_num_heads={heads[1]}, update_rule="{rule}"{factor}>({operands})'
    return Case("LinearAttention", text, inputs, domain=(-0.8, 0.8), opset=27, float32=False, because=NEWER)


SCORES = "double[B,H,L,S]"


def flexible(attributes: str, inputs: dict[str, Any]) -> Case:
    """The normal form writes it out, so that its subgraphs may read outer values."""
    operator = f"ai.onnx.preview.FlexAttention<{attributes}>" if attributes else "ai.onnx.preview.FlexAttention"
    return Case(
        "FlexAttention",
        f"y = {operator}(q, k, v)",
        inputs,
        domains={"ai.onnx.preview": 1},
        opset=24,
        float32=False,
        because="its subgraphs are typed in float64",
    )


CASES = [
    attends("", FOUR),
    attends("scale=0.3", FOUR, constants=("k", "v")),
    attends(HEADS, THREE),
    attends("q_num_heads=4, kv_num_heads=2", {"q": (2, 3, 8), "k": (2, 5, 4), "v": (2, 5, 6)}),
    attends("", GROUPED),
    attends("", {**GROUPED, "m": (3, 5)}, ", m"),
    attends("", {**FOUR, "m": CAUSAL}, ", m"),
    attends("", {**FOUR, "m": CAUSAL}, ", m", constants=("m",)),
    attends("", {**FOUR, "m": (2, 1, 3, 5)}, ", m"),
    attends("", {**GROUPED, "m": BATCHED}, ", m", float32=False, because="onnxruntime wants a row of the mask for each query"),
    attends("", {**FOUR, "m": HOLES}, ", m"),
    attends("is_causal=1", FOUR),
    attends("is_causal=1", {**GROUPED, "m": (3, 5)}, ", m"),
    attends("is_causal=1", {**FOUR, "m": HOLES[[0, 2, 2]]}, ", m"),
    attends("softcap=1.5", FOUR),
    attends("softcap=1.5, is_causal=1", {**FOUR, "m": (1, 2, 3, 5)}, ", m"),
    attends("softmax_precision=1", FOUR),
    attends("is_causal=1", PAST, ", , pk, pv", outputs="y, nk, nv"),
    attends("", PAST, ", , pk, pv", outputs="y, nk, nv", of="nk"),
    attends("", PAST, ", , pk, pv", outputs="z, nk, nv", of="nv"),
    attends("softcap=2.0", {**PAST, "m": (2, 5)}, ", m, pk, pv", outputs="y, nk, nv"),
    attends("", FOUR, outputs="z, , , y"),
    attends("qk_matmul_output_mode=1, softcap=1.5", {**FOUR, "m": (3, 5)}, ", m", outputs="z, , , y"),
    attends("qk_matmul_output_mode=2, softcap=1.5", {**FOUR, "m": (3, 5)}, ", m", outputs="z, , , y"),
    attends("qk_matmul_output_mode=3", {**GROUPED, "m": CAUSAL}, ", m", outputs="z, , , y"),
    attends("", {**FOUR, "m": (3, 4)}, ", m", opset=24, float32=False, because=SHORT),
    attends("", {**FOUR, "m": CAUSAL[:, :4]}, ", m", opset=24, float32=False, because=SHORT),
    attends("", {**FOUR, "n": np.array([3, 5])}, ", , , , n", opset=24),
    attends("is_causal=1", {**FOUR, "n": np.array([3, 5])}, ", , , , n", opset=24),
    attends("is_causal=1", {**FOUR, "n": np.array([2, 4])}, ", , , , n", opset=24),
    attends("", FOUR, opset=25),
    attends("left_window_size=1", FOUR, opset=25, float32=False, because=WINDOWS),
    attends("left_window_size=1, right_window_size=1", FOUR, opset=25, float32=False, because=WINDOWS),
    attends("left_window_size=0, is_causal=1", {**PAST, "m": (2, 5)}, ", m, pk, pv", opset=25, outputs="y, nk, nv", float32=False, because=WINDOWS),
    turns("", {"x": (1, 2, 6, 4), **ANGLES}),
    turns("interleaved=1", {"x": (1, 2, 6, 4), **ANGLES}),
    turns("num_heads=3", {"x": (1, 6, 12), **ANGLES}),
    turns("num_heads=2, rotary_embedding_dim=4, interleaved=1", {"x": (1, 6, 12), **ANGLES}),
    turns("rotary_embedding_dim=4", {"x": (1, 2, 6, 7), **ANGLES}, float32=False, because="onnxruntime wants an even head"),
    turns("rotary_embedding_dim=4, num_heads=2", {"x": (1, 6, 12), **ANGLES}),
    turns("", {"x": (2, 2, 3, 4), "c": (8, 2), "s": (8, 2), "p": np.array([[0, 3, 7], [3, 3, 1]])}, ", p"),
    turns("num_heads=1", {"x": (2, 3, 4), "c": (8, 2), "s": (8, 2), "p": np.array([[0, 3, 7], [3, 3, 1]])}, ", p", constants=("c", "s", "p"), wrt=("x",)),
    Case("CausalConvWithState", "y = CausalConvWithState(x, w)", {"x": (2, 3, 5), "w": (3, 1, 3)}, constants=("w",), opset=27, float32=False, because=NEWER),
    Case("CausalConvWithState", 'y = CausalConvWithState<activation="silu">(x, w, b, p)', {"x": (2, 3, 5), "w": (3, 1, 4), "b": (3,), "p": (2, 3, 3)},
         constants=("w",), opset=27, float32=False, because=NEWER),
    Case("CausalConvWithState", "z, y = CausalConvWithState(x, w, , p)", {"x": (2, 3, 2), "w": (3, 1, 4), "p": (2, 3, 3)}, constants=("w",), opset=27,
         float32=False, because=NEWER),
    linear("linear", {}),
    linear("linear", {"p": STATE}, heads=(4, 2)),
    linear("gated", {"d": (2, 5, 2)}),
    linear("gated", {"p": STATE, "d": (2, 5, 6)}, heads=(4, 2), scale=0.7),
    linear("delta", {"e": (2, 5, 2)}),
    linear("delta", {"p": STATE, "e": (2, 5, 1)}, of="y"),
    linear("gated_delta", {"p": STATE, "d": (2, 5, 2), "e": (2, 5, 2)}, heads=(4, 2)),
    linear("gated_delta", {"p": STATE, "d": (2, 5, 6), "e": (2, 5, 1)}, heads=(4, 2)),
    linear("gated_delta", {"d": (2, 5, 6), "e": (2, 5, 2)}, of="y"),
    linear("gated_delta", {"p": STATE, "d": (2, 5, 2), "e": (2, 5, 2)}, of="y"),
    Case("LinearAttention", 'y = LinearAttention<q_num_heads=1, kv_num_heads=1, update_rule="delta">(q, k, v, , , e)',
         {"q": (1, 1, 3), "k": (1, 1, 3), "v": (1, 1, 2), "e": (1, 1, 1)}, opset=27, float32=False, because=NEWER),
    flexible("", {"q": (2, 4, 3, 4), "k": (2, 2, 5, 4), "v": (2, 2, 5, 3)}),
    flexible(f"scale=0.4, score_mod = m ({SCORES} t) => ({SCORES} u) {{ a = Mul(t, w)  b = Tanh(a)  u = Add(b, t) }}", {**FOUR, "w": (3, 5)}),
    flexible(f"prob_mod = m ({SCORES} t) => ({SCORES} u) {{ a = Mul(t, w)  u = Mul(a, t) }}", {**GROUPED, "w": (4, 1, 5)}),
]  # fmt: skip
