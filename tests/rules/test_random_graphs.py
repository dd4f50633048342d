"""Small random graphs of ruled operators: forward mode against differences, reverse mode against forward mode, in float64, with fixed and with symbolic
sizes. What no table of single operators shows: values read twice, operators in each other's way, what the builder shares and leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from netsens.graph.graph import Graph
from netsens.modes.gradient import append_jvp, append_vjp
from tests.rules.case import Case
from tests.rules.checks import run64

Shape = tuple[int, ...]


@dataclass
class Drawn:
    """A graph as it grows: lines of ONNX text, and the shape of each value."""

    lines: list[str] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    count: int = 0

    def add(self, call: str, shape: Shape) -> None:
        self.count += 1
        self.lines.append(f"v{self.count} = {call}")
        self.shapes[f"v{self.count}"] = shape

    def ints(self, *numbers: int) -> str:
        self.count += 1
        self.lines.append(f"k{self.count} = Constant<value = int64[{len(numbers)}] {{{', '.join(map(str, numbers))}}}>()")
        return f"k{self.count}"


Draw = Callable[[st.SearchStrategy], object]
SMOOTH = ("Tanh", "Sigmoid", "Sin", "Softplus", "Erf", "Neg", "Identity", "Atan", "Gelu", "Softsign", "Swish")


def unary(draw: Draw, g: Drawn, x: str) -> None:
    g.add(f"{draw(st.sampled_from(SMOOTH[:-1]))}({x})", g.shapes[x])


def kinked(draw: Draw, g: Drawn, x: str) -> None:
    g.add(f"{draw(st.sampled_from(['Relu', 'Abs', 'LeakyRelu<alpha=0.3>', 'Elu', 'HardSwish']))}({x})", g.shapes[x])


def binary(draw: Draw, g: Drawn, x: str) -> None:
    def fits(a: Shape, b: Shape) -> bool:
        return all(m == n or 1 in (m, n) for m, n in zip(a[::-1], b[::-1], strict=False))

    other = draw(st.sampled_from([y for y in g.shapes if fits(g.shapes[x], g.shapes[y])]))
    name = draw(st.sampled_from(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"]))
    g.add(f"{name}({x}, {other})", np.broadcast_shapes(g.shapes[x], g.shapes[other]))


def quotient(draw: Draw, g: Drawn, x: str) -> None:
    other = draw(st.sampled_from([y for y in g.shapes if g.shapes[y] == g.shapes[x]]))
    g.add(f"Exp({other})", g.shapes[x])
    g.add(f"Div({x}, v{g.count})", g.shapes[x])


def normalized(draw: Draw, g: Drawn, x: str) -> None:
    rank = len(g.shapes[x])
    if rank:
        g.add(f"{draw(st.sampled_from(['Softmax', 'LogSoftmax']))}<axis={draw(st.integers(-rank, rank - 1))}>({x})", g.shapes[x])


def reduction(draw: Draw, g: Drawn, x: str) -> None:
    shape = g.shapes[x]
    if not shape:
        return
    axes = sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    keep = draw(st.integers(0, 1))
    name = draw(st.sampled_from(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceLogSumExp", "ReduceSumSquare", "ReduceProd"]))
    result = tuple(1 if k in axes else d for k, d in enumerate(shape) if keep or k not in axes)
    g.add(f"{name}<keepdims={keep}>({x}, {g.ints(*axes)})", result)


def reshape(draw: Draw, g: Drawn, x: str) -> None:
    size = int(np.prod(g.shapes[x]))
    first = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    g.add(f"Reshape({x}, {g.ints(first, -1)})", (first, size // first))


def transpose(draw: Draw, g: Drawn, x: str) -> None:
    perm = draw(st.permutations(range(len(g.shapes[x]))))
    if perm:
        g.add(f"Transpose<perm=[{', '.join(map(str, perm))}]>({x})", tuple(g.shapes[x][p] for p in perm))


def matmul(draw: Draw, g: Drawn, x: str) -> None:
    shape = g.shapes[x]
    if len(shape) < 2:
        return
    partners = [y for y, s in g.shapes.items() if len(s) == 2 and s[0] == shape[-1]]
    if partners:
        y = draw(st.sampled_from(partners))
        g.add(f"MatMul({x}, {y})", (*shape[:-1], g.shapes[y][1]))
    else:
        # x x'
        perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        g.add(f"Transpose<perm=[{', '.join(map(str, perm))}]>({x})", tuple(shape[p] for p in perm))
        g.add(f"MatMul({x}, v{g.count})", (*shape[:-1], shape[-2]))


def concat(draw: Draw, g: Drawn, x: str) -> None:
    shape = g.shapes[x]
    if not shape:
        return
    axis = draw(st.integers(0, len(shape) - 1))
    others = [y for y, s in g.shapes.items() if len(s) == len(shape) and all(a == b for k, (a, b) in enumerate(zip(s, shape, strict=True)) if k != axis)]
    y = draw(st.sampled_from(others))
    joined = list(shape)
    joined[axis] += g.shapes[y][axis]
    g.add(f"Concat<axis={axis}>({x}, {y})", tuple(joined))


def split(draw: Draw, g: Drawn, x: str) -> None:
    shape = g.shapes[x]
    axes = [k for k, d in enumerate(shape) if d > 1]
    if not axes:
        return
    axis = draw(st.sampled_from(axes))
    first = draw(st.integers(1, shape[axis] - 1))
    sizes = g.ints(first, shape[axis] - first)
    g.count += 2
    names = [f"v{g.count - 1}", f"v{g.count}"]
    g.lines.append(f"{names[0]}, {names[1]} = Split<axis={axis}>({x}, {sizes})")
    for name, size in zip(names, (first, shape[axis] - first), strict=True):
        g.shapes[name] = (*shape[:axis], size, *shape[axis + 1 :])


def gather(draw: Draw, g: Drawn, x: str) -> None:
    shape = g.shapes[x]
    if not shape:
        return
    axis = draw(st.integers(0, len(shape) - 1))
    rows = draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), min_size=1, max_size=3))
    g.add(f"Gather<axis={axis}>({x}, {g.ints(*rows)})", (*shape[:axis], len(rows), *shape[axis + 1 :]))


def slice_(draw: Draw, g: Drawn, x: str) -> None:
    shape = g.shapes[x]
    if not shape:
        return
    axis = draw(st.integers(0, len(shape) - 1))
    step = draw(st.sampled_from([1, 2, -1]))
    start, end = (shape[axis] - 1, -shape[axis] - 1) if step < 0 else (draw(st.integers(0, shape[axis] - 1)), shape[axis])
    size = len(range(start, -1, step)) if step < 0 else len(range(start, end, step))
    g.add(f"Slice({x}, {g.ints(start)}, {g.ints(end)}, {g.ints(axis)}, {g.ints(step)})", (*shape[:axis], size, *shape[axis + 1 :]))


def pad(draw: Draw, g: Drawn, x: str) -> None:
    shape = g.shapes[x]
    if not shape:
        return
    pads = draw(st.lists(st.integers(0, 1), min_size=2 * len(shape), max_size=2 * len(shape)))
    rank = len(shape)
    mode = draw(st.sampled_from(["constant", "edge"]))
    g.add(f'Pad<mode="{mode}">({x}, {g.ints(*pads)})', tuple(d + pads[k] + pads[rank + k] for k, d in enumerate(shape)))


def convolution(draw: Draw, g: Drawn, x: str) -> None:
    shape = g.shapes[x]
    if len(shape) < 2 or int(np.prod(shape)) > 200:
        return
    height, width = int(np.prod(shape[:-1])), shape[-1]
    g.add(f"Reshape({x}, {g.ints(1, 1, height, width)})", (1, 1, height, width))
    image = f"v{g.count}"
    stride = draw(st.integers(1, 2))
    g.add(f"Conv<pads=[1, 1, 1, 1], strides=[{stride}, 1]>({image}, w)", (1, 2, (height - 1) // stride + 1, width))


def expand(draw: Draw, g: Drawn, x: str) -> None:
    shape = (draw(st.integers(1, 3)), *g.shapes[x])
    g.add(f"Expand({x}, {g.ints(*shape)})", shape)


def unsqueeze(draw: Draw, g: Drawn, x: str) -> None:
    axis = draw(st.integers(0, len(g.shapes[x])))
    g.add(f"Unsqueeze({x}, {g.ints(axis)})", (*g.shapes[x][:axis], 1, *g.shapes[x][axis:]))


def running(draw: Draw, g: Drawn, x: str) -> None:
    if g.shapes[x]:
        g.count += 1
        g.lines.append(f"k{g.count} = Constant<value = int64 {{{draw(st.integers(0, len(g.shapes[x]) - 1))}}}>()")
        g.add(f"CumSum<exclusive={draw(st.integers(0, 1))}, reverse={draw(st.integers(0, 1))}>({x}, k{g.count})", g.shapes[x])


def choice(draw: Draw, g: Drawn, x: str) -> None:
    other = draw(st.sampled_from([y for y in g.shapes if g.shapes[y] == g.shapes[x]]))
    g.count += 1
    g.lines.append(f"c{g.count} = Less({x}, {other})")
    g.add(f"Where(c{g.count}, {other}, {x})", g.shapes[x])


MOVES = [unary, unary, kinked, binary, binary, quotient, normalized, reduction, reshape, transpose, matmul, concat, split, gather, slice_, pad, convolution,
         expand, unsqueeze, running, choice]  # fmt: skip
INPUTS: dict[str, Shape] = {"a": (3, 4), "b": (4, 2), "d": (3, 1), "e": (), "w": (2, 1, 3, 3)}


@st.composite
def graphs(draw: Draw) -> tuple[str, Shape]:
    """The text of a graph, and the shape of its result."""
    g = Drawn(shapes={k: s for k, s in INPUTS.items() if k != "w"})
    for _ in range(draw(st.integers(2, 8))):
        move = draw(st.sampled_from(MOVES))
        # Later values are likelier, so that graphs grow deep.
        names = [n for n in g.shapes if int(np.prod(g.shapes[n])) <= 400]
        x = names[-1 - min(draw(st.integers(0, 3)), len(names) - 1)] if draw(st.booleans()) else draw(st.sampled_from(names))
        move(draw, g, x)
    values = [n for n in g.shapes if n not in INPUTS]
    assume(values)
    last = draw(st.sampled_from(values[-3:]))
    g.lines.append(f"y = Tanh({last})")
    return "\n".join(g.lines), g.shapes[last]


@settings(max_examples=120, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(graphs(), st.booleans())
def test_random_graph(drawn: tuple[str, Shape], symbolic: bool) -> None:
    text, shape = drawn
    # Far from zero and from each other, so that kinks are seldom met.
    case = Case("random", text, INPUTS, domain=(-1.3, 1.1), seed=len(text))
    graph, at = case.graph(symbolic=symbolic), case.arrays()
    rng = np.random.default_rng(1)
    wrt, along = list(INPUTS), {k: rng.standard_normal(s) for k, s in INPUTS.items()}
    (y,) = run64(graph, ["y"], at)
    assert y.shape == shape
    forward = append_jvp(graph, ["y"], wrt)
    reverse = append_vjp(graph, "y", wrt)
    moves = [w for w in wrt if w in reverse.results]
    if "y" not in forward.results:
        assert not moves
        return
    (pushed,) = run64(forward.graph, [forward.results["y"]], {**at, **{forward.seeds[k]: v for k, v in along.items()}})
    u = rng.standard_normal(y.shape)
    pulled = run64(reverse.graph, [reverse.results[w] for w in moves], {**at, reverse.seeds["y"]: u})
    assert pushed.shape == y.shape
    for w, g in zip(moves, pulled, strict=True):
        assert g.shape == at[w].shape
    left, right = float(np.vdot(u, pushed)), sum(float(np.vdot(g, along[w])) for w, g in zip(moves, pulled, strict=True))
    size = float(np.linalg.norm(u) * np.linalg.norm(pushed)) + 1e-3
    assert abs(left - right) <= 1e-11 * size
    assert differences_agree(graph, at, along, pushed)


def differences_agree(graph: Graph, at: dict[str, np.ndarray], along: dict[str, np.ndarray], pushed: np.ndarray) -> bool:
    """Whether some step's central difference is the derivative, or the differences to both sides are others (a kink)."""

    def f(h: float) -> np.ndarray:
        return run64(graph, ["y"], {k: v + h * along[k] for k, v in at.items()})[0]

    here = f(0.0)
    smooth = False
    for h in (1e-4, 1e-5, 1e-6):
        ahead, behind = f(h), f(-h)
        central, scale = (ahead - behind) / (2 * h), max(1.0, float(np.abs(pushed).max(initial=0)))
        if np.abs(central - pushed).max(initial=0) <= 1e-6 * scale:
            return True
        smooth = smooth or bool(np.abs((ahead - here) - (here - behind)).max(initial=0) / h <= 1e-2 * scale)
    return not smooth
