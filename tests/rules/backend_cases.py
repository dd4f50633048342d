"""ONNX's own backend tests, which come with the onnx package."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any


@cache
def backend_cases() -> list[Any]:
    """Every node case, in order of name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow on purpose while they are collected
        from onnx.backend.test.case.node import collect_testcases

        return sorted(collect_testcases(None), key=lambda case: case.name)


@cache
def model_cases() -> list[Any]:
    """Every case of a small model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.model import collect_testcases

        return sorted((case for case in collect_testcases() if case.model is not None), key=lambda case: case.name)
