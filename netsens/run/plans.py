"""The gradient graphs of a model and the sessions that run them, each made once for what is asked and found again. Where the model has a place in the user's
cache, graphs come from there, and go there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from netsens.errors import ToleranceError
from netsens.graph.graph import Array, Graph, pruned
from netsens.graph.selectors import selectors_of
from netsens.run.feeds import symbol_lengths
from netsens.run.model_graph import ModelGraph
from netsens.run.runtime import Program, RunOptions
from netsens.run.session import Session

# What builds graphs is imported where it is needed: a gradient graph that comes from the cache needs none of it.
if TYPE_CHECKING:
    from netsens.jacobian.gradient_plan import GradientPlan
    from netsens.modes.target import Target
    from netsens.run.kept import KeptModel


class Plans:
    """Of one model. `options` hold for the sessions that are opened from then on."""

    def __init__(self, model: ModelGraph, options: RunOptions, kept: KeptModel | None = None, built: Iterable[tuple[Any, GradientPlan]] = ()) -> None:
        self.model = model
        self.options = options
        self._kept = kept
        self._built = {(id(model.graph), question): plan for question, plan in built}  # by the graph that it differentiates, and the question
        self._from_cache: dict[Any, GradientPlan] = {}
        self._for_shapes: dict[Any, GradientPlan] = {}
        self._within: dict[Any, GradientPlan] = {}
        self._sessions: dict[Any, Session] = {}
        self._to_keep: dict[Any, Callable[[Program], None]] = {}  # what is to be done with a session's program once it is open

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process needs: the graph and the gradient graphs built from it. Sessions are opened anew there."""
        whole = id(self.model.graph) if self.model.is_read else None
        return Plans, (self.model, self.options, self._kept, [(question, plan) for (graph, question), plan in self._built.items() if graph == whole])

    def without_cache(self) -> None:
        """Nothing is taken from the user's cache any more, or put there."""
        self._kept = None

    # Plans ----------------------------------------------------------------------------------------------------------------

    def plan(
        self, feeds: Mapping[str, Array] | None, *, wrt: str | Sequence[str], of: str | None, target: Target, cotangent: bool, method: str,
        keep_outputs: bool = False, finite_only: bool = False,
    ) -> GradientPlan:  # fmt: skip
        """The gradient graph for a question, built once."""
        wrt = selectors_of(wrt)
        question = (tuple(wrt), of, repr(target), cotangent, keep_outputs, method, finite_only)
        kept = None if feeds is None else self._place(feeds, target)
        if kept is not None:
            if question not in self._from_cache:
                self._take(kept, question, feeds)
            if question in self._from_cache:
                return self._from_cache[question]
        graph = self.model.graph if feeds is None else self.observed(feeds)
        key = (id(graph), question)
        if key not in self._built:
            from netsens.jacobian.gradient import plan_gradient

            plan = plan_gradient(graph, of=of, wrt=wrt, target=target, cotangent=cotangent, keep_outputs=keep_outputs, method=method, finite_only=finite_only)
            self._built[key] = plan
            if kept is not None and graph is self.model.graph and plan.results:
                self._keep(kept, question, plan)
        return self._built[key]

    def for_shapes(self, feeds: Mapping[str, Array], **question: Any) -> GradientPlan:
        """The plan, found at once where the same was asked for inputs of these shapes before; a model whose types depend on its inputs' values is asked anew."""
        key = (*[v.shape for v in feeds.values()], *map(repr, question.values()))
        if key not in self._for_shapes:
            plan = self.plan(feeds, **question)
            if self.model.is_read and self.model.unknown:
                return plan
            self._for_shapes[key] = plan
        return self._for_shapes[key]

    def within(self, memory_limit: int, feeds: Mapping[str, Array], **question: Any) -> GradientPlan:
        """The plan for inputs of exactly these shapes, within the limit: for the whole batch, for parts of it, or with inner values computed again."""
        key = (memory_limit, tuple((k, v.shape) for k, v in feeds.items()), *map(repr, question.values()))
        if key not in self._within:
            self._within[key] = self._fitting(memory_limit, feeds, question)
        return self._within[key]

    def _fitting(self, limit: int, feeds: Mapping[str, Array], question: Mapping[str, Any]) -> GradientPlan:
        from netsens.jacobian.gradient import samples_of
        from netsens.jacobian.limited import taken, within
        from netsens.run.parts import smaller_and_smaller

        whole = self._specialised(feeds, question)
        plan, model = whole
        together = self.check_memory(plan, feeds, 1, limit)
        samples = samples_of(self.observed(feeds), plan.of, question["target"], list(plan.results), plan.cotangent)
        if samples is None:
            return replace(within(plan, model, limit), limited=True)
        count = feeds[samples.inputs[0]].shape[0]
        for said, part in smaller_and_smaller(samples, feeds, self.options):
            (plan, model), held = (whole, 0) if said.at_a_time == count else (self._specialised(part, question), together)
            if taken(plan, model) + held <= limit:
                break
        return replace(within(plan, model, limit, held), samples=said, limited=True)

    def _specialised(self, feeds: Mapping[str, Array], question: Mapping[str, Any]) -> tuple[GradientPlan, Graph]:
        """The plan for inputs of exactly these shapes, and the graph that it differentiates."""
        from netsens.jacobian.gradient import plan_gradient
        from netsens.modes.split import specialised

        graph = specialised(self.observed(feeds), {k: v.shape for k, v in feeds.items()})
        return plan_gradient(graph, **question), graph

    def check_memory(self, plan: GradientPlan, feeds: Mapping[str, Array], samples: int, limit: int) -> int:
        """How many bytes the gradients alone take; raises `ToleranceError` where the user allows less."""
        needed = sum(self.value(w, feeds).nbytes * (samples if w in self.model.graph.constants else 1) for w in plan.results)
        if needed > limit:
            raise ToleranceError(f"The gradients take {needed:,} bytes and the memory limit is {limit:,}; narrow --wrt, or raise --memory-limit.")
        return needed

    # The user's cache -----------------------------------------------------------------------------------------------------

    def _place(self, feeds: Mapping[str, Array], target: Target) -> KeptModel | None:
        """Where a plan for these inputs is kept; None for one that isn't."""
        if self._kept is None or not (target is None or isinstance(target, (str, int))):
            return None
        return None if None in symbol_lengths(self.model.inputs, feeds).values() else self._kept

    def _take(self, kept: KeptModel, question: tuple[Any, ...], feeds: Mapping[str, Array] | None) -> None:
        """The plan from the cache, with its session, where it is there."""
        found = kept.plan(repr(question))
        if found is not None:
            plan, program = found
            self._from_cache[question] = plan
            self._sessions[id(plan)] = Session(program, self.options, lengths=self._lengths(feeds))

    def _keep(self, kept: KeptModel, question: tuple[Any, ...], plan: GradientPlan) -> None:
        """Has the plan kept once its session is open, since that says what onnxruntime could load."""
        inputs = self.model.inputs
        self._to_keep[id(plan)] = lambda program: kept.keep(repr(question), plan, program, inputs)

    # Sessions -------------------------------------------------------------------------------------------------------------

    def session(self, key: Any, graph: Graph, feeds: Mapping[str, Array] | None = None, lean: bool = False) -> Session:
        """A session for the graph, kept under the key; `lean` as in `RunOptions`. The first is for inputs of the lengths of `feeds`; when others come, one for any
        lengths takes its place, so that weights that onnxruntime has packed are never held twice."""
        lengths = self._lengths(feeds)
        found = self._sessions.get(key)
        if found is None:
            options = replace(self.options, lean=True) if lean else self.options
            self._sessions[key] = found = Session(graph, options, self._to_keep.pop(key, None), lengths, arrays=True)
        elif found.lengths and found.lengths != lengths:
            del self._sessions[key]
            self._sessions[key] = found = found.general()
        return found

    def _lengths(self, feeds: Mapping[str, Array] | None) -> dict[str, int]:
        """The length of each symbolic dimension of the inputs; none where two inputs contradict each other."""
        lengths = {} if feeds is None or self.options.any_lengths else symbol_lengths(self.model.inputs, feeds)
        return {k: v for k, v in lengths.items() if v} if None not in lengths.values() else {}

    def observed(self, feeds: Mapping[str, Array]) -> Graph:
        """The model's graph as a run on these inputs shows it."""
        return self.model.observed(feeds, self._run_part)

    def _run_part(self, part: Graph, outputs: Sequence[str], given: Mapping[str, Array]) -> list[Any]:
        return self.session(("observed", tuple(n.outputs for n in part.nodes), tuple(outputs)), pruned(part, outputs)).run(given)

    def values(self, names: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Values of the model at these inputs, by name."""
        session = self.session(("run", tuple(names)), pruned(self.model.graph, names))
        return dict(zip(names, session.run(feeds), strict=True))

    def value(self, name: str, feeds: Mapping[str, Array]) -> Array:
        """A tensor of the model at these inputs."""
        if name in feeds:
            return feeds[name]
        if name in self.model.graph.constants:
            return self.model.graph.constants[name]
        return self.values([name], self.model.feeds(feeds))[name]
