"""How graphs get into onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest

from netsens.graph.normal import load_graph
from netsens.run.runtime import memory_of
from netsens.run.session import Session


def test_a_graph_whose_dequantisations_onnxruntime_moves_wrongly_is_loaded_without_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it then says names the node that it made; whether it does depends on the processor, so it is played here."""
    text = '<ir_version: 10, opset_import: ["": 21]> m (float[2] x) => (float[2] y) { y = Exp(x) }'
    Session(load_graph(onnx.parser.parse_model(text)))  # what is asked of onnxruntime once a process is asked now
    session, asked = onnxruntime.InferenceSession, []

    def fussy(*args: Any, disabled_optimizers: Sequence[str] = (), **more: Any) -> Any:
        asked.append(list(disabled_optimizers))
        if not disabled_optimizers:
            raise RuntimeError("Node (t_q) Op (QuantizeLinear) [TypeInferenceError] output_dtype INT8 does not match y_zero_point type UINT8.")
        return session(*args, disabled_optimizers=disabled_optimizers, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", fussy)
    loaded = Session(load_graph(onnx.parser.parse_model(text)))
    assert asked == [[], ["QDQPropagationTransformer"]]
    np.testing.assert_allclose(loaded.run({"x": np.zeros(2, np.float32)})[0], np.ones(2))


def test_a_provider_with_memory_of_its_own_keeps_its_values_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Played with the host's memory, where there is no such provider."""
    text = '<ir_version: 10, opset_import: ["": 21]> m (float[N] x) => (float[N] y, float[N] z) { y = Exp(x) z = Neg(y) }'
    loaded = Session(load_graph(onnx.parser.parse_model(text)))
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    held = loaded.run_values({"x": x})
    asked: list[tuple[str, str]] = []
    bind = onnxruntime.IOBinding.bind_output
    monkeypatch.setattr(onnxruntime.IOBinding, "bind_output", lambda self, name, memory: (asked.append((name, memory)), bind(self, name, memory)))
    monkeypatch.setattr("netsens.run.session.memory_of", lambda provider: "cpu")
    bound = loaded.run_values({"x": x})
    again = loaded.run_values({"x": bound["z"]})
    assert asked[:2] == [("y", "cpu"), ("z", "cpu")]
    for name in "yz":
        np.testing.assert_array_equal(bound[name].numpy(), held[name].numpy())
    np.testing.assert_allclose(again["y"].numpy(), np.exp(-np.exp(x)), rtol=1e-6)


def test_where_providers_keep_their_values() -> None:
    assert [memory_of(p) for p in ("CUDAExecutionProvider", "TensorrtExecutionProvider", "DmlExecutionProvider")] == ["cuda", "cuda", "dml"]
    assert memory_of("CPUExecutionProvider") is memory_of("OpenVINOExecutionProvider") is None
