"""What a contender is given, what it gives back, and which tensors it differentiates by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Case = dict[str, Any]


@dataclass
class Ready:
    """What runs once, on what the input's array holds then; what makes the gradient by each tensor, by the model's own names, of a run's result; and the model file where another than
    the case's was differentiated."""

    run: Callable[[], Any]
    named: Callable[[Any], Mapping[str, Any]] | None = None
    model: str | None = None


class NoTwinError(Exception):
    """The model isn't there in this framework."""

    word = "no twin"


def wanted(case: Case, model: Any) -> list[str]:
    """What an ONNX model's gradient is taken by: its input, or the first floats behind it; or all parameters."""
    nodes = model.graph.node
    if case["by"] == "params":
        statistics = {name for node in nodes if node.op_type == "BatchNormalization" for name in node.input[3:]}
        read = {name for node in nodes for name in node.input} - statistics
        return [i.name for i in model.graph.initializer if i.data_type == 1 and i.dims and i.name in read]
    given = model.graph.input[0]
    if given.type.tensor_type.elem_type == 1:
        return [given.name]
    return [next(node.output[0] for node in nodes if node.op_type == "Gather" and given.name in node.input)]
