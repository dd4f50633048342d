"""Normalisations."""

import dataclasses
from typing import Any

import numpy as np
import onnx

from tests.rules.case import Case

BATCH = "y = BatchNormalization(x, s, b, m, v)"
TRAINED = "BatchNormalization<training_mode=1, momentum=0.7>(x, s, b, m, v)"
FULL = {"x": (2, 3, 4, 5), "s": (3,), "b": (3,), "m": (3,), "v": np.array([0.3, 1.5, 2.0])}
EVEN = "onnxruntime refuses an even size"


@dataclasses.dataclass(frozen=True)
class Stashed(Case):
    """A case whose statistics are computed in the precision of the model, where the default is float32.

    The specification has no body for such a one."""

    against_body: bool = False

    def model(self, dtype: Any = np.float64, symbolic: bool = False) -> onnx.ModelProto:
        model = super().model(dtype, symbolic)
        for node in model.graph.node:
            if node.op_type in ("LayerNormalization", "RMSNormalization") and dtype == np.float64:
                node.attribute.append(onnx.helper.make_attribute("stash_type", 11))
        return model


CASES = [
    Case("BatchNormalization", BATCH, FULL),
    Case("BatchNormalization", BATCH, FULL, constants=("s", "b", "m", "v"), wrt=("x",)),
    Case("BatchNormalization", "y = BatchNormalization<epsilon=0.1>(x, s, b, m, v)", {**FULL, "x": (4, 3)}),
    Case("BatchNormalization", BATCH, {**FULL, "x": (2, 3, 4)}, wrt=("x", "v")),
    Case("BatchNormalization", BATCH, {**FULL, "x": (1, 3, 2, 1, 2)}, wrt=("s", "m")),
    Case("BatchNormalization", BATCH, {"x": (2, 1, 4), "s": (1,), "b": (1,), "m": (1,), "v": np.array([0.7])}),
    Case("BatchNormalization", f"y, mean, variance = {TRAINED}", FULL),
    Case("BatchNormalization", f"y, mean, variance = {TRAINED}", FULL, of="mean"),
    Case("BatchNormalization", f"y, mean, variance = {TRAINED}", FULL, of="variance"),
    Case("BatchNormalization", f"z, mean, variance = {TRAINED} y = Add(z, x)", {**FULL, "x": (4, 3)}),
    Stashed("LayerNormalization", "y = LayerNormalization(x, s, b)", {"x": (2, 3, 5), "s": (5,), "b": (5,)}),
    Stashed("LayerNormalization", "y = LayerNormalization<axis=1, epsilon=0.1>(x, s)", {"x": (2, 3, 4), "s": (3, 4)}),
    Stashed("LayerNormalization", "y = LayerNormalization<axis=-2>(x, s, b)", {"x": (2, 3, 4), "s": (3, 4), "b": (3, 4)}, constants=("s", "b")),
    Stashed("LayerNormalization", "y = LayerNormalization<axis=0>(x, s)", {"x": (6,), "s": (6,)}),
    Stashed("LayerNormalization", "y = LayerNormalization<axis=-2>(x, s, b)", {"x": (2, 3, 4), "s": (1, 4), "b": (4,)}),
    Stashed("LayerNormalization", "y = LayerNormalization(x, s, b)", {"x": (4, 5), "s": (5,), "b": (5,)}, wrt=("b",)),
    Stashed("LayerNormalization", "y, m, r = LayerNormalization<axis=1>(x, s)", {"x": (2, 3, 4), "s": (3, 4)}, of="m"),
    Stashed("LayerNormalization", "y, m, r = LayerNormalization<axis=1>(x, s)", {"x": (2, 3, 4), "s": (3, 4)}, of="r"),
    Stashed("LayerNormalization", "a, m, r = LayerNormalization(x, s)  b = Mul(a, m)  y = Mul(b, r)", {"x": (3, 4), "s": (4,)}),
    Stashed("LayerNormalization", "a, m, r = LayerNormalization(x, s)  b = Mul(m, m)  y = Mul(b, r)", {"x": (3, 4), "s": (4,)}),
    Case("InstanceNormalization", "y = InstanceNormalization(x, s, b)", {"x": (2, 3, 4), "s": (3,), "b": (3,)}),
    Case("InstanceNormalization", "y = InstanceNormalization<epsilon=0.1>(x, s, b)", {"x": (2, 3, 2, 4), "s": (3,), "b": (3,)}),
    Case("InstanceNormalization", "y = InstanceNormalization(x, s, b)", {"x": (1, 2, 2, 3, 2), "s": (2,), "b": (2,)}, constants=("s", "b")),
    Case("GroupNormalization", "y = GroupNormalization<num_groups=2>(x, s, b)", {"x": (2, 4, 3), "s": (4,), "b": (4,)}),
    Case("GroupNormalization", "y = GroupNormalization<num_groups=1, epsilon=0.1>(x, s, b)", {"x": (2, 4, 2, 3), "s": (4,), "b": (4,)}),
    Case("GroupNormalization", "y = GroupNormalization<num_groups=4>(x, s, b)", {"x": (1, 4, 2, 3), "s": (4,), "b": (4,)}, constants=("s", "b")),
    Stashed("RMSNormalization", "y = RMSNormalization(x, s)", {"x": (2, 3, 5), "s": (5,)}, opset=23),
    Stashed("RMSNormalization", "y = RMSNormalization<axis=1, epsilon=0.1>(x, s)", {"x": (2, 3, 4), "s": (3, 4)}, opset=23),
    Stashed("RMSNormalization", "y = RMSNormalization<axis=-2>(x, s)", {"x": (2, 3, 4), "s": (4,)}, opset=23, constants=("s",)),
    Case("LRN", "y = LRN<size=3>(x)", {"x": (2, 5, 3, 2)}),
    Case("LRN", "y = LRN<size=5, alpha=0.3, beta=0.6, bias=1.4>(x)", {"x": (1, 7, 2, 2)}),
    Case("LRN", "y = LRN<size=4, alpha=0.5>(x)", {"x": (2, 6, 1, 3)}, float32=False, because=EVEN),
    Case("LRN", "y = LRN<size=2, alpha=1.0>(x)", {"x": (1, 3, 2, 2)}, float32=False, because=EVEN),
    Case("LpNormalization", "y = LpNormalization(x)", {"x": (3, 4)}),
    Case("LpNormalization", "y = LpNormalization<axis=1, p=2>(x)", {"x": (2, 3, 4)}),
    Case("LpNormalization", "y = LpNormalization<p=1>(x)", {"x": (3, 4)}),
    Case("LpNormalization", "y = LpNormalization<axis=0, p=1>(x)", {"x": (3, 2, 2)}),
    Case("LpNormalization", "y = LpNormalization<axis=0, p=2>(x)", {"x": (5,)}),
    Case("MeanVarianceNormalization", "y = MeanVarianceNormalization(x)", {"x": (2, 3, 4, 2)}),
    Case("MeanVarianceNormalization", "y = MeanVarianceNormalization<axes=[-1]>(x)", {"x": (2, 5)}),
    Case("MeanVarianceNormalization", "y = MeanVarianceNormalization<axes=[0, 1, 2, 3]>(x)", {"x": (2, 2, 3, 2)}),
]  # fmt: skip
