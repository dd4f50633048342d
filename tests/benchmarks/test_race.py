"""Contenders take turns and hand over their gradients; who disagrees, refuses or crashes is told from who is slow."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import race
from tests.benchmarks.digest import apart, difference, digest, inputs

SCRIPT = """
import json, os, sys
import numpy as np
sys.path.insert(0, {root!r})
from tests.benchmarks.digest import digest, write
name, case = sys.argv[1], json.loads(sys.argv[2])
gradient = np.arange(6.0).reshape(2, 3)
if name == "crash":
    sys.exit(3)
if name == "large":
    os.kill(os.getpid(), 9)
if name == "refuse":
    print(json.dumps({{"failed": "refused", "why": "no rule"}}))
    sys.exit()
if name != "forward":
    if name == "wrong":
        gradient[1, 2] += 1
    if case["model"] == "other":
        gradient = gradient * 3
    write(case["hand"], [digest({{"x": gradient * 3 if name == "rewritten" else gradient}})] * 3)
print("a line of a library")
print(json.dumps({{"ready": 0.5, "model": "other" if name == "rewritten" else None}}), flush=True)
for k, _ in enumerate(sys.stdin):
    if name == "late" and k == 2:
        sys.exit(1)
    print(json.dumps({{"seconds": 0.001 * (k + 1), "peak": 1_000_000}}), flush=True)
"""


def test_a_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[2])))
    monkeypatch.setattr(race, "SCRIPT", script)
    names = ["forward", "netsens", "right", "rewritten", "wrong", "refuse", "crash", "large", "late"]
    case = {"model": "m", "folder": str(tmp_path), "threads": 1, "batch": 2, "by": "input"}
    row = race.measure("a", case, dict.fromkeys(names, sys.executable), seconds=0, least=3)
    assert (row["model"], row["batch"], row["by"]) == ("a", 2, "input")
    assert row["netsens"] == {"median_ms": 2.0, "least_ms": 1.0, "turns": 3, "setup_s": 0.5, "peak_mb": 1.0}
    assert row["right"]["difference"] == 0
    assert row["rewritten"]["difference"] == 0  # compared with netsens's gradient of the model that it rewrote
    assert row["wrong"]["failed"] == "disagrees"
    assert row["refuse"] == {"failed": "refused", "why": "no rule"}
    assert row["large"]["failed"] == "killed"
    assert row["crash"]["failed"] == row["late"]["failed"] == "crashed"


def test_contenders_race_in_heats_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[2])))
    monkeypatch.setattr(race, "SCRIPT", script)
    monkeypatch.setattr(race, "room", lambda: False)
    case = {"model": "m", "folder": str(tmp_path), "threads": 1, "batch": 1, "by": "input"}
    row = race.measure("a", case, dict.fromkeys(["forward", "netsens", "one", "two"], sys.executable), seconds=0, least=2)
    assert [row[name]["turns"] for name in ("forward", "netsens", "one", "two")] == [4, 4, 2, 2]


def test_a_gradient_is_compared_by_its_digest() -> None:
    random = np.random.default_rng(0)
    ours = {"a": random.standard_normal((300, 50)), "b": random.standard_normal(7) * 1e-6, "c": np.zeros((2, 2))}
    assert difference(digest(ours), digest(ours)) == 0
    assert difference(digest(ours), digest({"a": ours["a"] * 1.01})) == pytest.approx(0.01, rel=0.05)
    assert difference(digest(ours), digest(ours | {"b": -ours["b"]})) < 1e-5  # a rounding error beside the numbers of the others
    flipped = ours["a"].copy()
    flipped[::2] *= -1  # the norm is the same
    assert difference(digest(ours), digest({"a": flipped})) > 0.5
    assert difference(digest(ours), digest({"a": ours["a"].T})) > 0.5
    assert difference(digest(ours), digest({"a": ours["a"][:-1]})) == float("inf")
    assert difference(digest(ours), digest({"a": np.full((300, 50), np.nan)})) == float("inf")
    assert difference(digest(ours), digest({"other": ours["a"]})) == float("inf")
    assert difference(digest({"n": np.ones(3, np.float32)}), digest({"n": np.zeros(3)})) == pytest.approx(1)


def test_a_mask_that_rounding_turned_at_one_input_is_no_disagreement() -> None:
    right, off = digest({"x": np.arange(5.0)}), digest({"x": np.arange(5.0) * 1.1})
    assert apart([right] * 3, [off, off, right]) == 0
    assert apart([right] * 3, [off] * 3) == pytest.approx(0.1)
    assert apart([right] * 3, [right, right, digest({"x": np.full(5, np.nan)})]) == float("inf")
    x = np.arange(12.0).reshape(3, 4)
    a, b, c = inputs(x)
    assert (a == x).all()
    assert not np.shares_memory(a, x)
    assert (np.sort(b) == x).all()
    assert (np.sort(c) == x).all()
    assert (b != c).any()


@pytest.mark.parametrize(("name", "by"), [("mlp", "params"), ("bert", "input")])
def test_pytorch_gives_the_same_gradient(name: str, by: str, tmp_path: Path) -> None:
    from tests.benchmarks.__main__ import cases

    pythons = dict.fromkeys(["forward", "netsens", "torch"], sys.executable)
    ((title, case),) = cases([(name, 2, by)], False, list(pythons), tmp_path)
    row = race.measure(title, {**case, "threads": 1}, pythons, seconds=0, least=1)
    assert row["torch"]["difference"] < 1e-4, row
    assert row["forward"]["least_ms"] > 0
