"""The gradient graph as a model that is given away: names that a reader can rely on, and standard operators alone."""

from __future__ import annotations

from typing import Any

from netsens.errors import RuleError
from netsens.graph.dtypes import numpy_dtype
from netsens.graph.graph import Graph, TensorType
from netsens.graph.stock import plainly_spelled
from netsens.jacobian.gradient_plan import GradientPlan

COTANGENT = "cotangent"
STANDARD = ("", "ai.onnx", "ai.onnx.ml")


def gradient_graph(plan: GradientPlan) -> Graph:
    """The plan's graph, its imposed output gradient as the input `cotangent`."""
    graph = plan.graph if plan.cotangent is None else plan.graph.renamed({plan.cotangent: cotangent_name(plan)})
    return plainly_spelled(graph)


def cotangent_name(plan: GradientPlan) -> str:
    """`cotangent`, or the like of it where the model has a value of that name."""
    taken = plan.graph.names()
    name, k = COTANGENT, 1
    while name in taken:
        name = f"{COTANGENT}_{k}"
        k += 1
    return name


def described(plan: GradientPlan, graph: Graph, original: Graph) -> dict[str, Any]:
    """What the gradient model, `graph`, says of itself: its inputs and outputs with their types, which output holds which gradient, and what has none."""
    return {
        "of": plan.of,
        "inputs": {name: _type(graph.types.get(name)) for name in graph.inputs},
        "outputs": {name: _type(graph.types.get(name)) for name in graph.outputs},
        "gradients": plan.results,
        "of_type": _type(graph.types.get(plan.of) or original.types.get(plan.of)),
        "cotangent": None if plan.cotangent is None else cotangent_name(plan),
        "zeros": plan.zeros,
        "notes": plan.notes,
        "opset": graph.opset,
    }


def _type(type_: TensorType | None) -> dict[str, Any]:
    """A type as JSON has it: a symbolic dimension is its name, an unknown one null."""
    if type_ is None or not type_.dtype:
        return {"dtype": None, "shape": None}
    return {"dtype": numpy_dtype(type_.dtype).name, "shape": None if type_.shape is None else list(type_.shape)}


def check_standard(graph: Graph, original: Graph) -> None:
    """Raises `RuleError` where the gradient brings in an operator that neither the ONNX standard nor the user's model has."""
    own = _operators(original)
    strange = sorted(f"{d}.{o}" for d, o in _operators(graph) - own if d not in STANDARD)
    if strange:
        raise RuleError(f"The gradient model holds {', '.join(strange)}, which are not standard ONNX; this is a bug in netsens.")


def _operators(graph: Graph) -> set[tuple[str, str]]:
    found = {(n.domain, n.op) for n in graph.nodes}
    for node in graph.nodes:
        for _, inner in node.subgraphs():
            found |= _operators(inner)
    return found
