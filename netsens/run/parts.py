"""A batch that is computed in parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from netsens.graph.graph import Array
from netsens.jacobian.gradient_plan import Samples
from netsens.run.runtime import PROVIDERS, RunOptions, providers


def rows_at_a_time(samples: Samples, given: Mapping[str, Array], options: RunOptions) -> int | None:
    """How many samples of the batch to compute at a time; None for all of them. A GPU wants as many as it may have. Where not a bit may depend on how inputs come,
    nor does this on how many threads there are."""
    counts = {given[name].shape[0] for name in samples.inputs if name in given and given[name].ndim}
    if len(counts) != 1 or counts == {1} or not (samples.at_a_time or providers(options.provider) == [PROVIDERS["cpu"]]):
        return None
    (count,) = counts
    rows = samples.rows(count, 1 if options.any_lengths else options.threads or os.cpu_count() or 1)
    return rows if 0 < rows < count else None


def smaller_and_smaller(samples: Samples, given: Mapping[str, Array], options: RunOptions) -> Iterator[tuple[Samples, dict[str, Array]]]:
    """Parts of the batch that it can be computed in, the one that is best first: what is said of them, and the inputs of the first of each kind."""
    count = given[samples.inputs[0]].shape[0]
    best = rows_at_a_time(samples, given, options) or count
    for rows in range(best, 0, -1):
        if count % rows == 0:
            yield replace(samples, at_a_time=rows), next(_parts(samples, given, rows))


def in_parts(run: Callable[[Mapping[str, Array]], dict[str, Array]], samples: Samples, given: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """What `run` gives for the whole batch, put together from its parts. Half precision is added in float32."""
    pieces: dict[str, list[Array]] = {}
    totals: dict[str, Array] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for part in _parts(samples, given, rows):
        for name, value in run(part).items():
            if name not in samples.summed:
                pieces.setdefault(name, []).append(value)
            elif name in totals:
                totals[name] += value
            else:
                totals[name] = value.astype(np.float32) if value.dtype.itemsize == 2 else value
            dtypes[name] = value.dtype
    return {name: np.concatenate(pieces[name]) if name in pieces else totals[name].astype(dtype, copy=False) for name, dtype in dtypes.items()}


def _parts(samples: Samples, given: Mapping[str, Array], rows: int) -> Iterator[dict[str, Array]]:
    count = given[samples.inputs[0]].shape[0]
    for first in range(0, count, rows):
        yield {name: value[first : first + rows] if name in samples.inputs else value for name, value in given.items()}
