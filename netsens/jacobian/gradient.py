"""The question that `grad` answers, and the graph that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import netsens.rules  # noqa: F401  # declares every operator
from netsens.errors import NoPathError, UsageError
from netsens.graph.dtypes import STRING
from netsens.graph.emit import Builder
from netsens.graph.graph import Graph, pruned
from netsens.graph.names import find_layer, find_wrt
from netsens.graph.selectors import is_group, selectors_of
from netsens.jacobian.gradient_plan import GradientPlan, Samples
from netsens.modes.activity import Cut, active_values, carries, cuts_between, leading_to, needed_for
from netsens.modes.difference import difference_rule
from netsens.modes.gradient import append_vjp, output_named
from netsens.modes.samplewise import batch_of
from netsens.modes.target import Target, keeps_rows, parse_target, select
from netsens.rules.words import rule_of


def plan_gradient(
    graph: Graph, *, of: str | None = None, wrt: str | Sequence[str] = "inputs", target: Target = None, cotangent: bool = False,
    keep_outputs: bool = False, method: str = "auto", finite_only: bool = False,
) -> GradientPlan:  # fmt: skip
    """The gradient graph of `of` by `wrt`; with `keep_outputs` the model's own outputs stay outputs. `method` "auto" finds the derivative of
    an operator without a rule by finite differences, "autodiff" refuses it. `finite_only` takes residuals that aren't finite for zero, which is
    exact where `of` itself is finite: it never reads them."""
    layer = find_layer(graph, of)
    if not carries(graph.types.get(layer)):
        raise NoPathError(f"'{layer}' holds no floating point numbers, so it has no gradient; choose another layer with --of.")
    selectors = selectors_of(wrt)
    chosen = find_wrt(graph, selectors)
    if not chosen:
        raise UsageError(f"The model has nothing that --wrt {' '.join(selectors)} could mean.")
    if target is not None and cotangent:
        raise UsageError("A target and a cotangent exclude each other: put zeros in the cotangent where the target would not look.")
    asked = chosen
    chosen, notes = float_stand_ins(graph, chosen, layer)
    if not chosen:
        names = ", ".join(repr(a) for a in asked[:4])
        passing = replace(graph, straight_through=True)
        if not graph.straight_through and any(first_floats(passing, a, layer) for a in asked):
            cut = next(n for n in graph.nodes if (rule := rule_of(n)) is not None and rule.quantizes)
            raise NoPathError(
                f"What is computed from {names} is rounded to quantised integers (first by {cut.label}) before it reaches '{layer}', and rounding has"
                " derivative zero; --quantized straight-through lets it pass."
            )
        raise NoPathError(f"No floating point numbers that reach '{layer}' are computed from {names}; choose others with --wrt.")
    reached, zeros, lost = paths(graph, chosen, layer, is_group(selectors))
    if lost:
        notes.append(lost)
    op = Builder(graph.copy())
    op.derivative.fallback = difference_rule if method == "auto" else None
    op.derivative.finite_only = finite_only
    y = op.value(layer)
    if target is not None:
        y = select(op, y, parse_target(target))
    derivative = append_vjp(op.graph, y.name, reached, ones=not cotangent, op=op)
    results = {w: output_named(op, op.value(v), op.fresh_name(f"gradient/{w}")) for w, v in derivative.results.items()}
    for name in reached:
        if name not in results:
            zeros[name] = f"The gradient by '{name}' is zero: what lies between it and '{layer}' rounds, or is constant piece by piece."
    notes += dictionary_note(graph, of, layer)
    if target is None and not cotangent:
        notes += constant_sum_note(graph, layer)
    notes += quantised_note(graph, reached)
    if op.derivative.differenced:
        labels = ", ".join(dict.fromkeys(node.label for node in op.derivative.differenced))
        notes.append(f"no exact rule for {labels}: its derivative is found by finite differences.")
    kept = [*(graph.outputs if keep_outputs else ()), *results.values()]
    seed = next(iter(derivative.seeds.values()), None)
    samples = None if keep_outputs or op.derivative.differenced else samples_of(graph, layer, target, list(results), seed)
    return GradientPlan(pruned(op.graph, list(dict.fromkeys(kept))), layer, results, zeros, notes, seed, samples, derivative.cotangents)


def samples_of(graph: Graph, layer: str, target: Target, wrt: Sequence[str], cotangent: str | None) -> Samples | None:
    """How the gradient of a batch is that of its samples; None where it may not be."""
    batch = batch_of(graph, layer)
    if batch is None or not keeps_rows(parse_target(target), len(graph.types[layer].shape or ())):
        return None
    if not all(w in batch.rows or w in batch.shared for w in wrt):
        return None
    cut = [name for name in graph.inputs if name in batch.rows]
    summed = [w for w in wrt if w in batch.shared]
    added = sum(graph.constants[w].nbytes for w in summed if w in graph.constants)
    return Samples([*cut, *([cotangent] if cotangent else [])], summed, batch.sample_bytes, added, batch.dense_bytes)


def dictionary_note(graph: Graph, of: str | None, layer: str) -> list[str]:
    """Where a list of dictionaries was asked for, that the tensor before it is taken."""
    made = [n.outputs[0] for n in graph.nodes if n.op == "ZipMap" and n.inputs[0] == layer]
    if not made or of == layer:
        return []
    return [f"'{made[0]}' holds dictionaries: the gradient is that of '{layer}', the tensor that they are made from."]


def constant_sum_note(graph: Graph, layer: str) -> list[str]:
    """A warning where the sum of the layer's components cannot move, so that its gradient is rounding alone."""
    producer = graph.producers().get(layer)
    if producer is None or producer.op != "Softmax" or producer.domain:
        return []
    return [
        f"the components of '{layer}' are a softmax, so their sum is constant and its gradient is zero up to rounding; choose some with --target, or what is before it with --of."
    ]


def quantised_note(graph: Graph, wrt: Sequence[str]) -> list[str]:
    """What was decided about rounding to quantised integers, where the derivative meets it."""
    active = active_values(graph, wrt)
    rounding = [n for n in graph.nodes if (rule := rule_of(n)) is not None and rule.quantizes and any(i in active for i in n.inputs)]
    if not rounding:
        return []
    how = "is passed straight through" if graph.straight_through else "has its true derivative, zero (--quantized straight-through lets it pass)"
    return [f"rounding to quantised integers ({len(rounding)} nodes) {how}."]


def stand_in_note(graph: Graph, name: str, behind: Sequence[str]) -> str:
    """Why other tensors stand in for one that the user asked for."""
    known = graph.types.get(name)
    kind = "text" if known is not None and known.dtype == STRING else "integers"
    return f"'{name}' holds {kind}: the gradient is taken at the first float tensor behind it, {', '.join(repr(b) for b in behind)}."


def float_stand_ins(graph: Graph, chosen: Sequence[str], of: str) -> tuple[list[str], list[str]]:
    """In place of each integer input the first float tensors behind it (the embedded tokens), and a note that says so."""
    result: dict[str, None] = {}
    notes = []
    for name in chosen:
        if carries(graph.types.get(name)):
            result[name] = None
            continue
        behind = first_floats(graph, name, of)
        if behind:
            notes.append(stand_in_note(graph, name, behind))
        elif name not in graph.inputs or len(chosen) == 1:
            raise NoPathError(f"'{name}' holds no floating point numbers, and none that reach '{of}' are computed from it alone.")
        result.update(dict.fromkeys(behind))
    return list(result), notes


def first_floats(graph: Graph, name: str, of: str) -> list[str]:
    """The first float tensors computed from an integer one that a derivative of `of` reaches."""
    integers, floats = {name}, []
    for node in graph.nodes:
        if not any(i in integers for i in node.reads()):
            continue
        for output in node.outputs:
            if not output:
                continue
            known = graph.types.get(output)
            if known is not None and carries(known) and known.dtype:
                floats.append(output)
            elif known is not None and known.dtype:
                integers.add(output)
    leading = leading_to(graph, of)
    return [f for f in floats if f in leading]


def paths(graph: Graph, chosen: Sequence[str], of: str, group: bool) -> tuple[list[str], dict[str, str], str]:
    """Which of the tensors have a derivative path to `of`; of the rest, why their gradient is zero; and a note on those passed over."""
    reached, zeros, detached = [], {}, []
    cuts: dict[str, list[Cut]] = {}
    leading, needed = leading_to(graph, of), needed_for(graph, of)
    for name in chosen:
        if name in leading:
            reached.append(name)
        elif name in needed:
            cuts[name] = cuts_between(graph, name, of)
        else:
            detached.append(name)
    if not reached and not any(c.piecewise for found in cuts.values() for c in found):
        if cuts:
            name, found = next(iter(cuts.items()))
            raise NoPathError(
                f"No derivative leads from '{name}' to '{of}': {found[0].node.label} cuts the path ({found[0].why}). "
                "--method finite-difference --step gives the sensitivity over a step."
            )
        raise NoPathError(f"'{of}' does not depend on {', '.join(repr(d) for d in detached[:4])}, so there is no gradient to compute.")
    for name, found in cuts.items():
        zeros[name] = f"The gradient by '{name}' is zero: {found[0].node.label} cuts the path to '{of}' ({found[0].why})."
    if group:
        note = (
            f"{len(detached)} tensors do not reach '{of}' and are left out ({', '.join(repr(d) for d in detached[:3])}{', ...' if len(detached) > 3 else ''})."
        )
        return reached, zeros, note if detached else ""
    for name in detached:
        zeros[name] = f"The gradient by '{name}' is zero: '{of}' does not depend on it."
    return reached, zeros, ""
