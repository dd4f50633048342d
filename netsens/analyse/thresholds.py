"""Steps for finite differences of tree ensembles: a tree is constant between its splits, so a step that means something is told by how far they are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsens.analyse.evaluator import first_that_runs
from netsens.analyse.function import opened
from netsens.graph.graph import Array, Graph, Node, pruned
from netsens.modes.activity import depends
from netsens.run.runtime import RunOptions

ML = "ai.onnx.ml"
TREES = ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")


@dataclass(frozen=True, slots=True)
class Steps:
    """A step for each element of a tensor, and a sentence on where they come from."""

    values: Array
    sentence: str


def threshold_steps(graph: Graph, name: str, point: Array, layer: str, feeds: Mapping[str, Array], options: RunOptions) -> Steps | None:
    """Half the median gap between the thresholds of each feature, in the units of `name`; None where no tree ensemble lies between it and the layer.

    Where something elementwise (a scaler) stands before the trees, its slope at the point takes the gaps back through it; behind anything else all
    elements get one step, the median over features."""
    trees = [n for n in pruned(graph, [layer]).nodes if n.op in TREES and n.domain == ML and n.inputs[0] and _reads(graph, name, n.inputs[0])]
    if not trees:
        return None
    gaps = half_gaps(trees)
    if not gaps:
        return None
    usual = float(np.median(list(gaps.values())))
    source = trees[0].inputs[0]
    values = np.full(point.shape, usual)
    width = point.shape[-1] if point.ndim else 1
    if all(t.inputs[0] == source for t in trees) and max(gaps) < width:
        slope = _elementwise_slope(graph, name, source, point, feeds, options)
        if slope is not None:
            row = np.asarray([gaps.get(k, usual) for k in range(width)])
            values = np.broadcast_to(row, point.shape) / np.where(slope > 0, slope, 1.0)
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=0.0))
    size = f"{low:.3g}" if high <= low * (1 + 1e-6) else f"{low:.3g} to {high:.3g}"
    label = trees[0].label if len(trees) == 1 else f"{len(trees)} tree ensembles"
    return Steps(values, f"the step by '{name}' is half the median gap between the thresholds of {label}, feature by feature: {size}; --step sets another.")


def half_gaps(trees: list[Node]) -> dict[int, float]:
    """For each feature that is split on, half the median gap between its thresholds; the median of the others' where it has one threshold alone."""
    thresholds: dict[int, set[float]] = {}
    for tree in trees:
        for feature, threshold in splits(tree):
            thresholds.setdefault(feature, set()).add(threshold)
    gaps = {k: float(np.median(np.diff(sorted(found)))) / 2 for k, found in thresholds.items() if len(found) > 1}
    if not gaps:  # stumps: half the size of the one threshold, since nothing else is known
        return {k: abs(next(iter(found))) / 2 or 0.5 for k, found in thresholds.items()}
    usual = float(np.median(list(gaps.values())))
    return {k: gaps.get(k, usual) for k in thresholds}


def splits(tree: Node) -> list[tuple[int, float]]:
    """The features and thresholds of all inner nodes of an ensemble."""
    a: Mapping[str, Any] = tree.attributes
    features = [int(f) for f in a.get("nodes_featureids") or []]
    if tree.op == "TreeEnsemble":
        numbers = np.asarray(a["nodes_splits"], np.float64).reshape(-1)
        return list(zip(features, numbers.tolist(), strict=False))
    numbers = np.asarray(a["nodes_values_as_tensor"] if "nodes_values_as_tensor" in a else a.get("nodes_values") or [], np.float64).reshape(-1)
    modes = [m.decode() if isinstance(m, bytes) else m for m in a.get("nodes_modes") or []]
    return [(f, float(t)) for f, t, m in zip(features, numbers, modes, strict=False) if m != "LEAF"]


def _reads(graph: Graph, name: str, source: str) -> bool:
    return name == source or depends(graph, name, source)


def _elementwise_slope(graph: Graph, name: str, source: str, point: Array, feeds: Mapping[str, Array], options: RunOptions) -> Array | None:
    """How fast each element of the trees' input moves with the same element of the tensor; None where the one isn't an elementwise function of the other."""
    wide = point.astype(np.float64)
    if name == source:
        return np.ones_like(wide)
    part = opened(pruned(graph, [source]), [name])
    evaluator, (middle,) = first_that_runs(part, {**feeds, name: point}, options)
    if np.shape(middle) != point.shape or point.size == 0:
        return None
    step = 1e-3 * max(float(np.median(np.abs(wide))), 1e-3)
    (all_moved,) = evaluator({**feeds, name: wide + step})
    moved = np.asarray(all_moved, np.float64) - np.asarray(middle, np.float64)
    # An elementwise function moves one column by the same amount, whether the others move with it or not.
    for column in range(point.shape[-1]):
        alone = wide.copy()
        alone[..., column] += step
        (one_moved,) = evaluator({**feeds, name: alone})
        change = np.asarray(one_moved, np.float64) - np.asarray(middle, np.float64)
        others = np.delete(change, column, axis=-1)
        if others.any() or not np.allclose(change[..., column], moved[..., column], rtol=1e-3, atol=1e-6 * step):
            return None
    return np.abs(moved) / step
