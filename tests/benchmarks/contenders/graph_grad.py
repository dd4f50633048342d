"""onnxsim's graph_grad, on the model as onnxsim simplifies it for the input's shape. Where it has no gradient for an operator but has one for others that say the same,
the model is written with those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxsim
from onnx import helper, inliner, numpy_helper
from onnxsim import graph_grad, qat_graph

from tests.benchmarks.contenders.case import Case, Ready, wanted
from tests.benchmarks.contenders.runtime import session


def gradient(case: Case, x: Any) -> Ready:
    """Batch normalisations are folded where the gradient is by the input, and kept where it is by their parameters."""
    given = onnx.load(case["model"])
    name = given.graph.input[0].name
    model, _ = onnxsim.simplify(given, overwrite_input_shapes={name: list(x.shape)}, skip_fuse_bn=case["by"] == "params")
    simplified = f"{case['hand']}.simplified.onnx"
    onnx.save(model, simplified)
    asked = wanted(case, model)
    shapes = known_shapes(model)
    nodes = [written for node in model.graph.node for written in differentiable(node, shapes, model.graph)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    shapes = known_shapes(model)
    builder = qat_graph.GraphBuilder("grad_")
    output = model.graph.output[0].name
    seed = builder.const(np.ones(shapes[output], np.float32))
    found = graph_grad.build_backward(builder, list(behind(asked, nodes)), shapes, {output: seed}, asked)
    model.graph.node.extend(builder.nodes)
    model.graph.initializer.extend(builder.initializer)
    model.functions.extend(builder.functions)
    model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in sorted({f.domain for f in builder.functions}))
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(tensor, 1, shapes[w]) for w, tensor in found.items())
    if builder.functions:
        model = inliner.inline_local_functions(model)
    model, _ = onnxsim.simplify(model)  # as its own step graphs are
    opened = session(model.SerializeToString(), case)
    outputs = list(found.values())
    return Ready(lambda: opened.run(outputs, {name: x}), lambda values: dict(zip(found, values, strict=True)), simplified)


def known_shapes(model: Any) -> dict[str, list[int]]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values} | {i.name: list(i.dims) for i in graph.initializer}


def differentiable(node: Any, shapes: dict[str, list[int]], graph: Any) -> Iterator[Any]:
    """The node, or nodes that it has gradients of."""

    def shape(of: Sequence[int], name: str) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(of, np.int64), name))
        return name

    (y, *_) = node.output
    if node.op_type == "Flatten":
        yield helper.make_node("Reshape", [node.input[0], shape(shapes[y], f"{y}_shape")], [y])
    elif node.op_type == "Gather" and len(shapes[node.input[1]]) > 1 and not any(a.i for a in node.attribute if a.name == "axis"):
        rows = [int(np.prod(shapes[node.input[1]]))]
        yield helper.make_node("Reshape", [node.input[1], shape(rows, f"{y}_rows")], [f"{y}_indices"])
        yield helper.make_node("Gather", [node.input[0], f"{y}_indices"], [f"{y}_flat"], axis=0)
        yield helper.make_node("Reshape", [f"{y}_flat", shape(shapes[y], f"{y}_shape")], [y])
    else:
        yield node


def behind(asked: Sequence[str], nodes: Sequence[Any]) -> Iterator[Any]:
    """The nodes that depend on what is asked, since it refuses any other that it doesn't know, too."""
    reached = set(asked)
    for node in nodes:
        if reached & set(node.input):
            reached |= set(node.output)
            yield node
