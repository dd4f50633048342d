"""Types of the outputs of onnxruntime's own operators, on which ONNX's inference is silent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from netsens.graph.dtypes import FLOAT, INT8, INT32, INT64, UINT8
from netsens.graph.graph import Dim, Node, Shape, TensorType
from netsens.graph.shapes import broadcast
from netsens.graph.sizes import product, total

Formula = Callable[[Node, Sequence[TensorType]], list[TensorType] | None]


def microsoft_types(node: Node, input_types: Sequence[TensorType]) -> list[TensorType] | None:
    """The types of the node's outputs, as far as they are known here; None where nothing is. An absent input has dtype 0."""
    formula = FORMULAS.get((node.domain, node.op))
    if formula is None or not input_types or input_types[0].shape is None:
        return None
    found = formula(node, input_types)
    if found is None:
        return None
    return [*found, *[TensorType(0)] * (len(node.outputs) - len(found))][: len(node.outputs)]


def _shape(types: Sequence[TensorType], k: int) -> Shape | None:
    return types[k].shape if k < len(types) and types[k].dtype else None


def _dim(types: Sequence[TensorType], k: int, axis: int) -> Dim:
    shape = _shape(types, k)
    return None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis]


def _like_first(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    return [types[0]]


def _skip(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    """Output, mean, one over the deviation, and the sum that was normalised."""
    x = types[0]
    assert x.shape is not None
    statistic = TensorType(FLOAT, (*x.shape[:-1], 1))
    return [x, statistic, statistic, x]


def _simplified(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    assert x.shape is not None
    axis = int(node.attributes.get("axis", -1)) % len(x.shape)
    return [x, TensorType(FLOAT, tuple(1 if k >= axis else d for k, d in enumerate(x.shape)))]


def _half(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    assert x.shape is not None
    last = x.shape[-1]
    return [replace(x, shape=(*x.shape[:-1], last // 2 if isinstance(last, int) else None))]


def _as_standard(op: str, operands: int) -> Formula:
    """The type that a standard operator with the same attributes gives."""

    def formula(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
        from netsens.graph.infer import infer_node

        kept = {k: v for k, v in node.attributes.items() if not k.startswith("activation")}
        alone = replace(node, op=op, domain="", inputs=node.inputs[:operands], outputs=node.outputs[:1], attributes=kept)
        if any(t.shape is None for t in types[:operands] if t.dtype):
            return None
        return infer_node(alone, types[:operands], [None] * operands, 21, {})

    return formula


def _nhwc_pool(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    x = types[0]
    assert x.shape is not None
    front = replace(x, dtype=FLOAT, shape=(x.shape[0], x.shape[-1], *x.shape[1:-1]))
    found = _as_standard("MaxPool", 1)(node, [front])
    if not found or found[0].shape is None:
        return None
    shape = found[0].shape
    return [replace(x, shape=(shape[0], *shape[2:], shape[1]))]


def _batch_transposed(shape: Shape, matrix: bool, batch: bool) -> Shape:
    """[b, ..., m, k] with its last two axes exchanged, its first axis moved behind the other batch axes, or both."""
    if batch:
        shape = (*shape[1:-1], shape[0], shape[-1])
    return (*shape[:-2], shape[-1], shape[-2]) if matrix and len(shape) > 1 else shape


def _matmul(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    a, b = _shape(types, 0), _shape(types, 1)
    if a is None or b is None:
        return None
    flags = {k: bool(node.attributes.get(k, 0)) for k in ("transA", "transB", "transBatchA", "transBatchB")}
    a = _batch_transposed(a, flags["transA"], flags["transBatchA"])
    b = _batch_transposed(b, flags["transB"], flags["transBatchB"])
    front = broadcast(a[:-2], b[:-2])
    ends = (a[-2:-1] if len(a) > 1 else ()) + (b[-1:] if len(b) > 1 else ())
    return [TensorType(types[0].dtype if types[0].dtype not in (UINT8, INT8) else FLOAT, (*front, *ends))]


def _quantised_matmul(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    first = types[0]
    assert first.shape is not None
    return [replace(first, shape=(*first.shape[:-1], int(node.attributes["N"])))]


def _embedding(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    ids = types[0].shape
    assert ids is not None
    whole = TensorType(types[2].dtype, (*ids, _dim(types, 2, 1)))
    return [whole, TensorType(INT32, ids[:1]), whole]


def _quantised_embedding(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    ids = types[0].shape
    assert ids is not None
    return [TensorType(types[8].dtype, (*ids, _dim(types, 2, 1))), TensorType(INT32, ids[:1])]


def _packed_attention(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    """Attention and QAttention: [B, L, I] -> [B, L, V], and the keys and values together."""
    shape = types[0].shape
    assert shape is not None
    quantised = node.op == "QAttention"
    heads = int(node.attributes["num_heads"])
    sizes = list(node.attributes.get("qkv_hidden_sizes") or [])
    merged = _dim(types, 1, 1)
    width: Dim = int(sizes[2]) if sizes else merged // 3 if isinstance(merged, int) else None
    dtype = types[3].dtype if quantised else types[0].dtype
    size = width // heads if isinstance(width, int) else None
    past = _shape(types, 8 if quantised else 4)
    length = total([shape[1], 0 if past is None else past[3]])
    return [TensorType(dtype, (*shape[:2], width)), TensorType(dtype, (2, shape[0], heads, length, size))]


def _multi_head(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    """MultiHeadAttention and DecoderMaskedMultiHeadAttention: output, present key, present value, scores."""
    q, v = types[0].shape, _shape(types, 2)
    assert q is not None
    heads = int(node.attributes["num_heads"])
    key = _shape(types, 1)
    width: Dim = None
    keys: Dim = None
    if len(q) == 5:  # packed [B, L, heads, 3, D]
        width, keys = product([heads, q[4]]), q[1]
    elif key is not None and len(key) == 5:  # packed [B, S, heads, 2, D]
        width, keys = product([heads, key[4]]), key[1]
    elif v is not None and len(v) == 4:
        width, keys = product([heads, v[3]]), v[2]
    elif v is not None:
        width, keys = v[2], v[1]
    past = _shape(types, 5 if node.op.startswith("Decoder") else 6)
    keys = total([keys, 0 if past is None else past[2]])
    size = width // heads if isinstance(width, int) else None
    first = q[2] if len(q) == 3 else None
    key_size = first // heads if isinstance(first, int) else size
    dtype = types[0].dtype
    return [
        TensorType(dtype, (q[0], q[1], width)), TensorType(dtype, (q[0], heads, keys, key_size)),
        TensorType(dtype, (q[0], heads, keys, size)), TensorType(dtype, (q[0], heads, q[1], keys)),
    ]  # fmt: skip


def _grouped(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    q = types[0].shape
    assert q is not None
    heads, groups = int(node.attributes["num_heads"]), int(node.attributes["kv_num_heads"])
    packed = not (len(types) > 1 and types[1].dtype)
    width = q[2]
    size = width // (heads + 2 * groups if packed else heads) if isinstance(width, int) else None
    cache = TensorType(types[3].dtype if len(types) > 3 and types[3].dtype else types[0].dtype, (q[0], groups, None, size))
    return [replace(types[0], shape=(*q[:2], product([heads, size]))), cache, cache]


def _over(*positions: int) -> Formula:
    """Operands broadcast together, of the dtype of the last of them."""

    def formula(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
        shapes = [s for k in positions if (s := _shape(types, k)) is not None]
        return [TensorType(types[positions[-1]].dtype, broadcast(*shapes))] if len(shapes) == len(positions) else None

    return formula


def _quantised(op: str, operands: Sequence[int] = (0,)) -> Formula:
    """The type that a standard operator with the same attributes gives for the real numbers of these operands; the channels may be last."""

    def formula(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
        chosen = [types[k] for k in operands]
        if any(t.shape is None for t in chosen):
            return None
        last = bool(node.attributes.get("channels_last", 0))
        real = [replace(t, dtype=FLOAT) for t in chosen]
        if last and real[0].shape is not None:
            channels = real[0].shape
            real[0] = replace(real[0], shape=(channels[0], channels[-1], *channels[1:-1]))
        kept = {k: v for k, v in node.attributes.items() if k not in ("channels_last", "opset")}
        inputs = tuple(node.inputs[k] for k in operands)
        from netsens.graph.infer import infer_node

        found = infer_node(replace(node, op=op, domain="", inputs=inputs, outputs=node.outputs[:1], attributes=kept), real, [None] * len(real), 21, {})
        shape = found[0].shape if found else None
        if shape is None:
            return None
        return [TensorType(chosen[0].dtype, (shape[0], *shape[2:], shape[1]) if last else shape)]

    return formula


def _quantised_mean(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    x = types[0]
    assert x.shape is not None
    axes = {int(a) % len(x.shape) for a in node.attributes.get("axes") or range(len(x.shape))}
    keep = bool(node.attributes.get("keepdims", 1))
    return [replace(x, shape=tuple(1 if k in axes else d for k, d in enumerate(x.shape) if keep or k not in axes))]


def _quantised_concat(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    parts = types[2::3]
    shapes = [t.shape for t in parts if t.shape is not None]
    if len(shapes) != len(parts) or not shapes:
        return None
    axis = int(node.attributes["axis"]) % len(shapes[0])
    joined = total([s[axis] for s in shapes])
    return [replace(parts[0], shape=(*shapes[0][:axis], joined, *shapes[0][axis + 1 :]))]


def _quantised_gemm(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    a, b = _shape(types, 0), _shape(types, 3)
    if a is None or b is None:
        return None
    shape = (a[1] if node.attributes.get("transA") else a[0], b[0] if node.attributes.get("transB") else b[1])
    whole = len(types) > 7 and types[7].dtype
    zero = types[8].dtype if len(types) > 8 and types[8].dtype else types[0].dtype
    return [TensorType(zero if whole else types[1].dtype, shape)]


def _dynamic_recurrence(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    """DynamicQuantizeLSTM: [T, B, I] -> [T, directions, B, H] and the two last states."""
    x, r = types[0].shape, _shape(types, 2)
    if x is None or r is None:
        return None
    state = TensorType(FLOAT, (r[0], x[1], r[1]))
    return [TensorType(FLOAT, (x[0], r[0], x[1], r[1])), state, state]


def _of_quantizing(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType(types[2].dtype if len(types) > 2 and types[2].dtype else 2, types[0].shape)]


def _of_dequantizing(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    return [TensorType(types[1].dtype, types[0].shape)]


def _of_rank(like: int, more: int = 0) -> Formula:
    """Of an operand's dtype and rank, `more` axes added, its sizes known at run time alone."""

    def formula(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
        shape = _shape(types, like)
        return None if shape is None else [replace(types[like], shape=(None,) * (len(shape) + more))]

    return formula


def _gathered(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    data, indices = _shape(types, 0), _shape(types, 1)
    if data is None or not indices or not isinstance(indices[-1], int):
        return None
    return [replace(types[0], shape=(*indices[:-1], *data[indices[-1] :]))]


def _gathered_blocks(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    data, indices = _shape(types, 0), _shape(types, 1)
    if data is None or indices is None:
        return None
    axis, last = int(node.attributes.get("gather_axis", 0)) % len(data), data[-1]
    packed = 8 // int(node.attributes.get("bits", 4)) if types[0].dtype == UINT8 else 1
    return [TensorType(types[2].dtype, (*data[:axis], *indices, *data[axis + 1 : -1], product([last, packed])))]


def _between_rows(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    return [replace(types[0], shape=(_dim(types, 0, 0), _dim(types, 1, 0)))]


def _sampled(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    return [replace(types[0], shape=(_dim(types, 0, 0), _dim(types, 0, 1), _dim(types, 1, 1), _dim(types, 1, 2)))]


def _cropped(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    return [replace(types[0], shape=(_dim(types, 1, 0), _dim(types, 0, 1), None, None))]


def _unfolded(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    shape = types[0].shape
    assert shape is not None
    axis, size, step = int(node.attributes.get("dim", -1)) % len(shape), int(node.attributes["size"]), int(node.attributes.get("step", 1))
    length = shape[axis]
    count = (length - size) // step + 1 if isinstance(length, int) else None
    return [replace(types[0], shape=(*shape[:axis], count, *shape[axis + 1 :], size))]


def _unique(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    return [replace(types[0], shape=(None,)), TensorType(INT64, types[0].shape), TensorType(INT64, (None,))]


def _gates(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    return [types[0], types[3] if len(types) > 3 else TensorType(0)]


def _mixed_before(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    shape, branches = types[0].shape, int(node.attributes.get("num_branches", 0))
    assert shape is not None
    last = shape[-1]
    if branches:
        return [replace(types[0], shape=(*shape[:-1], last // branches if isinstance(last, int) else None))]
    return [replace(types[0], shape=(*shape[:-2], last))]


def _by_state(node: Node, types: Sequence[TensorType]) -> list[TensorType] | None:
    """LinearAttention: [B, T, H*D], [B, T, J*D], [B, T, J*E] -> [B, T, max(H, J)*E], and the state [B, J, D, E]."""
    shape, key, value = (_shape(types, k) for k in range(3))
    if shape is None or key is None or value is None:
        return None
    heads, groups = int(node.attributes["q_num_heads"]), int(node.attributes["kv_num_heads"])
    given, held = (last // groups if isinstance(last := s[-1], int) else None for s in (value, key))
    past = types[3] if len(types) > 3 and types[3].dtype else types[0]
    return [replace(types[0], shape=(*shape[:2], product([max(heads, groups), given]))), TensorType(past.dtype, (shape[0], groups, held, given))]


def _causal(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    shape, width = types[0].shape, _dim(types, 1, 2)
    assert shape is not None
    before = (width - 1) * int(node.attributes.get("dilation", 1)) if isinstance(width, int) else None
    state = (shape[0], before, *shape[2:]) if node.attributes.get("channels_last", 0) else (*shape[:2], before)
    return [types[0], replace(types[0], shape=state)]


def _tokens(node: Node, types: Sequence[TensorType]) -> list[TensorType]:
    """Each text as its tokens, as many as the longest of them has."""
    shape = types[0].shape
    assert shape is not None
    return [replace(types[0], shape=(*shape, None))]


MICROSOFT = "com.microsoft"
_LIKE_FIRST = (
    "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "BiasSoftmax", "BiasDropout", "BiasAdd", "GroupNorm", "RotaryEmbedding", "Trilu",
    "SampleOp", "Inverse", "GatedAdd", "ScaledSiLU", "GatedRMSNorm", "BranchwiseRMSNorm", "HyperConnectionPostMix", "MoE", "QMoE", "MRotaryEmbedding",
)  # fmt: skip
FORMULAS: dict[tuple[str, str], Formula] = {
    **{(MICROSOFT, op): _like_first for op in _LIKE_FIRST},
    (MICROSOFT, "SkipGroupNorm"): lambda node, types: [types[0], types[0]],
    (MICROSOFT, "SkipLayerNormalization"): _skip,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip,
    ("", "SimplifiedLayerNormalization"): _simplified,
    (MICROSOFT, "BiasSplitGelu"): _half,
    (MICROSOFT, "FusedConv"): _as_standard("Conv", 2),
    (MICROSOFT, "FusedGemm"): _as_standard("Gemm", 2),
    (MICROSOFT, "NhwcMaxPool"): _nhwc_pool,
    (MICROSOFT, "FusedMatMul"): _matmul,
    (MICROSOFT, "TransposeMatMul"): _matmul,
    (MICROSOFT, "DynamicQuantizeMatMul"): _matmul,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul,
    **{(MICROSOFT, op): _like_first for op in ("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax")},
    (MICROSOFT, "QLinearAdd"): _over(0, 3),
    (MICROSOFT, "QLinearMul"): _over(0, 3),
    (MICROSOFT, "QLinearWhere"): _over(0, 1, 4),
    (MICROSOFT, "QLinearConcat"): _quantised_concat,
    (MICROSOFT, "QLinearReduceMean"): _quantised_mean,
    (MICROSOFT, "QLinearAveragePool"): _quantised("AveragePool"),
    (MICROSOFT, "QLinearGlobalAveragePool"): _quantised("GlobalAveragePool"),
    (MICROSOFT, "QLinearConv"): _quantised("Conv", (0, 3)),
    (MICROSOFT, "QGemm"): _quantised_gemm,
    (MICROSOFT, "QuantizeLinear"): _of_quantizing,
    (MICROSOFT, "DequantizeLinear"): _of_dequantizing,
    (MICROSOFT, "DynamicQuantizeLSTM"): _dynamic_recurrence,
    (MICROSOFT, "MatMulNBits"): _quantised_matmul,
    (MICROSOFT, "EmbedLayerNormalization"): _embedding,
    (MICROSOFT, "Attention"): _packed_attention,
    (MICROSOFT, "QAttention"): _packed_attention,
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
    (MICROSOFT, "DecoderMaskedMultiHeadAttention"): _multi_head,
    (MICROSOFT, "GroupQueryAttention"): _grouped,
    (MICROSOFT, "CDist"): _between_rows,
    (MICROSOFT, "ExpandDims"): _of_rank(0, 1),
    (MICROSOFT, "Pad"): _of_rank(0),
    (MICROSOFT, "Range"): lambda node, types: [replace(types[0], shape=(None,))],
    (MICROSOFT, "GatherND"): _gathered,
    (MICROSOFT, "GatherBlockQuantized"): _gathered_blocks,
    (MICROSOFT, "GridSample"): _sampled,
    (MICROSOFT, "CropAndResize"): _cropped,
    (MICROSOFT, "ConvTransposeWithDynamicPads"): _of_rank(0),
    (MICROSOFT, "UnfoldTensor"): _unfolded,
    (MICROSOFT, "Unique"): _unique,
    (MICROSOFT, "MatMulBnb4"): _quantised_matmul,
    (MICROSOFT, "QEmbedLayerNormalization"): _quantised_embedding,
    (MICROSOFT, "LinearAttentionGate"): _gates,
    (MICROSOFT, "HyperConnectionPreMix"): _mixed_before,
    (MICROSOFT, "LinearAttention"): _by_state,
    (MICROSOFT, "CausalConvWithState"): _causal,
    (MICROSOFT, "Tokenizer"): _tokens,
    (MICROSOFT, "EngramGate"): lambda node, types: [types[0], types[0]],
}  # fmt: skip
