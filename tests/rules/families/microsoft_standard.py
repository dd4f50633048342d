"""onnxruntime's own operators that the standard has in other words, its fused gates, and weights in a few bits that are gathered or coded."""

from __future__ import annotations

import numpy as np

from tests.rules.families.microsoft import RANDOM, own

BOXES = np.asarray([[0.13, 0.21, 0.83, 0.92], [0.72, -0.24, 0.11, 1.13], [0.43, 0.31, 0.67, 0.77]])
WHICH, SIZE = np.asarray([0, 1, 0], np.int32), np.asarray([3, 4], np.int32)


def coded(kind: int, rows: int, columns: int, size: int, lead: tuple[int, ...] = (2, 3)) -> object:
    inputs = {"x": (*lead, columns), "w": RANDOM.integers(0, 256, (rows * columns + 1) // 2).astype(np.uint8), "m": (-(-rows * columns // size),)}
    text = f"y = MatMulBnb4<K={columns}, N={rows}, block_size={size}, quant_type={kind}>(x, w, m)"
    return own("MatMulBnb4", text, inputs, domain=(0.5, 2.0), constants=("w", "m"))


def gathered(bits: int, rows: int, columns: int, size: int, indices: object, zeros: bool = False) -> object:
    blocks, each = -(-columns // size), 8 // bits
    inputs = {"d": RANDOM.integers(0, 256, (rows, columns // each)).astype(np.uint8), "i": np.asarray(indices), "s": (rows, blocks)}
    if zeros:
        inputs["z"] = RANDOM.integers(0, 256, (rows, -(-blocks // each))).astype(np.uint8)
    text = f"y = GatherBlockQuantized<bits={bits}, block_size={size}, gather_axis=0, quantize_axis=1>(d, i, s{', z' if zeros else ''})"
    return own("GatherBlockQuantized", text, inputs, constants=("d", "s", *(("z",) if zeros else ())))


EMBEDDED = {
    "i": np.asarray([[1, 0, 4], [2, 2, 3]], np.int32), "s": np.asarray([[0, 1, 1], [0, 0, 1]], np.int32),
    **{k: RANDOM.integers(0, 256, shape).astype(np.uint8) for k, shape in {"w": (5, 8), "p": (6, 8), "t": (2, 8), "g": (8,), "b": (8,)}.items()},
    **{f"{k}s": np.asarray(v) for k, v in {"w": 0.011, "p": 0.012, "t": 0.009, "g": 0.02, "b": 0.013}.items()},
    **{f"{k}z": np.asarray(v, np.uint8) for k, v in {"w": 120, "p": 131, "t": 99, "g": 40, "b": 128}.items()},
}  # fmt: skip

CASES = [
    own("SampleOp", "y = SampleOp(x)", {"x": (2, 3)}),
    own("ExpandDims", "y = ExpandDims(x, a)", {"x": (2, 3), "a": np.asarray(-2, np.int32)}, constants=("a",)),
    own("Range", "y = Range(a, b, c)", {"a": np.asarray(0.3), "b": np.asarray(2.1), "c": np.asarray(0.5)}),
    own("Range", "y = Range(a, b)", {"a": np.asarray(0.3), "b": np.asarray(2.1)}),
    own("GatherND", "y = GatherND(x, i)", {"x": (3, 4, 2), "i": np.asarray([[1, 0], [2, 3]])}, constants=("i",)),
    own("Pad", "y = Pad(x, p, v)", {"x": (2, 3), "p": np.asarray([[0, 1, 2, 0]]), "v": np.asarray([0.5])}, constants=("p",)),
    own("Pad", 'y = Pad<mode="reflect">(x, p)', {"x": (3, 4), "p": np.asarray([1, 1, 0, 2])}, constants=("p",)),
    own("Unique", "y, i, c = Unique(x)", {"x": np.asarray([0.5, 2.0, 0.4, -1.0, 3.0])}),
    own("GridSample", "y = GridSample<align_corners=1>(x, g)", {"x": (2, 3, 4, 5), "g": (2, 3, 2, 2)}, domain=(-0.9, 0.9)),
    own("GridSample", 'y = GridSample<mode="bicubic", padding_mode="border">(x, g)', {"x": (1, 2, 5, 4), "g": (1, 2, 3, 2)}, domain=(-0.7, 0.7)),
    own("CDist", 'y = CDist<metric="euclidean">(a, b)', {"a": (3, 4), "b": (5, 4)}),
    own("CDist", 'y = CDist<metric="sqeuclidean">(a, b)', {"a": (2, 3), "b": (4, 3)}, constants=("b",)),
    own("Inverse", "y = Inverse(x)", {"x": np.asarray([[3.0, 0.2, 0.4], [-0.3, 2.0, 0.5], [0.1, 0.7, -1.5]])}),
    own("Inverse", "y = Inverse(x)", {"x": RANDOM.standard_normal((2, 3, 3)) + 3 * np.eye(3)}),
    own("UnfoldTensor", "y = UnfoldTensor<dim=1, size=3, step=2>(x)", {"x": (2, 8, 3)}),
    own("UnfoldTensor", "y = UnfoldTensor<dim=-1, size=2, step=1>(x)", {"x": (3, 4)}),
    own("ConvTransposeWithDynamicPads", "y = ConvTransposeWithDynamicPads<kernel_shape=[3, 3], strides=[2, 2], output_padding=[1, 0]>(x, w, p, b)",
        {"x": (2, 3, 4, 5), "w": (3, 2, 3, 3), "p": np.asarray([1, 0, 1, 2]), "b": (2,)}, constants=("p",)),
    own("CropAndResize", "y = CropAndResize<extrapolation_value=0.7>(x, r, b, s)", {"x": (2, 3, 6, 5), "r": BOXES, "b": WHICH, "s": SIZE}, constants=("s",)),
    own("CropAndResize", 'y = CropAndResize<mode="nearest">(x, r, b, s)', {"x": (2, 2, 6, 5), "r": BOXES, "b": WHICH, "s": SIZE}, constants=("s",)),
    own("CropAndResize", "y = CropAndResize(x, r, b, s)", {"x": (2, 2, 4, 5), "r": BOXES, "b": WHICH, "s": np.asarray([1, 2], np.int32)}, constants=("s",)),
    coded(0, 4, 16, 16), coded(1, 6, 32, 16), coded(1, 3, 16, 32, (2,)),
    gathered(4, 6, 32, 16, [[1, 5], [0, 1]]), gathered(4, 5, 48, 16, [3, 3, 0], zeros=True), gathered(8, 5, 32, 16, [4], zeros=True), gathered(2, 5, 32, 16, [4, 1]),
    own("QEmbedLayerNormalization", "y, m = QEmbedLayerNormalization(i, s, w, p, t, g, b, , ws, ps, ts, gs, bs, wz, pz, tz, gz, bz)", EMBEDDED),
    own("GatedAdd", "y = GatedAdd(x, z, g)", {"x": (2, 3, 4), "z": (2, 3, 4), "g": (2, 3, 1)}),
    own("ScaledSiLU", "y = ScaledSiLU<alpha=0.7>(x)", {"x": (2, 3)}),
    own("ScaledSiLU", "y = ScaledSiLU(x, s)", {"x": (2, 3), "s": np.asarray(1.3)}),
    own("GatedRMSNorm", "y = GatedRMSNorm<epsilon=0.01>(x, s, g)", {"x": (2, 3, 8), "s": (4,), "g": (2, 3, 8)}),
    own("GatedRMSNorm", 'y = GatedRMSNorm<activation="sigmoid">(x, s, g)', {"x": (2, 8), "s": (8,), "g": (2, 8)}),
    own("LinearAttentionGate", "y, z = LinearAttentionGate(a, d, s, b)", {"a": (2, 3, 4), "d": (4,), "s": (4,), "b": (2, 3, 4)}),
    own("BranchwiseRMSNorm", "y = BranchwiseRMSNorm(x, s)", {"x": (2, 3, 2, 4), "s": (2, 4)}),
    own("BranchwiseRMSNorm", "y = BranchwiseRMSNorm<num_branches=2>(x, s)", {"x": (2, 3, 8), "s": (8,)}),
    own("BranchwiseRMSNorm", "y = BranchwiseRMSNorm<epsilon=0.1>(x, s)", {"x": (3, 2, 4), "s": (4,)}),
    own("HyperConnectionPreMix", "y = HyperConnectionPreMix<reduction_scale=0.5>(x, w)", {"x": (2, 3, 2, 4), "w": (2, 3, 2)}),
    own("HyperConnectionPreMix", "y = HyperConnectionPreMix<num_branches=2>(x, w)", {"x": (2, 3, 8), "w": (2, 3, 8)}),
    own("HyperConnectionPostMix", "y = HyperConnectionPostMix(x, o, p, m)", {"x": (2, 3, 2, 4), "o": (2, 3, 4), "p": (2, 3, 2), "m": (2, 3, 2, 2)}),
    own("HyperConnectionPostMix", "y = HyperConnectionPostMix<num_branches=2>(x, o, p)", {"x": (2, 3, 8), "o": (2, 3, 4), "p": (2, 3, 2, 1)}),
    own("EngramGate", "y, z = EngramGate(k, q, v, a, b, c)", {"k": (2, 3, 2, 4), "q": (2, 3, 2, 4), "v": (2, 3, 4), "a": (2, 4), "b": (2, 4), "c": (2, 4)}),
]  # fmt: skip
