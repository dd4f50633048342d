"""What to do where onnxruntime lacks an operator or a kernel: operators newer than it knows, and those without a kernel, are written out in
others; half precision without kernels is computed in float32."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from netsens.graph.dtypes import FLOAT, HALVES
from netsens.graph.graph import Graph, Node
from netsens.graph.opset import runnable_opset
from netsens.graph.precision import in_precision
from netsens.rules.standard import written_out

Loaded = TypeVar("Loaded")

_MISSING = re.compile(r"Could not find an implementation for ([\w.]+)\(\d+\) node|bound to different types|is not a registered function/op")


def at_opset(graph: Graph, newest: int) -> Graph:
    """The graph at an opset that the runtime knows, operators that it doesn't have written out."""
    if graph.opset <= newest:
        return graph
    return runnable_opset(written_out(graph, lambda node: _is_newer(node, newest)), newest)


def load_otherwise(graph: Graph, load: Callable[[Graph], Loaded]) -> tuple[Loaded, bool]:
    """What `load` makes of the graph, after as many rewrites as its complaints about missing kernels call for; and whether the floats are
    now float32 instead of half."""
    tried: set[str] = set()
    widened = False
    while True:
        try:
            return load(graph), widened
        except Exception as error:  # onnxruntime raises a family of C++ errors without a public root
            missing = _MISSING.search(str(error))
            if missing is None:
                raise
            if not widened and any(t.dtype in HALVES for t in graph.types.values()):
                graph, widened = in_precision(graph, FLOAT), True
                continue
            op = (missing[1] or "").rpartition(".")[2]
            if not op or op in tried:
                raise
            tried.add(op)
            graph = written_out(graph, lambda node, op=op: node.op == op)  # type: ignore[misc]


def _is_newer(node: Node, newest: int) -> bool:
    import onnx

    if node.domain:
        return False
    try:
        onnx.defs.get_schema(node.op, newest, "")
    except onnx.defs.SchemaError:
        return True
    return False
