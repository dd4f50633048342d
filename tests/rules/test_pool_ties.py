"""Where several pixels are the maximum, the first one takes the gradient, in both modes alike (as PyTorch has it)."""

import numpy as np
import pytest

from netsens.modes.gradient import append_vjp
from tests.rules import checks
from tests.rules.case import Case

TIES = np.random.default_rng(0).integers(0, 3, (2, 2, 6, 7)).astype(float)

CASES = [
    Case("MaxPool", "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x)", {"x": TIES}),
    Case("MaxPool", "y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(x)", {"x": TIES}),
    Case("MaxPool", "y = MaxPool<kernel_shape=[3, 2], dilations=[2, 1]>(x)", {"x": TIES}),
    Case("MaxPool", "y, i = MaxPool<kernel_shape=[3, 3], storage_order=1>(x)", {"x": TIES}),
    Case("GlobalMaxPool", "y = GlobalMaxPool(x)", {"x": TIES}),
    Case("MaxRoiPool", "y = MaxRoiPool<pooled_shape=[2, 2]>(x, r)", {"x": TIES, "r": np.array([[0, 0.0, 0, 5, 5], [1, 1, 1, 3, 4]])}, wrt=("x",)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_modes_agree_on_ties(case: Case) -> None:
    checks.check_adjoint(case)
    checks.check_adjoint(case, symbolic=True)
    checks.check_reverse_rule(case)
    checks.check_float32(case)


def test_the_first_maximum_takes_all() -> None:
    case = Case("MaxPool", "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x)", {"x": np.array([[[[1.0, 2, 5, 5], [2, 2, 5, 5]]]])})
    reverse = append_vjp(case.graph(), "y", ["x"], ones=True)
    (gradient,) = checks.run64(reverse.graph, [reverse.results["x"]], case.arrays())
    np.testing.assert_array_equal(gradient, [[[[0, 1, 1, 0], [0, 0, 0, 0]]]])
