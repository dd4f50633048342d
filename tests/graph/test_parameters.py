"""Which initializers count as parameters."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import netsens

RESIZED = """<ir_version: 8, opset_import: ["": 17]>
m (float[1,2,3,4] x) => (float[1,2,6,N] y) <float[4] scales = {{1, 1, 2, 1.5}}, float[1,2,1,1] w = {{1, 2}}> {{
  s = Identity(scales)
  v = Mul(x, w)
  y = Resize<mode="{mode}", coordinate_transformation_mode="half_pixel">(v, , s)
}}"""


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_the_scales_of_a_resize_are_no_parameter(mode: str) -> None:
    model = netsens.load(onnx.parser.parse_model(RESIZED.format(mode=mode)))
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert list(model.grad({"x": x}, wrt="params")) == ["w"]
    assert sorted(row.name for row in model.check({"x": x}, "all").rows) == ["w", "x"]
    assert [p.name for p in model.inspect().parameters] == ["w"]


def test_scales_that_a_user_asks_for_are_refused_by_name() -> None:
    model = netsens.load(onnx.parser.parse_model(RESIZED.format(mode="linear")))
    with pytest.raises(netsens.NetsensError, match="not by its scales"):
        model.grad({"x": np.zeros((1, 2, 3, 4), np.float32)}, wrt="scales")
