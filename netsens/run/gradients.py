"""The gradient at given inputs: which plan answers, what it is run on, and what is done where a result isn't finite."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.errors import InputError, NetsensWarning, RunError
from netsens.graph.graph import Array, TensorType
from netsens.run.feeds import fitted, symbol_lengths
from netsens.run.finite import all_finite
from netsens.run.parts import in_parts, rows_at_a_time
from netsens.run.plans import Plans

if TYPE_CHECKING:
    from netsens.jacobian.gradient_plan import GradientPlan
    from netsens.modes.target import Target


def gradient(
    plans: Plans, feeds: dict[str, Array], wrt: str | Sequence[str], of: str | None, target: Target, cotangent: Any, method: str, memory_limit: int | None, *,
    look_again: bool,
) -> dict[str, Array]:  # fmt: skip
    """The gradient by each tensor of `wrt`. With `look_again`, where it isn't finite though `of` is, it is computed once more past values that aren't finite
    and that the layer never reads; it stays as it was where that doesn't help."""
    question: dict[str, Any] = {"wrt": wrt, "of": of, "target": target, "cotangent": cotangent is not None, "method": method}
    plan = plans.for_shapes(feeds, **question) if memory_limit is None else plans.within(memory_limit, feeds, **question)
    for note in (*plan.notes, *plan.zeros.values()):
        warnings.warn(note, NetsensWarning, stacklevel=3)
    try:
        result = _run(plans, plan, feeds, cotangent)
    except RunError:
        if target is not None:  # how many components there are may depend on the inputs
            from netsens.modes.target import check_target, parse_target

            check_target(plans.value(plan.of, feeds).shape, parse_target(target))
        raise
    if not look_again or all_finite(result.values()) or not all_finite([plans.value(plan.of, feeds)]):
        return result
    again = _run(plans, plans.plan(feeds, finite_only=True, **question), feeds, cotangent)
    if not all_finite(again.values()):
        warnings.warn("The gradient holds NaN or infinity.", NetsensWarning, stacklevel=3)
        return result
    warnings.warn("Some inner values are not finite, and the layer does not read them: they are passed over.", NetsensWarning, stacklevel=3)
    return again


def _run(plans: Plans, plan: GradientPlan, feeds: Mapping[str, Array], cotangent: Any) -> dict[str, Array]:
    if any(not a.size for a in feeds.values()) and not plans.value(plan.of, feeds).size:
        # A sum over nothing. onnxruntime is not asked: some of its kernels don't take what has no elements.
        return {name: np.zeros_like(plans.value(name, feeds)) for name in (*plan.results, *plan.zeros)}
    given: dict[str, Any] = dict(feeds)
    if plan.cotangent is not None:
        given[plan.cotangent] = _imposed(plans, plan, feeds, cotangent)
    samples = plan.samples
    rows = None if samples is None else rows_at_a_time(samples, given, plans.options)
    result = _gradients(plans, plan, given) if samples is None or rows is None else in_parts(partial(_gradients, plans, plan), samples, given, rows)
    for name in plan.zeros:
        result[name] = np.zeros_like(plans.value(name, feeds))
    return result


def _gradients(plans: Plans, plan: GradientPlan, given: Mapping[str, Any]) -> dict[str, Array]:
    """What the plan's graph gives for these inputs, and this cotangent."""
    if not plan.results:
        return {}
    found = dict(zip(plan.graph.outputs, plans.session(id(plan), plan.graph, given, plan.limited).run(given), strict=True))
    return {w: np.asarray(found[o]) for w, o in plan.results.items()}


def _imposed(plans: Plans, plan: GradientPlan, feeds: Mapping[str, Array], cotangent: Any) -> Array:
    """The user's cotangent as an array of the layer's shape and dtype."""
    if isinstance(cotangent, Mapping):
        if list(cotangent) != [plan.of]:
            raise InputError(f"The cotangent is for '{plan.of}', and {', '.join(map(repr, cotangent))} was given.")
        cotangent = cotangent[plan.of]
    # A plan within a limit of memory may be one for parts of the batch.
    known = (None if plan.limited else plan.graph.types.get(plan.of)) or plans.model.graph.types.get(plan.of)
    lengths = symbol_lengths(plans.model.inputs, feeds)
    shape = tuple(lengths.get(d, d) if isinstance(d, str) else d for d in known.shape) if known and known.shape is not None else None
    if shape is None or not all(isinstance(d, int) for d in shape):
        shape = plans.value(plan.of, feeds).shape
    return fitted(f"cotangent of {plan.of}", cotangent, TensorType(known.dtype if known else 1, shape))
