"""One contender of a benchmark, in a process of its own: it sets itself up, says `ready`, and then runs once for every line on standard input and prints how
long that took. Its memory is so its own, and it may be run by another Python, with packages that don't go together with this one's.

    python tests/benchmarks/contender.py NAME '{"model": "m.onnx", "x": "x.npy", "architecture": "resnet18", "full": true, "by": "input", "threads": 2}'"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], Any]
Case = dict[str, Any]


def session(model: str | bytes, case: Case) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feeds(opened: Any, x: Any) -> dict[str, Any]:
    return {opened.get_inputs()[0].name: x}


def forward(case: Case, x: Any) -> Run:
    """onnxruntime's forward pass alone, what a gradient is measured by."""
    opened = session(case["model"], case)
    return lambda: opened.run(None, feeds(opened, x))


def netsens(case: Case, x: Any) -> Run:
    import netsens

    model = netsens.load(case["model"], threads=case["threads"], provider="cpu")
    wrt = "inputs" if case["by"] == "input" else "params"
    plan = model.plan(wrt=wrt, method="autodiff")
    given = {next(iter(model.inputs)): x}
    opened = model.session(id(plan), plan.graph, given)
    opened.run(given)
    return lambda: opened.run(given)


def torch(case: Case, x: Any) -> Run:
    return _torch(case, x, compiled=False)


def compiled(case: Case, x: Any) -> Run:
    """torch.compile, forward and backward pass."""
    return _torch(case, x, compiled=True)


def _torch(case: Case, x: Any, compiled: bool) -> Run:
    import torch

    from tests.models.architectures import ARCHITECTURES
    from tests.models.export import seeded

    if case["architecture"] is None:
        raise RuntimeError("there is no PyTorch module of it")
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    architecture = next(a for a in ARCHITECTURES if a.name == case["architecture"])
    module = seeded(architecture.full() if case["full"] else architecture.small())
    by_input = case["by"] == "input"
    for parameter in module.parameters():
        parameter.requires_grad_(not by_input)
    at = torch.from_numpy(x)
    if by_input and not at.is_floating_point():
        module.tokens.weight.requires_grad_()  # type: ignore[union-attr]  # the first numbers that a gradient can be taken by
    function = torch.compile(module) if compiled else module

    def run() -> None:
        given = at.clone().requires_grad_() if by_input and at.is_floating_point() else at
        for parameter in module.parameters():
            parameter.grad = None
        function(given).sum().backward()

    run()
    return run


def training(case: Case, x: Any) -> Run:
    """onnxruntime-training's gradient graph, run by the onnxruntime that comes with it; on the model with its batch normalisations folded into its convolutions,
    since it has no gradient for them outside of training."""
    import onnx
    from onnxruntime.capi._pybind_state import GradientGraphBuilder

    model = onnx.load(case["folded"])
    model.graph.node.append(onnx.helper.make_node("ReduceSum", [model.graph.output[0].name], ["loss"], keepdims=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("loss", 1, []))
    builder = GradientGraphBuilder(model.SerializeToString(), {"loss"}, set(_wanted(case, model)), "loss")
    builder.build()
    opened = session(builder.get_model(), case)
    return lambda: opened.run(None, feeds(opened, x))


def _wanted(case: Case, model: Any) -> list[str]:
    if case["by"] == "params":
        return [i.name for i in model.graph.initializer if i.data_type == 1]
    if model.graph.input[0].type.tensor_type.elem_type == 1:
        return [model.graph.input[0].name]
    return [next(n.input[0] for n in model.graph.node if n.op_type == "Gather" and model.graph.input[0].name in n.input)]


def graph_grad(case: Case, x: Any) -> Run:
    """onnxsim's graph_grad, on shapes that are known."""
    import onnx
    from onnxsim import graph_grad, qat_graph

    model = onnx.load(case["model"])
    for axis, length in enumerate(x.shape):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = length
    model = onnx.shape_inference.infer_shapes(model)
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values} | {i.name: list(i.dims) for i in model.graph.initializer}
    builder = qat_graph.GraphBuilder("grad_")
    output = model.graph.output[0].name
    seed = builder.const(np.ones(shapes[output], np.float32))
    found = graph_grad.build_backward(builder, list(model.graph.node), shapes, {output: seed}, _wanted(case, model))
    model.graph.node.extend(builder.nodes)
    model.graph.initializer.extend(builder.initializer)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in found.values())
    opened = session(model.SerializeToString(), case)
    return lambda: opened.run(None, feeds(opened, x))


CONTENDERS: dict[str, Callable[[Case, Any], Run]] = {
    "forward": forward, "netsens": netsens, "torch": torch, "compile": compiled, "ort-training": training, "graph_grad": graph_grad,
}  # fmt: skip


def peak_bytes() -> int:
    """The most memory this process has had; what its parent had when it forked doesn't count, where the system tells."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    name, case = sys.argv[1], json.loads(sys.argv[2])
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    try:
        importlib.import_module("onnxruntime")
        start = time.perf_counter()
        run = CONTENDERS[name](case, np.load(case["x"]))
        run()
        print(json.dumps({"ready": time.perf_counter() - start}), flush=True)
    except Exception as error:  # whatever it is, this contender doesn't take part
        print(json.dumps({"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}), flush=True)
        return
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
