"""Splits a graph with a derivative in it into what doesn't depend on the seeds and what is linear in them, so that the first runs once
and the second as often as there are directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from netsens.graph.graph import Graph, TensorType, pruned
from netsens.graph.propagate import infer_types
from netsens.modes.gradient import Derivative


@dataclass(frozen=True, slots=True)
class LinearProgram:
    """`primal` computes, from the model's inputs, the values kept and the `residuals` that the linear part reads (those that are inputs
    themselves it leaves out). `linear` maps the `seeds` (by what they are tangents of) to the `results` (by name); its inputs are the
    residuals and the seeds."""

    primal: Graph
    linear: Graph
    residuals: tuple[str, ...]
    seeds: Mapping[str, str]
    results: Mapping[str, str]

    @property
    def whole(self) -> Graph:
        """Both halves as one graph, from the model's inputs and the seeds to the results."""
        return replace(
            self.linear, nodes=[*self.primal.nodes, *self.linear.nodes], inputs=list(dict.fromkeys([*self.primal.inputs, *self.seeds.values()])),
            constants={**self.primal.constants, **self.linear.constants},
        )  # fmt: skip


def split(derivative: Derivative, keep: Sequence[str] = ()) -> LinearProgram:
    """The two halves. `keep` are primal values that the first half gives out besides the residuals. Constants are shared by both halves, never
    copied."""
    graph = pruned(derivative.graph, list(dict.fromkeys([*keep, *derivative.results.values()])))
    seeds = set(derivative.seeds.values())
    moving = set(seeds)
    linear_nodes, primal_nodes = [], []
    for node in graph.nodes:
        if any(name in moving for name in node.reads()):
            moving.update(o for o in node.outputs if o)
            linear_nodes.append(node)
        else:
            primal_nodes.append(node)
    read: dict[str, None] = {}
    for node in linear_nodes:
        for name in node.reads():
            read[name] = None
    # A result may be a seed itself, or (a zero) not depend on one at all.
    results = list(dict.fromkeys(derivative.results.values()))
    read.update(dict.fromkeys(results))
    constants = {k: graph.constants[k] for k in read if k in graph.constants}
    made = {o for n in linear_nodes for o in n.outputs}
    residuals = tuple(name for name in read if name not in constants and name not in moving and name not in made)
    primal = replace(graph, nodes=primal_nodes, inputs=[i for i in graph.inputs if i not in seeds], outputs=[])
    given = {*primal.inputs, *graph.constants}
    primal = pruned(primal, [name for name in dict.fromkeys([*keep, *residuals]) if name not in given])
    used_seeds = dict(derivative.seeds)
    linear = replace(
        graph, nodes=linear_nodes, inputs=[*residuals, *dict.fromkeys(used_seeds.values())], outputs=results, constants=constants, parameters=[]
    )  # fmt: skip
    return LinearProgram(primal, linear, residuals, used_seeds, dict(derivative.results))


def specialised(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Graph:
    """The graph for inputs of exactly these shapes: every dimension that follows from them becomes a number."""
    types = dict(graph.types)
    changed = False
    for name in graph.inputs:
        old = types.get(name, TensorType(0))
        if name in shapes and old.shape != tuple(shapes[name]):
            types[name] = replace(old, shape=tuple(int(d) for d in shapes[name]))
            changed = True
    if not changed:
        return graph
    # What was inferred for symbols gives way to what follows from the numbers; only the inputs and the dtypes stay.
    inner = {o for n in graph.nodes for o in n.outputs if o}
    symbols = {d: v for name in graph.inputs if name in shapes
               for d, v in zip(graph.types[name].shape or (), shapes[name], strict=False) if isinstance(d, str)}  # fmt: skip
    for name in inner:
        inferred = types.get(name)
        if inferred is not None and inferred.shape is not None:
            types[name] = replace(inferred, shape=tuple(symbols.get(d, d) if isinstance(d, str) else d for d in inferred.shape))
    return infer_types(replace(graph, types=types))
