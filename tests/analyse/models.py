"""Small models for the tests of what is said about models."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser

import netsens

Array = np.ndarray[Any, Any]
HEAD = '<ir_version: 10, opset_import: ["":21]> g '
RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5)).astype(np.float32)
W = RNG.standard_normal((5, 7)).astype(np.float32)
CLASSIFIER = "(float[N,5] x) => (float[N,7] y) { h = MatMul(x, W) r = Relu(h) y = Softmax<axis=1>(r) }"


def proto(text: str, **constants: Array) -> onnx.ModelProto:
    made = onnx.parser.parse_model(HEAD + text)
    made.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    return made


def model(text: str, **constants: Array) -> netsens.Model:
    return netsens.load(proto(text, **constants))


def classifier() -> netsens.Model:
    return model(CLASSIFIER, W=W)
