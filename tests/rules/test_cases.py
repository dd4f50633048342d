"""Every case of every family, through every check."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import tests.rules.families
from tests.rules import checks
from tests.rules.case import Case

CASES: list[Case] = [
    case for module in pkgutil.iter_modules(tests.rules.families.__path__) for case in importlib.import_module(f"tests.rules.families.{module.name}").CASES
]
every_case = pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])


@every_case
def test_forward_equals_differences(case: Case) -> None:
    checks.check_forward(case)


@every_case
def test_adjoint_identity(case: Case) -> None:
    checks.check_adjoint(case)


@every_case
def test_adjoint_identity_with_a_symbolic_axis(case: Case) -> None:
    if case.symbolic:
        checks.check_adjoint(case, symbolic=True)


@every_case
def test_reverse_rule_equals_transpose(case: Case) -> None:
    checks.check_reverse_rule(case)


@every_case
def test_second_order(case: Case) -> None:
    if case.second_order:
        checks.check_second_order(case)
    else:
        assert case.because


@every_case
def test_float32_in_onnxruntime(case: Case) -> None:
    if case.float32:
        checks.check_float32(case)
    else:
        assert case.because


@every_case
def test_rule_equals_specification_body(case: Case) -> None:
    checks.check_body(case)


@every_case
def test_directions_at_once(case: Case) -> None:
    checks.check_directions(case)


@every_case
def test_structure_contains_the_non_zeros(case: Case) -> None:
    if case.structure:
        checks.check_structure(case)
    else:
        assert case.because
