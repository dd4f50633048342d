"""The cases of GRU and LSTM once more, with gates that a Scan keeps whatever their size; elsewhere the table's small ones are computed at once."""

from __future__ import annotations

import pytest

from netsens.rules import recurrent_reverse
from tests.rules import checks
from tests.rules.case import Case
from tests.rules.families.recurrent import CASES

OTHERWISE = ("lens", "clip", "activations", "layout", "input_forget", ", p)")  # kept in any case, or left to the Scan's derivative
kept_cases = pytest.mark.parametrize("case", [pytest.param(c, id=c.id) for c in CASES if c.op != "RNN" and not any(o in c.text for o in OTHERWISE)])


@pytest.fixture(autouse=True)
def _keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent_reverse, "_LITTLE", 0)


@kept_cases
def test_reverse(case: Case) -> None:
    checks.check_adjoint(case)
    checks.check_reverse_rule(case)
    checks.check_directions(case)


@kept_cases
def test_second_order(case: Case) -> None:
    if case.second_order:
        checks.check_second_order(case)


@kept_cases
def test_results(case: Case) -> None:
    if case.float32:
        checks.check_float32(case)
    if case.structure:
        checks.check_structure(case)
