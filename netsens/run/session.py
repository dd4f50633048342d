"""Sessions: graphs loaded into onnxruntime, and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from netsens.errors import NetsensError, RunError
from netsens.graph.dtypes import HALVES, is_float, numpy_dtype
from netsens.graph.graph import Array, Graph, shape_text
from netsens.run.runtime import Opening, Program, RunOptions, memory_of, ort_value, short_message


class Session:
    """A graph loaded into onnxruntime, or a program that was made of one before. Its large constants stay where they are: onnxruntime gets
    references to them. `keep` is handed the program that was loaded. Where `lengths` are given the session is for inputs whose symbolic dimensions have
    these lengths alone, which onnxruntime plans better. `arrays` says that outputs are only ever taken as NumPy arrays, by `run`."""

    def __init__(
        self,
        graph: Graph | Program,
        options: RunOptions = RunOptions(),  # noqa: B008  # a frozen dataclass
        keep: Callable[[Program], None] | None = None,
        lengths: Mapping[str, int] | None = None,
        arrays: bool = False,
    ) -> None:
        self.inputs = list(graph.inputs)
        self.outputs = list(graph.outputs)
        self._arrays = arrays
        self._source = graph
        self._options = options
        opening = Opening(options, lengths or {})
        program: Callable[[], Program] | None = None
        try:
            if isinstance(graph, Program):
                self._dtypes, self._shapes, self.widened = graph.dtypes, graph.shapes, graph.widened
                self._opened = opening.of_any_lengths(lambda: opening.open(graph.proto, graph.arrays))
            else:
                from netsens.run.loading import Loading

                loading = Loading(graph, opening, arrays=arrays, keeping=keep is not None)
                self._dtypes, self._shapes, self.widened, self._opened = loading.dtypes, loading.shapes, loading.widened, loading.opened
                program = loading.program
        except NetsensError:
            raise
        except Exception as error:  # onnxruntime raises a family of C++ errors without a public root
            raise RunError(f"onnxruntime cannot load the graph: {short_message(error)}{_remedy(str(error))}") from error
        self.lengths = opening.lengths
        self._session = self._opened.session
        if keep is not None and program is not None:
            keep(program())

    def general(self) -> Session:
        """The same for inputs of any lengths."""
        return Session(self._source, self._options, arrays=self._arrays)

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """The outputs, in order, for NumPy arrays."""
        wanted = list(self.outputs if outputs is None else outputs)
        given = {k: v for k, v in feeds.items() if k in self.inputs}
        try:
            found = list(self._session.run(wanted, _widened(given) if self.widened else given))
        except Exception as error:
            raise RunError(f"onnxruntime failed while running the model: {short_message(error)}") from error
        if self.widened:
            found = [_narrowed(v, self._dtypes.get(o)) for o, v in zip(wanted, found, strict=True)]
        return [_reshaped(v, self._shapes[o], o) if o in self._shapes else v for o, v in zip(wanted, found, strict=True)] if self._shapes else found

    def run_values(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name, as onnxruntime's own values and where it put them: on a GPU they stay in its memory, for a next session to read. Feeds are such
        values or arrays; an array must stay alive until this returns, or as long as a value that is one of the feeds."""
        if self.widened:
            feeds = _widened(feeds)
        given = {k: v for k, v in feeds.items() if k in self.inputs}
        try:
            if any(_is_text(v) for v in given.values()):  # which onnxruntime takes as arrays alone
                found = self._session.run(self.outputs, {k: v if isinstance(v, np.ndarray) else v.numpy() for k, v in given.items()})
                results = [a if _is_text(a) else ort_value(a) for a in found]
            else:
                results = self._bound({k: ort_value(v) if isinstance(v, np.ndarray) else v for k, v in given.items()})
        except Exception as error:
            raise RunError(f"onnxruntime failed while running the model: {short_message(error)}") from error
        return dict(zip(self.outputs, results, strict=True))

    def _bound(self, values: Mapping[str, Any]) -> list[Any]:
        """The outputs in the memory of the provider that computes them; onnxruntime would otherwise bring each to the host."""
        memory = memory_of(self._session.get_providers()[0])
        if memory is None:
            return list(self._session.run_with_ort_values(self.outputs, values))
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, memory)
        self._session.run_with_iobinding(binding)
        return list(binding.get_outputs())


def _reshaped(array: Array, shape: Sequence[int], name: str) -> Array:
    """An output under the axes that the graph's last Reshape would give it."""
    if array.size != prod(shape):
        raise RunError(
            f"The output '{name}' has {array.size} elements, and the model reshapes it to {shape_text(shape)}; feed a batch of the length it was made for."
        )
    return array.reshape(shape)


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"


def _widened(feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Half precision arrays as float32."""
    return {k: v.astype(np.float32) if isinstance(v, np.ndarray) and is_float(v.dtype) and v.dtype.itemsize == 2 else v for k, v in feeds.items()}


def _narrowed(value: Any, dtype: int | None) -> Any:
    """A result in the dtype that the graph gives it."""
    return value.astype(numpy_dtype(dtype)) if dtype in HALVES and isinstance(value, np.ndarray) else value


def _remedy(message: str) -> str:
    """What mends a graph that onnxruntime refuses, where the refusal tells."""
    if "is not a registered function/op" in message or "No Op registered for" in message:
        return ". A custom operator runs only where the model holds it as a function; export it so, or choose layers that don't need it with --of."
    if "Could not find an implementation" in message:
        return ". It has no kernel for numbers of this kind; --compute-dtype float32 has the model computed in those that all kernels know."
    return ""
