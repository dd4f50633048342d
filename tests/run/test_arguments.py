"""Wrong arguments from Python: an error of netsens's own that says what was given, as on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netsens
from tests.cli.shell import SAMPLES

MLP = Path(__file__).parents[2] / "sample_models" / "diabetes_mlp.onnx"
ONES = np.ones((2, 10), np.float32)


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ({"of": 3}, "3"), ({"wrt": 3}, "3"), ({"wrt": ["features", 3]}, "3"), ({"wrt": []}, "Nothing is named"),
        ({"target": 0.5}, "0.5"), ({"target": True}, "True"), ({"target": [0.5]}, "0.5"), ({"target": [True]}, "True"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["grad", "jacobian"])
def test_what_is_no_name_and_no_component(method: str, question: dict[str, Any], named: str) -> None:
    with pytest.raises(netsens.UsageError, match=named):
        getattr(netsens.load(MLP), method)(ONES, **question)


@pytest.mark.parametrize("threads", [0, -1, "2"])
def test_threads(threads: Any) -> None:
    with pytest.raises(netsens.UsageError, match="threads"):
        netsens.load(MLP, threads=threads)


def test_numbers_too_large_for_the_model() -> None:
    with pytest.raises(netsens.InputError, match="do not fit"):
        netsens.load(MLP).grad(np.full((1, 10), 1e300))


def test_results_are_the_callers_own() -> None:
    model = netsens.load(MLP)
    first = model.grad(ONES, wrt="all")
    kept = {name: array.copy() for name, array in first.items()}
    for array in first.values():
        array[...] = 7
    for name, array in model.grad(ONES, wrt="all").items():
        np.testing.assert_array_equal(array, kept[name])


def test_a_model_says_what_it_is() -> None:
    assert repr(netsens.load(SAMPLES / "digits_cnn.onnx")) == "<netsens.Model digits_cnn.onnx (image: Nx1x28x28)>"
