"""Gradients within a limit of memory: the same numbers from fewer values kept, or a refusal with figures."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import netsens
from netsens.errors import ToleranceError
from netsens.jacobian.gradient import plan_gradient
from netsens.modes.recompute import peak_bytes, recomputed
from netsens.modes.split import specialised
from netsens.run.session import Session

rng = np.random.default_rng(0)
WIDTH, BATCH, DEPTH = 32, 64, 24


def deep(residual: bool = True, noise: str = "") -> netsens.model.Model:
    """Layers of tanh, each added to what came in."""
    lines, at = [], "x"
    for k in range(DEPTH):
        lines += [f"m{k} = MatMul({at}, w{k})", f"t{k} = Tanh(m{k})", f"s{k} = Mul(t{k}, t{k})", f"h{k} = Add(s{k}, {at})" if residual else f"h{k} = Exp(s{k})"]
        at = f"h{k}"
        if noise and k == DEPTH // 2:
            lines.append(noise.format(at))
            at = "noisy"
    text = f'<ir_version: 10, opset_import: ["" : 21]> g (float[n, {WIDTH}] x) => (float[n, {WIDTH}] y) {{ {" ".join(lines)} y = Identity({at}) }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array((rng.standard_normal((WIDTH, WIDTH)) * 0.1).astype(np.float32), f"w{k}") for k in range(DEPTH))
    return netsens.load(model, provider="cpu")


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("wrt", ["x", "params"])
@pytest.mark.parametrize("segments", [2, 5])
def test_the_same_gradient(residual: bool, wrt: str, segments: int) -> None:
    model = deep(residual)
    x = rng.standard_normal((BATCH, WIDTH)).astype(np.float32)
    graph = specialised(model.graph, {"x": x.shape})
    plan = plan_gradient(graph, wrt=wrt)
    less = recomputed(plan.graph, {o for n in graph.nodes for o in n.outputs}, plan.cotangents, segments)
    assert peak_bytes(less) < 0.8 * peak_bytes(plan.graph)
    assert sum(n.op == "MatMul" for n in less.nodes) > sum(n.op == "MatMul" for n in plan.graph.nodes)
    for one, other in zip(Session(plan.graph).run({"x": x}), Session(less).run({"x": x}), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_a_limit_is_kept_or_refused() -> None:
    model = deep()
    x = rng.standard_normal((BATCH, WIDTH)).astype(np.float32)
    whole = model.grad(x)["x"]
    taken = peak_bytes(plan_gradient(specialised(model.graph, {"x": x.shape})).graph)
    np.testing.assert_allclose(model.grad(x, memory_limit=taken * 2)["x"], whole, rtol=1e-5)
    np.testing.assert_allclose(model.grad(x, memory_limit=taken // 2)["x"], whole, rtol=1e-5, atol=1e-5)
    with pytest.raises(ToleranceError, match=r"about .* besides the weights, .* computed again, and the memory limit is 20.0 KiB"):
        model.grad(x, memory_limit=20 << 10)


def test_what_is_drawn_at_random_is_not_drawn_again() -> None:
    model = deep(noise="z = RandomNormalLike({0}) noisy = Add({0}, z)")
    graph = specialised(model.graph, {"x": (BATCH, WIDTH)})
    plan = plan_gradient(graph)
    less = recomputed(plan.graph, {o for n in graph.nodes for o in n.outputs}, plan.cotangents, 6)
    assert sum(n.op == "RandomNormalLike" for n in less.nodes) == 1


def test_values_are_freed_in_order() -> None:
    model = netsens.load(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[4] y) { a = Exp(x) b = Softmax(a) c = Add(a, b) y = Softmax(c) }'
        )
    )
    # a and b; then c in the place of one of them; then c and y
    assert peak_bytes(model.graph) == 32
