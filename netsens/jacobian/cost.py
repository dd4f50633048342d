"""What one pass of a linear program costs: elements touched, bytes held, bytes of weights read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from netsens.graph.graph import Graph


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one direction: `work` in elements touched, `live` bytes held at the worst moment. `shared` are bytes of weights and residuals, which all the
    directions of a run read together."""

    work: float
    live: int
    shared: int


def cost_of(graph: Graph) -> Cost:
    """The cost of a graph that is linear in its seeds."""
    shared = 4 * sum(_size(graph, name) for name in {*graph.inputs, *graph.constants} if not name.startswith("grad/"))
    return Cost(_work(graph), _live(graph), shared)


def _work(graph: Graph) -> float:
    """What a run of the linear nodes touches, in elements; a product counts an eighth of its multiplications, as its kernels reach."""
    total = 0.0
    for node in graph.nodes:
        out = sum(_size(graph, o) for o in node.outputs if o)
        total += out
        if node.op in ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"):
            a, b = (_size(graph, i) for i in node.inputs[:2]) if len(node.inputs) > 1 else (1, 1)
            inner = (a * b / max(out, 1)) ** 0.5
            if node.op == "Conv":
                weights = _shape_of(graph, node.inputs[1])
                inner = prod(weights[1:])
            elif node.op == "ConvTranspose":
                weights = _shape_of(graph, node.inputs[1])
                inner = prod(weights[1:]) * a / max(out, 1)
            elif node.op in ("MatMul", "Gemm"):
                left = _shape_of(graph, node.inputs[0])
                inner = left[-2 if node.attributes.get("transA") else -1] if left else 1
            total += out * inner / 8
    return total


def _live(graph: Graph) -> int:
    """The bytes of one direction's values at the worst moment."""
    last = {name: k for k, node in enumerate(graph.nodes) for name in node.reads()}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    held = peak = 8 * sum(_size(graph, i) for i in graph.inputs if i.startswith("grad/"))
    for k, node in enumerate(graph.nodes):
        held += 4 * sum(_size(graph, o) for o in node.outputs if o)
        peak = max(peak, held)
        held -= 4 * sum(_size(graph, name) for name in {*node.reads(), *node.outputs} if last.get(name) == k and name not in graph.constants)
    return max(peak, 64)


def _size(graph: Graph, name: str) -> int:
    return prod(_shape_of(graph, name))


def _shape_of(graph: Graph, name: str) -> tuple[int, ...]:
    if name in graph.constants:
        return tuple(graph.constants[name].shape)
    found = graph.types.get(name)
    return tuple(d if isinstance(d, int) else 1 for d in (found.shape if found and found.shape else ()))
