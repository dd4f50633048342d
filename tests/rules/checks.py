"""What must hold for every case: derivatives against differences, forward against reverse, second order, onnxruntime, ONNX's checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

import netsens.rules  # noqa: F401  # declares the rules
from netsens.graph.graph import Graph, Node, pruned
from netsens.graph.precision import in_precision
from netsens.graph.save import model_proto
from netsens.modes.batch import batched
from netsens.modes.gradient import append_jvp, append_vjp
from netsens.modes.split import split
from netsens.modes.structure import structure
from netsens.rules.words import RULES, rule_of
from netsens.run.reference import reference_runner
from tests.rules.case import Case

Arrays = Mapping[str, np.ndarray]


def run64(graph: Graph, outputs: Sequence[str], feeds: Arrays) -> list[np.ndarray]:
    """The outputs in float64 on ONNX's reference evaluator."""
    graph = pruned(graph, list(outputs))
    return reference_runner(graph)({k: v for k, v in feeds.items() if k in graph.inputs})


def as_inputs(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with these constants as inputs, so that differences can move them."""
    constants = {k: v for k, v in graph.constants.items() if k not in names}
    return replace(graph, inputs=[*graph.inputs, *(n for n in names if n in graph.constants)], constants=constants)


def directions(case: Case, names: Sequence[str]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(case.seed + 1)
    arrays = case.arrays()
    return {n: rng.standard_normal(arrays[n].shape) for n in names}


def central_difference(f: Callable[[Arrays], np.ndarray], at: Arrays, along: Arrays) -> tuple[np.ndarray, float]:
    """The directional derivative by Richardson-extrapolated central differences, and an estimate of its error."""

    def difference(h: float) -> np.ndarray:
        plus = {k: v + h * along[k] if k in along else v for k, v in at.items()}
        minus = {k: v - h * along[k] if k in along else v for k, v in at.items()}
        return (f(plus) - f(minus)) / (2 * h)

    estimates = [(4 * difference(h / 2) - difference(h)) / 3 for h in (1e-3, 1e-4, 1e-5)]
    spreads = [float(np.abs(a - b).max(initial=0)) for a, b in zip(estimates, estimates[1:], strict=False)]
    best = int(np.argmin(spreads))
    return estimates[best + 1], spreads[best]


def relative(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    assert np.isfinite(a).all(), "not finite"
    assert np.isfinite(b).all(), "not finite"
    return float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(a).max(initial=0), np.abs(b).max(initial=0)))


def check_forward(case: Case) -> None:
    """The JVP equals central differences in float64, and the model's own output is unchanged."""
    graph, at, wrt = case.graph(), case.arrays(), case.floats()
    along = directions(case, wrt)
    derivative = append_jvp(graph, [case.of], wrt)
    free = as_inputs(graph, wrt)
    (primal,) = run64(free, [case.of], at)
    assert np.isfinite(primal).all()
    difference, spread = central_difference(lambda a: run64(free, [case.of], a)[0], at, along)
    if case.of not in derivative.results:
        assert not np.abs(difference).max(initial=0) > 1e-9, "no tangent arrives, yet the output moves"
        return
    feeds = {**at, **{derivative.seeds[w]: along[w] for w in wrt}}
    unchanged, tangent = run64(as_inputs(derivative.graph, wrt), [case.of, derivative.results[case.of]], feeds)
    np.testing.assert_array_equal(unchanged, primal)
    assert relative(tangent, difference) <= max(1e-7, 10 * spread), f"{tangent.ravel()[:6]} against {difference.ravel()[:6]} (spread {spread:.1e})"


def check_adjoint(case: Case, symbolic: bool = False) -> None:
    """<u, Jv> = <J'u, v>, in float64; with a symbolic first axis as well."""
    graph, at, wrt = case.graph(symbolic=symbolic), case.arrays(), case.floats()
    v = directions(case, wrt)
    forward = append_jvp(graph, [case.of], wrt)
    reverse = append_vjp(graph, case.of, wrt)
    assert (case.of in forward.results) == bool(reverse.results)
    if not reverse.results:
        return
    (y,) = run64(graph, [case.of], at)
    u = np.random.default_rng(case.seed + 2).standard_normal(y.shape)
    (jv,) = run64(forward.graph, [forward.results[case.of]], {**at, **{forward.seeds[w]: v[w] for w in wrt}})
    pulled = run64(reverse.graph, list(reverse.results.values()), {**at, reverse.seeds[case.of]: u})
    for w, g in zip(reverse.results, pulled, strict=True):
        assert g.shape == v[w].shape, f"gradient by {w} has shape {g.shape}, not {v[w].shape}"
        assert np.isfinite(g).all()
    left = float(np.vdot(u, jv))
    right = sum(float(np.vdot(g, v[w])) for w, g in zip(reverse.results, pulled, strict=True))
    scale = np.abs(u * jv).sum() + sum(np.abs(g * v[w]).sum() for w, g in zip(reverse.results, pulled, strict=True))
    assert abs(left - right) <= 1e-12 * max(1.0, scale), f"{left} against {right}"


def check_reverse_rule(case: Case) -> None:
    """A reverse rule that an operator has beside its JVP gives what the transpose gives."""
    graph, at, wrt = case.graph(), case.arrays(), case.floats()
    own = {(n.domain, n.op) for n in graph.nodes if (r := rule_of(n)) and r.vjp is not None and (r.jvp or r.expansion)}
    if not own:
        return
    (y,) = run64(graph, [case.of], at)
    u = np.random.default_rng(case.seed + 2).standard_normal(y.shape)

    def gradients() -> dict[str, np.ndarray]:
        reverse = append_vjp(graph, case.of, wrt)
        values = run64(reverse.graph, list(reverse.results.values()), {**at, reverse.seeds[case.of]: u})
        return dict(zip(reverse.results, values, strict=True))

    with_rule = gradients()
    kept = {key: RULES[key] for key in own}
    try:
        for key, rule in kept.items():
            RULES[key] = replace(rule, vjp=None)
        with_transpose = gradients()
    finally:
        RULES.update(kept)
    for w in with_rule:
        assert relative(with_rule[w], with_transpose[w]) <= 1e-11


def check_second_order(case: Case) -> None:
    """The gradient graph can be differentiated again: the derivative of <u, J'..> against differences of the gradient."""
    graph, at, wrt = case.graph(), case.arrays(), case.floats()
    first = append_vjp(graph, case.of, wrt)
    if not first.results:
        return
    (y,) = run64(graph, [case.of], at)
    at = {**at, first.seeds[case.of]: np.random.default_rng(case.seed + 2).standard_normal(y.shape)}
    along = directions(case, wrt)
    base = pruned(first.graph, list(first.results.values()))
    for w, gradient in first.results.items():
        second = append_jvp(base, [gradient], wrt)
        free = as_inputs(base, wrt)
        difference, spread = central_difference(lambda a, free=free, gradient=gradient: run64(free, [gradient], a)[0], at, along)
        if gradient not in second.results:
            assert not np.abs(difference).max(initial=0) > 1e-7, f"the gradient by {w} moves, yet has no tangent"
            continue
        feeds = {**at, **{second.seeds[k]: along[k] for k in wrt}}
        (tangent,) = run64(second.graph, [second.results[gradient]], feeds)
        assert relative(tangent, difference) <= max(1e-6, 10 * spread), f"by {w}: {tangent.ravel()[:6]} against {difference.ravel()[:6]}"


def check_float32(case: Case) -> None:
    """onnxruntime runs the float32 gradient graph, of standard operators alone, and agrees with float64."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    wrt = case.floats()
    graph = case.graph(np.float32)
    reverse = append_vjp(graph, case.of, wrt)
    if not reverse.results:
        return
    final = pruned(reverse.graph, [case.of, *reverse.results.values()])
    proto, _ = model_proto(final)
    onnx.checker.check_model(proto, full_check=True)
    allowed = {"", *case.domains}
    for node in every_node(final):
        assert node.domain in allowed, f"{node.label} is not a standard operator"
        assert rule_of(node) is not None, f"{node.op} is emitted and has no fact of its own"
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    at = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in case.arrays().items()}
    exact = case.graph()
    (y,) = run64(exact, [case.of], case.arrays())
    u = np.random.default_rng(case.seed + 2).standard_normal(y.shape).astype(np.float32)
    feeds = {**at, reverse.seeds[case.of]: u}
    needed = {i.name for i in session.get_inputs()}
    primal, *got = session.run(None, {k: v for k, v in feeds.items() if k in needed})
    wide = append_vjp(exact, case.of, wrt)
    wide_feeds = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in at.items()}
    expected = run64(wide.graph, list(wide.results.values()), {**wide_feeds, wide.seeds[case.of]: u.astype(np.float64)})
    assert relative(primal.astype(np.float64), run64(as_inputs(exact, case.constants), [case.of], wide_feeds)[0]) <= 1e-4
    for a, b in zip(got, expected, strict=True):
        assert relative(a.astype(np.float64), b) <= 2e-4


def check_body(case: Case) -> None:
    """Where the specification gives the operator a function body, the rule gives what the body's derivative gives."""
    from netsens.rules.body import specification_body

    graph, at, wrt = case.graph(), case.arrays(), case.floats()
    keys = {(n.domain, n.op) for n in graph.nodes}
    own = [k for k in keys if k in RULES and RULES[k].status == "exact" and _has_body(*k, graph.opset)]
    if not own or not case.against_body:
        return
    (y,) = run64(graph, [case.of], at)
    u = np.random.default_rng(case.seed + 2).standard_normal(y.shape)

    def gradients() -> dict[str, np.ndarray]:
        reverse = append_vjp(graph, case.of, wrt)
        values = run64(reverse.graph, list(reverse.results.values()), {**at, reverse.seeds[case.of]: u})
        return dict(zip(reverse.results, values, strict=True))

    ours = gradients()
    kept = {key: RULES[key] for key in own}
    try:
        for key, rule in kept.items():
            RULES[key] = replace(rule, vjp=None, jvp=None, transpose=None, expansion=specification_body)
        theirs = gradients()
    finally:
        RULES.update(kept)
    for w in ours:
        assert relative(ours[w], theirs[w]) <= 1e-9


def _has_body(domain: str, op: str, opset: int) -> bool:
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def every_node(graph: Graph) -> list[Node]:
    nodes = []
    for node in graph.nodes:
        nodes.append(node)
        for _, sub in node.subgraphs():
            nodes += every_node(sub)
    return nodes


def to_double(graph: Graph) -> Graph:
    return in_precision(graph)


def check_directions(case: Case) -> None:
    """K directions at once give what they give one by one, forward and backward, through the split program."""
    graph, at, wrt = case.graph(), case.arrays(), case.floats()
    rng = np.random.default_rng(case.seed + 3)
    reverse = append_vjp(graph, case.of, wrt)
    forward = append_jvp(graph, [case.of], wrt)
    (y,) = run64(graph, [case.of], at)
    for derivative in (forward, reverse):
        if not derivative.results:
            continue
        program = split(derivative)
        along = {v: rng.standard_normal((3, *(at[k] if k in at else y).shape)) for k, v in program.seeds.items()}
        residuals = {**at, **dict(zip(program.primal.outputs, run64(program.primal, program.primal.outputs, at), strict=True))}
        results = program.linear.outputs
        one_by_one = [run64(program.linear, results, {**residuals, **{k: v[j] for k, v in along.items()}}) for j in range(3)]
        together = batched(program.linear, list(program.seeds.values()))
        found = run64(together, together.outputs, {**residuals, **along})
        for k, value in enumerate(found):
            assert relative(value, np.stack([row[k] for row in one_by_one])) <= 1e-11


def check_structure(case: Case) -> None:
    """What the structure says can't depend has a zero in the Jacobian, and the whole Jacobian has the structure's shape."""
    graph, at, wrt = case.graph(), case.arrays(), case.floats()
    relations = structure(graph, [case.of], wrt)
    for w in wrt:
        forward = append_jvp(graph, [case.of], [w])
        if case.of not in forward.results:
            continue
        size = at[w].size
        program = batched(split(forward).linear, list(forward.seeds.values()))
        primal = split(forward).primal
        residuals = {**at, **dict(zip(primal.outputs, run64(primal, primal.outputs, at), strict=True))}
        if size == 0:
            continue
        seeds = np.eye(size).reshape(size, *at[w].shape)
        (columns,) = run64(program, program.outputs, {**residuals, forward.seeds[w]: seeds})
        jacobian = np.moveaxis(columns, 0, -1).reshape((*columns.shape[1:], *at[w].shape))
        relation = relations.get((case.of, w))
        if relation is None or jacobian.size == 0:
            continue  # of unknown shape, and so unrestricted
        allowed = relation.dense()
        assert allowed.shape == jacobian.shape
        assert not jacobian[~allowed].any(), f"by {w}: non-zeros outside the structure"
        assert allowed.sum() == relation.count
