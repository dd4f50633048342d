"""Jitted JAX: the benchmarked models once more in `jax.numpy`, with the weights of the PyTorch modules that they were exported from."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import relu

from tests.benchmarks.contenders.case import Case, NoTwinError, Ready

Weights = dict[str, Any]


def gradient(case: Case, x: Any) -> Ready:
    if case["architecture"] not in TWINS:
        raise NoTwinError("there is no twin of it")
    function, embed = TWINS[case["architecture"]]
    weights = {name: jnp.asarray(as_jax_has_it(name, value)) for name, value in np.load(case["weights"]).items()}
    if case["by"] == "params":
        learnt = {name: weights.pop(name) for name in case["wrt"]}
        compiled = jax.jit(jax.grad(lambda p, fixed, at: function(p | fixed, embed(p, at)).sum()))
        run = lambda: jax.block_until_ready(compiled(learnt, weights, x))  # noqa: E731
    else:
        by_input = jax.jit(lambda p, at: jax.grad(lambda given: function(p, given).sum())(embed(p, at)))
        run = lambda: {case["input"]: jax.block_until_ready(by_input(weights, x))}  # noqa: E731
    return Ready(run, lambda found: {name: as_jax_has_it(name, np.asarray(value)) for name, value in found.items()})


def as_jax_has_it(name: str, value: np.ndarray) -> np.ndarray:
    """A matrix of a linear layer or an LSTM as inputs x outputs, the transpose of PyTorch's, and back: eight times as fast for one sample."""
    matrix = value.ndim == 2 and name.split(".")[0] not in ("tokens", "places") and "weight" in name
    return np.ascontiguousarray(value.T) if matrix else value


def conv(x: Any, weight: Any, stride: int = 1, padding: int = 0) -> Any:
    return lax.conv_general_dilated(x, weight, (stride, stride), [(padding, padding)] * 2)


def pool(x: Any, size: int, stride: int, padding: int) -> Any:
    return lax.reduce_window(x, -np.inf, lax.max, (1, 1, size, size), (1, 1, stride, stride), ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def normed(p: Weights, name: str, x: Any) -> Any:
    """Batch normalisation by what was seen in training."""
    scale = p[f"{name}.weight"] / (p[f"{name}.running_var"] + 1e-5) ** 0.5
    return (x - p[f"{name}.running_mean"].reshape(-1, 1, 1)) * scale.reshape(-1, 1, 1) + p[f"{name}.bias"].reshape(-1, 1, 1)


def layer_normed(p: Weights, name: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / ((centred**2).mean(-1, keepdims=True) + 1e-5) ** 0.5 * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(p: Weights, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def mlp(p: Weights, x: Any) -> Any:
    return linear(p, "4", jax.nn.silu(linear(p, "2", jnp.tanh(linear(p, "0", x)))))


def resnet(p: Weights, x: Any) -> Any:
    """Of basic blocks or bottlenecks, by the weights that there are."""

    def layer(name: str, x: Any, stride: int = 1) -> Any:
        weight = p[f"{name}.0.weight"]
        return normed(p, f"{name}.1", conv(x, weight, stride, weight.shape[-1] // 2))

    x = pool(relu(layer("stem.0", x, 2)), 3, 2, 1)
    for k in count():
        block = f"stages.{k}"
        names = [f"{block}.{part}" for part in ("a", "b", "body.0", "body.1", "body.2") if f"{block}.{part}.0.weight" in p]
        if not names:
            break
        halves = f"{block}.skip.0.weight" in p
        stride = 2 if halves and k else 1
        y = x
        for name in names:
            y = layer(name, y, stride if name == names[-2] else 1)
            y = relu(y) if name != names[-1] else y
        x = relu(y + (layer(f"{block}.skip", x, stride) if halves else x))
    return linear(p, "fc", x.mean((2, 3)))


def vgg(p: Weights, x: Any) -> Any:
    places = sorted(int(name.split(".")[0]) for name in p if name.endswith("weight"))
    for here, behind in zip(places, [*places[1:], None], strict=True):
        weight = p[f"{here}.weight"]
        if weight.ndim == 4:
            x = relu(conv(x, weight, 1, 1) + p[f"{here}.bias"].reshape(-1, 1, 1))
            if behind is not None and behind > here + 2:  # a pool stands between
                x = pool(x, 2, 2, 0)
        else:
            x = linear(p, str(here), x.reshape(len(x), -1))
            x = x if behind is None else relu(x)
    return x


def attended(p: Weights, name: str, x: Any, causal: bool) -> Any:
    n, t, width = x.shape
    heads = 12 if width == 768 else 4
    q, k, v = linear(p, f"{name}.qkv", x).reshape(n, t, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(-1, -2) / (width // heads) ** 0.5
    if causal:
        scores = jnp.where(np.triu(np.ones((t, t), bool), 1), -np.inf, scores)
    return linear(p, f"{name}.out", (jax.nn.softmax(scores, -1) @ v).swapaxes(1, 2).reshape(n, t, width))


def blocks(p: Weights, x: Any, causal: bool, first: bool) -> Any:
    """A transformer's, normalised first or behind."""
    for k in count():
        b = f"blocks.{k}"
        if f"{b}.n1.weight" not in p:
            return x

        def wide(x: Any, b: str = b) -> Any:
            return linear(p, f"{b}.mlp.2", jax.nn.gelu(linear(p, f"{b}.mlp.0", x), approximate=causal))

        if first:
            x = x + attended(p, f"{b}.attend", layer_normed(p, f"{b}.n1", x), causal)
            x = x + wide(layer_normed(p, f"{b}.n2", x))
        else:
            x = layer_normed(p, f"{b}.n1", x + attended(p, f"{b}.attend", x, causal))
            x = layer_normed(p, f"{b}.n2", x + wide(x))
    return x


def bert(p: Weights, x: Any) -> Any:
    x = blocks(p, layer_normed(p, "norm", x + p["places.weight"]), causal=False, first=False)
    return linear(p, "head", jnp.tanh(x[:, 0]))


def gpt(p: Weights, x: Any) -> Any:
    return linear(p, "head", layer_normed(p, "norm", blocks(p, x + p["places.weight"], causal=True, first=True)))


def vit(p: Weights, x: Any) -> Any:
    weight = p["patch.weight"]
    x = conv(x, weight, weight.shape[-1]) + p["patch.bias"].reshape(-1, 1, 1)
    x = x.reshape(*x.shape[:2], -1).swapaxes(1, 2)
    token = jnp.broadcast_to(p["token"], (len(x), *p["token"].shape[1:]))
    x = blocks(p, jnp.concatenate([token, x], 1) + p["places"], causal=False, first=True)
    return linear(p, "head", layer_normed(p, "norm", x)[:, 0])


def lstm(p: Weights, x: Any) -> Any:
    """Layers that read both ways, and a label a token."""

    def read(x: Any, end: str, backwards: bool) -> Any:
        hidden = p[f"read.weight_hh_{end}"]
        zeros = jnp.zeros((x.shape[0], hidden.shape[0]), x.dtype)

        def step(state: Any, gates: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(gates + h @ hidden, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        given = x @ p[f"read.weight_ih_{end}"] + p[f"read.bias_ih_{end}"] + p[f"read.bias_hh_{end}"]
        return jax.lax.scan(step, (zeros, zeros), given.swapaxes(0, 1), reverse=backwards)[1].swapaxes(0, 1)

    for k in count():
        if f"read.weight_ih_l{k}" not in p:
            break
        x = jnp.concatenate([read(x, f"l{k}", False), read(x, f"l{k}_reverse", True)], -1)
    return linear(p, "head", x)


def as_given(p: Weights, x: Any) -> Any:
    return x


def embedded(p: Weights, tokens: Any) -> Any:
    return p["tokens.weight"][tokens]


TWINS: dict[str, tuple[Callable[[Weights, Any], Any], Callable[[Weights, Any], Any]]] = {
    "mlp": (mlp, as_given), "resnet18": (resnet, as_given), "resnet50": (resnet, as_given), "vgg16": (vgg, as_given), "vit": (vit, as_given),
    "bert": (bert, embedded), "gpt": (gpt, embedded), "lstm": (lstm, embedded),
}  # fmt: skip
