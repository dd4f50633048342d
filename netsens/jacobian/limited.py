"""A gradient within a limit of memory: what it takes, and as many segments computed again as it needs to take less."""

from __future__ import annotations

from dataclasses import replace

from netsens.errors import ToleranceError
from netsens.graph.graph import Graph
from netsens.jacobian.gradient_plan import GradientPlan
from netsens.jacobian.memory import readable
from netsens.modes.recompute import peak_bytes, recomputed

SEGMENTS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
# What onnxruntime holds beside the values alive: gaps in its arena, and a convolution's values in two layouts. Measured as the growth of the process over one run:
# BERT (8 x 128 tokens) 0.99 to 1.09 of the values alive; ResNet-50, VGG-16, MobileNetV2 and DenseNet-121 1.0 to 1.8, with segments computed again 1.6 to 2.7.
SLACK, CONVOLUTION_SLACK, AGAIN_SLACK = 1.1, 2.0, 3.0
FEW = 8  # segments of a model of convolutions: more gave nothing back


def taken(plan: GradientPlan, model: Graph) -> float:
    """How many bytes a plan is taken to need besides weights and inputs. `model` is the graph that it differentiates, for inputs of known shapes."""
    return peak_bytes(plan.graph) * (CONVOLUTION_SLACK if _convolves(model) else SLACK)


def _convolves(model: Graph) -> bool:
    return any(n.op == "Conv" for n in model.nodes)


def within(plan: GradientPlan, model: Graph, limit: int, held: int = 0) -> GradientPlan:
    """The plan, its graph rewritten to keep less and compute more again where it would take more than `limit` bytes besides weights and inputs, with `held` bytes that
    are kept of other parts of the batch. `model` is the graph that it differentiates, for inputs of known shapes. Raises `ToleranceError` where nothing gets below the
    limit."""
    convolutions = _convolves(model)
    whole = least = taken(plan, model) + held
    if whole <= limit:
        return plan
    forward = {o for n in model.nodes for o in n.outputs if o}
    for segments in SEGMENTS:
        if convolutions and segments > FEW:
            break
        graph = recomputed(plan.graph, forward, plan.cotangents, segments)
        again = peak_bytes(graph) * (AGAIN_SLACK if convolutions else SLACK) + held
        if again <= limit:
            return replace(plan, graph=graph, cotangents={})
        least = min(least, again)
    raise ToleranceError(
        f"The gradient takes about {readable(whole)} besides the weights{f', {readable(least)} with inner values computed again' if least < whole else ''}, and the memory"
        f" limit is {readable(limit)}; take a smaller batch, narrow --wrt, or raise --memory-limit."
    )
