"""One line of ONNX text per case, and everything that must hold for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser

from netsens.graph.graph import Graph
from netsens.graph.normal import load_graph

Spec = Any  # a shape tuple (standard normal numbers), or an array


@dataclass(frozen=True)
class Case:
    """`text` is the body of a graph (a float type inside it, in a subgraph, is `real[..]`); every keyword is an input: a shape (random floats in `domain`) or an array (taken as it is).

    Inputs named in `constants` become initializers. Differentiated by all float inputs and constants, of all float outputs
    (the names on the left of the last node; `of` chooses). `symbolic` gives every float input's first axis a symbol (by its size).
    `second_order=False` needs a reason in `because`."""

    op: str
    text: str
    inputs: Mapping[str, Spec]
    domain: tuple[float, float] = (-2.0, 2.0)
    constants: Sequence[str] = ()
    of: str = "y"
    wrt: Sequence[str] | None = None
    opset: int = 21
    domains: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    second_order: bool = True
    float32: bool = True
    against_body: bool = True
    symbolic: bool = True
    structure: bool = True
    because: str = ""

    @property
    def id(self) -> str:
        return f"{self.op}: {self.text}"[:150]

    def arrays(self) -> dict[str, np.ndarray]:
        """The inputs, floats in float64, far from each other so that no maximum is tied."""
        rng = np.random.default_rng(self.seed)
        low, high = self.domain
        result = {}
        for name, spec in self.inputs.items():
            if isinstance(spec, tuple):
                count = int(np.prod(spec))
                spread = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / max(count, 1)
                result[name] = (low + (high - low) * spread).reshape(spec)
            else:
                array = np.asarray(spec)
                result[name] = array.astype(np.float64) if array.dtype.kind == "f" else array
        return result

    def floats(self) -> list[str]:
        """What the case is differentiated by."""
        return list(self.wrt) if self.wrt is not None else [k for k, v in self.arrays().items() if v.dtype.kind == "f"]

    def model(self, dtype: Any = np.float64, symbolic: bool = False) -> onnx.ModelProto:
        """The case as a model in float32 or float64."""
        arrays = self.arrays()
        kinds = {np.dtype(np.float64): "double", np.dtype(np.float32): "float", np.dtype(np.int64): "int64", np.dtype(np.int32): "int32",
                 np.dtype(np.bool_): "bool", np.dtype(np.uint8): "uint8", np.dtype(np.int8): "int8"}  # fmt: skip
        inputs = []
        for name, array in arrays.items():
            if name in self.constants:
                continue
            kind = kinds[np.dtype(dtype) if array.dtype.kind == "f" else array.dtype]
            dims = [f"N{d}" if symbolic and k == 0 else str(d) for k, d in enumerate(array.shape)]
            inputs.append(f"{kind}[{','.join(dims)}] {name}" if dims else f"{kind} {name}")
        kind = "double" if np.dtype(dtype) == np.float64 else "float"
        imports = ", ".join(f'"{d}":{v}' for d, v in {"": self.opset, **self.domains}.items())
        text = f"<ir_version: 10, opset_import: [{imports}]> g ({', '.join(inputs)}) => ({kind} {self.of}) {{ {self.text.replace('real[', kind + '[')} }}"
        model = onnx.parser.parse_model(text)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        for name in self.constants:
            array = arrays[name].astype(dtype) if arrays[name].dtype.kind == "f" else arrays[name]
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return model

    def graph(self, dtype: Any = np.float64, symbolic: bool = False) -> Graph:
        return load_graph(self.model(dtype, symbolic))
