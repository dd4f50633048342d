"""Loop and Scan for ONNX's reference evaluator, whose own lack directions and axes, stack what a Loop writes along the wrong axis, and fail where no
iteration runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.ops.op_loop import Loop as ReferenceLoop
from onnx.reference.ops.op_scan import Scan as ReferenceScan

from netsens.graph.graph import Array


class Loop(ReferenceLoop):
    """Loop by the specification: what is written is stacked along a new first axis."""

    body: Any
    _run_body: Any

    def _run(  # type: ignore[override]  # the evaluator calls it with the node's inputs, by place
        self, trips: Array | None = None, condition: Array | None = None, *states: Any, context: Any = None, **_: Any
    ) -> tuple[Any, ...]:
        body = self.body
        carried = list(states)
        written: list[list[Array]] = [[] for _ in range(self.K)]
        step = 0
        going = condition is None or bool(np.asarray(condition).reshape(()))
        while going and (trips is None or step < int(np.asarray(trips).reshape(()))):
            feeds = dict(context or {})
            shape = [1] if _rank(body, 0) == 1 else []
            feeds[body.input_names[0]] = np.full(shape, step, np.int64)
            feeds[body.input_names[1]] = np.full([1] if _rank(body, 1) == 1 else [], True)
            feeds.update(zip(body.input_names[2:], carried, strict=True))
            again, *outputs = self._run_body(feeds)
            going = bool(np.asarray(again).reshape(()))
            carried = list(outputs[: self.N])
            for slices, output in zip(written, outputs[self.N :], strict=True):
                slices.append(output)
            step += 1
        stacks = [np.stack(slices) if slices else _nothing(body, 1 + self.N + k) for k, slices in enumerate(written)]
        return (*carried, *stacks)


def _value_type(value: Any) -> Any:
    return value.type.tensor_type


def _rank(body: Any, position: int) -> int | None:
    """The declared rank of an input of the body."""
    tensor = _value_type(body.proto_.input[position])
    return len(tensor.shape.dim) if tensor.HasField("shape") else None


def _nothing(body: Any, position: int) -> Array:
    """What a loop without an iteration writes: unknown dimensions have length 0, as in onnxruntime."""
    from onnx import helper

    tensor = _value_type(body.proto_.output[position])
    return np.zeros((0, *(d.dim_value for d in tensor.shape.dim)), helper.tensor_dtype_to_np_dtype(tensor.elem_type or 1))


class Scan(ReferenceScan):
    """Scan by the specification, with axes and directions."""

    body: Any
    _run_body: Any
    num_scan_inputs: Any

    def __init__(self, onnx_node: Any, run_params: Any) -> None:
        super(ReferenceScan, self).__init__(onnx_node, run_params)

    def _run(self, *inputs: Any, context: Any = None, **_: Any) -> tuple[Any, ...]:
        body = self.body
        count = len(inputs) - int(self.num_scan_inputs)
        carried, read = list(inputs[:count]), list(inputs[count:])
        outputs = len(body.output_names) - count

        def option(name: str, length: int) -> list[int]:
            return list(getattr(self, name, None) or [0] * length)

        axes, backward = option("scan_input_axes", len(read)), option("scan_input_directions", len(read))
        written: list[list[Array]] = [[] for _ in range(outputs)]
        moved = [np.moveaxis(x, axis, 0) for x, axis in zip(read, axes, strict=True)]
        for step in range(moved[0].shape[0]):
            feeds = dict(context or {})
            feeds.update(zip(body.input_names[:count], carried, strict=True))
            slices = [x[x.shape[0] - 1 - step] if b else x[step] for x, b in zip(moved, backward, strict=True)]
            feeds.update(zip(body.input_names[count:], slices, strict=True))
            results = self._run_body(feeds)
            carried = list(results[:count])
            for slot, result in zip(written, results[count:], strict=True):
                slot.append(result)
        stacks = [
            np.stack(slot[::-1] if b else slot, axis)
            for slot, axis, b in zip(written, option("scan_output_axes", outputs), option("scan_output_directions", outputs), strict=True)
        ]
        return (*carried, *stacks)
