"""Derivatives of Loop and Scan. Forward: the same loop, which carries the tangents of its states beside them. Reverse: the loop once more, which
writes down the states it passes, then a loop over the iterations from the last to the first, which carries the states' cotangents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import BOOL, INT64, numpy_dtype
from netsens.graph.emit import Builder, Value
from netsens.graph.graph import Dim, Graph, Node, TensorType
from netsens.graph.sizes import symbols_of
from netsens.modes.activity import active_inside, carries
from netsens.modes.control import captured_tangents, copied, derivative_type, finished, output_names, result, seeded
from netsens.modes.forward import SUBGRAPH_JVPS, push
from netsens.modes.reverse import SUBGRAPH_VJPS, pull
from netsens.modes.summed_product import SummedProduct, summed_product


@dataclass(frozen=True, slots=True)
class State:
    """A value that each iteration hands to the next: what it is at first (outside), and its names in the body before and after."""

    initial: str
    before: str
    after: str
    asked: bool  # whether its last value is an output


@dataclass(frozen=True, slots=True)
class Stream:
    """A tensor of which each iteration reads or writes one slice."""

    outside: str
    inside: str
    axis: int = 0
    backward: int = 0  # 1: from the last slice to the first


@dataclass(frozen=True, slots=True)
class Iteration:
    """The parts of a Loop or Scan node over (a copy of) its body. A Loop's `limits` are its trip count and condition, `counters` the
    iteration's number and condition in the body, and `again` the condition after it; a Scan has none of these."""

    kind: str
    limits: tuple[str, ...]
    counters: tuple[str, ...]
    again: str
    states: tuple[State, ...]
    reads: tuple[Stream, ...]
    writes: tuple[Stream, ...]


def iteration_of(node: Node, body: Graph) -> Iteration:
    """The node's parts, by the names in `body`."""
    lead = 2 if node.op == "Loop" else 0
    outer = list(node.inputs[lead:])
    count = len(outer) - int(node.attributes.get("num_scan_inputs", 0))
    inner, after = body.inputs[lead:], body.outputs[lead // 2 :]
    results = [*node.outputs, *[""] * (len(after) - len(node.outputs))]
    states = tuple(State(x, i, o, bool(y)) for x, i, o, y in zip(outer[:count], inner, after, results, strict=False))

    def streams(kind: str, outside: Sequence[str], inside: Sequence[str]) -> tuple[Stream, ...]:
        axes = node.attributes.get(f"scan_{kind}_axes") or [0] * len(outside)
        directions = node.attributes.get(f"scan_{kind}_directions") or [0] * len(outside)
        return tuple(Stream(*parts) for parts in zip(outside, inside, axes, directions, strict=True))

    reads = streams("input", outer[count:], inner[count:])
    writes = streams("output", results[count:], after[count:])
    return Iteration(node.op, node.inputs[:lead], tuple(body.inputs[:lead]), body.outputs[0] if lead else "", states, reads, writes)


def emit_iteration(op: Builder, body: Builder, parts: Iteration) -> tuple[list[str], list[str]]:
    """Emits the loop without what nothing asked for depends on. The names of the asked states' last values, and of what was written
    (`Stream.outside` of a write is not looked at)."""
    states = _live_states(body, parts)
    used = _needed(body.graph, [s.after for s in states] + [w.inside for w in parts.writes] + [parts.again])
    reads = [r for r in parts.reads if r.inside in used] or list(parts.reads[:1])
    counters = list(parts.counters)
    outputs = [*([parts.again] if parts.again else []), *(s.after for s in states), *(w.inside for w in parts.writes)]
    graph = finished(body, [body.value(o) for o in outputs], [*counters, *(s.before for s in states), *(r.inside for r in reads)])
    attributes: dict[str, object] = {"body": graph}
    if parts.kind == "Scan":
        attributes["num_scan_inputs"] = len(reads)
        for kind, streams in (("input", reads), ("output", parts.writes)):
            if any(s.axis for s in streams):
                attributes[f"scan_{kind}_axes"] = [s.axis for s in streams]
            if any(s.backward for s in streams):
                attributes[f"scan_{kind}_directions"] = [s.backward for s in streams]
    length: Dim = op.value(reads[0].outside).shape[reads[0].axis] if parts.kind == "Scan" else None
    symbols = outer_symbols(op)
    types = [_outside(body.value(s.before).type, symbols) for s in states]
    types += [_with_axis(_outside(body.value(w.inside).type, symbols), w.axis, length) for w in parts.writes]
    fresh = tuple(op.fresh(parts.kind.lower()) for _ in types)
    inputs = (*parts.limits, *(s.initial for s in states), *(r.outside for r in reads))
    op.add(Node(parts.kind, inputs, fresh, attributes), types)
    return [name for name, s in zip(fresh, states, strict=False) if s.asked], list(fresh[len(states) :])


def _with_axis(type_: TensorType, axis: int, length: Dim) -> TensorType:
    if type_.shape is None:
        return TensorType(type_.dtype)
    at = axis % (len(type_.shape) + 1)
    return TensorType(type_.dtype, (*type_.shape[:at], length, *type_.shape[at:]))


def outer_symbols(op: Builder) -> set[str]:
    """The symbols of dimensions outside a loop: those that mean the same in each iteration."""
    scope: Builder | None = op
    dims: set[Dim] = set()
    while scope is not None:
        for type_ in scope.graph.types.values():
            dims.update(type_.shape or ())
        scope = scope.parent
    return {symbol for dim in dims if isinstance(dim, str) for symbol in symbols_of(dim)}


def _same_in_each(dim: Dim, symbols: set[str]) -> bool:
    return isinstance(dim, int) or (isinstance(dim, str) and symbols_of(dim) <= symbols)


def keeps_its_shape(type_: TensorType, symbols: set[str]) -> bool:
    """Whether every iteration surely sees this type in one shape, so that its values can be stacked."""
    return type_.shape is not None and all(_same_in_each(d, symbols) for d in type_.shape)


def _outside(type_: TensorType, symbols: set[str]) -> TensorType:
    """A body's type as it is seen outside, where lengths of one iteration mean nothing."""
    if type_.shape is None:
        return type_
    return replace(type_, shape=tuple(d if _same_in_each(d, symbols) else None for d in type_.shape))


def _needed(graph: Graph, outputs: Iterable[str]) -> set[str]:
    """Every value that these outputs of a subgraph need, themselves included."""
    needed = {o for o in outputs if o}
    for node in reversed(graph.nodes):
        if any(o in needed for o in node.outputs):
            needed.update(node.reads())
    return needed


def _live_states(body: Builder, parts: Iteration) -> list[State]:
    live = {s.before for s in parts.states if s.asked}
    while True:
        needed = _needed(body.graph, [parts.again, *(w.inside for w in parts.writes), *(s.after for s in parts.states if s.before in live)])
        found = {s.before for s in parts.states if s.before in needed} | live
        if found == live:
            return [s for s in parts.states if s.before in live]
        live = found


def _no_containers(body: Builder, node: Node, names: Iterable[str]) -> None:
    for name in names:
        if body.value(name).type.container:
            raise UnsupportedError(
                f"{node.label} carries the {body.value(name).type.container} '{name}' from one iteration to the next, and derivatives through it are not "
                "supported; carry a tensor instead, or use --method finite-difference."
            )


# Forward -----------------------------------------------------------------------------------------------------------------


def push_iteration(op: Builder, node: Node, known: Mapping[str, Value]) -> list[Value | None]:
    """The loop with the tangents of its states carried beside them."""
    body = copied(op, node.attributes["body"])
    parts = iteration_of(node, body.graph)
    lead = 1 if node.op == "Loop" else 0
    moving = active_inside(body.graph, set(known), node.inputs[2 * lead :], len(parts.states), lead)
    linear = any(t.linear for t in known.values())
    nodes = list(body.graph.nodes)
    tangents = captured_tangents(body, known)
    carried = [s for s in parts.states if s.before in moving]
    _no_containers(body, node, [s.before for s in carried])
    fed = [r for r in parts.reads if r.outside in known]
    for name in [*(s.before for s in carried), *(r.inside for r in fed)]:
        primal = body.value(name)
        tangents[name] = body.input(body.fresh("tangent"), primal.type, linear, primal)
    befores = {name: t.name for name, t in tangents.items()}
    found = push(body, nodes, tangents)

    def tangent(name: str) -> str:
        return (found[name] if name in found else body.zeros_like(body.value(name))).name

    def initial(name: str) -> str:
        return (known[name] if name in known else op.zeros_like(op.value(name))).name

    states = [replace(s, asked=False) for s in parts.states]
    states += [State(initial(s.initial), befores[s.before], tangent(s.after), s.asked) for s in carried]
    written = [w for w in parts.writes if w.outside and w.inside in found]
    writes = tuple(replace(w, inside=found[w.inside].name) for w in written)
    reads = parts.reads + tuple(replace(r, outside=known[r.outside].name, inside=befores[r.inside]) for r in fed)
    finals, slices = emit_iteration(op, body, replace(parts, states=tuple(states), reads=reads, writes=writes))
    at = {s.before: name for s, name in zip([s for s in carried if s.asked], finals, strict=True)}
    at.update({w.outside: name for w, name in zip(written, slices, strict=True)})
    answer: list[Value | None] = []
    for key, y in zip([*(s.before for s in parts.states), *(w.outside for w in parts.writes)], node.outputs, strict=False):
        answer.append(result(op, at[key], y, linear) if y and key in at else None)
    return answer


# Reverse -----------------------------------------------------------------------------------------------------------------


def pull_iteration(op: Builder, node: Node, cotangents: Sequence[Value | None], active: set[str]) -> list[tuple[str, Value]]:
    """The loop over the iterations in reverse, which carries cotangents; cotangents of captured values are summed on the way."""
    body = copied(op, node.attributes["body"])
    parts = iteration_of(node, body.graph)
    lead = 1 if node.op == "Loop" else 0
    inside = active_inside(body.graph, active, node.inputs[2 * lead :], len(parts.states), lead)
    linear = any(g is not None and g.linear for g in cotangents)
    gs = [*cotangents, *[None] * (len(parts.states) + len(parts.writes) - len(cotangents))]
    last = {s.before: g for s, g in zip(parts.states, gs, strict=False) if g is not None}
    written = [(w, g) for w, g in zip(parts.writes, gs[len(parts.states) :], strict=True) if g is not None and w.inside in inside]
    carried = _receiving(body, parts, inside, set(last), [w.inside for w, _ in written])
    _no_containers(body, node, [s.before for s in carried])
    nodes = list(body.graph.nodes)

    def slot(like: str) -> Value:
        """A cotangent that comes into the body."""
        return body.input(body.fresh("cotangent"), derivative_type(body.value(like)), linear, body.value(like))

    befores = [slot(s.after) for s in carried]
    slices = [slot(w.inside) for w, _ in written]
    seeds = [*((s.after, g) for s, g in zip(carried, befores, strict=True)), *((w.inside, g) for (w, _), g in zip(written, slices, strict=True))]
    found = pull(body, nodes, seeded(body, seeds), inside)

    # What an iteration gives: the cotangents of the states before it, of what it read, and its share in those of captured values.
    states = []
    symbols = outer_symbols(op)
    for s, g in zip(carried, befores, strict=True):
        after = found[s.before] if s.before in found else _nothing(body, s, g, s.initial in active, symbols)
        initial = last[s.before] if s.before in last else op.zeros_like(op.value(_final(op, node, parts, s)))
        states.append(State(initial.name, g.name, after.name, s.initial in active))
    fed = [r for r in parts.reads if r.outside in active and r.inside in found]
    writes = [Stream("", found[r.inside].name, r.axis, 1 - r.backward) for r in fed]
    products: list[tuple[str, SummedProduct]] = []
    summed = []
    for name in body.graph.captured():
        if name in active and name in found:
            product = summed_product(body, found[name])
            if product is not None and all(keeps_its_shape(v.type, symbols) for v in (product.left, product.right)):
                products.append((name, product))
                writes += [Stream("", product.left.name), Stream("", product.right.name)]
                continue
            primal = body.value(name)
            before = body.input(body.fresh("sum"), derivative_type(primal), linear, primal)
            states.append(State(op.zeros_like(op.value(name)).name, before.name, body.Add(before, found[name]).name, True))
            summed.append(name)
    if not any(s.asked for s in states) and not writes:
        return []

    reverse = replace(parts, states=tuple(states), writes=tuple(writes), reads=(), limits=(), counters=(), again="")
    streams = [replace(w, outside=g.name, inside=t.name, backward=1 - w.backward) for (w, g), t in zip(written, slices, strict=True)]
    finals, got = (_reverse_loop if node.op == "Loop" else _reverse_scan)(op, node, body, parts, reverse, streams)

    pairs: list[tuple[str, Value]] = []
    names = [*(s.initial for s in carried if s.initial in active), *summed]
    pairs += [(name, result(op, g, name, linear)) for name, g in zip(names, finals, strict=True)]
    pairs += [(r.outside, result(op, g, r.outside, linear)) for r, g in zip(fed, got, strict=False)]
    stacked = iter(got[len(fed) :])
    for name, product in products:
        total = product.over(op, op.value(next(stacked)), op.value(next(stacked)), op.value(name))
        pairs.append((name, result(op, total.name, name, linear)))
    return pairs


def _nothing(body: Builder, state: State, cotangent: Value, first: bool, symbols: set[str]) -> Value:
    """The cotangent of a state that the iteration doesn't read: zeros of the shape that it had before. Where every iteration leaves it in one
    shape that is the shape of the cotangent that came, so that what it was before needn't be kept, nor have that shape at the start
    (unless `first`: its initial value is asked for)."""
    before, after = body.value(state.before), body.value(state.after)
    steady = keeps_its_shape(after.type, symbols) and (not first or before.type.shape == after.type.shape)
    return body.zeros_like(before if not steady else after if cotangent.linear else cotangent)


def _final(op: Builder, node: Node, parts: Iteration, state: State) -> str:
    """A value outside with the shape of the state's last value."""
    at = parts.states.index(state)
    if at < len(node.outputs) and node.outputs[at]:
        return node.outputs[at]
    return state.initial


def _receiving(body: Builder, parts: Iteration, inside: set[str], last: set[str], written: Sequence[str]) -> list[State]:
    """The states that a cotangent reaches in some iteration."""
    got = {s.before for s in parts.states if s.before in last and s.before in inside}
    while True:
        reached = {*written, *(s.after for s in parts.states if s.before in got)} & inside
        for node in reversed(body.graph.nodes):
            if any(o in reached for o in node.outputs):
                reached.update(name for name in node.reads() if name in inside)
        more = {s.before for s in parts.states if s.before in reached and carries(body.value(s.before).type)} | got
        if more == got:
            return [s for s in parts.states if s.before in got]
        got = more


@dataclass(frozen=True, slots=True)
class Passed:
    """What a loop passed, written down by the same loop run again: the `numbers` of its iterations; the states that keep their shape, stacked
    along a new first axis; and the others' elements one after the other, with their shapes. All by the states' places."""

    numbers: str
    stacks: dict[int, str]
    packs: dict[int, tuple[str, str]]


def _passed(op: Builder, node: Node, wanted: Sequence[int], count: bool) -> Passed:
    """The states before each iteration; with `count`, the numbers of the iterations that ran, too."""
    body = copied(op, node.attributes["body"])
    parts = iteration_of(node, body.graph)
    symbols = outer_symbols(op)
    states = [replace(s, asked=False) for s in parts.states]
    kept, packed, shapes = [], [], []
    for k in wanted:
        before = body.value(parts.states[k].before)
        # A Scan's states keep their shapes by definition.
        if node.op == "Scan" or keeps_its_shape(before.type, symbols):
            kept.append(k)
            continue
        if before.type.shape is None:
            raise UnsupportedError(
                f"{node.label} carries '{before.name}', whose number of dimensions isn't known or changes from one iteration to the next; its gradient needs "
                "that number to stay. Differentiate in forward mode, or use --method finite-difference."
            )
        packed.append(k)
        shapes.append(body.Shape(before))
        first = op.constant(np.zeros(0, numpy_dtype(before.dtype)))
        now = body.input(body.fresh("pack"), TensorType(before.dtype, (None,)))
        states.append(State(first.name, now.name, body.Concat(now, body.Reshape(before, [-1]), axis=0).name, True))
    numbers = [body.value(parts.counters[0])] if count else []
    writes = tuple(Stream("", name) for name in output_names(body, [*numbers, *(body.value(parts.states[k].before) for k in kept), *shapes]))
    finals, stacks = emit_iteration(op, body, replace(parts, states=tuple(states), writes=writes))
    start = len(numbers)
    stacked = dict(zip(kept, stacks[start:], strict=False))
    return Passed(stacks[0] if count else "", stacked, dict(zip(packed, zip(finals, stacks[start + len(kept) :], strict=True), strict=True)))


def _used_states(body: Builder, parts: Iteration, reverse: Iteration) -> list[int]:
    """Which of the primal states the reverse body reads."""
    needed = _needed(body.graph, [*(s.after for s in reverse.states), *(w.inside for w in reverse.writes)])
    return [k for k, s in enumerate(parts.states) if s.before in needed]


def _reverse_scan(op: Builder, node: Node, body: Builder, parts: Iteration, reverse: Iteration, streams: list[Stream]) -> tuple[list[str], list[str]]:
    used = _used_states(body, parts, reverse)
    passed = _passed(op, node, used, False).stacks if used else {}
    reads = [replace(r, backward=1 - r.backward) for r in parts.reads]
    reads += [Stream(stack, parts.states[k].before, 0, 1) for k, stack in passed.items()]
    return emit_iteration(op, body, replace(reverse, reads=(*reads, *streams)))


def _reverse_loop(op: Builder, node: Node, body: Builder, parts: Iteration, reverse: Iteration, streams: list[Stream]) -> tuple[list[str], list[str]]:
    passed = _passed(op, node, _used_states(body, parts, reverse), True)
    trips = op.Squeeze(op.Shape(op.value(passed.numbers), start=0, end=1), [0])
    final = op.Sub(trips, op.constant(np.asarray(1, np.int64)))

    counter = body.input(body.fresh("counter"), TensorType(INT64, ()))
    condition = body.input(body.fresh("condition"), TensorType(BOOL, ()))
    # The iteration's own values come first: its number, and the states it began with.
    rest, body.graph.nodes = body.graph.nodes, []
    at = body.Sub(final, counter)
    number, truth = parts.counters
    shape = body.value(number).type.shape
    body.add(Node("Unsqueeze", (at.name, body.constant([0]).name), (number,)) if shape else Node("Identity", (at.name,), (number,)), [TensorType(INT64, shape)])
    shape = body.value(truth).type.shape
    body.add(Node("Identity", (body.constant(np.ones(1 if shape else (), np.bool_)).name,), (truth,)), [TensorType(BOOL, shape or ())])
    for k, stack in passed.stacks.items():
        before = parts.states[k].before
        body.add(Node("Gather", (stack, at.name), (before,), {"axis": 0}), [body.value(before).type])
    for k, (pack, shapes) in passed.packs.items():
        # [T, rank] -> [T], where each state's elements end
        sizes = op.ReduceProd(op.value(shapes), [1], keepdims=0)
        ends = op.CumSum(sizes, op.constant(np.asarray(0, np.int64)))
        here = body.Unsqueeze(at, [0])
        start, end = body.Gather(body.value(op.Sub(ends, sizes).name), here, axis=0), body.Gather(body.value(ends.name), here, axis=0)
        elements = body.Slice(body.value(pack), start, end, [0])
        shape_here = body.Gather(body.value(shapes), at, axis=0)
        before = parts.states[k].before
        body.add(Node("Reshape", (elements.name, shape_here.name), (before,), {"allowzero": 1}), [body.value(before).type])
    for stream in streams:
        body.add(Node("Gather", (stream.outside, at.name), (stream.inside,), {"axis": 0}), [body.value(stream.inside).type])
    body.graph.nodes += rest
    again = output_names(body, [body.constant(np.asarray(True))])[0]
    return emit_iteration(op, body, replace(reverse, limits=(trips.name, ""), counters=(counter.name, condition.name), again=again))


for _name in ("Loop", "Scan"):
    SUBGRAPH_JVPS[_name] = push_iteration
    SUBGRAPH_VJPS[_name] = pull_iteration
