"""The Python face of netsens: a loaded model, and the questions one can ask of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsens.errors import NetsensWarning, UsageError
from netsens.graph.graph import Array, Graph, TensorType, shape_text
from netsens.run.feeds import Feeds
from netsens.run.gradients import gradient
from netsens.run.model_graph import ModelGraph, read_graph
from netsens.run.plans import Plans
from netsens.run.runtime import RunOptions
from netsens.run.session import Session

# What builds graphs is imported where it is needed: a gradient graph that comes from the cache needs none of it.
if TYPE_CHECKING:
    import onnx

    from netsens.analyse.check import CheckReport
    from netsens.analyse.check_map import CheckedMatrix
    from netsens.analyse.inspection import Inspection
    from netsens.jacobian.answer import Point
    from netsens.jacobian.figures import Figures
    from netsens.jacobian.gradient_plan import GradientPlan
    from netsens.jacobian.plan import Plan
    from netsens.modes.target import Target
    from netsens.run.kept import KeptModel
    from netsens.run.linear_maps import LinearMaps


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
    read = partial(read_graph, source, compute_dtype)
    path = Path(source) if isinstance(source, (str, Path)) else None
    kept = None
    if cache and path is not None:
        from netsens.run.kept import kept_for_user

        kept = kept_for_user(path, {"quantized": quantized, "compute_dtype": compute_dtype, "provider": provider})
    known = kept is not None and kept.inputs is not None
    return Model(read if known else read(), RunOptions(provider, threads), path, quantized, kept)


class Model:
    """An ONNX model that can be differentiated. Built graphs and their sessions are kept, so a question asked again only runs."""

    def __init__(
        self, graph: Graph | Callable[[], Graph], options: RunOptions, path: Path | None = None, quantized: str = "zero", kept: KeptModel | None = None
    ) -> None:
        self.path = path
        self._model = ModelGraph(graph, quantized == "straight-through", None if kept is None else kept.inputs)
        self._plans = Plans(self._model, options, kept)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {'?' if t.shape is None else shape_text(t.shape, 'a number')}" for name, t in self.inputs.items())
        return f"<netsens.Model {'' if self.path is None else f'{self.path.name} '}({inputs})>"

    def without_files(self) -> Model:
        """The same model for a machine that hasn't its file: the graph is read now, and what this machine has kept is left behind."""
        self._model.without_source()
        self._plans.without_cache()
        return self

    @property
    def graph(self) -> Graph:
        """The model in normal form; read when it is first needed, where the cache knows what was asked so far."""
        return self._model.graph

    @property
    def options(self) -> RunOptions:
        """How onnxruntime runs what is opened from then on."""
        return self._plans.options

    @options.setter
    def options(self, options: RunOptions) -> None:
        self._plans.options = options

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The model's inputs, with their types."""
        return self._model.inputs

    def grad(
        self, inputs: Feeds | Any, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, cotangent: Any = None, *,
        per_sample: bool = False, method: str = "auto", memory_limit: int | None = None, step: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Array]:  # fmt: skip
        """The gradient of `of` by each tensor of `wrt`, {name: array of the tensor's shape}.

        `inputs` are the model's inputs by name (or the one array of a model with one input). `of` is an output or a layer (default: the
        first output), `target` chooses components of it; all of them are summed, or weighed by `cotangent`, an array of the shape of
        `of`. A parameter's gradient is summed over the batch; `per_sample` keeps the batch as its first axis.

        `method` is "auto" (exact rules, finite differences for operators without one), "autodiff" (exact or an error) or
        "finite-difference" (the whole model, with an estimate of the error; `step` sets the step, `progress` is told evaluations done and
        in all). `memory_limit` bounds the bytes that it computes, weights and inputs apart: above it a batch
        of images goes in parts, and inner values are computed again instead of kept; `ToleranceError` is raised where that isn't enough."""
        feeds = self.feeds(inputs)
        if method not in ("auto", "autodiff", "finite-difference"):
            raise UsageError(f"The method '{method}' is not auto, autodiff or finite-difference.")
        if step is not None and method != "finite-difference":
            raise UsageError("A step is for finite differences alone: add --method finite-difference.")
        if per_sample:
            from netsens.run.per_sample import per_sample as each

            def one(feeds: dict[str, Array], target: Target, cotangent: Any) -> dict[str, Array]:
                return self.grad(feeds, wrt, of, target, cotangent, method=method, step=step, progress=progress)

            return each(self._plans, one, feeds, wrt, of, target, cotangent, method, memory_limit)
        if method == "finite-difference":
            from netsens.analyse.difference import finite_difference

            differences = finite_difference(
                self.observed(feeds), feeds, wrt=wrt, of=of, target=target, cotangent=cotangent, options=self.options, step=step, progress=progress
            )
            for note in (*differences.notes, differences.sentence):
                warnings.warn(f"note: {note}", NetsensWarning, stacklevel=2)
            return dict(differences.gradients)
        return gradient(self._plans, feeds, wrt, of, target, cotangent, method, memory_limit, look_again=True)

    def grad_of_strangers(
        self, inputs: Feeds | Any, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, cotangent: Any = None, *,
        method: str = "auto", memory_limit: int | None = None,
    ) -> dict[str, Array]:  # fmt: skip
        """As `grad`, for a batch of samples that have nothing to do with each other. `grad` looks again where the result isn't finite though the output
        is; that is not done here, since one sample would change the others' gradients by it: such a sample is to be asked for alone."""
        return gradient(self._plans, self.feeds(inputs), wrt, of, target, cotangent, method, memory_limit, look_again=False)

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
        from netsens.jacobian.gradient_model import check_standard, described, gradient_graph
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
            model=None if self.path is None else self.path.name, file=Path(path).name, target=target, convention=convention,
            **described(plan, graph, self.graph),
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
        return self._maps.at(self.feeds(inputs), of, wrt, target, method, second=False)

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
        return self._maps.at(self.feeds(inputs), of, wrt, target, method, second=True)

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
        return self._plans.values(names, self.feeds(inputs))

    # The parts that the command line uses too -----------------------------------------------------------------------------

    def plan(
        self, *, wrt: str | Sequence[str] = "inputs", of: str | None = None, target: Target = None, cotangent: bool = False,
        keep_outputs: bool = False, feeds: Mapping[str, Array] | None = None, method: str = "auto", finite_only: bool = False,
    ) -> GradientPlan:  # fmt: skip
        """The gradient graph for a question, built once."""
        return self._plans.plan(feeds, wrt=wrt, of=of, target=target, cotangent=cotangent, method=method, keep_outputs=keep_outputs, finite_only=finite_only)

    def observed(self, feeds: Mapping[str, Array]) -> Graph:
        """The graph with the ranks that inference could not tell, as a run on these inputs shows them. Where an If gives tensors of one rank or
        another, the graph is that of the branches which these inputs take, asked anew each time."""
        return self._plans.observed(feeds)

    def session(self, key: Any, graph: Graph, feeds: Mapping[str, Array] | None = None) -> Session:
        """A session for the graph, kept under the key. The first is for inputs of the lengths of `feeds`; when others come, one for any lengths takes its place,
        so that weights that onnxruntime has packed are never held twice."""
        return self._plans.session(key, graph, feeds)

    def feeds(self, inputs: Feeds | Any) -> dict[str, Array]:
        """The inputs as arrays of the model's dtypes; raises `InputError` for one that is missing, unknown or does not fit."""
        return self._model.feeds(inputs)

    def value(self, name: str, feeds: Mapping[str, Array]) -> Array:
        """A tensor of the model at these inputs."""
        return self._plans.value(name, feeds)

    @cached_property
    def _maps(self) -> LinearMaps:
        from netsens.run.linear_maps import LinearMaps

        return LinearMaps(self._plans)
