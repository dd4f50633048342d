"""Whether the types of a graph say the truth: every value is computed and held against what its type promised. A symbol must mean
one length wherever it stands, and an expression what its symbols make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnxruntime

from netsens.graph.dtypes import numpy_dtype
from netsens.graph.graph import Graph
from netsens.graph.save import model_proto
from netsens.graph.sizes import _ARGUMENTS, _QUOTIENTS, Expression, size_of


def values_of(graph: Graph, feeds: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Every value of the graph itself (not of its subgraphs)."""
    names = [o for n in graph.nodes for o in n.outputs if o and o in graph.types and not graph.types[o].container]
    names = [n for n in names if graph.types[n].dtype]
    proto, _ = model_proto(replace(graph, outputs=names, types={k: replace(t, shape=None) if k in names else t for k, t in graph.types.items()}))
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(names, {i.name: feeds[i.name] for i in session.get_inputs()})
    return {**dict(zip(names, found, strict=True)), **{k: feeds[k] for k in graph.inputs}}


def disagreements(graph: Graph, feeds: Mapping[str, np.ndarray]) -> list[str]:
    """One line for each value whose type is not what came out."""
    wrong, lengths = [], dict[str, int]()
    values = values_of(graph, feeds)
    arrays = [(n, v, graph.types[n]) for n, v in values.items() if isinstance(v, np.ndarray)]
    for name, array, type_ in arrays:
        if array.dtype != object and type_.dtype and numpy_dtype(type_.dtype) != array.dtype:
            wrong.append(f"{name}: dtype {type_.dtype}, not {array.dtype}")
        if type_.shape is not None and len(type_.shape) != array.ndim:
            wrong.append(f"{name}: {type_.shape}, not {array.shape}")
            continue
        for dim, length in zip(type_.shape or (), array.shape, strict=False):
            size = size_of(dim)
            if isinstance(size, Expression) and str(size) == dim and size.terms == (((dim,), 1),) and lengths.setdefault(dim, length) != length:
                wrong.append(f"{name}: '{dim}' is {length}, and elsewhere {lengths[dim]}")
    for name, array, type_ in arrays:
        for dim, length in zip(type_.shape or (), array.shape, strict=False):
            size = size_of(dim)
            worth = evaluated(size, lengths) if isinstance(size, Expression) else size
            if worth is not None and worth != length:
                wrong.append(f"{name}: {type_.shape}, not {array.shape}")
    return wrong


def evaluated(size: Expression | int, lengths: Mapping[str, int]) -> int | None:
    """The expression at these lengths; None where it mentions others."""
    if isinstance(size, int):
        return size
    total = 0
    for names, factor in size.terms:
        for name in names:
            value = worth(name, lengths)
            if value is None:
                return None
            factor *= value
        total += factor
    return total


def worth(name: str, lengths: Mapping[str, int]) -> int | None:
    if name in _QUOTIENTS:
        above = evaluated(_QUOTIENTS[name][0], lengths)
        return None if above is None else above // _QUOTIENTS[name][1]
    if name.startswith("max("):
        parts = [evaluated(a, lengths) for a in _ARGUMENTS[name]]
        return max(p for p in parts if p is not None) if None not in parts else None
    return lengths.get(name)
