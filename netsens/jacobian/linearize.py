"""The derivative at a point as a linear map: the forward pass once, then any number of products with it, several directions at a time.

A `Linearizer` belongs to a graph and the shapes of its inputs and is built once; a `Linearization` is one of its points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np

import netsens.rules  # noqa: F401  # declares every operator
from netsens.errors import InputError, NoPathError, UsageError
from netsens.graph.dtypes import numpy_dtype
from netsens.graph.emit import Builder
from netsens.graph.graph import Array, Graph, shape_text
from netsens.graph.shapes import known
from netsens.jacobian.cost import Cost, cost_of
from netsens.jacobian.extras import scipy_module
from netsens.modes.activity import active_values, carries, leading_to
from netsens.modes.batch import batched
from netsens.modes.difference import difference_rule
from netsens.modes.gradient import append_jvp, append_vjp
from netsens.modes.pattern import Relation
from netsens.modes.split import LinearProgram, specialised, split
from netsens.modes.structure import structure

Shape = tuple[int, ...]


class Runner(Protocol):
    """A graph ready to run. Feeds are arrays, or values that a runner gave out before; values turn into arrays by `numpy()`."""

    def run_values(self, feeds: Mapping[str, Any]) -> dict[str, Any]: ...


Load = Callable[[Graph], Runner]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program that takes many directions, ready to run; by name of the result (of, or wrt), the output that holds it."""

    runner: Runner
    outputs: Mapping[str, str]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        found = self.runner.run_values(feeds)
        return {name: np.asarray(found[output].numpy()) for name, output in self.outputs.items()}


@dataclass(slots=True)
class Side:
    """One direction of the linear map: the program split in two, and what a pass of it costs. It is loaded when first run."""

    program: LinearProgram
    load: Load
    cost: Cost
    _primal: Runner | None = None
    _linear: Loaded | None = None
    _whole: Loaded | None = None

    def residuals(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """What the linear half reads, from one forward pass."""
        if not self.program.primal.outputs:
            return dict(feeds)
        if self._primal is None:
            self._primal = self.load(self.program.primal)
        return {**feeds, **self._primal.run_values(feeds)}

    def products(self, residuals: Mapping[str, Any], seeds: Mapping[str, Array]) -> dict[str, Array]:
        """The results for seeds with a leading axis of directions."""
        if self._linear is None:
            self._linear = self._loaded(self.program.linear)
        return self._linear.run({**residuals, **seeds})

    def at_once(self, feeds: Mapping[str, Array], seeds: Mapping[str, Array]) -> dict[str, Array]:
        """As `products`, with the forward pass in the same run: for seeds that are the only ones at this point."""
        if self._whole is None:
            self._whole = self._loaded(self.program.whole)
        return self._whole.run({**feeds, **seeds})

    def _loaded(self, graph: Graph) -> Loaded:
        together = batched(graph, list(self.program.seeds.values()))
        names = dict(zip(graph.outputs, together.outputs, strict=True))
        return Loaded(self.load(together), {name: names[value] for name, value in self.program.results.items()})


@dataclass(slots=True)
class Linearizer:
    """The derivative of `of` by `wrt` of a graph whose shapes are all numbers, as programs that are built when first needed."""

    graph: Graph
    of: tuple[str, ...]
    wrt: tuple[str, ...]
    load: Load
    fallback: bool = True
    symmetric: bool = False  # whether the Jacobian is: that of a gradient by the tensor itself
    differenced: list[str] = field(default_factory=list)
    _sides: dict[Any, Side] = field(default_factory=dict)
    _shapes: dict[str, Shape] = field(default_factory=dict)
    _relations: dict[tuple[str, str], Relation] | None = None
    _leading: dict[str, set[str]] = field(default_factory=dict)

    def shape(self, name: str) -> Shape:
        """The shape of a value of the graph."""
        if name not in self._shapes:
            found = self.graph.types[name].shape if name in self.graph.types else None
            if found is None or not known(found):
                raise UsageError(f"The shape of '{name}' depends on the input's values, so it has no Jacobian of a fixed shape; use grad or a vector product.")
            self._shapes[name] = tuple(int(d) for d in found if isinstance(d, int))
        return self._shapes[name]

    def dtype(self, name: str) -> Any:
        return numpy_dtype(self.graph.types[name].dtype)

    @property
    def relations(self) -> dict[tuple[str, str], Relation]:
        """How each `of` depends on each `wrt`; found once."""
        if self._relations is None:
            found = structure(self.graph, self.of, self.wrt)
            self._relations = {}
            for y in self.of:
                for w in self.wrt:
                    if self.reaches(w, y):
                        r = found.get((y, w))
                        same = r is not None and r.out == self.shape(y) and r.in_ == self.shape(w)
                        self._relations[y, w] = r if same and r is not None else Relation(self.shape(y), self.shape(w))
        return self._relations

    def reaches(self, wrt: str, of: str) -> bool:
        """Whether a path leads from the one to the other."""
        if of not in self._leading:
            self._leading[of] = leading_to(self.graph, of)
        return wrt in self._leading[of]

    def forward(self, wrt: Sequence[str] | None = None, of: Sequence[str] | None = None) -> Side:
        """The program that pushes tangents of some of `wrt`."""
        names, outs = tuple(wrt or self.wrt), tuple(of or self.of)
        key = ("forward", names, outs)
        if key not in self._sides:
            op = self._builder()
            self._sides[key] = self._side(split(append_jvp(op.graph, outs, names, op=op)))
            self._note(op)
        return self._sides[key]

    def reverse(self, of: str, wrt: Sequence[str] | None = None) -> Side:
        """The program that pulls cotangents of one `of` back to some of `wrt`."""
        names = tuple(wrt or self.wrt)
        key = ("reverse", names, of)
        if key not in self._sides:
            op = self._builder()
            self._sides[key] = self._side(split(append_vjp(op.graph, of, names, op=op)))
            self._note(op)
        return self._sides[key]

    def cost(self, forward: bool, wrt: Sequence[str], of: str) -> Cost:
        """What one pass costs."""
        return (self.forward(wrt, [of]) if forward else self.reverse(of, wrt)).cost

    def _builder(self) -> Builder:
        op = Builder(self.graph.copy())
        op.derivative.fallback = difference_rule if self.fallback else None
        return op

    def _note(self, op: Builder) -> None:
        self.differenced = list(dict.fromkeys([*self.differenced, *(node.label for node in op.derivative.differenced)]))

    def _side(self, program: LinearProgram) -> Side:
        return Side(program, self.load, cost_of(program.linear))


def linearizer(graph: Graph, feeds: Mapping[str, Array], of: Sequence[str], wrt: Sequence[str], load: Load, fallback: bool = True) -> Linearizer:
    """The linearizer for inputs of these shapes. Raises `NoPathError` where nothing leads from any `wrt` to any `of`."""
    fixed = specialised(graph, {k: v.shape for k, v in feeds.items()})
    for name in (*of, *wrt):
        if not carries(fixed.types.get(name)):
            raise NoPathError(f"'{name}' holds no floating point numbers, so it has no derivative.")
    active = active_values(fixed, wrt)
    if not any(y in active for y in of):
        raise NoPathError(f"{', '.join(repr(y) for y in of)} does not depend on {', '.join(repr(w) for w in wrt[:4])}, so there is no derivative.")
    return Linearizer(fixed, tuple(of), tuple(wrt), load, fallback)


class Linearization:
    """The derivative at one point, as a linear map from tangents of `wrt` to tangents of `of`.

    Tangents and cotangents have the shape of their tensor, or a leading axis of directions more. The forward pass runs at the first
    product in each direction; its residuals stay where onnxruntime put them."""

    def __init__(self, linearizer: Linearizer, feeds: Mapping[str, Array]) -> None:
        self.linearizer = linearizer
        self.of = linearizer.of[0]
        self.wrt = linearizer.wrt
        self.feeds = {k: np.ascontiguousarray(v) for k, v in feeds.items()}
        self._residuals: dict[int, dict[str, Any]] = {}

    @property
    def out_shape(self) -> Shape:
        return self.linearizer.shape(self.of)

    @property
    def in_shapes(self) -> dict[str, Shape]:
        return {w: self.linearizer.shape(w) for w in self.wrt}

    @property
    def shape(self) -> tuple[int, int]:
        """As a matrix: elements of `of` by elements of all `wrt`, one after the other."""
        return prod(self.out_shape), sum(prod(s) for s in self.in_shapes.values())

    def jvp(self, tangents: Mapping[str, Any] | Any) -> Array:
        """J v: the tangent of `of` for these tangents, {name: array} (a missing one is zero). With a leading axis of K directions on all of them,
        [K, ...of]."""
        if not isinstance(tangents, Mapping):
            if len(self.wrt) != 1:
                raise UsageError(f"There are {len(self.wrt)} tensors ({', '.join(self.wrt[:6])}); give the tangents by name.")
            tangents = {self.wrt[0]: tangents}
        unknown = [t for t in tangents if t not in self.wrt]
        if unknown:
            raise InputError(f"'{unknown[0]}' is not among what this was linearized by: {', '.join(self.wrt)}.")
        seeds, single = self._directions({w: (tangents[w], self.linearizer.shape(w)) for w in self.wrt if w in tangents})
        result = self.push(seeds)[self.of]
        return np.asarray(result[0] if single else result)

    def vjp(self, cotangent: Any) -> dict[str, Array]:
        """J' u: the cotangent of each tensor of `wrt`, {name: array}; with a leading axis of K directions, [K, ...wrt]."""
        seeds, single = self._directions({self.of: (cotangent, self.out_shape)})
        results = self.pull(seeds[self.of])
        return {w: np.asarray(g[0] if single else g) for w, g in results.items()}

    def as_linear_operator(self) -> Any:
        """The map as SciPy's `LinearOperator`; tensors of `wrt` lie one after the other in its vectors."""
        sparse = scipy_module("scipy.sparse.linalg", "as_linear_operator")
        sizes = [prod(s) for s in self.in_shapes.values()]
        bounds = np.cumsum([0, *sizes])
        dtype = self.linearizer.dtype(self.of)

        def apart(columns: Array) -> dict[str, Array]:
            rows = columns.T.astype(dtype)  # [n, k] -> [k, n]
            return {w: rows[:, bounds[n] : bounds[n + 1]].reshape(-1, *s) for n, (w, s) in enumerate(self.in_shapes.items())}

        def push(columns: Array) -> Array:
            return np.asarray(self.jvp(apart(columns.reshape(len(columns), -1)))).reshape(-1, self.shape[0]).T

        def pull(columns: Array) -> Array:
            found = self.vjp(columns.reshape(len(columns), -1).T.astype(dtype).reshape(-1, *self.out_shape))
            return np.concatenate([np.asarray(found[w]).reshape(-1, sizes[n]) for n, w in enumerate(self.wrt)], 1).T

        return sparse.LinearOperator(
            self.shape, matvec=lambda v: push(v.reshape(-1, 1)).ravel(), rmatvec=lambda u: pull(u.reshape(-1, 1)).ravel(), matmat=push, rmatmat=pull,
            dtype=dtype,
        )  # fmt: skip

    # Products over several directions, as the evaluation of a whole Jacobian uses them ------------------------------------------

    def push(self, seeds: Mapping[str, Array], of: Sequence[str] | None = None, once: bool = False) -> dict[str, Array]:
        """Tangents [K, ...wrt] of some of `wrt` to tangents [K, ...of] of each `of`. `once`: no others follow, so nothing is kept for them."""
        count = next(iter(seeds.values())).shape[0]
        outs = tuple(of or self.linearizer.of)
        names = [w for w in self.wrt if w in seeds and any(self.linearizer.reaches(w, y) for y in outs)]
        side = self.linearizer.forward(names, outs) if names else None
        found = self._products(side, {side.program.seeds[w]: seeds[w] for w in names}, once) if side is not None else {}
        return {y: found[y] if y in found else np.zeros((count, *self.linearizer.shape(y)), self.linearizer.dtype(y)) for y in outs}

    def pull(self, seed: Array, wrt: Sequence[str] | None = None, of: str | None = None, once: bool = False) -> dict[str, Array]:
        """Cotangents [K, ...of] to cotangents [K, ...wrt] of some of `wrt`; `once` as in `push`."""
        y = of or self.of
        names = list(wrt or self.wrt)
        reached = [w for w in names if self.linearizer.reaches(w, y)]
        side = self.linearizer.reverse(y, reached) if reached else None
        found = self._products(side, {side.program.seeds[y]: seed}, once) if side is not None else {}
        return {w: found[w] if w in found else np.zeros((seed.shape[0], *self.linearizer.shape(w)), self.linearizer.dtype(w)) for w in names}

    def _products(self, side: Side, seeds: Mapping[str, Array], once: bool) -> dict[str, Array]:
        if not side.program.results:
            return {}
        if id(side) not in self._residuals:
            if once:
                return side.at_once(self.feeds, seeds)
            self._residuals[id(side)] = side.residuals(self.feeds)
        return side.products(self._residuals[id(side)], seeds)

    def _directions(self, given: Mapping[str, tuple[Any, Shape]]) -> tuple[dict[str, Array], bool]:
        """Each array as [K, ...]; and whether there was a single direction without an axis of its own."""
        result, single = {}, set()
        for name, (array, shape) in given.items():
            v = np.asarray(array, self.linearizer.dtype(name))
            if v.shape == shape:
                single.add(True)
                v = v[None]
            elif v.shape[1:] == shape and v.ndim == len(shape) + 1:
                single.add(False)
            else:
                wanted = shape_text(shape, "()")
                raise InputError(f"The direction for '{name}' has shape {shape_text(v.shape, '()')}; it needs {wanted}, or [K, {wanted}].")
            result[name] = np.ascontiguousarray(v)
        if len(single) > 1 or len({v.shape[0] for v in result.values()}) > 1:
            raise InputError("The directions differ in number between tensors; give each the same leading axis, or none of them one.")
        if not result:
            raise InputError("No direction was given.")
        return result, single == {True}
