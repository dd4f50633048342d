"""The last look at a model file before it is given away: ONNX's checker, and onnxruntime itself."""

from __future__ import annotations

from pathlib import Path

from netsens.errors import RunError
from netsens.run.runtime import RunOptions, providers, short_message


def verify_file(path: Path, options: RunOptions = RunOptions()) -> None:  # noqa: B008  # a frozen dataclass
    """Raises `RunError` where the file fails ONNX's full checks or onnxruntime cannot load it."""
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker and its shape inference raise different roots
        raise RunError(f"The gradient model fails ONNX's checker, so it was not written: {short_message(error)}") from error
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        onnxruntime.InferenceSession(str(path), settings, providers=providers(options.provider))
    except Exception as error:  # onnxruntime raises a family of C++ errors without a public root
        raise RunError(f"onnxruntime cannot load the gradient model, so it was not written: {short_message(error)}") from error
