"""PyTorch's autograd, eager and compiled, on the module that the model was exported from."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.benchmarks.contenders.case import Case, NoTwinError, Ready
from tests.models.architectures import ARCHITECTURES
from tests.models.export import seeded


def eager(case: Case, x: Any) -> Ready:
    return _prepared(case, x, compiled=False)


def compiled(case: Case, x: Any) -> Ready:
    """torch.compile, forward and backward pass, for these shapes."""
    return _prepared(case, x, compiled=True)


def _prepared(case: Case, x: Any, compiled: bool) -> Ready:
    if case["architecture"] is None:
        raise NoTwinError("there is no PyTorch module of it")
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    architecture = next(a for a in ARCHITECTURES if a.name == case["architecture"])
    module = seeded(architecture.full() if case["full"] else architecture.small())
    by_input = case["by"] == "input"
    for parameter in module.parameters():
        parameter.requires_grad_(not by_input)
    at = torch.from_numpy(x)
    embed: Any = nn.Identity()
    if by_input and not at.is_floating_point():  # by the embedded tokens, the first numbers that a gradient can be taken by
        embed, module.tokens = module.tokens, nn.Identity()
    function = torch.compile(module, dynamic=False) if compiled else module

    def run() -> dict[str, Any]:
        if by_input:
            given = embed(at).detach().requires_grad_()
            function(given).sum().backward()
            return {case["input"]: given.grad}
        for parameter in module.parameters():
            parameter.grad = None
        function(at).sum().backward()
        return {name: parameter.grad for name, parameter in module.named_parameters()}

    return Ready(run, lambda found: {name: gradient.numpy() for name, gradient in found.items()})
