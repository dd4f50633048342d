"""The product of the two halves of a Jacobian through a waist, by onnxruntime, a block of its rows at a time."""

from __future__ import annotations

import numpy as np

from netsens.graph.emit import Builder
from netsens.graph.graph import Array, Graph, TensorType
from netsens.jacobian.linearize import Load, Runner
from netsens.jacobian.stream import released

BLOCK_BYTES = 32 << 20  # of the product that is there beside the result


class Product:
    """Matrices of one element type, [N, rows, waist] times [N, waist, columns]; loaded when first used."""

    def __init__(self, load: Load, dtype: int, opset: int) -> None:
        self.load, self.dtype, self.opset = load, dtype, opset
        self._runner: Runner | None = None

    def into(self, result: Array, left: Array, right: Array, add: bool = False) -> None:
        """Writes the product into [N, rows, columns], or adds it to what is there."""
        samples, rows, columns = result.shape
        one = max(columns * result.itemsize, 1)
        height = min(max(BLOCK_BYTES // one, 1), rows)
        together = max(BLOCK_BYTES // (one * height), 1) if height == rows else 1
        for n in range(0, samples, together):
            for row in range(0, rows, height):
                place = np.s_[n : n + together, row : row + height]
                block = self._times(left[place], right[n : n + together])
                if add:
                    result[place] += block
                else:
                    result[place] = block
                released(result)

    def _times(self, left: Array, right: Array) -> Array:
        if self._runner is None:
            kinds = {"left": TensorType(self.dtype, ("N", "rows", "waist")), "right": TensorType(self.dtype, ("N", "waist", "columns"))}
            op = Builder(Graph([], ["left", "right"], [], {}, dict(kinds), self.opset), "product")
            op.graph.outputs = [op.MatMul(op.value("left"), op.value("right")).name]
            self._runner = self.load(op.graph)
        (found,) = self._runner.run_values({"left": np.ascontiguousarray(left), "right": np.ascontiguousarray(right)}).values()
        return np.asarray(found.numpy())
