"""Exports a torch module to ONNX with either exporter, batch normalisation and parameter names kept."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def export(model: nn.Module, example: Tensor, path: Path, *, dynamo: bool, dynamic: bool = True, folded: bool = False) -> Path:
    """The model as an ONNX file with input `x`, output `y` and, where `dynamic`, a symbolic batch; `folded` as exporters do it by default, with batch normalisations
    folded into convolutions."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"]}
        if dynamo:
            shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
            torch.onnx.export(model, (example,), str(path), dynamo=True, dynamic_shapes=shapes, optimize=False, external_data=False, **names)
        else:
            axes = {"x": {0: "batch"}} if dynamic else None
            torch.onnx.export(model, (example,), str(path), dynamo=False, opset_version=17, dynamic_axes=axes, do_constant_folding=folded,
                              training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE, **names)  # fmt: skip
    return path


def seeded(module: nn.Module) -> nn.Module:
    """Evaluation mode, with batch statistics and affine parameters that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(torch.randn(layer.running_mean.shape, generator=generator) * 0.1)
            layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator) + 0.5)
        if isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
            # Distinct values also keep the exporter from merging parameters that happen to be equal.
            layer.weight.data.copy_(torch.rand(layer.weight.shape, generator=generator) + 0.5)
            layer.bias.data.copy_(torch.randn(layer.bias.shape, generator=generator) * 0.1)
    return module.eval()
