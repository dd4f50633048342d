"""onnxruntime itself: its providers, and how a serialised model is opened in it, weights handed over by reference."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netsens.errors import UsageError
from netsens.graph.graph import Array

# From so many bytes a weight is not packed: onnxruntime would pack it once for the forward pass and once for the backward pass. VGG-16's largest has 411 MB: one
# sample's gradient takes 1.5 GB instead of 2.2, and 0.6 s to open instead of 1.8, for runs that take 1.04 times as long.
UNPACKED_BYTES = 1 << 28
ANYWHERE = {"x86_64", "AMD64", "aarch64", "arm64"}  # processors that read numbers at any address

PROVIDERS = {
    "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider", "directml": "DmlExecutionProvider", "openvino": "OpenVINOExecutionProvider", "coreml": "CoreMLExecutionProvider",
}  # fmt: skip

# Of providers with memory of their own, by onnxruntime's names for both.
MEMORIES = {PROVIDERS["cuda"]: "cuda", PROVIDERS["tensorrt"]: "cuda", PROVIDERS["directml"]: "dml"}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How onnxruntime runs: `provider` is "auto" or a name of `PROVIDERS`; `threads` None leaves the choice to onnxruntime. `turns`: several sessions take
    turns on the same cores. `fused`: onnxruntime may put fused kernels in the place of several nodes. `any_lengths`: sessions are for inputs of any lengths
    from the start, so that not a bit of a result depends on which inputs came before. `lean`: memory before speed. Where a session has seen lengths once, onnxruntime
    lays out one block for the next run beside what the first one took (ResNet-50 by parameters, 8 samples: 1460 MB, and lean 860, in 1.03 times the time)."""

    provider: str = "auto"
    threads: int | None = None
    turns: bool = False
    fused: bool = True
    any_lengths: bool = False
    lean: bool = False


def providers(choice: str) -> list[str]:
    """onnxruntime's names of the providers to use, the CPU last. `auto` takes CUDA where onnxruntime has it."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    cpu = PROVIDERS["cpu"]
    if choice == "auto":
        return [p for p in (PROVIDERS["cuda"],) if p in available] + [cpu]
    name = PROVIDERS.get(choice.lower(), choice)
    if name not in available:
        there = ", ".join(short for short, long in PROVIDERS.items() if long in available)
        raise UsageError(
            f"onnxruntime has no provider '{choice}' here; it has {there}. Install the onnxruntime package that brings it, or choose one of these."
        )
    return [name] if name == cpu else [name, cpu]


def memory_of(provider: str) -> str | None:
    """Where a provider of onnxruntime's name keeps its values, as onnxruntime calls it; None for the host."""
    return MEMORIES.get(provider)


@dataclass(frozen=True, slots=True)
class Program:
    """What onnxruntime loads: a serialised model and the arrays left out of it, which it refers to. `dtypes` are the element types of inputs and
    outputs as the graph has them; `widened` says that half precision is computed in float32. `block` is how many channels it has side by side, which must be the
    machine's, as `probe` shows it; 0 for any machine. Some outputs come under other axes and are to be given their `shapes`."""

    proto: bytes
    arrays: Mapping[str, Array]
    inputs: Sequence[str]
    outputs: Sequence[str]
    dtypes: Mapping[str, int]
    widened: bool = False
    block: int = 0
    probe: bytes = b""
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session of onnxruntime's own, and what it refers to, which lives as long."""

    session: Any
    held: Sequence[Any]


class Opening:
    """How serialised models are opened: under these options, for inputs whose symbolic dimensions have these `lengths` (of any length, where it says none)."""

    def __init__(self, options: RunOptions, lengths: Mapping[str, int]) -> None:
        self.options = options
        self.lengths = dict(lengths)

    def of_any_lengths(self, open_: Callable[[], Opened]) -> Opened:
        """What `open_` gives for these lengths, or for any."""
        try:
            return open_()
        except Exception:  # onnxruntime's errors have no public root
            if not self.lengths:
                raise
        # A model may say of its inner values what these lengths contradict; onnxruntime only minds when it knows them.
        self.lengths = {}
        return open_()

    def open(self, proto: bytes, arrays: Mapping[str, Array]) -> Opened:
        """The model, with the arrays that were left out of it."""
        import onnxruntime

        kept = {name: _referable(array) for name, array in arrays.items()}
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in kept.values()]
        chosen = providers(self.options.provider)
        held = (kept, values)
        try:
            return Opened(onnxruntime.InferenceSession(proto, self._settings(kept, values), providers=chosen), held)
        except Exception as error:  # onnxruntime's errors have no public root
            if "QuantizeLinear" not in str(error):
                raise
        # Where onnxruntime moves a dequantisation past a transposition, it may give the nodes that it adds another type than their zero point's.
        otherwise = onnxruntime.InferenceSession(proto, self._settings(kept, values), providers=chosen, disabled_optimizers=["QDQPropagationTransformer"])
        return Opened(otherwise, held)

    def _settings(self, kept: Mapping[str, Array], values: Sequence[Any]) -> Any:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4  # what fails is raised; onnxruntime need not print it too
        # Left alone, onnxruntime rounds the other factor of a product with quantised weights to 8 bits, and that may be a cotangent.
        settings.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        if self.options.threads:
            settings.intra_op_num_threads = self.options.threads
        if self.options.turns:  # threads that spin while they wait would keep the cores from the session whose turn is next
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.enable_mem_pattern = not self.options.lean
        if not self.options.fused:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if any(array.nbytes >= UNPACKED_BYTES for array in kept.values()):
            settings.add_session_config_entry("session.disable_prepacking", "1")
        for symbol, length in self.lengths.items():
            settings.add_free_dimension_override_by_name(symbol, length)
        if kept:
            settings.add_external_initializers(list(kept), list(values))
            # Said once more, or onnxruntime would run with a copy of its own.
            for name, value in zip(kept, values, strict=True):
                settings.add_initializer(name, value)
        return settings


def ort_value(array: Array) -> Any:
    """The array as a value of onnxruntime, which refers to it."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _referable(array: Array) -> Array:
    """The array as onnxruntime can point to it: contiguous, and aligned to its elements where the processor needs that. In a model file nothing is aligned."""
    if array.flags.c_contiguous and (array.flags.aligned or platform.machine() in ANYWHERE):
        return array
    return np.array(array, order="C")


def short_message(error: BaseException) -> str:
    """onnxruntime's message on one line, without its error codes and source paths."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text if len(text) <= 400 else text[:397] + "..."
