"""What the benchmark says of what it measured: ratios, means, marks, changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.results import compared, figures, geometric, questions, readme, refusals, report, times


def row(model: str, by: str = "input", batch: int = 1, **milliseconds: Any) -> dict[str, Any]:
    timed = {
        name: value if isinstance(value, dict) else {"median_ms": value, "least_ms": value / 2, "setup_s": 0.25, "peak_mb": 100.0}
        for name, value in milliseconds.items()
    }
    return {"model": model, "by": by, "batch": batch, **timed}


def run(*rows: dict[str, Any], statistic: str = "median") -> dict[str, Any]:
    names = list(dict.fromkeys(key for r in rows for key in r if key not in ("model", "by", "batch")))
    return {"date": "2026-01-02", "machine": "a machine", "cores": 2, "threads": 1, "full": True, "statistic": statistic, "versions": {"torch": "2"},
            "contenders": names, "rows": list(rows)}  # fmt: skip


def test_a_geometric_mean() -> None:
    assert geometric([1.0, 4.0, 2.0]) == pytest.approx(2.0)


def test_times_are_ratios_of_one_row() -> None:
    done = run(row("a", forward=2.0, netsens=4.0, torch=12.0), row("b", forward=1.0, netsens=8.0, torch=8.0))
    first, second, mean = times(done, done["rows"])
    assert first == {"": "a", "forward ms": "2.0", "netsens ms": "4.0", "/ forward": "2.00", "torch": "3.00"}
    assert (second["/ forward"], second["torch"]) == ("8.00", "1.00")
    assert (mean["/ forward"], mean["torch"]) == ("4.00", f"{3**0.5:.2f}")


def test_kinds_of_models_have_means_of_their_own() -> None:
    done = run(
        row("bert", forward=1.0, netsens=2.0),
        row("vit", forward=1.0, netsens=8.0),
        row("lstm", forward=1.0, netsens=0.5),
        row("unet", forward=1.0, netsens=1.0),
    )
    assert [(r[""], r["/ forward"]) for r in times(done, done["rows"])[4:]] == [("geometric mean, transformers", "4.00"), ("geometric mean", f"{8**0.25:.2f}")]


def test_who_disagrees_is_marked_and_not_in_the_mean() -> None:
    wrong = {"failed": "disagrees", "why": "its gradient differs by 2"}
    done = run(row("a", forward=1.0, netsens=2.0, jax=wrong), row("b", forward=1.0, netsens=2.0, jax=6.0))
    first, _, mean = times(done, done["rows"])
    assert (first["jax"], mean["jax"]) == ("disagrees", "3.00")
    assert refusals(done) == ["a, by input, batch 1: jax disagrees: its gradient differs by 2"]


def test_a_model_without_a_gradient_has_no_ratio() -> None:
    done = run(row("a", forward=1.0, netsens={"failed": "refused", "why": "no rule"}, torch=5.0))
    (first, mean) = times(done, done["rows"])
    assert (first["netsens ms"], first["/ forward"], first["torch"], mean["torch"]) == ("refused", "refused", "-", "-")


def test_set_up_and_memory_are_shown_of_everyone() -> None:
    done = run(row("a", forward=1.0, netsens=2.0, torch={"failed": "no twin", "why": ""}))
    assert figures(done, done["rows"], "setup_s") == [{"": "a", "forward": "0.25", "netsens": "0.25", "torch": "-"}]
    assert refusals(done) == []  # that there is no twin is no news
    assert "peak memory" in report(done)
    assert "100" in report(done)


def test_each_question_has_a_table_and_small_batches_come_first() -> None:
    done = run(*(row("a", by, batch, forward=1.0, netsens=2.0) for batch in (16, 1) for by in ("input", "params")))
    assert [(batch, by) for batch, by, _ in questions(done)] == [(1, "input"), (1, "params"), (16, "input"), (16, "params")]
    assert readme(done).count("<details>") == 2


def test_what_changed_is_told_with_means_of_what_both_have() -> None:
    old = run(row("a", forward=1.0, netsens=4.0, torch=8.0), row("gone", forward=1.0, netsens=9.0, torch=9.0), statistic="least")
    new = run(row("a", forward=2.0, netsens=4.0, torch=12.0), row("new", forward=1.0, netsens=7.0, torch=7.0))
    lines = compared(new, old).splitlines()
    assert "| a | 4.00 | 2.00 | -50% |" in lines
    assert "| geometric mean, netsens / forward | 4.00 | 2.00 | -50% |" in lines
    assert "| geometric mean, torch / netsens | 2.00 | 3.00 | +50% |" in lines
    assert not any("gone" in line or "new" in line for line in lines)
    assert compared(new, run(row("other", forward=1.0, netsens=1.0))).startswith("No row")
