"""onnxruntime sessions: providers, threads, and weights handed over by reference."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import prod
from typing import Any

import numpy as np

from netsens.errors import NetsensError, RunError, UsageError
from netsens.graph.dtypes import HALVES, is_float, numpy_dtype
from netsens.graph.graph import Array, Graph, shape_text

INLINE_BYTES = 1 << 16  # smaller constants travel inside the model, where onnxruntime can fold them
# From so many bytes a weight is not packed: onnxruntime would pack it once for the forward pass and once for the backward pass. VGG-16's largest has 411 MB: one
# sample's gradient takes 1.5 GB instead of 2.2, and 0.6 s to open instead of 1.8, for runs that take 1.04 times as long.
UNPACKED_BYTES = 1 << 28
ANYWHERE = {"x86_64", "AMD64", "aarch64", "arm64"}  # processors that read numbers at any address
BLOCKED = {"x86_64", "AMD64"}  # processors on which onnxruntime keeps convolutions in blocks of channels, as measured

PROVIDERS = {
    "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider", "directml": "DmlExecutionProvider", "openvino": "OpenVINOExecutionProvider", "coreml": "CoreMLExecutionProvider",
}  # fmt: skip


MEMORIES = {"cuda": "cuda", "tensorrt": "cuda", "directml": "dml"}  # of providers with memory of their own, as onnxruntime calls it


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


@cache
def newest_opset(asked: int) -> int:
    """The newest opset up to `asked` that the installed onnxruntime runs; it doesn't tell, so it is tried."""
    import onnxruntime
    from onnx import helper

    from netsens.graph.save import IR_VERSION
    from netsens.graph.upgrade import TARGET_OPSET

    for opset in range(asked, TARGET_OPSET, -1):
        value = [helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", value[:1], value[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=[PROVIDERS["cpu"]])
        except Exception:  # onnxruntime's refusal of an opset has no class of its own
            continue
        return opset
    return TARGET_OPSET


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


class Session:
    """A graph loaded into onnxruntime, or a program that was made of one before. Its large constants stay where they are: onnxruntime gets
    references to them. `keep` is handed the program that was loaded. Where `lengths` are given the session is for inputs whose symbolic dimensions have
    these lengths alone, which onnxruntime plans better. `arrays` says that outputs are only ever taken as NumPy arrays, by `run`."""

    def __init__(
        self,
        graph: Graph | Program,
        options: RunOptions = RunOptions(),
        keep: Callable[[Program], None] | None = None,
        lengths: Mapping[str, int] | None = None,
        arrays: bool = False,
    ) -> None:
        self.inputs = list(graph.inputs)
        self.outputs = list(graph.outputs)
        self.lengths = dict(lengths or {})
        self._arrays = arrays
        self._shapes: Mapping[str, Sequence[int]] = {}
        self._source = graph
        self._options = options
        try:
            if isinstance(graph, Program):
                self._outer, self.widened = graph.dtypes, graph.widened
                self._shapes = graph.shapes
                self._kept = {name: _referable(array) for name, array in graph.arrays.items()}
                self._session = self._of_any_lengths(lambda: self._loaded(graph.proto))
                return
            self._outer = {name: graph.types[name].dtype for name in (*graph.inputs, *graph.outputs) if name in graph.types}
            from netsens.run.kernels import at_opset, load_otherwise

            (self._session, written), self.widened = load_otherwise(at_opset(graph, newest_opset(graph.opset)), partial(self._load_graph, keep is not None))
        except NetsensError:
            raise
        except Exception as error:  # onnxruntime raises a family of C++ errors without a public root
            raise RunError(f"onnxruntime cannot load the graph: {short_message(error)}{_remedy(str(error))}") from error
        if keep is not None:
            keep(self._program(written))

    def _load_graph(self, keeping: bool, graph: Graph) -> tuple[Any, Graph]:
        """A session for the graph, and the graph that was loaded; `keeping` wants it for any lengths, and with no weight in an order that its file doesn't have."""
        from netsens.graph.stock import plainly_spelled

        graph = plainly_spelled(graph)
        block = self._block()
        if block:
            from netsens.run.blocks import in_blocks

            # What is kept is for any lengths; the first run computes as the later ones will, to the last bit.
            blocked = in_blocks(graph, block, {} if keeping else self.lengths)
            if blocked is not graph:
                try:
                    return self._open(blocked), in_blocks(graph, block, {}, INLINE_BYTES // 4) if keeping else blocked
                except Exception:  # whatever onnxruntime doesn't take there, it may take as it is
                    pass
        return self._of_any_lengths(lambda: self._open(graph)), graph

    def _block(self) -> int:
        """How many channels to put side by side; 0 for the ordinary layout."""
        if not self._options.fused or providers(self._options.provider) != [PROVIDERS["cpu"]] or platform.machine() not in BLOCKED:
            return 0
        from netsens.run.channel_block import block_probe, shown_block

        return shown_block(block_probe())

    def _open(self, graph: Graph) -> Any:
        from netsens.graph.save import model_proto
        from netsens.run.views import joined_views

        graph, self._shapes = self._cut(joined_views(graph, self.lengths) if self._options.fused else graph)
        model, arrays = model_proto(graph, INLINE_BYTES)
        self._kept = {name: _referable(array) for name, array in arrays.items()}
        return self._loaded(model.SerializeToString())

    def _cut(self, graph: Graph) -> tuple[Graph, Mapping[str, Sequence[int]]]:
        """The graph as onnxruntime is to have it, and the shapes that are to be given to its outputs."""
        from netsens.run.last_reshapes import without_last_reshapes

        return without_last_reshapes(graph) if self._arrays else (graph, {})

    def _program(self, graph: Graph) -> Program:
        from netsens.graph.blocked_layout import holds_blocked_layout
        from netsens.graph.save import model_proto
        from netsens.run.channel_block import block_probe

        graph, shapes = self._cut(graph)
        model, arrays = model_proto(graph, INLINE_BYTES)
        block, probe = (self._block(), block_probe()) if holds_blocked_layout(graph) else (0, b"")
        return Program(model.SerializeToString(), arrays, self.inputs, self.outputs, self._outer, self.widened, block, probe, shapes)

    def _of_any_lengths(self, load: Callable[[], Any]) -> Any:
        """What `load` gives for these lengths, or for any."""
        try:
            return load()
        except Exception:  # onnxruntime's errors have no public root
            if not self.lengths:
                raise
        # A model may say of its inner values what these lengths contradict; onnxruntime only minds when it knows them.
        self.lengths = {}
        return load()

    def _loaded(self, proto: bytes) -> Any:
        import onnxruntime

        chosen = providers(self._options.provider)
        try:
            return onnxruntime.InferenceSession(proto, self._settings(), providers=chosen)
        except Exception as error:  # onnxruntime's errors have no public root
            if "QuantizeLinear" not in str(error):
                raise
        # Where onnxruntime moves a dequantisation past a transposition, it may give the nodes that it adds another type than their zero point's.
        return onnxruntime.InferenceSession(proto, self._settings(), providers=chosen, disabled_optimizers=["QDQPropagationTransformer"])

    def _settings(self) -> Any:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4  # what fails is raised; onnxruntime need not print it too
        # Left alone, onnxruntime rounds the other factor of a product with quantised weights to 8 bits, and that may be a cotangent.
        settings.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        if self._options.threads:
            settings.intra_op_num_threads = self._options.threads
        if self._options.turns:  # threads that spin while they wait would keep the cores from the session whose turn is next
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.enable_mem_pattern = not self._options.lean
        if not self._options.fused:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if any(array.nbytes >= UNPACKED_BYTES for array in self._kept.values()):
            settings.add_session_config_entry("session.disable_prepacking", "1")
        for symbol, length in self.lengths.items():
            settings.add_free_dimension_override_by_name(symbol, length)
        if self._kept:
            self._values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._kept.values()]
            settings.add_external_initializers(list(self._kept), self._values)
            # Said once more, or onnxruntime would run with a copy of its own.
            for name, value in zip(self._kept, self._values, strict=True):
                settings.add_initializer(name, value)
        return settings

    def general(self) -> Session:
        """The same for inputs of any lengths."""
        return Session(self._source, self._options, arrays=self._arrays)

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """The outputs, in order, for NumPy arrays."""
        wanted = list(self.outputs if outputs is None else outputs)
        given = {k: v for k, v in feeds.items() if k in self.inputs}
        try:
            found = list(self._session.run(wanted, _widened(given) if self.widened else given))
        except Exception as error:
            raise RunError(f"onnxruntime failed while running the model: {short_message(error)}") from error
        if self.widened:
            found = [_narrowed(v, self._outer.get(o)) for o, v in zip(wanted, found, strict=True)]
        return [_reshaped(v, self._shapes[o], o) if o in self._shapes else v for o, v in zip(wanted, found, strict=True)] if self._shapes else found

    def run_values(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name, as onnxruntime's own values and where it put them: on a GPU they stay in its memory, for a next session to read. Feeds are such
        values or arrays; an array must stay alive until this returns, or as long as a value that is one of the feeds."""
        if self.widened:
            feeds = _widened(feeds)
        given = {k: v for k, v in feeds.items() if k in self.inputs}
        try:
            if any(_is_text(v) for v in given.values()):  # which onnxruntime takes as arrays alone
                found = self._session.run(self.outputs, {k: v if isinstance(v, np.ndarray) else v.numpy() for k, v in given.items()})
                results = [a if _is_text(a) else ort_value(a) for a in found]
            else:
                results = self._bound({k: ort_value(v) if isinstance(v, np.ndarray) else v for k, v in given.items()})
        except Exception as error:
            raise RunError(f"onnxruntime failed while running the model: {short_message(error)}") from error
        return dict(zip(self.outputs, results, strict=True))

    def _bound(self, values: Mapping[str, Any]) -> list[Any]:
        """The outputs in the memory of the provider that computes them; onnxruntime would otherwise bring each to the host."""
        memory = memory_of(self._session.get_providers()[0])
        if memory is None:
            return list(self._session.run_with_ort_values(self.outputs, values))
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, memory)
        self._session.run_with_iobinding(binding)
        return list(binding.get_outputs())


def memory_of(provider: str) -> str | None:
    """Where a provider of onnxruntime's name keeps its values, as onnxruntime calls it; None for the host."""
    return next((memory for short, memory in MEMORIES.items() if PROVIDERS[short] == provider), None)


def _reshaped(array: Array, shape: Sequence[int], name: str) -> Array:
    """An output under the axes that the graph's last Reshape would give it."""
    if array.size != prod(shape):
        raise RunError(
            f"The output '{name}' has {array.size} elements, and the model reshapes it to {shape_text(shape)}; feed a batch of the length it was made for."
        )
    return array.reshape(shape)


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"


def _widened(feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Half precision arrays as float32."""
    return {k: v.astype(np.float32) if isinstance(v, np.ndarray) and is_float(v.dtype) and v.dtype.itemsize == 2 else v for k, v in feeds.items()}


def _narrowed(value: Any, dtype: int | None) -> Any:
    """A result in the dtype that the graph gives it."""
    return value.astype(numpy_dtype(dtype)) if dtype in HALVES and isinstance(value, np.ndarray) else value


def ort_value(array: Array) -> Any:
    """The array as a value of onnxruntime, which refers to it."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _referable(array: Array) -> Array:
    """The array as onnxruntime can point to it: contiguous, and aligned to its elements where the processor needs that. In a model file nothing is aligned."""
    if array.flags.c_contiguous and (array.flags.aligned or platform.machine() in ANYWHERE):
        return array
    return np.array(array, order="C")


def _remedy(message: str) -> str:
    """What mends a graph that onnxruntime refuses, where the refusal tells."""
    if "is not a registered function/op" in message or "No Op registered for" in message:
        return ". A custom operator runs only where the model holds it as a function; export it so, or choose layers that don't need it with --of."
    if "Could not find an implementation" in message:
        return ". It has no kernel for numbers of this kind; --compute-dtype float32 has the model computed in those that all kernels know."
    return ""


def short_message(error: BaseException) -> str:
    """onnxruntime's message on one line, without its error codes and source paths."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text if len(text) <= 400 else text[:397] + "..."
