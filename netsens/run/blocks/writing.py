"""The walk over a graph that writes it in blocks of channels: which values lie there and under what names, and the way in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from netsens.graph.blocked_layout import BLOCKED
from netsens.graph.dtypes import FLOAT
from netsens.graph.graph import Array, Graph, Node, Shape, pruned
from netsens.run.blocks.infinite import Infinite
from netsens.run.blocks.nodes import Nodes
from netsens.run.blocks.waiting import Pending, Phased, convolution, interleaved

Handler = Callable[["Writing", Node], bool]
HANDLERS: dict[str, Handler] = {}


def written_by(*ops: str) -> Callable[[Handler], Handler]:
    """Says that a function writes these operators in blocks; it returns False, and has written nothing, where it leaves a node as it is."""

    def declare(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(ops, handler))
        return handler

    return declare


class Writing(Nodes):
    """The nodes written so far. A logical value is the original graph's; `flat` is its blocks under the same number of axes, [N, C', *places] with the channels
    filled up to whole blocks, `apart` the same memory as [N, blocks, *places, block]."""

    def __init__(self, graph: Graph, block: int, lengths: Mapping[str, int], most: int | None) -> None:
        super().__init__(graph.copy(), block, most)
        self.original, self.lengths, self.infinite = graph, lengths, Infinite(graph)
        self.graph.nodes = []
        self.graph.domains = {**graph.domains, BLOCKED: 1}
        self.types = dict(graph.types)
        self.consumers = graph.consumers()
        self.readers = {name: len(nodes) for name, nodes in self.consumers.items()}
        for name in graph.outputs:
            self.readers[name] = self.readers.get(name, 0) + 1
        self.fixed = set(graph.constants)
        self.plain = {*graph.inputs, *graph.constants}
        self.flats: dict[str, str] = {}
        self.aparts: dict[str, str] = {}
        self.pending: dict[str, Pending] = {}
        self.phased: dict[str, Phased] = {}
        self.masks: dict[str, str] = {}  # of a condition, 1 and 0
        self.deep: dict[str, tuple[str, int]] = {}  # of a SpaceToDepth, its operand and its block's size
        self.views: dict[str, str] = {}  # of a value under other axes, the value
        self.around: dict[str, tuple[str, list[int]]] = {}  # of a padded value, what is inside and from where on

    def written(self) -> Graph:
        for node in self.original.nodes:
            self._visit(node)
        if not any((self.flats, self.aparts, self.pending, self.phased)):
            return self.original
        for name in self.original.outputs:
            self.as_plain(name)
        return pruned(self.graph)

    def _visit(self, node: Node) -> None:
        whole = self.original.wholes.get(node.outputs[0])
        if whole is not None and HANDLERS[whole.op](self, whole):
            return
        handler = HANDLERS.get(node.op)
        if handler is not None and not node.domain and handler(self, node):
            return
        for name in node.reads():
            self.as_plain(name)
        self.graph.nodes.append(node)
        self.plain.update(node.outputs)
        if node.inputs and not any(node.subgraphs()) and all(i in self.fixed for i in node.reads()):
            self.fixed.update(node.outputs)

    # What is known ---------------------------------------------------------------------------------------------------

    def shape(self, name: str) -> Shape | None:
        if name in self.original.constants:
            return self.original.constants[name].shape
        known = self.types.get(name)
        if known is None or known.shape is None:
            return None
        return tuple(self.lengths.get(d, d) if isinstance(d, str) else d for d in known.shape)

    def dtype(self, name: str) -> int:
        known = self.types.get(name)
        return known.dtype if known is not None else 0

    def fits(self, name: str) -> bool:
        """Whether a value of this shape can lie in blocks: all but the batch is known."""
        shape = self.shape(name)
        return shape is not None and len(shape) >= 3 and all(isinstance(d, int) and d > 0 for d in shape[1:]) and shape[0] != 0

    def channels(self, name: str) -> int:
        shape = self.shape(name)
        assert shape is not None
        return int(shape[1] or 0)

    def places(self, name: str) -> list[int]:
        shape = self.shape(name)
        assert shape is not None
        return [int(d or 0) for d in shape[2:]]

    def whole(self, name: str) -> bool:
        return self.channels(name) % self.block == 0

    def inside(self, name: str) -> bool:
        return any(name in known for known in (self.flats, self.aparts, self.pending, self.phased, self.views))

    def comes_inside(self, name: str) -> bool:
        """Whether a value is in blocks, or may be brought there by one reordering."""
        if self.inside(name):
            return True
        if name in self.original.constants or name in self.fixed or self.dtype(name) != FLOAT or not self.fits(name):
            return False
        return len(self.shape(name) or ()) == 4 and self.channels(name) % 4 == 0 and self.channels(name) >= self.block

    def readers_of(self, name: str) -> list[Node]:
        """The nodes that read a value; a graph's output has a reader that is none."""
        found = self.consumers.get(name, [])
        return [*found, Node("Output", (name,), ())] if name in self.original.outputs else found

    def read_once(self, name: str) -> bool:
        return self.readers.get(name, 0) == 1

    def constant(self, name: str) -> Array | None:
        return self.original.constants.get(name)

    def numbers(self, node: Node, index: int) -> list[int] | None:
        """Constant integers among a node's inputs."""
        found = self.constant(node.inputs[index]) if index < len(node.inputs) else None
        return None if found is None else [int(v) for v in found.reshape(-1)]

    # Names of a value ------------------------------------------------------------------------------------------------

    def flat(self, name: str) -> str:
        self._settle(name)
        if name not in self.flats:
            if name in self.views:
                self.apart(name)
            shape = [0, self.filled(self.channels(name)), *self.places(name)]
            if name in self.aparts:
                self.flats[name] = self.reshaped(self.aparts[name], shape)
            else:
                self.flats[name] = self._brought_inside(name)
        return self.flats[name]

    def apart(self, name: str) -> str:
        self._settle(name)
        if name not in self.aparts:
            memory = self.apart(self.views[name]) if name in self.views and name not in self.flats else self.flat(name)
            self.aparts[name] = self.reshaped(memory, [0, self.filled(self.channels(name)) // self.block, *self.places(name), self.block])
        return self.aparts[name]

    def as_plain(self, name: str) -> None:
        """Has the value under its own name, in the ordinary order of axes."""
        if name in self.plain or not self.inside(name):
            return
        self.plain.add(name)
        places = self.places(name)
        if name in self.views:
            self.as_plain(self.views[name])
            self.write("Reshape", [self.views[name], self.ints(0, self.channels(name), *places)], name)
            return
        if self.dtype(name) != FLOAT:
            # [N, blocks, *places, block] -> [N, blocks, block, *places] -> [N, C', *places]
            count = len(places)
            turned = self.emit("Transpose", [self.apart(name)], perm=[0, 1, count + 2, *range(2, count + 2)])
            flat = self.reshaped(turned, [0, self.filled(self.channels(name)), *places])
            self.write("Slice", [flat, self.ints(0), self.ints(self.channels(name)), self.ints(1)], name)
            return
        if prod(places) == 1 and self.whole(name):
            self.write("Identity", [self.flat(name)], name)
            return
        if len(places) == 2:
            self.write("ReorderOutput", [self.flat(name)], name, BLOCKED, channels=self.channels(name))
            return
        line = self.reshaped(self.apart(name), [0, self.filled(self.channels(name)), prod(places), 1])
        ordered = self.emit("ReorderOutput", [line], BLOCKED, channels=self.channels(name))
        self.write("Reshape", [ordered, self.ints(0, self.channels(name), *places)], name)

    def settle(self, output: str, flat: str = "", apart: str = "") -> bool:
        """Says where a logical value lies now."""
        if flat:
            self.flats[output] = flat
        if apart:
            self.aparts[output] = apart
        return True

    def _brought_inside(self, name: str) -> str:
        channels = self.channels(name)
        plain = name
        if channels % self.block:
            plain = self.emit("Pad", [name, self.ints(0, 0, 0, 0, 0, self.filled(channels) - channels, 0, 0)])
        return self.emit("ReorderInput", [plain], BLOCKED)

    # Convolutions that wait --------------------------------------------------------------------------------------------

    def _settle(self, name: str) -> None:
        if name in self.pending:
            self.flats[name] = convolution(self, self.pending.pop(name))
        elif name in self.phased:
            self.aparts[name] = interleaved(self, self.phased.pop(name), self.channels(name), self.places(name))
