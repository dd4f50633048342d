"""A gradient that keeps the batch: each sample's own, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from netsens.errors import UsageError
from netsens.graph.graph import Array
from netsens.modes.target import Target
from netsens.run.plans import Plans

Gradient = Callable[[dict[str, Array], Target, Any], dict[str, Array]]  # at these inputs, of a target, with a cotangent


def per_sample(
    plans: Plans, gradient: Gradient, feeds: dict[str, Array], wrt: str | Sequence[str], of: str | None, target: Target, cotangent: Any, method: str,
    memory_limit: int | None,
) -> dict[str, Array]:  # fmt: skip
    """The gradient by each tensor of `wrt`, a parameter's with the batch as its first axis. A model whose batch has any length is fed one sample at a time;
    of one whose batch is fixed, all samples but one are given a cotangent of zero."""
    sizes = {array.shape[0] for array in feeds.values() if array.ndim}
    if len(sizes) != 1:
        raise UsageError("--per-sample needs inputs that share their first axis, the batch.")
    (count,) = sizes
    constants = plans.model.graph.constants
    if method == "finite-difference":
        from netsens.graph.names import find_layer

        layer = find_layer(plans.model.graph, of)
    else:
        known = plans.plan(feeds, wrt=wrt, of=of, target=target, cotangent=target is None, method=method)
        if memory_limit is not None:
            plans.check_memory(known, feeds, count, memory_limit)
        layer = known.of
    dynamic = all(not isinstance((t.shape or (None,))[0], int) for t in plans.model.inputs.values() if t.shape != ())
    y = plans.value(layer, feeds) if not dynamic or cotangent is not None else None
    rows = []
    for k in range(count):
        if dynamic:
            alone = {name: array[k : k + 1] if array.ndim else array for name, array in feeds.items()}
            rows.append(gradient(alone, target, None if cotangent is None else np.asarray(cotangent)[k : k + 1]))
            continue
        if target is not None:
            raise UsageError("The model's batch size is fixed: --per-sample then takes a --cotangent, not a --target.")
        assert y is not None
        mask = np.zeros_like(y)
        mask[k] = 1 if cotangent is None else np.asarray(cotangent)[k]
        rows.append(gradient(feeds, None, mask))
    if not rows:
        whole = gradient(feeds, target, cotangent)
        return {name: np.zeros((0, *g.shape), g.dtype) if name in constants else g for name, g in whole.items()}
    result: dict[str, Array] = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        result[name] = np.stack(parts) if name in constants else np.concatenate(parts) if dynamic else np.sum(parts, axis=0)
    return result
