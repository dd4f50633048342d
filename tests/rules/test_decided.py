"""No operator is left undecided: a new onnx release fails here until someone decides."""

from __future__ import annotations

from netsens.analyse.operators import operator_table


def test_every_operator_of_the_standard_is_decided() -> None:
    undecided = [row.qualified for row in operator_table() if row.status == "undecided"]
    assert not undecided, f"{len(undecided)} operators: {' '.join(undecided)}"


def test_what_is_not_exact_says_why() -> None:
    silent = [row.qualified for row in operator_table() if row.status in ("flat", "refused") and not row.why]
    assert not silent
