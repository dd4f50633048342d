"""A layer of a model as a function of chosen tensors: parameters and inner values become inputs that can be moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netsens.errors import InputError, NoPathError
from netsens.graph.emit import Builder
from netsens.graph.graph import Array, Graph, free_name, pruned, shape_text
from netsens.graph.names import find_layer
from netsens.graph.shapes import constant_type
from netsens.modes.activity import carries
from netsens.modes.gradient import output_named
from netsens.modes.target import Target, parse_target, select


def chosen_layer(graph: Graph, of: str | None) -> str:
    """The layer that `of` names, which has to hold floating point numbers."""
    layer = find_layer(graph, of)
    if not carries(graph.types.get(layer)):
        raise NoPathError(f"'{layer}' holds no floating point numbers, so it has no gradient; choose another layer with --of.")
    return layer


def function_graph(graph: Graph, layer: str, target: Target = None) -> Graph:
    """The graph whose one output is the layer, or the components of it that `target` chooses."""
    op = Builder(graph.copy())
    y = op.value(layer)
    if target is not None:
        y = select(op, y, parse_target(target))
    # An output of its own, even where the layer is an input.
    return pruned(op.graph, [output_named(op, y, op.fresh_name(f"value/{layer}"))])


def opened(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with these values as inputs of their own: parameters are no longer constant, inner values are cut from what computes them."""
    result = graph.copy()
    cut: dict[str, str] = {}
    taken = graph.names()
    for name in names:
        if name in result.inputs:
            continue
        if name in result.constants:
            result.types.setdefault(name, constant_type(result.constants[name]))
            del result.constants[name]
            result.parameters = [p for p in result.parameters if p != name]
        else:
            cut[name] = new = free_name(f"{name}~computed", taken)
            if name in result.types:
                result.types[new] = result.types[name]
        result.inputs.append(name)
    if cut:
        result.nodes = [replace(n, outputs=tuple(cut.get(o, o) for o in n.outputs)) for n in result.nodes]
    return pruned(result)


def groups(graph: Graph, names: Sequence[str]) -> list[list[str]]:
    """The tensors that may be opened together: inputs and parameters at once, each inner value alone, since opening it cuts it from the others."""
    leaves = [n for n in names if n in graph.inputs or n in graph.constants]
    inner = [[n] for n in names if n not in graph.inputs and n not in graph.constants]
    return ([leaves] if leaves else []) + inner


@dataclass(frozen=True, slots=True)
class Weights:
    """The number that is differentiated: the sum of the function's values, each times its weight (None: all are one)."""

    values: Array | None = None

    def of(self, y: Array) -> float:
        wide = np.asarray(y).astype(np.float64)
        return float(wide.sum() if self.values is None else np.vdot(self.values.astype(np.float64), wide))

    def size(self, y: Array) -> float:
        """How large the terms of the sum are, as the root of the sum of their squares."""
        wide = np.asarray(y).astype(np.float64).reshape(-1)
        return float(np.linalg.norm(wide if self.values is None else wide * self.values.astype(np.float64).reshape(-1)))


class Line:
    """How the number changes along a line: called with how far, it gives the change. Values that the move does not touch cancel exactly, so that
    large ones beside a small change cost it no digits. `noise` is how far rounding may move the change, as a standard deviation."""

    def __init__(self, values: Callable[[float], Array], middle: Array, weights: Weights, epsilon: float) -> None:
        self._values = values
        self._middle = np.asarray(middle).astype(np.float64)
        self._weights = weights
        self._epsilon = epsilon
        self._moved = np.zeros(self._middle.shape, bool)

    def __call__(self, distance: float) -> float:
        y = np.asarray(self._values(distance)).astype(np.float64)
        if y.shape != self._middle.shape:  # what is found in the input decides how much comes out: no difference can be taken across that
            return math.nan
        moved = y != self._middle
        self._moved |= moved
        return self._weights.of(np.subtract(y, self._middle, out=np.zeros_like(y), where=moved))

    @property
    def noise(self) -> float:
        # A value that was moved has rounding from every operator behind it; one that was not may hide a change of half its last digit.
        return self._epsilon * self._weights.size(np.where(self._moved, 4 * self._middle, self._middle / 2))


def fitted_cotangent(cotangent: object, layer: str, shape: Sequence[int]) -> Array:
    """The cotangent as an array of the layer's shape; it may be given by the layer's name."""
    if isinstance(cotangent, Mapping):
        if list(cotangent) != [layer]:
            raise InputError(f"The cotangent is for '{layer}', and {', '.join(map(repr, cotangent))} was given.")
        cotangent = cotangent[layer]
    array: Array = np.asarray(cotangent)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise InputError(f"The cotangent of '{layer}' holds {array.dtype} numbers, and floating point numbers are wanted.")
    if array.shape != tuple(shape):
        raise InputError(f"The cotangent has shape {shape_text(array.shape, '()')}, and '{layer}' has {shape_text(shape, '()')}; they must be the same.")
    return array
