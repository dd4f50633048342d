"""Counts, at the end of a run, what became of ONNX's backend cases."""

from __future__ import annotations

from collections import Counter
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line of figures, then the reason of each refusal. The figures travel with the reports, so they come from all workers."""
    reports = [r for found in terminalreporter.stats.values() for r in found if getattr(r, "when", "") == "call"]
    verdicts = Counter(value for r in reports for key, value in r.user_properties if key == "verdict")
    if not verdicts:
        return
    beside = sum(1 for r in reports for key, value in r.user_properties if key == "beside" and value)
    terminalreporter.section("ONNX's backend cases, differentiated")
    figures = ", ".join(f"{verdicts[v]} {v}" for v in ("pass", "kink", "flat", "refused", "fail"))
    terminalreporter.write_line(f"{figures}, of {verdicts.total()}; {beside} of those at a kink agree beside it")
    whole = Counter(value for r in reports if ("verdict", "refused") in r.user_properties for key, value in r.user_properties if key == "refused")
    partly = Counter(value for r in reports if ("verdict", "refused") not in r.user_properties for key, value in r.user_properties if key == "refused")
    for reason, count in whole.most_common():
        terminalreporter.write_line(f"refused, {count}: {reason}")
    for reason, count in partly.most_common():
        terminalreporter.write_line(f"refused by one input of several, {count}: {reason}")
