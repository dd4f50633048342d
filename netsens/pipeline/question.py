"""What is asked of each input of a batch run. A question can be sent to another process, with its model and the graphs built from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from netsens.graph.graph import Array, Graph, walk
from netsens.model import Model
from netsens.report.inputs import Sample
from netsens.report.outputs import encoded, write_arrays
from netsens.report.summary import summarize, tensor_rows

Row = dict[str, Any]


@dataclass(slots=True)
class Answer:
    """The result for one input. `files`: it is in these already, since it was too large for memory."""

    arrays: Mapping[str, Any]
    rows: list[Row] | None = None  # the summary, where the question makes its own
    files: tuple[str, ...] = ()
    row_axes: int = 0  # of a Jacobian: how many of an array's axes are those of `of`


class Question(Protocol):
    """What a batch run asks of each sample."""

    model: Model
    suffix: str
    detail: ClassVar[tuple[str, ...]]  # figures of a summary row that are too much for a table

    def answer(self, sample: Sample, folder: str | None) -> Answer: ...

    def rows(self, sample: Sample, answer: Answer) -> list[Row]: ...

    def write(self, path: str, sample: Sample, answer: Answer) -> None: ...

    def encoded(self, answer: Answer) -> bytes | None: ...

    def key(self) -> str: ...


@dataclass(slots=True)
class GradientQuestion:
    """The gradient of `of` by `wrt`."""

    detail: ClassVar[tuple[str, ...]] = ()

    model: Model
    wrt: list[str]
    of: str | None = None
    target: str | None = None
    cotangent: Any = None
    per_sample: bool = False
    method: str = "auto"
    step: float | None = None
    memory_limit: int | None = None
    suffix: str = ".npz"

    def answer(self, sample: Sample, folder: str | None = None) -> Answer:
        return Answer(self.gradient(sample.arrays, self.cotangent))

    def gradient(self, arrays: Mapping[str, Array], cotangent: Any) -> dict[str, Array]:
        return self.model.grad(
            arrays, self.wrt, self.of, self.target, cotangent, per_sample=self.per_sample, method=self.method, step=self.step, memory_limit=self.memory_limit
        )

    def gradient_of_strangers(self, arrays: Mapping[str, Array], cotangent: Any) -> dict[str, Array]:
        """Of the rows of several inputs at once, none of which changes another's."""
        return self.model.grad_of_strangers(arrays, self.wrt, self.of, self.target, cotangent, method=self.method, memory_limit=self.memory_limit)

    def rows(self, sample: Sample, answer: Answer) -> list[Row]:
        return tensor_rows(answer.arrays, sample.features)

    def write(self, path: str, sample: Sample, answer: Answer) -> None:
        features = {name: sample.features[name] for name in answer.arrays if name in sample.features}
        write_arrays(path, answer.arrays, features=features, make_folder=True)

    def encoded(self, answer: Answer) -> bytes | None:
        """The bytes of a small result's file."""
        return encoded(answer.arrays, self.suffix)

    def key(self) -> str:
        imposed = "" if self.cotangent is None else hashlib.sha256(np.ascontiguousarray(self.cotangent).tobytes()).hexdigest()
        return _key(self.model, ["grad", self.wrt, self.of, self.target, imposed, self.per_sample, self.method, self.step])


@dataclass(slots=True)
class JacobianQuestion:
    """The Jacobian of `of` by `wrt`."""

    detail: ClassVar[tuple[str, ...]] = ("mean", "std", "l1", "largest", "at", "singular_values")

    model: Model
    wrt: list[str]
    of: str | None = None
    target: str | None = None
    mode: str = "auto"
    sparse: bool = False
    per_sample: bool = False
    method: str = "auto"
    memory_limit: int | None = None
    suffix: str = ".npz"
    singular: int | None = None  # so many of the largest singular values go into the summary
    stored: bool = True  # whether the matrix itself is wanted, and not its figures alone

    def answer(self, sample: Sample, folder: str | None = None) -> Answer:
        """In memory; in files of `folder` where it doesn't fit into half of the memory allowed."""
        from netsens.jacobian.answer import jacobian, result_bytes
        from netsens.jacobian.memory import free_memory

        point = self.model.linearize(sample.arrays, self.of, self.wrt, self.target, method=self.method)
        plan = point.prepared.plan(self.mode, self.memory_limit, not self.sparse)
        limit = (self.memory_limit if self.memory_limit is not None else free_memory()) // 2
        roomy = self.sparse or result_bytes(point.prepared, plan, self.per_sample) <= limit
        if not roomy and not self.stored:
            from netsens.jacobian.figures import figures

            plan = point.prepared.plan(self.mode, self.memory_limit, self.mode != "auto")
            return Answer({}, self._with_singular_values(point, [f.row() for f in figures(point, plan, None).values()]))
        files = str(Path(folder) / sample.name) if folder is not None and not roomy else None
        found = jacobian(point, mode=self.mode, sparse=self.sparse, per_sample=self.per_sample, memory_limit=self.memory_limit, folder=files)
        return Answer(
            found,
            self._with_singular_values(point, self._rows(point, found)),
            tuple(sorted(str(p) for p in Path(files).iterdir())) if files else (),
            len(point.out_shape),
        )

    def _with_singular_values(self, point: Any, rows: list[Row]) -> list[Row]:
        if self.singular is None:
            return rows
        from netsens.jacobian.figures import singular_values

        values = [float(v) for v in singular_values(point, self.singular)]
        return [{**row, "singular_values": values} for row in rows]

    def _rows(self, point: Any, found: Mapping[str, Any]) -> list[Row]:
        from netsens.jacobian.figures import of_array, of_sparse

        if self.per_sample:
            return [summarize(w, a) for w, a in found.items()]
        figures = of_sparse if self.sparse else of_array
        return [figures(w, matrix, point.out_shape, point.linearizer.shape(w)).row() for w, matrix in found.items()]

    def rows(self, sample: Sample, answer: Answer) -> list[Row]:
        return answer.rows or []

    def write(self, path: str, sample: Sample, answer: Answer) -> None:
        if self.sparse:
            from netsens.report.sparse import write_sparse

            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_sparse(path, answer.arrays)
        else:
            write_arrays(path, answer.arrays, make_folder=True)

    def encoded(self, answer: Answer) -> bytes | None:
        return None if self.sparse else encoded(answer.arrays, self.suffix)

    def key(self) -> str:
        return _key(self.model, ["jacobian", self.wrt, self.of, self.target, self.mode, self.sparse, self.per_sample, self.method])


def _key(model: Model, asked: Sequence[Any]) -> str:
    """A digest of the model and of what is asked, so that results of another question are never taken for done."""
    from netsens import __version__

    digest = hashlib.sha256(json.dumps([__version__, model.graph.straight_through, *asked], default=str).encode())

    def add(graph: Graph) -> Graph:
        for node in graph.nodes:
            attributes = {k: v for k, v in node.attributes.items() if not isinstance(v, Graph)}
            digest.update(repr((node.domain, node.op, node.inputs, node.outputs, sorted(attributes.items(), key=lambda kv: kv[0]))).encode())
        for name, array in graph.constants.items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes())
        return graph

    walk(model.graph, add)
    return digest.hexdigest()[:16]
