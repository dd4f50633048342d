"""The Python face of netsens: a loaded model, and the questions one can ask of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netsens.errors import InputError, NetsensWarning, RunError, ToleranceError, UsageError
from netsens.graph.dtypes import numpy_dtype
from netsens.graph.graph import Array, Graph, TensorType, pruned, shape_text, walk
from netsens.graph.selectors import selectors_of
from netsens.run.feeds import Feeds, fed, fitted, symbol_lengths
from netsens.run.finite import all_finite
from netsens.run.parts import in_parts, rows_at_a_time
from netsens.run.session import Program, RunOptions, Session

# What builds graphs is imported where it is needed: a gradient graph that comes from the cache needs none of it.
if TYPE_CHECKING:
    import onnx

    from netsens.analyse.check import CheckReport
    from netsens.analyse.check_map import CheckedMatrix
    from netsens.analyse.inspection import Inspection
    from netsens.jacobian.answer import Point, Prepared
    from netsens.jacobian.figures import Figures
    from netsens.jacobian.gradient_plan import GradientPlan
    from netsens.jacobian.plan import Plan
    from netsens.modes.target import Target
    from netsens.run.kept import KeptModel


def load(
    source: str | Path | bytes | onnx.ModelProto, *, provider: str = "auto", threads: int | None = None, quantized: str = "zero",
    compute_dtype: str | None = None, cache: bool = False,
) -> Model:  # fmt: skip
    """A model from a path, from bytes or from an `onnx.ModelProto`.

    `provider` is onnxruntime's execution provider ("auto", "cpu", "cuda", ...), `threads` its number of threads.
    `quantized` says what rounding to quantised integers does to a derivative: "zero", its true one, or "straight-through", which lets it
    pass wherever the integers don't saturate.
    `compute_dtype`, "float32" or "float64", has the whole model computed in that precision.
    With `cache`, gradient graphs of a model file are kept in the user's cache folder, and taken from there when they are asked for again.
    Raises `ModelError` where the file is missing, truncated or not ONNX."""
    if compute_dtype not in (None, "float32", "float64"):
        raise UsageError(f"compute_dtype is 'float32' or 'float64', and '{compute_dtype}' was given.")
    if quantized not in ("zero", "straight-through"):
        raise UsageError(f"quantized is 'zero' or 'straight-through', and '{quantized}' was given.")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise UsageError(f"threads is a whole number from 1 on, or None for onnxruntime's own choice, and {threads!r} was given.")
    read = partial(_read_graph, source, compute_dtype)
    path = Path(source) if isinstance(source, (str, Path)) else None
    kept = _kept(path, {"quantized": quantized, "compute_dtype": compute_dtype, "provider": provider}) if cache and path is not None else None
    known = kept is not None and kept.inputs is not None
    return Model(read if known else read(), RunOptions(provider, threads), path, quantized, kept)


def _read_graph(source: str | Path | bytes | onnx.ModelProto, compute_dtype: str | None) -> Graph:
    from netsens.graph.blocked_layout import holds_blocked_layout, without_blocked_layout
    from netsens.graph.normal import load_graph
    from netsens.modes.gradient_operator import without_gradient_operators

    graph = without_gradient_operators(load_graph(source))
    if holds_blocked_layout(graph):
        from netsens.run.channel_block import channel_block

        graph = without_blocked_layout(graph, channel_block())
    if compute_dtype is not None:
        from netsens.graph.precision import in_precision

        graph = in_precision(graph, 1 if compute_dtype == "float32" else 11)
    return graph


def _kept(path: Path, settings: dict[str, Any]) -> KeptModel | None:
    from netsens.run.cache import Cache, default_folder
    from netsens.run.kept import kept_model

    folder = default_folder()
    return None if folder is None or not path.is_file() else kept_model(Cache(folder), path, settings)


class Model:
    """An ONNX model that can be differentiated. Built graphs and their sessions are kept, so a question asked again only runs."""

    def __init__(
        self, graph: Graph | Callable[[], Graph], options: RunOptions, path: Path | None = None, quantized: str = "zero", kept: KeptModel | None = None
    ) -> None:
        self._straight_through = quantized == "straight-through"
        self._kept = kept
        self._read = graph if callable(graph) else None
        if not callable(graph):
            self.graph = self._marked(graph)
        self.path = path
        self._observed: dict[Any, Graph] = {}
        self.options = options
        self._plans: dict[Any, GradientPlan] = {}
        self._to_keep: dict[Any, Callable[[Program], None]] = {}
        self._sessions: dict[Any, Session] = {}
        self._prepared: dict[Any, Prepared] = {}

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {'?' if t.shape is None else shape_text(t.shape, 'a number')}" for name, t in self.inputs.items())
        return f"<netsens.Model {'' if self.path is None else f'{self.path.name} '}({inputs})>"

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the graph and the gradient graphs built from it. Sessions are opened anew there."""
        graph = self.__dict__.get("graph")
        plans = [(key[1:], plan) for key, plan in self._plans.items() if key[0] == id(graph)]
        return {"graph": graph, "read": self._read, "path": self.path, "options": self.options, "plans": plans, "kept": self._kept,
                "straight_through": self._straight_through}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["graph"] is not None:
            self.graph = state["graph"]
        self._read, self.path, self.options, self._kept = state["read"], state["path"], state["options"], state["kept"]
        self._straight_through = state["straight_through"]
        self._observed, self._sessions, self._prepared, self._to_keep = {}, {}, {}, {}
        self._plans = {(id(state["graph"]), *key): plan for key, plan in state["plans"]}

    def without_files(self) -> Model:
        """The same model for a machine that hasn't its file: the graph is read now, and what this machine has kept is left behind."""
        assert self.graph is not None
        self._kept = self._read = None
        return self

    @cached_property
    def graph(self) -> Graph:
        """The model in normal form; read when it is first needed, where the cache knows what was asked so far."""
        assert self._read is not None
        return self._marked(self._read())

    def _marked(self, graph: Graph) -> Graph:
        return walk(graph, lambda g: replace(g, straight_through=self._straight_through))

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The model's inputs, with their types."""
        if "graph" not in self.__dict__ and self._kept is not None and self._kept.inputs is not None:
            return self._kept.inputs
        return {name: self.graph.types[name] for name in self.graph.inputs}

    def grad(
        self,
        inputs: Feeds | Any,
        wrt: str | Sequence[str] = "inputs",
        of: str | None = None,
        target: Target = None,
        cotangent: Any = None,
        *,
        per_sample: bool = False,
        method: str = "auto",
        memory_limit: int | None = None,
        step: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Array]:
        """The gradient of `of` by each tensor of `wrt`, {name: array of the tensor's shape}.

        `inputs` are the model's inputs by name (or the one array of a model with one input). `of` is an output or a layer (default: the
        first output), `target` chooses components of it; all of them are summed, or weighed by `cotangent`, an array of the shape of
        `of`. A parameter's gradient is summed over the batch; `per_sample` keeps the batch as its first axis.

        `method` is "auto" (exact rules, finite differences for operators without one), "autodiff" (exact or an error) or
        "finite-difference" (the whole model, with an estimate of the error; `step` sets the step, `progress` is told evaluations done and
        in all). `memory_limit` bounds the bytes that it computes, weights and inputs apart: above it inner
        values are computed again instead of kept, and `ToleranceError` is raised where that isn't enough."""
        feeds = self.feeds(inputs)
        if method not in ("auto", "autodiff", "finite-difference"):
            raise UsageError(f"The method '{method}' is not auto, autodiff or finite-difference.")
        if step is not None and method != "finite-difference":
            raise UsageError("A step is for finite differences alone: add --method finite-difference.")
        if per_sample:
            return self._per_sample(feeds, wrt, of, target, cotangent, method, memory_limit, step, progress)
        if method == "finite-difference":
            return self._differences(feeds, wrt, of, target, cotangent, step, progress)
        plan, result = self._grad_as_it_is(feeds, wrt, of, target, cotangent, method, memory_limit)
        if not all_finite(result.values()) and all_finite([self.value(plan.of, feeds)]):
            return self._without_unread_values(result, feeds, wrt=wrt, of=of, target=target, cotangent=cotangent, method=method)
        return result

    def grad_of_strangers(
        self, inputs: Feeds | Any, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, cotangent: Any = None, *,
        method: str = "auto", memory_limit: int | None = None,
    ) -> dict[str, Array]:  # fmt: skip
        """As `grad`, for a batch of samples that have nothing to do with each other. `grad` looks again where the result isn't finite though the output
        is; that is not done here, since one sample would change the others' gradients by it: such a sample is to be asked for alone."""
        return self._grad_as_it_is(self.feeds(inputs), wrt, of, target, cotangent, method, memory_limit)[1]

    def _grad_as_it_is(
        self, feeds: dict[str, Array], wrt: str | Sequence[str], of: str | None, target: Target, cotangent: Any, method: str, memory_limit: int | None
    ) -> tuple[GradientPlan, dict[str, Array]]:
        question: dict[str, Any] = {"wrt": wrt, "of": of, "target": target, "cotangent": cotangent is not None, "method": method}
        plan = self._planned(feeds, **question) if memory_limit is None else self._limited(feeds, memory_limit, **question)
        for note in (*plan.notes, *plan.zeros.values()):
            warnings.warn(note, NetsensWarning, stacklevel=3)
        try:
            return plan, self._run(plan, feeds, cotangent)
        except RunError:
            if target is not None:  # how many components there are may depend on the inputs
                from netsens.modes.target import check_target, parse_target

                check_target(self.value(plan.of, feeds).shape, parse_target(target))
            raise

    def _planned(self, feeds: Mapping[str, Array], **question: Any) -> GradientPlan:
        """The plan, found at once where the same was asked for inputs of these shapes before; a model whose types depend on its inputs' values is asked anew."""
        key = ("planned", *[v.shape for v in feeds.values()], *map(repr, question.values()))
        if key not in self._plans:
            plan = self.plan(feeds=feeds, **question)
            if "graph" in self.__dict__ and self._unknown:
                return plan
            self._plans[key] = plan
        return self._plans[key]

    def _limited(self, feeds: Mapping[str, Array], memory_limit: int, **question: Any) -> GradientPlan:
        """The plan for inputs of exactly these shapes, within the limit."""
        from netsens.jacobian.gradient import plan_gradient
        from netsens.jacobian.limited import within
        from netsens.modes.split import specialised

        shapes = tuple((k, v.shape) for k, v in feeds.items())
        key = ("limited", memory_limit, shapes, *map(repr, question.values()))
        if key not in self._plans:
            graph = specialised(self.observed(feeds), dict(shapes))
            plan = plan_gradient(graph, **question)
            self._check_memory(plan, feeds, 1, memory_limit)
            self._plans[key] = within(plan, graph, memory_limit)
        return self._plans[key]

    def _without_unread_values(self, result: dict[str, Array], feeds: dict[str, Array], *, cotangent: Any, **question: Any) -> dict[str, Array]:
        """The gradient again, past values that aren't finite and that the layer never reads; the first result where that doesn't help."""
        plan = self.plan(cotangent=cotangent is not None, feeds=feeds, finite_only=True, **question)
        again = self._run(plan, feeds, cotangent)
        if not all_finite(again.values()):
            warnings.warn("The gradient holds NaN or infinity.", NetsensWarning, stacklevel=3)
            return result
        warnings.warn("Some inner values are not finite, and the layer does not read them: they are passed over.", NetsensWarning, stacklevel=3)
        return again

    def grad_model(self, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, *, cotangent: bool = False) -> onnx.ModelProto:
        """The gradient model as plain ONNX: the model's own outputs, then `gradient/NAME` for each tensor of `wrt`. With `cotangent` it
        has one more input, an output gradient of the shape of `of`."""
        from netsens.graph.save import model_proto
        from netsens.jacobian.gradient_model import gradient_graph

        return model_proto(gradient_graph(self.plan(wrt=wrt, of=of, target=target, cotangent=cotangent, keep_outputs=True)))[0]

    def export(
        self, path: str | Path, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, *, cotangent: bool = False,
        method: str = "auto", external_above: int | None = None, inputs: Feeds | Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Writes the gradient model to `path` with a JSON sidecar `PATH.json` that says what each output is, and gives the sidecar's content.

        The file is checked (`onnx.checker` with full checks) and loaded in onnxruntime before it takes its place. Weights go to `PATH.data` where
        the model would pass 2 GB, or `external_above` bytes. Outputs are the model's own, then `gradient/NAME`; with `cotangent` there is one more
        input, `cotangent`. Tensors whose path is cut are named in warnings and under "zeros", and have no output. `inputs` are needed only where
        the model doesn't say how many axes a value has: a run on them shows it."""
        from netsens.graph.store import save_model
        from netsens.jacobian.gradient_model import check_standard, cotangent_name, gradient_graph
        from netsens.report.sidecar import describe, write_gradient_model
        from netsens.run.verify import verify_file

        feeds = None if inputs is None else self.feeds(inputs)
        plan = self.plan(wrt=wrt, of=of, target=target, cotangent=cotangent, keep_outputs=True, method=method, feeds=feeds)
        for note in (*plan.notes, *plan.zeros.values()):
            warnings.warn(note, NetsensWarning, stacklevel=2)
        if self.path is not None and Path(path).exists() and Path(path).samefile(self.path):
            raise UsageError(f"'{path}' is the model itself; write the gradient model to another file.")
        graph = gradient_graph(plan)
        check_standard(graph, self.graph)
        convention = "cotangent" if cotangent else "sum" if target is None else "target"
        sidecar = describe(
            model=None if self.path is None else self.path.name, file=Path(path).name, of=plan.of, target=target, convention=convention,
            inputs={name: _described(graph.types.get(name)) for name in graph.inputs}, outputs={name: _described(graph.types.get(name)) for name in graph.outputs},
            gradients=plan.results, of_type=_described(graph.types.get(plan.of) or self.graph.types.get(plan.of)), cotangent=cotangent_name(plan) if cotangent else None,
            zeros=plan.zeros, notes=plan.notes, opset=graph.opset,
        )  # fmt: skip
        external = None if external_above is None else sum(a.nbytes for a in graph.constants.values()) > external_above
        write_gradient_model(path, lambda file: save_model(graph, file, external, shown=path), sidecar, lambda file: verify_file(file, self.options))
        return sidecar

    def jacobian(
        self, inputs: Feeds | Any, of: str | None = None, wrt: str | Sequence[str] = "inputs", target: Target = None, *, mode: str = "auto",
        sparse: bool = False, per_sample: bool = False, method: str = "auto", memory_limit: int | None = None, folder: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The Jacobian of `of` by each tensor of `wrt`, {name: array of `of.shape + wrt.shape`}.

        `mode` is "auto" (the cheapest), "forward", "reverse" or "mixed" (through a narrow waist); the structure of the model decides how many
        passes it takes, and `memory_limit` how many run at once. With `sparse` each is a SciPy CSR array [elements of `of`, elements of
        wrt]; with `per_sample`, by an input that goes along with the batch, [N, ...of[1:], ...wrt[1:]]. `folder` writes one .npy
        file a tensor through a memory map and gives arrays that read from them; without it a result above the limit raises `ToleranceError`."""
        from netsens.jacobian.answer import jacobian

        point = self.linearize(inputs, of, wrt, target, method=method)
        return jacobian(point, mode=mode, sparse=sparse, per_sample=per_sample, memory_limit=memory_limit, folder=folder, progress=progress)

    def jacobian_plan(
        self, inputs: Feeds | Any, of: str | None = None, wrt: str | Sequence[str] = "inputs", target: Target = None, *, mode: str = "auto",
        method: str = "auto", memory_limit: int | None = None,
    ) -> Plan:  # fmt: skip
        """How `jacobian` would go about it, with its cost (`print(plan.explain())`); nothing is computed."""
        from netsens.jacobian.planning import make_plan

        return make_plan(self.linearize(inputs, of, wrt, target, method=method).linearizer, mode=mode, memory_limit=memory_limit)

    def jacobian_figures(
        self, inputs: Feeds | Any, of: str | None = None, wrt: str | Sequence[str] = "inputs", target: Target = None, *, mode: str = "auto",
        method: str = "auto", memory_limit: int | None = None, progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Figures]:  # fmt: skip
        """Figures of the Jacobian by each tensor (`row_norms`, `column_norms`, `frobenius`, `largest`, ...) while its passes stream by: it is never held
        whole, so it may be larger than memory and disk."""
        from netsens.jacobian.figures import figures

        point = self.linearize(inputs, of, wrt, target, method=method)
        return figures(point, point.prepared.plan(mode, memory_limit, mode == "mixed"), progress)

    def linearize(
        self, inputs: Feeds | Any, of: str | None = None, wrt: str | Sequence[str] = "inputs", target: Target = None, *, method: str = "auto"
    ) -> Point:
        """The derivative at these inputs as a linear map: `jvp`, `vjp`, `to_dense`, `to_sparse`, `as_linear_operator`. The forward pass runs once
        for all products with it."""
        return self._linearization(self.feeds(inputs), of, wrt, target, method, second=False)

    def hessian(
        self, inputs: Feeds | Any, of: str | None = None, wrt: str | Sequence[str] = "inputs", target: Target = None, *, mode: str = "auto",
        sparse: bool = False, method: str = "auto", memory_limit: int | None = None, progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, dict[str, Any]]:  # fmt: skip
        """The second derivatives of a single number by each two tensors of `wrt`, {name: {name: array of both shapes}}; forward over reverse mode."""
        from netsens.jacobian.answer import hessian

        point = self.second_order(inputs, of, wrt, target, method=method)
        return hessian(point, mode=mode, sparse=sparse, memory_limit=memory_limit, progress=progress)

    def hvp(
        self, inputs: Feeds | Any, vector: Feeds | Any, of: str | None = None, wrt: str | Sequence[str] = "inputs", target: Target = None, *,
        method: str = "auto",
    ) -> dict[str, Array]:  # fmt: skip
        """The Hessian of a single number times a vector, {name: array of the tensor's shape}, without the Hessian. `vector` is an array a tensor of
        `wrt` (or the one array of a single tensor); with a leading axis of K vectors on each, [K, ...]."""
        from netsens.jacobian.answer import hvp

        return hvp(self.second_order(inputs, of, wrt, target, method=method), vector)

    def second_order(
        self, inputs: Feeds | Any, of: str | None = None, wrt: str | Sequence[str] = "inputs", target: Target = None, *, method: str = "auto"
    ) -> Point:
        """The derivative of a single number's gradient at these inputs as a linear map, as `linearize`: by several tensors, of their gradients one after
        the other."""
        return self._linearization(self.feeds(inputs), of, wrt, target, method, second=True)

    def check(
        self, inputs: Feeds | Any, wrt: str | Sequence[str] = "all", of: str | None = None, target: Target = None, cotangent: Any = None, *,
        directions: int = 3, tolerance: float | None = None, precision: str = "auto", seed: int = 0, count_kinks: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> CheckReport:  # fmt: skip
        """Compares the gradient with central differences along random directions, and forward mode with reverse mode.

        Without `target` or `cotangent` the layer is weighed by random numbers. `tolerance` is a relative error (default 1e-6 where float64 can
        be had, 1e-2 in float32; `precision` insists on one). The report's `ok` says whether something was compared and nothing failed."""
        from netsens.analyse.check import check_gradient

        feeds = self.feeds(inputs)
        plan = self.plan(wrt=wrt, of=of, target=target, cotangent=target is None, feeds=feeds)
        return check_gradient(
            self.observed(feeds), feeds, wrt=wrt, of=of, target=target, cotangent=cotangent, options=self.options, directions=directions,
            tolerance=tolerance, precision=precision, seed=seed, count_kinks=count_kinks, progress=progress, plan=plan,
        )  # fmt: skip

    def check_hessian(
        self, inputs: Feeds | Any, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, *, directions: int = 3,
        tolerance: float | None = None, precision: str = "auto", seed: int = 0, count_kinks: bool = False, progress: Callable[[int, int], None] | None = None,
    ) -> CheckReport:  # fmt: skip
        """Compares the Hessian's products with differences of gradients, and forward over reverse with reverse over reverse; as `check`."""
        from netsens.analyse.check_map import check_hessian

        feeds = self.feeds(inputs)
        return check_hessian(
            self.observed(feeds), feeds, wrt=wrt, of=of, target=target, options=self.options, directions=directions, tolerance=tolerance, precision=precision,
            seed=seed, count_kinks=count_kinks, progress=progress,
        )  # fmt: skip

    def check_jacobian(
        self, inputs: Feeds | Any, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, *, mode: str = "auto", seed: int = 0
    ) -> list[CheckedMatrix]:
        """Compares the Jacobian, as its colours and its waist give it, with products of the same map that know of no structure: a row a tensor. (That the
        map itself is right, `check` shows.)"""
        from netsens.analyse.check_map import check_matrix

        point = self.linearize(inputs, of, wrt, target)
        return check_matrix(point, point.prepared.plan(mode, None), seed)

    def inspect(self) -> Inspection:
        """What the model is made of: inputs, outputs, parameters, layers, and what netsens knows of each operator. Nothing runs."""
        from netsens.analyse.inspection import inspect_graph

        return inspect_graph(self.graph, self.path)

    def run(self, inputs: Feeds | Any, of: str | Sequence[str] | None = None) -> dict[str, Array]:
        """The model's outputs (or any of its values), by name."""
        names = list(self.graph.outputs) if of is None else [of] if isinstance(of, str) else list(of)
        session = self.session(("run", tuple(names)), pruned(self.graph, names))
        return dict(zip(names, session.run(self.feeds(inputs)), strict=True))

    # The parts that the command line uses too -----------------------------------------------------------------------------

    def plan(
        self, *, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, cotangent: bool = False,
        keep_outputs: bool = False, feeds: Mapping[str, Array] | None = None, method: str = "auto", finite_only: bool = False,
    ) -> GradientPlan:  # fmt: skip
        """The gradient graph for a question, built once."""
        wrt = selectors_of(wrt)
        question = (tuple(wrt), of, repr(target), cotangent, keep_outputs, method, finite_only)
        kept = (
            self._kept
            if feeds is not None and (target is None or isinstance(target, (str, int))) and None not in symbol_lengths(self.inputs, feeds).values()
            else None
        )
        if kept is not None:
            key: tuple[Any, ...] = ("kept", *question)
            if key not in self._plans:
                found = kept.plan(repr(question))
                if found is not None:
                    plan, program = found
                    self._plans[key], self._sessions[id(plan)] = plan, Session(program, self.options, lengths=self._lengths(feeds))
            if key in self._plans:
                return self._plans[key]
        graph = self.graph if feeds is None else self.observed(feeds)
        key = (id(graph), *question)
        if key not in self._plans:
            from netsens.jacobian.gradient import plan_gradient

            plan = plan_gradient(graph, of=of, wrt=wrt, target=target, cotangent=cotangent, keep_outputs=keep_outputs, method=method, finite_only=finite_only)
            self._plans[key] = plan
            if kept is not None and graph is self.graph and plan.results:
                self._keep(kept, repr(question), plan)
        return self._plans[key]

    def _keep(self, kept: KeptModel, question: str, plan: GradientPlan) -> None:
        """Has the plan kept once its session is open, since that says what onnxruntime could load."""

        def keep(program: Program) -> None:
            kept.keep(question, plan, program, self.inputs)

        self._to_keep[id(plan)] = keep

    def observed(self, feeds: Mapping[str, Array]) -> Graph:
        """The graph with the ranks that inference could not tell, as a run on these inputs shows them. Where an If gives tensors of one rank or
        another, the graph is that of the branches which these inputs take, asked anew each time."""
        from netsens.graph.observe import contradictions, observed, specialised

        graph = self.graph
        if contradictions(graph, feeds):
            graph = self._symbols_apart
        if not self._unknown:
            return graph

        def run(part: Graph, outputs: Sequence[str], given: Mapping[str, Array]) -> list[Any]:
            return self.session(("observed", tuple(n.outputs for n in part.nodes), tuple(outputs)), pruned(part, outputs)).run(given)

        branching = any(n.op == "If" and any(o in self._unknown for o in n.outputs) for n in graph.every_node())
        seen = (specialised if branching else observed)(graph, feeds, run)
        key = tuple(n.outputs for n in seen.nodes), tuple(t.rank for t in seen.types.values())
        return self._observed.setdefault(key, seen)

    @cached_property
    def _symbols_apart(self) -> Graph:
        from netsens.graph.observe import symbols_apart

        return symbols_apart(self.graph)

    @cached_property
    def _unknown(self) -> set[str]:
        from netsens.graph.observe import unknown_ranks

        return set(unknown_ranks(self.graph))

    def _linearization(self, feeds: dict[str, Array], of: str | None, wrt: str | Sequence[str], target: Target, method: str, second: bool) -> Point:
        """The linear map at these inputs; its programs are built once for inputs of one shape. `second`: that of the gradient."""
        from netsens.jacobian.answer import prepared

        if method not in ("auto", "autodiff"):
            raise UsageError(f"The method '{method}' is not auto or autodiff.")
        shapes = tuple((k, v.shape) for k, v in feeds.items())
        wrt = selectors_of(wrt)
        key = (of, tuple(wrt), repr(target), method, shapes, second)
        if key not in self._prepared or not self._prepared[key].holds(feeds):
            self._prepared[key] = prepared(
                self.observed(feeds), feeds, of, wrt, target, lambda g: Session(g, replace(self.options, turns=True)), method == "auto", second
            )
        found = self._prepared[key]
        for note in found.notes:
            warnings.warn(note, NetsensWarning, stacklevel=3)
        return found.at(feeds)

    def session(self, key: Any, graph: Graph, feeds: Mapping[str, Array] | None = None) -> Session:
        """A session for the graph, kept under the key. The first is for inputs of the lengths of `feeds`; when others come, one for any lengths takes its place,
        so that weights that onnxruntime has packed are never held twice."""
        lengths = self._lengths(feeds)
        found = self._sessions.get(key)
        if found is None:
            self._sessions[key] = found = Session(graph, self.options, self._to_keep.pop(key, None), lengths, arrays=True)
        elif found.lengths and found.lengths != lengths:
            del self._sessions[key]
            self._sessions[key] = found = found.general()
        return found

    def _lengths(self, feeds: Mapping[str, Array] | None) -> dict[str, int]:
        """The length of each symbolic dimension of the inputs; none where two inputs contradict each other."""
        lengths = {} if feeds is None or self.options.any_lengths else symbol_lengths(self.inputs, feeds)
        return {k: v for k, v in lengths.items() if v} if None not in lengths.values() else {}

    def feeds(self, inputs: Feeds | Any) -> dict[str, Array]:
        """The inputs as arrays of the model's dtypes; raises `InputError` for one that is missing, unknown or does not fit."""
        return fed(inputs, self.inputs, lambda: self.graph.constants)

    def _run(self, plan: GradientPlan, feeds: Mapping[str, Array], cotangent: Any) -> dict[str, Array]:
        if any(not a.size for a in feeds.values()) and not self.value(plan.of, feeds).size:
            # A sum over nothing. onnxruntime is not asked: some of its kernels don't take what has no elements.
            return {name: np.zeros_like(self.value(name, feeds)) for name in (*plan.results, *plan.zeros)}
        given: dict[str, Any] = dict(feeds)
        if plan.cotangent is not None:
            given[plan.cotangent] = self._cotangent(plan, feeds, cotangent)
        samples = plan.samples
        rows = None if samples is None else rows_at_a_time(samples, given, self.options)
        result = self._gradients(plan, given) if samples is None or rows is None else in_parts(partial(self._gradients, plan), samples, given, rows)
        for name in plan.zeros:
            result[name] = np.zeros_like(self.value(name, feeds))
        return result

    def _gradients(self, plan: GradientPlan, given: Mapping[str, Any]) -> dict[str, Array]:
        """What the plan's graph gives for these inputs, and this cotangent."""
        if not plan.results:
            return {}
        found = dict(zip(plan.graph.outputs, self.session(id(plan), plan.graph, given).run(given), strict=True))
        return {w: np.asarray(found[o]) for w, o in plan.results.items()}

    def value(self, name: str, feeds: Mapping[str, Array]) -> Array:
        """A tensor of the model at these inputs."""
        if name in feeds:
            return feeds[name]
        if name in self.graph.constants:
            return self.graph.constants[name]
        return self.run(feeds, name)[name]

    def _differences(
        self, feeds: dict[str, Array], wrt: str | Sequence[str], of: str | None, target: Target, cotangent: Any, step: float | None,
        progress: Callable[[int, int], None] | None,
    ) -> dict[str, Array]:  # fmt: skip
        """The gradient by finite differences of the whole model, with what they say of their own error."""
        from netsens.analyse.difference import finite_difference

        found = finite_difference(
            self.observed(feeds), feeds, wrt=wrt, of=of, target=target, cotangent=cotangent, options=self.options, step=step, progress=progress
        )
        for note in (*found.notes, found.sentence):
            warnings.warn(f"note: {note}", NetsensWarning, stacklevel=3)
        return dict(found.gradients)

    def _check_memory(self, plan: GradientPlan, feeds: Mapping[str, Array], samples: int, limit: int | None) -> None:
        """Raises `ToleranceError` where the gradients alone would take more than the user allows."""
        if limit is None:
            return
        needed = sum(self.value(w, feeds).nbytes * (samples if w in self.graph.constants else 1) for w in plan.results)
        if needed > limit:
            raise ToleranceError(f"The gradients take {needed:,} bytes and the memory limit is {limit:,}; narrow --wrt, or raise --memory-limit.")

    def _cotangent(self, plan: GradientPlan, feeds: Mapping[str, Array], cotangent: Any) -> Array:
        if isinstance(cotangent, Mapping):
            if list(cotangent) != [plan.of]:
                raise InputError(f"The cotangent is for '{plan.of}', and {', '.join(map(repr, cotangent))} was given.")
            cotangent = cotangent[plan.of]
        known = plan.graph.types.get(plan.of) or self.graph.types.get(plan.of)
        lengths = symbol_lengths(self.inputs, feeds)
        shape = tuple(lengths.get(d, d) if isinstance(d, str) else d for d in known.shape) if known and known.shape is not None else None
        if shape is None or not all(isinstance(d, int) for d in shape):
            shape = self.value(plan.of, feeds).shape
        return fitted(f"cotangent of {plan.of}", cotangent, TensorType(known.dtype if known else 1, shape))

    def _per_sample(
        self,
        feeds: dict[str, Array],
        wrt: str | Sequence[str],
        of: str | None,
        target: Target,
        cotangent: Any,
        method: str,
        memory_limit: int | None,
        step: float | None,
        progress: Callable[[int, int], None] | None,
    ) -> dict[str, Array]:
        sizes = {array.shape[0] for array in feeds.values() if array.ndim}
        if len(sizes) != 1:
            raise UsageError("--per-sample needs inputs that share their first axis, the batch.")
        (count,) = sizes
        if method == "finite-difference":
            from netsens.graph.names import find_layer

            layer = find_layer(self.graph, of)
        else:
            known = self.plan(wrt=wrt, of=of, target=target, cotangent=target is None, feeds=feeds, method=method)
            self._check_memory(known, feeds, count, memory_limit)
            layer = known.of
        dynamic = all(not isinstance((t.shape or (None,))[0], int) for t in self.inputs.values() if t.shape != ())
        y = self.value(layer, feeds) if not dynamic or cotangent is not None else None
        rows = []
        for k in range(count):
            if dynamic:
                alone = {name: array[k : k + 1] if array.ndim else array for name, array in feeds.items()}
                share = None if cotangent is None else np.asarray(cotangent)[k : k + 1]
                rows.append(self.grad(alone, wrt, of, target, share, method=method, step=step, progress=progress))
                continue
            if target is not None:
                raise UsageError("The model's batch size is fixed: --per-sample then takes a --cotangent, not a --target.")
            assert y is not None
            mask = np.zeros_like(y)
            mask[k] = 1 if cotangent is None else np.asarray(cotangent)[k]
            rows.append(self.grad(feeds, wrt, of, None, mask, method=method, step=step, progress=progress))
        if not rows:
            whole = self.grad(feeds, wrt, of, target, cotangent, method=method, step=step, progress=progress)
            return {name: np.zeros((0, *g.shape), g.dtype) if name in self.graph.constants else g for name, g in whole.items()}
        result: dict[str, Array] = {}
        for name in rows[0]:
            parts = [row[name] for row in rows]
            result[name] = np.stack(parts) if name in self.graph.constants else np.concatenate(parts) if dynamic else np.sum(parts, axis=0)
        return result


def _described(type_: TensorType | None) -> dict[str, Any]:
    """A type as JSON has it: a symbolic dimension is its name, an unknown one null."""
    if type_ is None or not type_.dtype:
        return {"dtype": None, "shape": None}
    return {"dtype": numpy_dtype(type_.dtype).name, "shape": None if type_.shape is None else list(type_.shape)}
