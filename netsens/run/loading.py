"""How a graph gets into onnxruntime: at an opset that it knows, spelled as its optimiser and its kernels want it, and made a program that can be kept."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import cache

from netsens.graph.blocked_layout import holds_blocked_layout
from netsens.graph.graph import Graph
from netsens.graph.save import IR_VERSION, model_proto
from netsens.graph.stock import plainly_spelled
from netsens.graph.upgrade import TARGET_OPSET
from netsens.run.channel_block import block_probe, shown_block
from netsens.run.kernels import at_opset, load_otherwise
from netsens.run.last_reshapes import without_last_reshapes
from netsens.run.runtime import PROVIDERS, Opened, Opening, Program, providers
from netsens.run.views import joined_views

INLINE_BYTES = 1 << 16  # smaller constants travel inside the model, where onnxruntime can fold them
BLOCKED = {"x86_64", "AMD64"}  # processors on which onnxruntime keeps convolutions in blocks of channels, as measured


@cache
def newest_opset(asked: int) -> int:
    """The newest opset up to `asked` that the installed onnxruntime runs; it doesn't tell, so it is tried."""
    import onnxruntime
    from onnx import helper

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


class Loading:
    """One graph on its way. `arrays` says that its outputs may be arrays under other axes, `keeping` that its program is to be kept. What is known of it once it
    is loaded: whether it is `widened`, half precision computed in float32, and the `shapes` to be given to outputs."""

    def __init__(self, graph: Graph, opening: Opening, *, arrays: bool, keeping: bool) -> None:
        self._opening = opening
        self._arrays = arrays
        self._keeping = keeping
        self._names = list(graph.inputs), list(graph.outputs)
        self.dtypes = {name: graph.types[name].dtype for name in (*graph.inputs, *graph.outputs) if name in graph.types}
        self.shapes: Mapping[str, Sequence[int]] = {}
        (self.opened, self._written), self.widened = load_otherwise(at_opset(graph, newest_opset(graph.opset)), self._load)

    def _load(self, graph: Graph) -> tuple[Opened, Graph]:
        """A session for the graph, and the graph that its program is made of: for any lengths where it is to be kept, and with no weight in an order that its
        file doesn't have."""
        graph = plainly_spelled(graph)
        block = self._block()
        if block:
            from netsens.run.blocks import in_blocks

            # What is kept is for any lengths; the first run computes as the later ones will, to the last bit.
            blocked = in_blocks(graph, block, {} if self._keeping else self._opening.lengths)
            if blocked is not graph:
                try:
                    return self._open(blocked), in_blocks(graph, block, {}, INLINE_BYTES // 4) if self._keeping else blocked
                except Exception:  # whatever onnxruntime doesn't take there, it may take as it is
                    pass
        return self._opening.of_any_lengths(lambda: self._open(graph)), graph

    def _block(self) -> int:
        """How many channels to put side by side; 0 for the ordinary layout."""
        options = self._opening.options
        if not options.fused or providers(options.provider) != [PROVIDERS["cpu"]] or platform.machine() not in BLOCKED:
            return 0
        return shown_block(block_probe())

    def _open(self, graph: Graph) -> Opened:
        graph, self.shapes = self._cut(joined_views(graph, self._opening.lengths) if self._opening.options.fused else graph)
        model, arrays = model_proto(graph, INLINE_BYTES)
        return self._opening.open(model.SerializeToString(), arrays)

    def _cut(self, graph: Graph) -> tuple[Graph, Mapping[str, Sequence[int]]]:
        """The graph as onnxruntime is to have it, and the shapes that are to be given to its outputs."""
        return without_last_reshapes(graph) if self._arrays else (graph, {})

    def program(self) -> Program:
        """What was loaded, to be loaded again."""
        graph, shapes = self._cut(self._written)
        model, arrays = model_proto(graph, INLINE_BYTES)
        block, probe = (self._block(), block_probe()) if holds_blocked_layout(graph) else (0, b"")
        return Program(model.SerializeToString(), arrays, *self._names, self.dtypes, self.widened, block, probe, shapes)
