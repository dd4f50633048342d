"""netsens: exact gradients, Jacobians and sensitivities of ONNX models, as plain ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netsens.errors import (
    InputError,
    ModelError,
    NetsensError,
    NetsensWarning,
    NoPathError,
    NotFoundError,
    OutputError,
    RunError,
    ToleranceError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from netsens.model import Model, load

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "Model",
    "ModelError",
    "NetsensError",
    "NetsensWarning",
    "NoPathError",
    "NotFoundError",
    "OutputError",
    "RunError",
    "ToleranceError",
    "UnsupportedError",
    "UsageError",
    "load",
]


def __getattr__(name: str) -> Any:
    # `import netsens` stays light: onnx and onnxruntime are imported when a model is.
    if name in ("Model", "load"):
        from netsens import model

        return getattr(model, name)
    raise AttributeError(f"module 'netsens' has no attribute '{name}'")
