"""Normalisations, and attention with a state, for the reference evaluator: in the precision of their input, and as the standard says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from netsens.graph.graph import Array


class LayerNormalization(OpRun):
    def _run(self, x: Array, scale: Array, bias: Any = 0, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> tuple[Array, ...]:
        axes = tuple(range(axis % x.ndim, x.ndim))
        mean = x.mean(axes, keepdims=True)
        inverse = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + x.dtype.type(epsilon))
        y = (x - mean) * inverse * scale + (0 if bias is None else bias)
        return y.astype(x.dtype), mean.astype(x.dtype), inverse.astype(x.dtype)


class RMSNormalization(OpRun):
    def _run(self, x: Array, scale: Array, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> tuple[Array]:
        axes = tuple(range(axis % x.ndim, x.ndim))
        return ((x / np.sqrt((x * x).mean(axes, keepdims=True) + x.dtype.type(epsilon)) * scale).astype(x.dtype),)


class LpNormalization(OpRun):
    def _run(self, x: Array, axis: int = -1, p: int = 2) -> tuple[Array]:
        norm = np.linalg.norm(x, p, axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)


class LRN(OpRun):
    def _run(self, x: Array, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int = 1) -> tuple[Array]:
        squares = np.zeros_like(x)
        for c in range(x.shape[1]):
            squares[:, c] = (x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1] ** 2).sum(1)
        return (x / (bias + alpha / size * squares) ** beta,)


class MeanVarianceNormalization(OpRun):
    def _run(self, x: Array, axes: Sequence[int] = (0, 2, 3)) -> tuple[Array]:
        return ((x - x.mean(tuple(axes), keepdims=True)) / (x.std(tuple(axes), keepdims=True) + 1e-9),)


class GroupNormalization(OpRun):
    """ONNX's own one goes through a function body that computes in float32."""

    def _run(self, x: Array, scale: Array, bias: Array, epsilon: float = 1e-5, num_groups: int = 1, stash_type: int = 1) -> tuple[Array]:
        rows = x.reshape(x.shape[0], num_groups, -1)
        mean = rows.mean(2, keepdims=True)
        hat = ((rows - mean) / np.sqrt(((rows - mean) ** 2).mean(2, keepdims=True) + epsilon)).reshape(x.shape)
        columns = (-1, *[1] * (x.ndim - 2))
        return ((hat * scale.reshape(columns) + bias.reshape(columns)).astype(x.dtype),)


class CausalConvWithState(OpRun):
    """ONNX's own one computes its activation in float32."""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, past_state: Array | None = None, activation: str = "none") -> tuple[Array, Array]:
        width = weight.shape[2]
        past = np.zeros((*x.shape[:2], width - 1), x.dtype) if past_state is None else past_state
        whole = np.concatenate([past, x], 2)
        y = np.sum([whole[:, :, k : k + x.shape[2]] * weight[:, 0, k, None] for k in range(width)], 0) + (0 if bias is None else bias[:, None])
        y = y / (1 + np.exp(-y)) if activation in ("silu", "swish") else y
        return y.astype(x.dtype), whole[:, :, whole.shape[2] - width + 1 :]


class LinearAttention(OpRun):
    """ONNX's own one accumulates in float32."""

    def _run(
        self, query: Array, key: Array, value: Array, past_state: Array | None = None, decay: Array | None = None, beta: Array | None = None,
        chunk_size: int = 64, kv_num_heads: int = 1, q_num_heads: int = 1, scale: float = 0.0, update_rule: str = "gated_delta",
    ) -> tuple[Array, Array]:  # fmt: skip
        batch, length = query.shape[:2]

        def heads(x: Array, count: int) -> Array:
            return x.reshape(batch, length, count, -1).transpose(1, 0, 2, 3)  # [T, B, H, D]

        q, k, v = heads(query, q_num_heads), heads(key, kv_num_heads), heads(value, kv_num_heads)
        gate = None if decay is None or "gated" not in update_rule else np.exp(heads(decay, kv_num_heads))
        rate = None if beta is None or "delta" not in update_rule else heads(beta, beta.shape[-1])
        state = np.zeros((batch, kv_num_heads, k.shape[-1], v.shape[-1]), query.dtype) if past_state is None else past_state
        outputs = []
        for t in range(length):
            if gate is not None:
                state = state * gate[t][..., None]
            new = v[t] if rate is None else rate[t] * (v[t] - np.einsum("bhdm,bhd->bhm", state, k[t]))
            state = state + k[t][..., :, None] * new[..., None, :]
            outputs.append(np.einsum("bhd,bhdm->bhm", q[t], np.repeat(state, q_num_heads // kv_num_heads, 1)))
        y = np.stack(outputs, 1).reshape(batch, length, -1) * (scale or 1 / np.sqrt(k.shape[-1]))
        return y.astype(query.dtype), state


OPERATORS: list[type[Any]] = [
    LayerNormalization, RMSNormalization, LpNormalization, LRN, MeanVarianceNormalization, GroupNormalization, CausalConvWithState, LinearAttention,
]  # fmt: skip
