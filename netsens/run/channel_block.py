"""How many channels onnxruntime keeps side by side on this machine in its blocked layout, which a model of one node shows. Asking again imports no onnx."""

from __future__ import annotations

from functools import cache

import numpy as np

from netsens.errors import UnsupportedError


@cache
def block_probe() -> bytes:
    """A model that moves four channels into blocks."""
    from onnx import helper

    from netsens.graph.blocked_layout import BLOCKED
    from netsens.graph.save import IR_VERSION
    from netsens.graph.upgrade import TARGET_OPSET

    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=BLOCKED)
    graph = helper.make_graph([node], "probe", [helper.make_tensor_value_info("x", 1, [1, 4, 1, 1])], [helper.make_tensor_value_info("y", 1, None)])
    imports = [helper.make_opsetid("", TARGET_OPSET), helper.make_opsetid(BLOCKED, 1)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION).SerializeToString())


@cache
def shown_block(probe: bytes) -> int:
    """What the probe's four channels are padded to; 0 where onnxruntime's build has no such layout."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(probe, settings, providers=["CPUExecutionProvider"])
        return int(session.run(None, {"x": np.zeros((1, 4, 1, 1), np.float32)})[0].shape[1])
    except Exception:  # onnxruntime's builds for machines without that layout refuse the operator with an error without a public class
        return 0


def channel_block() -> int:
    """Raises `UnsupportedError` where there is no such layout."""
    found = shown_block(block_probe())
    if not found:
        raise UnsupportedError(
            "The model was optimised for one kind of processor (com.microsoft.nchwc), and onnxruntime can't run it on this one; "
            "save it with ORT_ENABLE_EXTENDED, or take the model before optimisation."
        )
    return found
