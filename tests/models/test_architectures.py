"""Gradients of exported models, by input and by every parameter, against PyTorch's autograd in float64."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import netsens
from tests.models.architectures import ARCHITECTURES, Architecture
from tests.models.export import export, seeded


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=[a.name for a in ARCHITECTURES])
def test_gradients_agree_with_autograd(architecture: Architecture, dynamo: bool, batch: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = seeded(architecture.small())
    # The exporter is shown a batch of 2, so that neither batch below is baked in.
    path = export(module, architecture.example(2), tmp_path / "model.onnx", dynamo=dynamo)
    x = architecture.example(batch)
    expected, u = autograd(module, x)

    model = netsens.load(path)
    names = [k for k in expected if k != "x"] + (["x"] if "x" in expected else [])
    found = model.grad({"x": x.numpy()}, wrt=names, of="y", cotangent=u, method="autodiff")
    assert set(found) == set(expected)
    for name, want in expected.items():
        got = found[name].astype(np.float64)
        assert got.shape == want.shape
        error = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12)
        # A bias in front of a softmax's own shift invariance has a gradient of zero up to rounding.
        assert error <= 1e-5 or np.linalg.norm(got - want) <= 1e-6 * total(expected), f"{name}: {error:.1e}"


def total(gradients: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.linalg.norm(g) ** 2 for g in gradients.values())))


def autograd(module: torch.nn.Module, x: torch.Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The gradients in float64 by the input (where it is floating) and all parameters, and the cotangent they belong to."""
    wide = copy.deepcopy(module).double()
    x64 = x.double().requires_grad_() if x.is_floating_point() else x
    y = wide(x64)
    u = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    y.backward(u.double())
    gradients = {name: p.grad.numpy() for name, p in wide.named_parameters() if p.grad is not None}
    if x.is_floating_point():
        assert x64.grad is not None
        gradients["x"] = x64.grad.numpy()
    return gradients, u.numpy()
