"""Models of opsets that the installed onnxruntime doesn't know run and are differentiated, as far as their operators can be written over."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import netsens
from tests.rules.backend_cases import backend_cases

NEWER = [
    c
    for c in backend_cases()
    if c.name
    in (
        "test_swiglu",
        "test_swiglu_alpha",
        "test_linear_attention_gated_delta",
        "test_attention_4d_causal_bf16",
        "test_linear_attention_fp16",
        "test_causal_conv_with_state_silu",
    )
]


@pytest.mark.parametrize("case", NEWER, ids=[c.name for c in NEWER])
def test_newer_operators_run(case) -> None:  # type: ignore[no-untyped-def]
    model = netsens.load(case.model)
    inputs, outputs = case.data_sets[0]
    found = model.run(dict(zip(model.graph.inputs, inputs, strict=False)))
    for expected, got in zip(outputs, found.values(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-2 if got.dtype.itemsize == 2 else 1e-4, atol=1e-2 if got.dtype.itemsize == 2 else 1e-5)
    gradients = model.grad(dict(zip(model.graph.inputs, inputs, strict=False)), wrt=list(model.graph.inputs[:1]))
    assert all(np.isfinite(g).all() for g in gradients.values())


@pytest.mark.parametrize("opset", [7, 13, 21, 26, 27, 28])
def test_one_gradient_at_every_opset(opset: int) -> None:
    text = f'<ir_version: 10, opset_import: ["":{opset}]> g (float[N,4] x) => (float[N,4] y) {{ a = Relu(x) y = Softmax(a) }}'
    gradient = netsens.load(onnx.parser.parse_model(text)).grad(np.ones((1, 4), np.float32), target=1)
    np.testing.assert_allclose(gradient["x"], [[-0.0625, 0.1875, -0.0625, -0.0625]], rtol=1e-6)
