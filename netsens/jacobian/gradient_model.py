"""The gradient graph as a model that is given away: names that a reader can rely on, and standard operators alone."""

from __future__ import annotations

from netsens.errors import RuleError
from netsens.graph.graph import Graph
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
