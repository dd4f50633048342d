"""How graphs get into onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest

from netsens.graph.normal import load_graph
from netsens.run.session import Session


def test_a_graph_whose_dequantisations_onnxruntime_moves_wrongly_is_loaded_without_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it then says names the node that it made; whether it does depends on the processor, so it is played here."""
    session, asked = onnxruntime.InferenceSession, []

    def fussy(*args: Any, disabled_optimizers: Sequence[str] = (), **more: Any) -> Any:
        asked.append(list(disabled_optimizers))
        if not disabled_optimizers:
            raise RuntimeError("Node (t_q) Op (QuantizeLinear) [TypeInferenceError] output_dtype INT8 does not match y_zero_point type UINT8.")
        return session(*args, disabled_optimizers=disabled_optimizers, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", fussy)
    text = '<ir_version: 10, opset_import: ["": 21]> m (float[2] x) => (float[2] y) { y = Exp(x) }'
    loaded = Session(load_graph(onnx.parser.parse_model(text)))
    assert asked == [[], ["QDQPropagationTransformer"]]
    np.testing.assert_allclose(loaded.run({"x": np.zeros(2, np.float32)})[0], np.ones(2))
