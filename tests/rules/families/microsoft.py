"""onnxruntime's own operators: written out in standard operators in float64, and onnxruntime's own kernels in float32, so that the float32 check
holds each expansion to the kernel that it stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from netsens.graph.graph import Graph
from netsens.rules.standard import written_out
from tests.rules.case import Case


@dataclasses.dataclass(frozen=True)
class Foreign(Case):
    """A case of an operator that ONNX's reference evaluator lacks."""

    against_body: bool = False  # the bodies of what it is written out to are judged where those operators are
    domains: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"com.microsoft": 1})

    def graph(self, dtype: Any = np.float64, symbolic: bool = False) -> Graph:
        graph = super().graph(dtype, symbolic)
        return written_out(graph) if dtype == np.float64 else graph


def own(op: str, call: str, inputs: Mapping[str, Any], **more: Any) -> Foreign:
    return Foreign(op, call.replace(f"{op}", f"com.microsoft.{op}", 1), inputs, **more)


def no_kernel(op: str, call: str, inputs: Mapping[str, Any], **more: Any) -> Foreign:
    return own(op, call, inputs, float32=False, because="onnxruntime has no CPU kernel for it", **more)


RANDOM = np.random.default_rng(7)
BATCH, LENGTH, HEADS, SIZE = 2, 3, 2, 4
WIDTH = HEADS * SIZE
ATTENTION = {"x": (BATCH, LENGTH, 5), "w": (5, 3 * WIDTH), "b": (3 * WIDTH,)}
UNEVEN = {"x": (BATCH, LENGTH, 5), "w": (5, 2 * WIDTH + 6), "b": (2 * WIDTH + 6,)}
PAST = {"p": (2, BATCH, HEADS, 2, SIZE)}
MASK = np.array([[1, 1, 0], [1, 0, 1]], np.int32)
LONGER = np.array([[0, 1, 1, 1, 0], [1, 1, 0, 1, 1]], np.int32)
CUBE = np.array([[[1, 0, 0], [1, 1, 0], [0, 1, 1]], [[1, 1, 1], [1, 0, 1], [0, 0, 1]]], np.int32)
THREE = {"q": (BATCH, LENGTH, WIDTH), "k": (BATCH, 4, WIDTH), "v": (BATCH, 4, WIDTH)}
KEYS = np.array([[1, 1, 0, 1], [1, 0, 1, 1]], np.int32)
GROUPED = {"q": (2, 3, 64), "k": (2, 3, 32), "v": (2, 3, 32)}
ANGLES = {"c": (8, 2), "s": (8, 2)}
GQA = "num_heads=4, kv_num_heads=2"
LENGTHS = {"n": np.array([2, 2], np.int32), "t": np.array(3, np.int32)}
WIDER = {"c": (8, 8), "s": (8, 8)}
CACHE = {"q": (1, 2, 64), "k": (1, 2, 32), "v": (1, 2, 32), "pk": (1, 2, 3, 16), "pv": (1, 2, 3, 16)}
AFTER = {"n": np.array([4], np.int32), "t": np.array(5, np.int32)}
BUFFER = {**CACHE, "pk": (1, 2, 7, 16), "pv": (1, 2, 7, 16)}
RAGGED = {
    "q": (2, 1, 64),
    "k": (2, 1, 32),
    "v": (2, 1, 32),
    "pk": (2, 2, 4, 16),
    "pv": (2, 2, 4, 16),
    "n": np.array([2, 4], np.int32),
    "t": np.array(5, np.int32),
}


def few_bits(bits: int, rows: int, columns: int, size: int, zeros: str = "", bias: bool = False) -> Foreign:
    blocks = -(-columns // size)
    inputs: dict[str, Any] = {"x": (2, 3, columns), "w": RANDOM.integers(0, 256, (rows, blocks, size * bits // 8)).astype(np.uint8), "s": (rows, blocks)}
    operands = "x, w, s"
    if zeros == "packed":
        inputs["z"] = RANDOM.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8)
    elif zeros:
        inputs["z"] = (rows, blocks)
    if zeros:
        operands += ", z"
    if bias:
        inputs["b"] = (rows,)
        operands += f"{'' if zeros else ', '}, , b"
    return own("MatMulNBits", f"y = MatMulNBits<K={columns}, N={rows}, bits={bits}, block_size={size}>({operands})", inputs,
               constants=tuple(k for k in inputs if k != "x"), domain=(-1.0, 1.0))  # fmt: skip


def quantised(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    return RANDOM.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)


CASES = [
    own("Gelu", "y = Gelu(x)", {"x": (2, 3)}),
    own("BiasGelu", "y = BiasGelu(x, b)", {"x": (2, 3, 4), "b": (4,)}),
    own("FastGelu", "y = FastGelu(x)", {"x": (2, 3)}),
    own("FastGelu", "y = FastGelu(x, b)", {"x": (2, 3), "b": (3,)}),
    own("QuickGelu", "y = QuickGelu(x)", {"x": (2, 3)}),
    own("QuickGelu", "y = QuickGelu<alpha=0.7>(x)", {"x": (4,)}),
    no_kernel("BiasSplitGelu", "y = BiasSplitGelu(x, b)", {"x": (2, 3, 8), "b": (8,)}),
    no_kernel("BiasAdd", "y = BiasAdd(x, b, z)", {"x": (2, 3, 4), "b": (4,), "z": (2, 3, 4)}),
    no_kernel("BiasSoftmax", "y = BiasSoftmax<axis=3, is_inner_broadcast=1>(x, b)", {"x": (2, 2, 3, 4), "b": (2, 1, 1, 4)}),
    no_kernel("BiasSoftmax", "y = BiasSoftmax<axis=1, is_inner_broadcast=0>(x, b)", {"x": (2, 3, 4), "b": (1, 3, 4)}),
    no_kernel("BiasDropout", "y = BiasDropout(x, b, z)", {"x": (2, 3), "b": (3,), "z": (2, 3)}),
    own("Trilu", "y = Trilu<upper=0>(x)", {"x": (2, 3, 4)}),
    own("FusedConv", 'y = FusedConv<activation="Relu">(x, w, b)', {"x": (1, 2, 4, 5), "w": (3, 2, 2, 3), "b": (3,)}),
    own("FusedConv", 'y = FusedConv<activation="LeakyRelu", activation_params=[0.2], pads=[1, 1, 1, 1], strides=[2, 2]>(x, w)',
        {"x": (2, 2, 4, 5), "w": (2, 2, 3, 3)}),
    own("FusedConv", 'y = FusedConv<activation="Clip", activation_params=[-1.0, 1.5]>(x, w, b)', {"x": (1, 2, 3, 4), "w": (3, 2, 2, 2), "b": (3,)}),
    own("FusedConv", 'y = FusedConv<activation="HardSigmoid", activation_params=[0.1, 0.4], group=2>(x, w)', {"x": (1, 2, 3, 4), "w": (4, 1, 2, 2)}),
    own("FusedConv", 'y = FusedConv<activation="Relu">(x, w, b, z)', {"x": (1, 2, 3, 4), "w": (3, 2, 2, 2), "b": (3,), "z": (1, 3, 2, 3)}),
    own("FusedConv", 'y = FusedConv<activation="Tanh">(x, w)', {"x": (1, 2, 5), "w": (3, 2, 2)}),
    own("FusedGemm", 'y = FusedGemm<activation="Relu", alpha=0.5, beta=2.0>(x, w, c)', {"x": (2, 3), "w": (3, 4), "c": (4,)}),
    own("FusedGemm", 'y = FusedGemm<activation="LeakyRelu", activation_alpha=0.2, transA=1, transB=1>(x, w)', {"x": (3, 2), "w": (4, 3)}),
    own("FusedMatMul", "y = FusedMatMul<alpha=0.5>(a, b)", {"a": (2, 3, 4), "b": (4, 5)}),
    own("FusedMatMul", "y = FusedMatMul<transA=1, transB=1>(a, b)", {"a": (2, 4, 3), "b": (2, 5, 4)}),
    own("FusedMatMul", "y = FusedMatMul<transBatchA=1>(a, b)", {"a": (3, 2, 4), "b": (2, 4, 5)}),
    own("FusedMatMul", "y = FusedMatMul<transBatchA=1, transA=1, transBatchB=1, transB=1>(a, b)", {"a": (4, 2, 3), "b": (5, 2, 4)}),
    own("FusedMatMul", "y = FusedMatMul<transBatchA=1, transBatchB=1>(a, b)", {"a": (3, 2, 6, 4), "b": (4, 2, 6, 5)}),
    own("TransposeMatMul", "y = TransposeMatMul<transB=1, alpha=2.0>(a, b)", {"a": (3, 4), "b": (5, 4)}),
    own("SkipLayerNormalization", "y = SkipLayerNormalization(x, z, g, b, c)", {"x": (2, 3, 4), "z": (2, 3, 4), "g": (4,), "b": (4,), "c": (4,)}),
    own("SkipLayerNormalization", "y = SkipLayerNormalization<epsilon=0.1>(x, z, g)", {"x": (2, 3, 4), "z": (2, 3, 4), "g": (4,)}),
    own("SkipLayerNormalization", "y = SkipLayerNormalization<epsilon=0.1>(x, z, g, b)", {"x": (2, 3, 4), "z": (3, 4), "g": (4,), "b": (4,)}),
    own("SkipLayerNormalization", "h, , , s = SkipLayerNormalization(x, z, g)  y = Mul(h, s)", {"x": (2, 3, 4), "z": (1, 3, 4), "g": (4,)}),
    own("SkipSimplifiedLayerNormalization", "y = SkipSimplifiedLayerNormalization(x, z, g, b)", {"x": (2, 3, 4), "z": (2, 3, 4), "g": (4,), "b": (4,)}),
    own("SkipSimplifiedLayerNormalization", "h, , , s = SkipSimplifiedLayerNormalization<epsilon=0.1>(x, z, g)  y = Mul(h, s)",
        {"x": (2, 3, 4), "z": (2, 3, 4), "g": (4,)}),
    own("EmbedLayerNormalization", "y, m = EmbedLayerNormalization(i, j, w, p, s, g, b)",
        {"i": np.array([[1, 4, 1], [0, 2, 3]], np.int32), "j": np.array([[0, 1, 1], [1, 0, 0]], np.int32), "w": (5, 4), "p": (6, 4), "s": (2, 4),
         "g": (4,), "b": (4,)}),
    own("EmbedLayerNormalization", "h, m, y = EmbedLayerNormalization<epsilon=0.1>(i, , w, p, , g, b, m0, q)",
        {"i": np.array([[1, 4, 1]], np.int32), "w": (5, 4), "p": (6, 4), "g": (4,), "b": (4,), "m0": np.array([[1, 1, 0]], np.int32),
         "q": np.array([[2, 0, 5]], np.int32)}),
    no_kernel("GroupNorm", "y = GroupNorm<groups=2, activation=1>(x, g, b)", {"x": (2, 2, 3, 4), "g": (4,), "b": (4,)}),
    no_kernel("GroupNorm", "y = GroupNorm<groups=2, activation=0, channels_last=0>(x, g, b)", {"x": (2, 4, 2, 3), "g": (4,), "b": (4,)}),
    no_kernel("SkipGroupNorm", "y = SkipGroupNorm<groups=2, activation=1>(x, g, b, z, c)", {"x": (2, 2, 3, 4), "g": (4,), "b": (4,), "z": (2, 4), "c": (4,)}),
    no_kernel("SkipGroupNorm", "h, y = SkipGroupNorm<groups=2, activation=1>(x, g, b, z)", {"x": (2, 2, 3, 4), "g": (4,), "b": (4,), "z": (2, 2, 3, 4)}),
    own("Attention", "y = Attention<num_heads=2>(x, w, b)", ATTENTION),
    own("Attention", "y = Attention<num_heads=2, scale=0.3>(x, w)", {k: v for k, v in ATTENTION.items() if k != "b"}, float32=False,
        because="onnxruntime 1.31 crashes where the bias is left out"),
    own("Attention", "y = Attention<num_heads=2, unidirectional=1>(x, w, b)", ATTENTION, constants=("w", "b")),
    own("Attention", "y = Attention<num_heads=2, qkv_hidden_sizes=[8, 8, 6]>(x, w, b)", UNEVEN),
    own("Attention", "y = Attention<num_heads=2>(x, w, b, m)", {**ATTENTION, "m": MASK}),
    own("Attention", "y = Attention<num_heads=2, mask_filter_value=-1.5>(x, w, b, m)", {**ATTENTION, "m": MASK}),
    own("Attention", "y = Attention<num_heads=2, unidirectional=1>(x, w, b, m)", {**ATTENTION, "m": np.array([[1, 1, 0], [1, 0, 1]], np.int32)}),
    own("Attention", "y = Attention<num_heads=2>(x, w, b, m)", {**ATTENTION, "m": CUBE}),
    own("Attention", "y = Attention<num_heads=2>(x, w, b, m)", {**ATTENTION, "m": np.array([2, 3], np.int32)}),
    own("Attention", "y = Attention<num_heads=2>(x, w, b, m)", {**ATTENTION, "m": np.array([2, 3, 0, 1], np.int32)}, symbolic=False),
    own("Attention", "y = Attention<num_heads=2>(x, w, b, , , e)", {**ATTENTION, "e": (1, HEADS, LENGTH, LENGTH)}),
    own("Attention", "y, n = Attention<num_heads=2, unidirectional=1>(x, w, b, , p)", {**ATTENTION, **PAST}),
    own("Attention", "h, y = Attention<num_heads=2>(x, w, b, m, p)", {**ATTENTION, **PAST, "m": LONGER}),
    own("Attention", "y, n = Attention<num_heads=2>(x, w, b, m, p)", {**ATTENTION, **PAST, "m": LONGER}),
    own("QAttention", "y = QAttention<num_heads=2>(x, w, b, s, t, , z, u)",
        {"x": quantised((2, 3, 5)), "w": quantised((5, 24), np.int8) // 2, "b": (24,), "s": np.array(0.02), "t": np.array(0.01), "z": np.array(120, np.uint8),
         "u": np.array(0, np.int8)}, wrt=("b",), constants=("w", "s", "t", "z", "u")),
    own("QAttention", "y = QAttention<num_heads=2, unidirectional=1>(x, w, b, s, t, m, z, u)",
        {"x": quantised((2, 3, 5)), "w": quantised((5, 24)), "b": (24,), "s": np.array(0.02), "t": RANDOM.uniform(0.01, 0.02, 24),
         "m": np.array([2, 3], np.int32),
         "z": np.array(120, np.uint8), "u": quantised((24,))}, wrt=("b",), constants=("w", "s", "t", "z", "u")),
    own("MultiHeadAttention", "y = MultiHeadAttention<num_heads=2>(q, k, v)", THREE),
    own("MultiHeadAttention", "y = MultiHeadAttention<num_heads=2, scale=0.4>(q, k, v, b)", {**THREE, "v": (BATCH, 4, 6), "b": (2 * WIDTH + 6,)}),
    own("MultiHeadAttention", "y = MultiHeadAttention<num_heads=2, unidirectional=1>(q, k, v)", {**THREE, "k": (BATCH, 3, WIDTH), "v": (BATCH, 3, WIDTH)}),
    own("MultiHeadAttention", "y = MultiHeadAttention<num_heads=2>(q, k, v, , m)", {**THREE, "m": KEYS}),
    own("MultiHeadAttention", "y = MultiHeadAttention<num_heads=2>(q, k, v, b, m, e)",
        {**THREE, "b": (3 * WIDTH,), "m": np.array([2, 4], np.int32), "e": (BATCH, 1, LENGTH, 4)}),
    no_kernel("MultiHeadAttention", "y = MultiHeadAttention<num_heads=2>(q)", {"q": (BATCH, LENGTH, HEADS, 3, SIZE)}),
    no_kernel("MultiHeadAttention", "y = MultiHeadAttention<num_heads=2>(q, k)", {"q": THREE["q"], "k": (BATCH, 4, HEADS, 2, SIZE)}),
    own("MultiHeadAttention", "y = MultiHeadAttention<num_heads=2>(q, k, v, b)",
        {"q": THREE["q"], "k": (BATCH, HEADS, 4, SIZE), "v": (BATCH, HEADS, 4, SIZE), "b": (3 * WIDTH,)}),
    own("MultiHeadAttention", "h, nk, nv = MultiHeadAttention<num_heads=2>(q, k, v, b, , , pk, pv)  y = Mul(nk, nv)",
        {**THREE, "b": (3 * WIDTH,), "pk": (BATCH, HEADS, 2, SIZE), "pv": (BATCH, HEADS, 2, SIZE)}),
    own("MultiHeadAttention", "y, nk, nv = MultiHeadAttention<num_heads=2>(q, k, v, b, , , pk, pv)",
        {**THREE, "b": (3 * WIDTH,), "pk": (BATCH, HEADS, 2, SIZE), "pv": (BATCH, HEADS, 2, SIZE)}),
    no_kernel("DecoderMaskedMultiHeadAttention", "y, nk, nv = DecoderMaskedMultiHeadAttention<num_heads=2>(q, k, v, , , pk, pv, , , , b)",
        {"q": (2, 1, 8), "k": (2, 1, 8), "v": (2, 1, 8), "pk": (2, 2, 3, 4), "pv": (2, 2, 3, 4), "b": (24,)}),
    own("RotaryEmbedding", "y = RotaryEmbedding(x, p, c, s)", {"x": (2, 3, 8), "p": np.array([[0, 3, 7], [3, 3, 1]]), **ANGLES}),
    own("RotaryEmbedding", "y = RotaryEmbedding<interleaved=1>(x, p, c, s)", {"x": (2, 3, 8), "p": np.array([2]), **ANGLES}),
    own("RotaryEmbedding", "y = RotaryEmbedding(x, p, c, s)", {"x": (2, 2, 3, 4), "p": np.array([[0, 3, 7], [3, 3, 1]]), **ANGLES}),
    own("RotaryEmbedding", "y = RotaryEmbedding<num_heads=2, rotary_embedding_dim=4>(x, p, c, s)", {"x": (2, 3, 12), "p": np.array([1]), **ANGLES}),
    own("GroupQueryAttention", f"y = GroupQueryAttention<{GQA}>(q, k, v, , , n, t)", {**GROUPED, **LENGTHS}),
    own("GroupQueryAttention", f"y = GroupQueryAttention<{GQA}, softcap=1.5, scale=0.3>(q, , , , , n, t)", {"q": (2, 3, 128), **LENGTHS}),
    own("GroupQueryAttention", f"y = GroupQueryAttention<{GQA}, do_rotary=1>(q, k, v, , , n, t, c, s)", {**GROUPED, **LENGTHS, **WIDER}),
    own("GroupQueryAttention", f"y = GroupQueryAttention<{GQA}, do_rotary=1, rotary_interleaved=1>(q, k, v, , , n, t, c, s)",
        {**GROUPED, **LENGTHS, **WIDER}, constants=("c", "s", "n", "t"), wrt=("q", "k", "v")),
    own("GroupQueryAttention", f"y = GroupQueryAttention<{GQA}, local_window_size=2>(q, k, v, , , n, t)", {**GROUPED, **LENGTHS}),
    own("GroupQueryAttention", f"y = GroupQueryAttention<{GQA}, smooth_softmax=1>(q, k, v, , , n, t)", {**GROUPED, **LENGTHS}),
    own("GroupQueryAttention", f"y = GroupQueryAttention<{GQA}>(q, k, v, , , n, t, , , , e, h)", {**GROUPED, **LENGTHS, "e": (1, 1, 3, 3), "h": (4,)}),
    own("GroupQueryAttention", f"y, nk, nv = GroupQueryAttention<{GQA}>(q, k, v, pk, pv, n, t)", {**CACHE, **AFTER}),
    own("GroupQueryAttention", f"y, nk, nv = GroupQueryAttention<{GQA}, do_rotary=1, local_window_size=3>(q, k, v, pk, pv, n, t, c, s)",
        {**CACHE, **AFTER, **WIDER}),
    own("GroupQueryAttention", f"y, nk, nv = GroupQueryAttention<{GQA}>(q, k, v, pk, pv, n, t)", {**BUFFER, **AFTER}),
    own("GroupQueryAttention", f"y, nk, nv = GroupQueryAttention<{GQA}>(q, k, v, pk, pv, n, t)", RAGGED),
    few_bits(4, 3, 32, 16),
    few_bits(4, 3, 48, 16, "packed"),
    few_bits(4, 2, 40, 16, "plain"),
    few_bits(4, 5, 16, 16, bias=True),
    few_bits(8, 3, 32, 16),
    few_bits(8, 3, 48, 16, "packed", bias=True),
    few_bits(2, 3, 32, 16),
    own("MatMulIntegerToFloat", "y = MatMulIntegerToFloat(x, w, s, t, z, u, b)",
        {"x": quantised((2, 5)), "w": quantised((5, 4)), "s": np.array(0.02), "t": RANDOM.uniform(0.01, 0.02, 4), "z": np.array(120, np.uint8),
         "u": quantised((4,)),
         "b": (4,)}, wrt=("b",), constants=("w", "s", "t", "z", "u")),
]  # fmt: skip
