"""The question that `jacobian` and `hessian` answer: names resolved, components chosen, a graph in which `of` and `wrt` are values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import netsens.rules  # noqa: F401  # declares every operator
from netsens.errors import NoPathError, UsageError
from netsens.graph.emit import Builder
from netsens.graph.graph import Array, Graph, pruned
from netsens.graph.names import find_layer, find_wrt
from netsens.graph.selectors import is_group, selectors_of
from netsens.graph.shapes import known
from netsens.jacobian.gradient import float_stand_ins, paths
from netsens.modes.activity import carries
from netsens.modes.difference import difference_rule
from netsens.modes.gradient import append_vjp
from netsens.modes.split import specialised
from netsens.modes.target import Target, parse_target, select

Shape = tuple[int, ...]
ShapesOf = Callable[[Graph], Mapping[str, Shape]]  # the shapes that a graph's outputs have at the inputs at hand


@dataclass(frozen=True, slots=True)
class Question:
    """A graph with all shapes known, the value that is differentiated (`of`, which stands for `layer`) and by what. `zeros` are tensors
    asked for by name whose derivative is zero, with the reason; `notes` are for the user to read. Where shapes depend on the inputs' values (how many boxes
    a detector finds), `seen` has those that were met, and `observer` is the graph that gives them out."""

    graph: Graph
    of: str
    layer: str
    wrt: tuple[str, ...]
    zeros: Mapping[str, str]
    notes: tuple[str, ...]
    seen: Mapping[str, Shape] = field(default_factory=dict)
    observer: Graph | None = None


def ask(graph: Graph, feeds: Mapping[str, Array], of: str | None, wrt: str | Sequence[str], target: Target, shapes_of: ShapesOf) -> Question:
    """The question over inputs of these shapes."""
    layer = find_layer(graph, of)
    if not carries(graph.types.get(layer)):
        raise NoPathError(f"'{layer}' holds no floating point numbers, so it has no Jacobian; choose another layer with --of.")
    selectors = selectors_of(wrt)
    chosen = find_wrt(graph, selectors)
    if not chosen:
        raise UsageError(f"The model has nothing that --wrt {' '.join(selectors)} could mean.")
    chosen, notes = float_stand_ins(graph, chosen, layer)
    # A group means those of its tensors that the layer depends on, so those passed over need no note.
    reached, zeros, _ = paths(graph, chosen, layer, is_group(selectors))
    fixed = specialised(graph, {k: v.shape for k, v in feeds.items()})
    seen: Mapping[str, Shape] = {}
    observer = _observer(fixed, layer)
    if observer is not None:
        seen = shapes_of(observer)
        fixed = replace(fixed, types={**fixed.types, **{name: replace(fixed.types[name], shape=shape) for name, shape in seen.items()}})
    y = layer
    if target is not None:
        op = Builder(fixed.copy(), "target")
        y = select(op, op.value(layer), parse_target(target)).name
        fixed = op.graph
    kept = [y, *(w for w in zeros if w not in fixed.inputs and w not in fixed.constants)]
    return Question(pruned(fixed, kept), y, layer, tuple(reached), zeros, tuple(notes), seen, observer)


def _observer(graph: Graph, layer: str) -> Graph | None:
    """A graph whose outputs are the values on the way to a layer whose shapes only a run can tell; None where the layer's own shape is known."""
    type_ = graph.types.get(layer)
    if type_ is None or type_.container or known(type_.shape):
        return None
    inner = [o for n in pruned(graph, [layer]).nodes for o in n.outputs if o]
    open_ = [o for o in inner if (t := graph.types.get(o)) is not None and t.dtype and not t.container and not known(t.shape)]
    return pruned(graph, open_)


def gradient_question(question: Question, fallback: bool = True) -> tuple[Question, tuple[str, ...]]:
    """The gradient of a single number as the value to differentiate again: by one tensor the gradient itself, by several all of them flat, one after
    the other. Also the tensors whose gradient it holds, in order."""
    shape = question.graph.types[question.of].shape or ()
    if any(d != 1 for d in shape):
        size = "x".join(map(str, shape))
        raise UsageError(f"A Hessian is of a single number, and '{question.layer}' has shape {size}; choose one component with --target.")
    op = Builder(question.graph.copy())
    op.derivative.fallback = difference_rule if fallback else None
    derivative = append_vjp(op.graph, question.of, question.wrt, ones=True, op=op)
    names = tuple(w for w in question.wrt if w in derivative.results)
    gradients = [op.value(derivative.results[w]) for w in names]
    if len(gradients) == 1:
        y = gradients[0]
    else:
        y = op.Concat(*(op.Reshape(g, [-1]) for g in gradients), axis=0)
    whole = pruned(op.graph, [y.name])
    return Question(whole, y.name, f"the gradient of '{question.layer}'", names, {}, question.notes, question.seen, question.observer), names
