"""Writes a trained model as an ONNX file, once it has been shown to equal the PyTorch model that it came from.

The graphs are written node by node and not exported, so that layers and parameters keep readable names and no
exporter folds a BatchNormalization into the convolution before it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 8  # the oldest that may hold opset 18, so that older runtimes open the files too
LARGEST_FILE = 1_000_000  # bytes


def node(operator: str, inputs: Sequence[str], output: str, name: str = "", **attributes: object) -> NodeProto:
    """One node with one output; its name is the output's unless another is given."""
    return helper.make_node(operator, list(inputs), [output], name=name or output, **attributes)


def constant(name: str, value: object, dtype: type) -> NodeProto:
    """A Constant node, for numbers that belong to the graph's form and are no parameters."""
    return helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(np.array(value, dtype)))


def tensor(name: str, shape: Sequence[int | str], element_type: int = TensorProto.FLOAT) -> ValueInfoProto:
    """The declaration of a graph input or output."""
    return helper.make_tensor_value_info(name, element_type, list(shape))


def parameters_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """The module's parameters and float buffers as arrays, by PyTorch's names for them."""
    return {name: value.numpy() for name, value in module.state_dict().items() if value.is_floating_point()}


def write(
    path: Path,
    nodes: Sequence[NodeProto],
    graph_input: ValueInfoProto,
    graph_output: ValueInfoProto,
    parameters: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    trained: torch.nn.Module,
    examples: np.ndarray,
) -> None:
    """Check the model against `trained` on one and on all of `examples`, then write it to `path`."""
    graph = helper.make_graph(
        list(nodes),
        path.stem,
        [graph_input],
        [graph_output],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in parameters.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="netsens sample_models")
    helper.set_model_props(model, dict(metadata))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    if len(content) > LARGEST_FILE:
        raise RuntimeError(f"{path.name} has {len(content)} bytes; a sample model may have {LARGEST_FILE}")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in (examples[:1], examples):
        with torch.no_grad():
            expected = trained(torch.from_numpy(batch)).numpy()
        (found,) = session.run(None, {graph_input.name: batch})
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6, err_msg=path.name)
    path.write_bytes(content)
