"""onnxruntime's forward pass, and netsens's gradient as one gets it from Python."""

from __future__ import annotations

import warnings
from typing import Any

import onnxruntime

from tests.benchmarks.contenders.case import Case, Ready


def session(model: str | bytes, case: Case) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def forward(case: Case, x: Any) -> Ready:
    """The forward pass alone, what a gradient is measured by."""
    opened = session(case["model"], case)
    given = {opened.get_inputs()[0].name: x}
    return Ready(lambda: opened.run(None, given))


def gradient(case: Case, x: Any) -> Ready:
    import netsens

    warnings.simplefilter("ignore", netsens.NetsensWarning)  # that a gradient by tokens is one by their embeddings
    model = netsens.load(case["model"], threads=case["threads"], provider="cpu")
    given = {next(iter(model.inputs)): x}
    wrt = "inputs" if case["by"] == "input" else case["wrt"] or "params"
    return Ready(lambda: model.grad(given, wrt=wrt, method="autodiff"), lambda found: found)
