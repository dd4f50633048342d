"""What each operator over sequences and optionals becomes where the tensors that they hold are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netsens.graph.graph import Dim, Node, TensorType
from netsens.graph.sequences.known import Chunks, Listed, Rows
from netsens.graph.sequences.scope import Scope

_MOST_PARTS = 1024

Rule = Callable[[Scope, Node], bool]  # appends what stands for the node, or says that it can't
RULES: dict[str, Rule] = {}


def rule(op: str) -> Callable[[Rule], Rule]:
    """Declares what becomes of an operator."""

    def register(function: Rule) -> Rule:
        RULES[op] = function
        return function

    return register


@rule("Identity")
def _identity(s: Scope, node: Node) -> bool:
    known = s.known.get(node.inputs[0])
    return known is not None and s.keep(node, known)


@rule("SequenceConstruct")
def _construct(s: Scope, node: Node) -> bool:
    return s.keep(node, Listed(node.inputs))


@rule("SequenceEmpty")
def _empty(s: Scope, node: Node) -> bool:
    return s.keep(node, Listed(()))


@rule("SequenceInsert")
def _insert(s: Scope, node: Node) -> bool:
    names = s.listed(node.inputs[0])
    at = len(names or ()) if len(node.inputs) < 3 or not node.inputs[2] else s.number(node.inputs[2])
    if names is None or at is None:
        return False
    at += len(names) if at < 0 else 0
    return s.keep(node, Listed((*names[:at], node.inputs[1], *names[at:])))


@rule("SequenceErase")
def _erase(s: Scope, node: Node) -> bool:
    names = s.listed(node.inputs[0])
    at = -1 if len(node.inputs) < 2 or not node.inputs[1] else s.number(node.inputs[1])
    if not names or at is None:
        return False
    at += len(names) if at < 0 else 0
    return s.keep(node, Listed((*names[:at], *names[at + 1 :])))


@rule("SequenceAt")
def _at(s: Scope, node: Node) -> bool:
    known, at, output = s.known.get(node.inputs[0]), s.number(node.inputs[1]), node.outputs[0]
    if isinstance(known, Listed) and known.rows is not None and at is None:
        known = known.rows
    if isinstance(known, Rows):
        index = s.emit("Reshape", [node.inputs[1], s.constant(np.asarray([1] if known.kept else [], np.int64), f"{output}/shape")], f"{output}/index")
        s.emit("Gather", [known.tensor, index], "", {"axis": known.axis}, to=output)
        return True
    if isinstance(known, Chunks):
        _chunk(s, known, node.inputs[1], output)
        return True
    if known is None:
        return False
    if at is not None:
        return -len(known.names) <= at < len(known.names) and s.copy(node, known.names[at])
    # Which of them is known only at run time: they are stacked, where they are of one shape.
    shapes = {s.shape(name) for name in known.names}
    shape = next(iter(shapes), None)
    if len(shapes) != 1 or shape is None or not s.fixed(shape):
        return False
    index = s.emit("Reshape", [node.inputs[1], s.constant(np.zeros(0, np.int64), f"{output}/shape")], f"{output}/index")
    s.emit("Gather", [s.stacked(known.names, 0, output), index], "", {"axis": 0}, to=output)
    return True


def _chunk(s: Scope, known: Chunks, which: str, output: str) -> None:
    """One of the stretches, counted from the end where the number is negative."""
    at, size = (s.emit("Reshape", [which, s.vector(1, output)], f"{output}/at"), s.emit("Reshape", [known.size, s.vector(1, output)], f"{output}/size"))
    from_end = s.emit("Add", [at, _chunk_count(s, known, output)], f"{output}/from_end")
    at = s.emit("Where", [s.emit("Less", [at, s.vector(0, output)], f"{output}/back"), from_end, at], f"{output}/number")
    begin = s.emit("Mul", [at, size], f"{output}/begin")
    end = s.emit("Add", [begin, size], f"{output}/end")
    s.emit("Slice", [known.tensor, begin, end, s.vector(known.axis, output)], "", to=output)


def _chunk_count(s: Scope, known: Chunks, hint: str) -> str:
    """How many stretches there are, a vector of length 1."""
    size = s.emit("Reshape", [known.size, s.vector(1, hint)], f"{hint}/size")
    length = s.emit("Shape", [known.tensor], f"{hint}/length", {"start": known.axis, "end": known.axis + 1})
    most = s.emit("Add", [length, s.emit("Sub", [size, s.vector(1, hint)], f"{hint}/rest")], f"{hint}/most")
    return s.emit("Div", [most, size], f"{hint}/count")


@rule("SequenceLength")
def _length(s: Scope, node: Node) -> bool:
    known, output = s.known.get(node.inputs[0]), node.outputs[0]
    if known is None:
        return False
    if isinstance(known, Listed):
        s.constants[output] = np.asarray(len(known.names), np.int64)
    elif isinstance(known, Chunks):
        s.emit("Squeeze", [_chunk_count(s, known, output)], "", to=output)
    else:
        shape = s.emit("Shape", [known.tensor], f"{output}/shape")
        s.emit("Gather", [shape, s.constant(np.asarray(known.axis, np.int64), f"{output}/axis")], "", {"axis": 0}, output)
    return True


@rule("SplitToSequence")
def _split(s: Scope, node: Node) -> bool:
    x, output, shape = node.inputs[0], node.outputs[0], s.shape(node.inputs[0])
    if shape is None:
        return False
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    size, alone = shape[axis], len(node.inputs) < 2 or not node.inputs[1]
    kept = bool(node.attributes.get("keepdims", 1)) or not alone
    given = None if alone else s.array(node.inputs[1])
    parts: list[int | None]
    if alone:
        if not isinstance(size, int) or size > _MOST_PARTS:
            return s.keep(node, Rows(x, axis, kept))
        parts = [1] * size
    elif given is None and s.shape(node.inputs[1]) == ():
        return s.keep(node, Chunks(x, axis, s.whole(node.inputs[1], output)))
    elif given is None:
        lengths = s.shape(node.inputs[1])
        if lengths is None or not isinstance(lengths[0], int) or not 0 < lengths[0] <= _MOST_PARTS:
            return False
        parts = [None] * lengths[0]
    elif given.ndim:
        parts = [int(v) for v in given]
    elif isinstance(size, int) and size <= _MOST_PARTS * int(given):
        each = int(given)
        parts = [min(each, size - begin) for begin in range(0, size, each)]
    else:
        return s.keep(node, Chunks(x, axis, s.whole(node.inputs[1], output)))
    names = tuple(s.fresh(f"{output}/{k}") for k in range(len(parts)))
    s.made.update(names)
    dtype = s.type(x).dtype
    s.copied.update((name, TensorType(dtype, (*shape[:axis], part, *shape[axis + 1 :]))) for name, part in zip(names, parts, strict=True))
    if len(parts) == 1:
        s.emit("Identity", [x], "", to=names[0])
    elif parts:
        split = node.inputs[1] if None in parts else s.constant(np.asarray(parts, np.int64), f"{output}/split")
        s.nodes.append(Node("Split", (x, split), names, {"axis": axis}))
    if not kept:
        axes = s.constant(np.asarray([axis], np.int64), f"{output}/axes")
        names = tuple(s.emit("Squeeze", [name, axes], f"{name}/element") for name in names)
        s.copied.update((name, TensorType(dtype, (*shape[:axis], *shape[axis + 1 :]))) for name in names)
    return s.keep(node, Listed(names, Rows(x, axis, kept) if alone else None))


@rule("ConcatFromSequence")
def _concat(s: Scope, node: Node) -> bool:
    known, output, axis = s.known.get(node.inputs[0]), node.outputs[0], int(node.attributes["axis"])
    new = bool(node.attributes.get("new_axis", 0))
    if isinstance(known, Rows):
        return _joined_rows(s, known, axis, new, output)
    if isinstance(known, Chunks):
        return _joined_chunks(s, known, axis, new, output)
    if known is None or not known.names:
        return False
    if new:
        rank = len(s.shape(known.names[0]) or ()) if s.shape(known.names[0]) is not None else None
        if axis < 0 and rank is None:
            return False
        s.stacked(known.names, axis + (rank or 0) + 1 if axis < 0 else axis, output, to=output)
    else:
        s.emit("Concat", known.names, "", {"axis": axis}, to=output)
    return True


def _joined_rows(s: Scope, rows: Rows, axis: int, new: bool, output: str) -> bool:
    shape = s.shape(rows.tensor)
    if shape is None:
        return False
    x, place = rows.tensor, rows.axis
    element: list[Dim] = [*shape[:place], *([1] if rows.kept else []), *shape[place + 1 :]]
    if rows.kept:
        if not new and axis % len(element) == place:
            s.emit("Identity", [x], "", to=output)
            return True
        x = s.emit("Unsqueeze", [x, s.constant(np.asarray([place + 1], np.int64), f"{output}/axes")], f"{output}/apart")
    axis %= len(element) + new
    # [.., n, ..] with the axis of the elements where they are stacked
    order = [k for k in range(len(element) + 1) if k != place]
    order.insert(axis, place)
    if new:
        s.emit("Transpose", [x], "", {"perm": order}, to=output)
        return True
    after = element[axis + 1 :]
    if not all(isinstance(d, int) for d in after) or 0 in after:
        return False
    # [.., n, d, ..] -> [.., n d, ..]
    stack = s.emit("Transpose", [x], f"{output}/stack", {"perm": order})
    s.emit("Reshape", [stack, s.constant(np.asarray([*([0] * axis), -1, *after], np.int64), f"{output}/shape")], "", to=output)
    return True


def _joined_chunks(s: Scope, known: Chunks, axis: int, new: bool, output: str) -> bool:
    shape = s.shape(known.tensor)
    if shape is None:
        return False
    axis %= len(shape) + new
    if not new:
        if axis == known.axis:
            s.emit("Identity", [known.tensor], "", to=output)
        return axis == known.axis
    # Stacked, which only runs where all are of one length: [.., n c, ..] -> [.., n, c, ..] -> n where it is wanted
    size = s.emit("Reshape", [known.size, s.vector(1, output)], f"{output}/size")
    before = s.emit("Shape", [known.tensor], f"{output}/before", {"start": 0, "end": known.axis})
    after = s.emit("Shape", [known.tensor], f"{output}/after", {"start": known.axis + 1})
    apart = s.emit("Concat", [before, s.vector(-1, output), size, after], f"{output}/apart", {"axis": 0})
    split = s.emit("Reshape", [known.tensor, apart], f"{output}/split")
    order = [k for k in range(len(shape) + 1) if k != known.axis]
    order.insert(axis, known.axis)
    s.emit("Transpose", [split], "", {"perm": order}, to=output)
    return True


@rule("Optional")
def _optional(s: Scope, node: Node) -> bool:
    return s.keep(node, Listed(tuple(i for i in node.inputs if i)))


@rule("OptionalHasElement")
def _has_element(s: Scope, node: Node) -> bool:
    source = node.inputs[0] if node.inputs else ""
    if source and s.type(source).container == "optional" and s.listed(source) is None:
        return False
    held = s.listed(source) if s.type(source).container == "optional" else (source,) if source else ()
    s.constants[node.outputs[0]] = np.asarray(bool(held))
    return True


@rule("OptionalGetElement")
def _get_element(s: Scope, node: Node) -> bool:
    source = node.inputs[0]
    if s.type(source).container != "optional":
        return s.copy(node, source)
    held = s.listed(source)
    return bool(held) and held is not None and s.copy(node, held[0])
