"""Fourier transforms."""

import numpy as np

from tests.rules.case import Case

HALF = "onnxruntime's one-sided inverse is right only where there are exactly half the frequencies and one"
STEP, LENGTH = np.array(2), np.array(4)


def fourier(attributes: str, shape: tuple[int, ...], axis: int | None = None, length: int | None = None, **more: object) -> Case:
    inputs: dict[str, object] = {"x": shape}
    if length is not None:
        inputs["n"] = np.array(length)
    if axis is not None:
        inputs["a"] = np.array(axis)
    operands = ", ".join(["x", *(["n"] if length is not None else ["''"] if axis is not None else []), *(["a"] if axis is not None else [])])
    constants = tuple(k for k in ("n", "a") if k in inputs)
    return Case("DFT", f"y = DFT<{attributes}>({operands})".replace("<>", "").replace("''", ""), inputs, constants=constants, **more)


CASES = [
    fourier("", (2, 5, 1)),
    fourier("", (2, 6, 2)),
    fourier("onesided=1", (2, 6, 1)),
    fourier("onesided=1", (2, 5, 1)),
    fourier("onesided=1", (2, 5, 3, 1), axis=1),
    fourier("", (3, 4, 2, 2), axis=0),
    fourier("", (2, 5, 2), axis=-2, length=8),
    fourier("", (2, 5, 1), axis=1, length=3),
    fourier("onesided=1", (2, 5, 1), axis=1, length=3),
    fourier("onesided=1", (2, 5, 1), length=8),
    fourier("inverse=1", (2, 5, 2)),
    fourier("inverse=1", (2, 4, 3, 2), axis=1, length=6),
    fourier("inverse=1", (2, 6, 2), length=4),
    fourier("inverse=1", (2, 5, 1)),
    fourier("inverse=1, onesided=1", (2, 5, 2)),
    fourier("inverse=1, onesided=1", (2, 5, 2, 2), axis=1, length=9),
    fourier("inverse=1, onesided=1", (2, 3, 2), length=8, float32=False, because=HALF),
    fourier("inverse=1, onesided=1", (2, 5, 2), length=6, float32=False, because=HALF),
    Case("DFT", "n = Shape<start=1, end=2>(x)  m = Squeeze(n)  y = DFT(x, m)", {"x": (2, 5, 1)}),
    Case("DFT", "y = DFT(x, , a)", {"x": (2, 5, 3, 1), "a": np.array(1)}),
    Case("DFT", "y = DFT<inverse=1>(x, n, a)", {"x": (2, 5, 3, 2), "n": np.array(4), "a": np.array(-3)}),
    Case("DFT", "y = DFT<inverse=1, onesided=1>(x, , a)", {"x": (2, 4, 3, 2), "a": np.array(-3)}),
    Case("DFT", "y = DFT<onesided=1>(x, n, a)", {"x": (2, 4, 3, 1), "n": np.array(6), "a": np.array(1)}),
    Case("STFT", "y = STFT(x, s, w)", {"x": (2, 9, 1), "s": STEP, "w": (4,)}, constants=("s",)),
    Case("STFT", "y = STFT(x, s, w, n)", {"x": (2, 9, 1), "s": STEP, "w": (4,), "n": LENGTH}, constants=("s", "n", "w")),
    Case("STFT", "y = STFT<onesided=0>(x, s, w)", {"x": (1, 10, 1), "s": np.array(3), "w": (5,)}, constants=("s",)),
    Case("STFT", "y = STFT<onesided=0>(x, s, w)", {"x": (2, 8, 2), "s": STEP, "w": (4,)}, constants=("s",)),
    Case("STFT", "y = STFT(x, s, , n)", {"x": (2, 8, 1), "s": np.array(4), "n": LENGTH}, constants=("s", "n")),
    Case("STFT", "y = STFT(x, s, w)", {"x": (2, 9, 1), "s": STEP, "w": (4,)}),
    Case("STFT", "y = STFT(x, s, w)", {"x": (1, 9, 1), "s": STEP, "w": (4,)}, constants=("s",), wrt=("w",)),
]
