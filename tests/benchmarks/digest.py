"""What contenders hand over of their gradients, and how two of these are compared. NumPy alone, since contenders run under other Pythons too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

INPUTS = 3
NUMBERS = 4096  # of each tensor
SMALL = 0.01  # of the largest tensor's norm: below that, differences are measured by this share of it, since they are rounding errors of larger numbers


def digest(gradients: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Of each tensor its norm, its length, and numbers from all over it, weighed so that their norm is about the tensor's."""
    found = {}
    for name, gradient in gradients.items():
        flat = np.asarray(gradient).reshape(-1)
        step = max(1, flat.size // NUMBERS)
        found[name] = np.concatenate([[np.linalg.norm(flat), flat.size], flat[::step] * np.sqrt(step)]).astype(np.float64)
    return found


def difference(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> float:
    """The largest relative difference of a tensor that both have; infinite where a shape or a number is off altogether, or no tensor has the same name."""
    shared = [name for name in theirs if name in ours]
    if not shared:
        return float("inf")
    largest = max(ours[name][0] for name in ours)
    worst = 0.0
    for name in shared:
        a, b = ours[name], theirs[name]
        if a.shape != b.shape or a[1] != b[1] or not np.isfinite(b).all():
            return float("inf")
        apart = max(abs(a[0] - b[0]), float(np.linalg.norm(a[2:] - b[2:])))
        worst = max(worst, apart / max(a[0], SMALL * largest, 1e-30))
    return worst


def inputs(x: np.ndarray) -> list[np.ndarray]:
    """The inputs at which gradients are compared: one and the same, turned round, and moved on. Where a ReLU's input is zero but for rounding, its mask falls
    one way or another, which alone makes the gradient of a deep network differ by a hundredth; but not at each of these."""
    return [x.copy(), x[..., ::-1].copy(), np.roll(x, x.shape[-1] // 3 + 1, -1)]


def apart(ours: Sequence[Mapping[str, np.ndarray]], theirs: Sequence[Mapping[str, np.ndarray]]) -> float:
    """The smallest difference at any input, since what is wrong is wrong at all of them; infinite where it is so at one."""
    found = [difference(a, b) for a, b in zip(ours, theirs, strict=True)]
    return max(found) if np.isinf(found).any() else min(found)


def write(path: str, digests: Sequence[Mapping[str, np.ndarray]]) -> None:
    np.savez(path, **{f"{k} {name}": value for k, found in enumerate(digests) for name, value in found.items()})


def read(path: str | Path) -> list[dict[str, np.ndarray]]:
    with np.load(path) as kept:
        return [{key.partition(" ")[2]: kept[key] for key in kept.files if key.partition(" ")[0] == str(k)} for k in range(INPUTS)]
