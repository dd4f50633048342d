"""Types of operators that compute values of the shape of what they read, or sum along axes of it, and of ai.onnx.ml's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from netsens.graph.dtypes import BOOL, FLOAT, INT64, STRING
from netsens.graph.graph import Array, Dim, TensorType
from netsens.graph.shapes import ShapeFormula, broadcast, shape_of, whole_numbers


def _like_first(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [types[0]]


def _elementwise(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(types[0].dtype, broadcast(*map(shape_of, types)))]


def _comparison(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(BOOL, broadcast(*map(shape_of, types)))]


def _where(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(types[1].dtype, broadcast(*map(shape_of, types)))]


def _cast(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [TensorType(int(attributes["to"]), types[0].shape)]


def _matmul(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    a, b = shape_of(types[0]), shape_of(types[1])
    if len(a) < 2 or len(b) < 2:
        return None
    return [TensorType(types[0].dtype, (*broadcast(a[:-2], b[:-2]), a[-2], b[-1]))]


def _gemm(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    a, b = shape_of(types[0]), shape_of(types[1])
    return [TensorType(types[0].dtype, (a[1] if attributes.get("transA") else a[0], b[0] if attributes.get("transB") else b[1]))]


def _reduce(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType] | None:
    shape = shape_of(types[0])
    keep = attributes.get("keepdims", 1)
    if len(types) > 1 and types[1].dtype:
        axes = whole_numbers(constants[1])
        if axes is None:
            length = types[1].shape[0] if types[1].shape else None
            if keep:
                return [TensorType(types[0].dtype, (None,) * len(shape))]
            return [TensorType(types[0].dtype, (None,) * (len(shape) - length) if isinstance(length, int) and length else None)]
    else:
        axes = []
    if not axes:
        axes = [] if attributes.get("noop_with_empty_axes") else list(range(len(shape)))
    gone = {a % len(shape) for a in axes} if shape else set()
    kept = tuple(1 if k in gone else d for k, d in enumerate(shape) if keep or k not in gone)
    return [TensorType(types[0].dtype, kept)]


def _layer_normalization(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape = shape_of(types[0])
    axis = int(attributes.get("axis", -1)) % max(len(shape), 1)
    statistic = TensorType(int(attributes.get("stash_type", 1)), tuple(1 if k >= axis else d for k, d in enumerate(shape)))
    return [types[0], statistic, statistic]


def _batch_normalization(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [types[0], types[3], types[4]]


def _rows(count: Callable[[dict[str, Any]], Dim]) -> ShapeFormula:
    """Outputs of ai.onnx.ml's predictors: a row a sample, as float32."""

    def formula(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
        shape = shape_of(types[0])
        return [TensorType(FLOAT, (shape[0] if len(shape) > 1 else 1, count(attributes)))]

    return formula


def _classes(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    shape = shape_of(types[0])
    samples = shape[0] if len(shape) > 1 else 1
    names: list[Any] = next((attributes[k] for k in ("classlabels_strings", "classlabels_int64s", "classlabels_ints") if attributes.get(k)), [])
    label = STRING if attributes.get("classlabels_strings") else INT64
    return [TensorType(label, (samples,)), TensorType(FLOAT, (samples, len(names) if len(names) > 1 else None))]


def _as_float(types: Sequence[TensorType], attributes: dict[str, Any], constants: Sequence[Array | None]) -> list[TensorType]:
    return [replace(types[0], dtype=FLOAT)]


FORMULAS: dict[str, ShapeFormula] = {
    **dict.fromkeys(
        [
            "Abs",
            "Acos",
            "Acosh",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "Ceil",
            "Celu",
            "Clip",
            "Cos",
            "Cosh",
            "CumSum",
            "Elu",
            "Erf",
            "Exp",
            "Floor",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "Identity",
            "IsFinite",
            "LeakyRelu",
            "GroupNormalization",
            "Hardmax",
            "InstanceNormalization",
            "LRN",
            "LpNormalization",
            "MeanVarianceNormalization",
            "RMSNormalization",
            "Log",
            "LogSoftmax",
            "Mish",
            "Neg",
            "Not",
            "Reciprocal",
            "Relu",
            "Round",
            "ScatterElements",
            "ScatterND",
            "Selu",
            "Sigmoid",
            "Sign",
            "Sin",
            "Sinh",
            "Softmax",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Swish",
            "Tan",
            "Tanh",
            "ThresholdedRelu",
            "Trilu",
        ],
        _like_first,
    ),
    **dict.fromkeys(
        ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Mod", "And", "Or", "Xor", "PRelu", "BitwiseAnd", "BitwiseOr"], _elementwise
    ),
    **dict.fromkeys(["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"], _comparison),
    "IsNaN": _comparison,
    "IsInf": _comparison,
    "Where": _where,
    "Cast": _cast,
    "StringNormalizer": lambda types, attributes, constants: None if attributes.get("stopwords") else [types[0]],
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(
        ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"],
        _reduce,
    ),
    "LayerNormalization": _layer_normalization,
    "BatchNormalization": _batch_normalization,
}

# Those of ai.onnx.ml, whose inference in ONNX says little.
LEARNED: dict[str, ShapeFormula] = {
    "Imputer": _like_first,
    "Normalizer": _as_float,
    "Scaler": _as_float,
    "LinearClassifier": _classes,
    "LinearRegressor": _rows(lambda a: int(a.get("targets", 1))),
    "SVMClassifier": _classes,
    "SVMRegressor": _rows(lambda a: 1),
    "TreeEnsembleClassifier": _classes,
    "TreeEnsembleRegressor": _rows(lambda a: a.get("n_targets")),
}
