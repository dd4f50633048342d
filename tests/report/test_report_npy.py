"""`.npy` arrays from streams that only read, some bytes at a time."""

from __future__ import annotations

import io

import numpy as np
import pytest

from netsens.report.npy import read_npy


class Dribble:
    """A pipe that gives a few bytes at a time once the header is read, as a slow writer's does."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def read(self, size: int = -1) -> bytes:
        taken = self.content[self.place : self.place + (size if self.place < 128 or size < 0 else min(size, 7))]
        self.place += len(taken)
        return taken


ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(3.5), np.zeros((0, 3), np.int64), np.zeros((2, 0)),
    np.arange(5, dtype=">i2"), np.array([True, False]), np.array(["a", "bc"]), np.ones(300_000, np.float32), np.arange(3) + 1j,
]  # fmt: skip


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_as_numpy_reads_it(array: np.ndarray) -> None:
    for version in ((1, 0), (2, 0)):
        whole = io.BytesIO()
        np.lib.format.write_array(whole, array, version)
        whole.write(b"what comes after")
        stream = io.BytesIO(whole.getvalue())
        found = read_npy(stream)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert stream.read() == b"what comes after"
        np.testing.assert_array_equal(read_npy(Dribble(whole.getvalue())), array)  # type: ignore[arg-type]


def test_what_is_damaged_is_refused() -> None:
    whole = io.BytesIO()
    np.save(whole, np.arange(10.0))
    for cut in (0, 4, 9, 40, 130, 207):
        with pytest.raises(Exception, match=r"EOF|magic|pars|bytes"):
            read_npy(io.BytesIO(whole.getvalue()[:cut]))
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_npy(io.BytesIO(pickled.getvalue()))
    with pytest.raises(ValueError, match="magic"):
        read_npy(io.BytesIO(b"not an array at all"))
