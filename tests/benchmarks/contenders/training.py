"""onnxruntime-training's gradient graph, run by the onnxruntime that comes with it. Where it has no gradient for an operator but has one for another that says the same,
the model is written with that one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.capi._pybind_state import GradientGraphBuilder

from tests.benchmarks.contenders.case import Case, Ready, wanted
from tests.benchmarks.contenders.runtime import session


def gradient(case: Case, x: Any) -> Ready:
    """On the model with its batch normalisations folded into its convolutions, as exporters do it by default."""
    model = onnx.load(case["folded"])
    for dimension, length in zip(model.graph.input[0].type.tensor_type.shape.dim, x.shape, strict=True):
        dimension.dim_value = length  # a pool's gradient has no samples where their number isn't known
    names = wanted(case, model)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    nodes = [written for node in model.graph.node for written in differentiable(node, constants, model.graph)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.node.append(helper.make_node("ReduceSum", [model.graph.output[0].name], ["loss"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("loss", 1, []))
    builder = GradientGraphBuilder(model.SerializeToString(), {"loss"}, set(names), "loss")
    builder.build()
    del model
    opened = session(builder.get_model(), case)
    given = {opened.get_inputs()[0].name: x}
    outputs = [output.name for output in opened.get_outputs() if output.name.endswith("_grad")]
    return Ready(lambda: opened.run(outputs, given), lambda found: {o.removesuffix("_grad"): g for o, g in zip(outputs, found, strict=True)}, case["folded"])


def differentiable(node: Any, constants: dict[str, Any], graph: Any) -> Iterator[Any]:
    """The node, or nodes that it has gradients of."""
    if node.op_type == "LayerNormalization" and len(node.output) == 1:
        node.output.extend([f"{node.output[0]}_mean", f"{node.output[0]}_inverse"])  # which its gradient reads
    if node.op_type != "BatchNormalization":
        yield node
        return
    x, scale, bias, mean, variance = node.input
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    for suffix, array in (("inverse", 1 / np.sqrt(constants[variance] + epsilon)), ("mean", constants[mean].reshape(-1, 1, 1))):
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), f"{node.name}_{suffix}"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, 1]), f"{node.name}_shape"))
    n = node.name
    for op, inputs, output in (
        ("Mul", [scale, f"{n}_inverse"], f"{n}_factor"), ("Reshape", [f"{n}_factor", f"{n}_shape"], f"{n}_wide"), ("Reshape", [bias, f"{n}_shape"], f"{n}_bias"),
        ("Sub", [x, f"{n}_mean"], f"{n}_centred"), ("Mul", [f"{n}_centred", f"{n}_wide"], f"{n}_scaled"), ("Add", [f"{n}_scaled", f"{n}_bias"], node.output[0]),
    ):  # fmt: skip
        yield helper.make_node(op, inputs, [output], name=output)
