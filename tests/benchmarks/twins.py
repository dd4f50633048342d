"""The benchmarked models once more in `jax.numpy`, for `jax.jacfwd`, `jax.jacrev` and asdex; weights are PyTorch's. Imported where JAX is there alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from torch import nn


def weights(module: nn.Module) -> dict[str, Any]:
    return {name: jnp.asarray(value.detach().numpy()) for name, value in module.state_dict().items()}


def conv(x: Any, weight: Any, bias: Any, padding: int = 0, dilation: int = 1) -> Any:
    spatial = x.ndim - 2
    y = lax.conv_general_dilated(x, weight, (1,) * spatial, [(padding, padding)] * spatial, rhs_dilation=(dilation,) * spatial)
    return y + bias.reshape(1, -1, *[1] * spatial)


def relu1(fixed: dict[str, Any]) -> Callable[..., Any]:
    mean, variance = (jnp.asarray(fixed[f"bn1.running_{k}"].numpy()) for k in ("mean", "var"))

    def apply(image: Any, p: dict[str, Any]) -> Any:
        c = conv(image, p["conv1.weight"], p["conv1.bias"], 1)
        scale = p["bn1.weight"] / jnp.sqrt(variance + 1e-5)
        return jax.nn.relu((c - mean.reshape(1, -1, 1, 1)) * scale.reshape(1, -1, 1, 1) + p["bn1.bias"].reshape(1, -1, 1, 1))

    return apply


def dense(module: nn.Module) -> Callable[..., Any]:
    """Linear layers with tanh between them."""
    w = list(weights(module).values())

    def apply(x: Any) -> Any:
        for k in range(0, len(w), 2):
            x = x @ w[k].T + w[k + 1]
            if k + 2 < len(w):
                x = jnp.tanh(x)
        return x

    return apply


def series(module: nn.Module) -> Callable[..., Any]:
    w = list(weights(module).values())

    def apply(x: Any) -> Any:
        x = jnp.tanh(conv(x, w[0], w[1], 2))
        x = jnp.tanh(conv(x, w[2], w[3], 4, 2))
        return conv(x, w[4], w[5], 2)

    return apply


def unet(module: nn.Module) -> Callable[..., Any]:
    p = weights(module)

    def apply(x: Any) -> Any:
        a = jax.nn.relu(conv(x, p["down.0.weight"], p["down.0.bias"], 1))
        n, c, h, w = a.shape
        pooled = a.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))
        m = jax.nn.relu(conv(pooled, p["middle.0.weight"], p["middle.0.bias"], 1))
        up = jnp.einsum("nchw,cdij->ndhiwj", m, p["up.weight"]).reshape(n, -1, h, w) + p["up.bias"].reshape(1, -1, 1, 1)
        y = jax.nn.relu(conv(jnp.concatenate([a, up], 1), p["last.0.weight"], p["last.0.bias"], 1))
        return conv(y, p["last.2.weight"], p["last.2.bias"])

    return apply


def encoder(module: nn.Module, heads: int = 4) -> Callable[..., Any]:
    p = weights(module)

    def apply(x: Any) -> Any:
        n, s, d = x.shape
        for k in range(2):
            centred = x - x.mean(-1, keepdims=True)
            normed = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f"norm.{k}.weight"] + p[f"norm.{k}.bias"]
            qkv = jnp.split(normed @ p[f"qkv.{k}.weight"].T + p[f"qkv.{k}.bias"], 3, -1)
            q, key, v = (t.reshape(n, s, heads, d // heads).transpose(0, 2, 1, 3) for t in qkv)
            a = jax.nn.softmax(q @ key.transpose(0, 1, 3, 2) / (d // heads) ** 0.5, -1) @ v
            x = x + a.transpose(0, 2, 1, 3).reshape(n, s, d) @ p[f"out.{k}.weight"].T + p[f"out.{k}.bias"]
        return x.mean(1) @ p["head.weight"].T + p["head.bias"]

    return apply


def runs(function: Callable[..., Any], arguments: tuple[Any, ...], by: int, per_sample: bool) -> dict[str, Callable[[], Callable[[], Any]]]:
    """By name: what builds a jitted Jacobian (with its tracing and compiling), and gives what runs it."""
    given = tuple(jax.tree_util.tree_map(lambda t: jnp.asarray(np.asarray(t)), a) for a in arguments)

    def built(make: Callable[[], Callable[..., Any]]) -> Callable[[], Callable[[], Any]]:
        def build() -> Callable[[], Any]:
            compiled = jax.jit(make())
            run = lambda: jax.tree_util.tree_map(np.asarray, jax.block_until_ready(compiled(*given)))  # noqa: E731
            run()
            return run

        return build

    def whole(way: Any) -> Callable[..., Any]:
        return jax.vmap(way(function)) if per_sample else way(function, argnums=by)

    found = {"jax jacfwd": built(lambda: whole(jax.jacfwd)), "jax jacrev": built(lambda: whole(jax.jacrev))}
    try:
        import asdex
    except ImportError:
        return found
    if not per_sample and not isinstance(given[by], dict):
        others = given[:by], given[by + 1 :]
        alone = lambda x: function(*others[0], x, *others[1])  # noqa: E731

        def colour() -> Callable[..., Any]:
            sparse = asdex.jacobian(alone, given[by], output_format="dense")
            return lambda *a: sparse(a[by])

        found["asdex"] = built(colour)
    return found
