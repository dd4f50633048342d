"""Classical models (`ai.onnx.ml`), written over in standard operators as onnxruntime computes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsens.errors import UnsupportedError
from netsens.graph.dtypes import DOUBLE, FLOAT
from netsens.graph.emit import Builder, Value
from netsens.rules.words import NodeView, expansion, flat, refuse

DOMAIN = "ai.onnx.ml"

flat("TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor", domain=DOMAIN,
     why="a tree ensemble is piecewise constant; --method finite-difference --step gives its sensitivity over a step")  # fmt: skip
flat("Binarizer", domain=DOMAIN)
flat("LabelEncoder CategoryMapper OneHotEncoder", domain=DOMAIN, why="it maps categories")
refuse("CastMap DictVectorizer ZipMap", domain=DOMAIN, why="it reads or writes dictionaries; differentiate the tensor before it")


@expansion("Scaler", domain=DOMAIN)
def scaler(op: Builder, n: NodeView) -> Value:
    x = _floats(op, n.x)
    offset, scale = n["offset"], n["scale"]
    if offset:
        x = op.Sub(x, op.constant(_row(offset), x))
    return op.Mul(x, op.constant(_row(scale), x)) if scale else x


@expansion("Imputer", domain=DOMAIN)
def imputer(op: Builder, n: NodeView) -> Value:
    values, replaced = n["imputed_value_floats"], n["replaced_value_float"]
    if not values:
        return n.x
    missing = op.IsNaN(n.x) if np.isnan(replaced) else op.Equal(n.x, op.constant(replaced, n.x))
    return op.Where(missing, op.constant(_row(values), n.x), n.x)


@expansion("FeatureVectorizer", domain=DOMAIN)
def feature_vectorizer(op: Builder, n: NodeView) -> Value:
    parts = [op.Reshape(_floats(op, x), op.vector([op.dim(x, 0), -1])) if x.rank != 2 else _floats(op, x) for x in n.inputs if x is not None]
    return op.Concat(*parts, axis=1)


@expansion("Normalizer", domain=DOMAIN)
def normalizer(op: Builder, n: NodeView) -> Value:
    x = _floats(op, n.x)
    match n["norm"] or "MAX":
        case "MAX":
            size = op.ReduceMax(x, [-1], keepdims=1)
        case "L1":
            size = op.ReduceSum(op.Abs(x), [-1], keepdims=1)
        case _:
            size = op.ReduceL2(x, [-1], keepdims=1)
    return op.Div(x, op.Where(op.Equal(size, 0.0), 1.0, size))


@expansion("LinearRegressor", domain=DOMAIN)
def linear_regressor(op: Builder, n: NodeView) -> Value:
    targets = int(n["targets"] or 1)
    scores = _linear(op, n, targets)
    # onnxruntime applies no transform to a single target but PROBIT.
    return scores if targets == 1 and n["post_transform"] != "PROBIT" else transformed(op, scores, n["post_transform"])


@expansion("LinearClassifier", domain=DOMAIN)
def linear_classifier(op: Builder, n: NodeView) -> list[Value | None]:
    labels = len(n["classlabels_ints"] or n["classlabels_strings"] or [0])
    rows = len(n["coefficients"]) // _features(n)
    scores = _linear(op, n, rows)
    if rows == 1 and labels == 2:
        positive = op.Sigmoid(scores) if n["post_transform"] == "LOGISTIC" else scores
        return [n.outputs[0], op.Concat(op.Sub(1.0 * op.constant(1, scores), positive), positive, axis=1)]
    return [n.outputs[0], transformed(op, scores, n["post_transform"])]


@expansion("SVMRegressor", domain=DOMAIN)
def svm_regressor(op: Builder, n: NodeView) -> Value:
    if n["one_class"]:
        raise UnsupportedError("A one-class SVM answers with a sign, which has no derivative; differentiate another model output.")
    x = _floats(op, n.x)
    coefficients = np.asarray(n["coefficients"], np.float64)
    count = int(n["n_supports"] or 0)
    if count:
        kernel = _kernel(op, n, x, np.asarray(n["support_vectors"], np.float64).reshape(count, -1))
        scores = op.MatMul(kernel, op.constant(coefficients.reshape(count, 1), x))
    else:
        scores = op.MatMul(x, op.constant(coefficients.reshape(-1, 1), x))
    scores = op.Add(scores, op.constant(np.asarray(n["rho"][:1]), x))
    return transformed(op, scores, n["post_transform"]) if n["post_transform"] == "PROBIT" else scores


def transformed(op: Builder, scores: Value, transform: str | None) -> Value:
    """`post_transform`, along the last axis."""
    match transform or "NONE":
        case "NONE":
            return scores
        case "LOGISTIC":
            return op.Sigmoid(scores)
        case "SOFTMAX":
            return op.Softmax(scores, axis=-1)
        case "SOFTMAX_ZERO":
            largest = op.ReduceMax(scores, [-1], keepdims=1)
            small = op.Mul(scores, op.Exp(op.Neg(largest)))
            powers = op.Where(op.Greater(op.Abs(scores), 1e-7), op.Exp(op.Sub(scores, largest)), small)
            return op.Div(powers, op.ReduceSum(powers, [-1], keepdims=1))
    raise UnsupportedError(f"The post_transform {transform} has no derivative rule; take the gradient of the scores in front of it.")


def _features(n: NodeView) -> int:
    size = n.x.shape[-1]
    if not isinstance(size, int):
        labels = len(n["classlabels_ints"] or n["classlabels_strings"] or [0])
        intercepts = len(n["intercepts"] or [])
        return len(n["coefficients"]) // (intercepts or labels)
    return size


def _linear(op: Builder, n: NodeView, rows: int) -> Value:
    x = _floats(op, n.x)
    if x.rank == 1:
        x = op.Unsqueeze(x, [0])
    weights = np.asarray(n["coefficients"], np.float64).reshape(rows, -1)
    scores = op.MatMul(x, op.constant(weights.T, x))
    return op.Add(scores, op.constant(_row(n["intercepts"]), x)) if n["intercepts"] else scores


def _kernel(op: Builder, n: NodeView, x: Value, vectors: Any) -> Value:
    """The kernel of each sample with each support vector, [samples, vectors]."""
    gamma, offset, degree = [*(n["kernel_params"] or []), 0.0, 0.0, 0.0][:3]
    if (n["kernel_type"] or "LINEAR") == "RBF":
        # [N, F] -> [N, 1, F], less [V, F]
        apart = op.Sub(op.Unsqueeze(x, [1]), op.constant(vectors, x))
        return op.Exp(op.Mul(op.ReduceSum(op.Mul(apart, apart), [2], keepdims=0), -float(gamma)))
    product = op.MatMul(x, op.constant(vectors.T, x))
    match n["kernel_type"] or "LINEAR":
        case "LINEAR":
            return product
        case "POLY":
            return op.Pow(op.Add(op.Mul(product, float(gamma)), float(offset)), float(degree))
        case _:
            return op.Tanh(op.Add(op.Mul(product, float(gamma)), float(offset)))


def _floats(op: Builder, x: Value) -> Value:
    return x if x.dtype in (FLOAT, DOUBLE) else op.Cast(x, to=FLOAT)


def _row(numbers: Any) -> Any:
    return np.asarray(numbers, np.float64)


@expansion("SVMClassifier", domain=DOMAIN)
def svm_classifier(op: Builder, n: NodeView) -> list[Value | None]:
    x = _floats(op, n.x)
    counts = [int(c) for c in n["vectors_per_class"] or []]
    transform = n["post_transform"] or "NONE"
    if not counts:
        # One linear score a class.
        classes = len(n["classlabels_ints"] or n["classlabels_strings"])
        weights = np.asarray(n["coefficients"], np.float64).reshape(classes, -1)
        scores = op.Add(op.MatMul(x, op.constant(weights.T, x)), op.constant(np.asarray(n["rho"][:1]), x))
        return [n.outputs[0], transformed(op, scores, transform)]
    pairs = _pair_scores(op, n, x, counts)
    if n["prob_a"]:
        slope, shift = op.constant(_row(n["prob_a"]), x), op.constant(_row(n["prob_b"]), x)
        first = op.Clip(op.Sigmoid(op.Neg(op.Add(op.Mul(pairs, slope), shift))), op.constant(1e-7, x), op.constant(1 - 1e-7, x))
        return [n.outputs[0], _coupled(op, first, len(counts))]
    if len(counts) == 2:
        pairs = op.Concat(op.Neg(pairs), pairs, axis=1)
    return [n.outputs[0], transformed(op, pairs, transform)]


def _pair_scores(op: Builder, n: NodeView, x: Value, counts: list[int]) -> Value:
    """The decision between each pair of classes, [samples, pairs]: class i's vectors weigh by row j - 1 of the coefficients, j's by row i."""
    total, classes = sum(counts), len(counts)
    vectors = np.asarray(n["support_vectors"], np.float64).reshape(total, -1)
    coefficients = np.asarray(n["coefficients"], np.float64).reshape(classes - 1, total)
    ends = np.cumsum([0, *counts])
    columns = []
    for i in range(classes):
        for j in range(i + 1, classes):
            column = np.zeros(total)
            column[ends[i] : ends[i + 1]] = coefficients[j - 1, ends[i] : ends[i + 1]]
            column[ends[j] : ends[j + 1]] = coefficients[i, ends[j] : ends[j + 1]]
            columns.append(column)
    scores = op.MatMul(_kernel(op, n, x, vectors), op.constant(np.stack(columns, 1), x))
    return op.Add(scores, op.constant(_row(n["rho"]), x))


def _coupled(op: Builder, first: Value, classes: int) -> Value:
    """Class probabilities from those of each pair (Wu, Lin and Weng 2004): the p that minimises p'Qp over the simplex's plane, which is
    proportional to the inverse of Q times ones, here by Cramer's rule. onnxruntime stops iterating towards it within 0.005 / classes."""
    if classes == 2:
        return op.Concat(first, op.Sub(op.constant(1, first), first), axis=1)
    won: dict[tuple[int, int], Value] = {}
    k = 0
    for i in range(classes):
        for j in range(i + 1, classes):
            won[i, j] = op.Gather(first, op.constant(np.asarray(k, np.int64)), axis=1)
            won[j, i] = op.Sub(op.constant(1, first), won[i, j])
            k += 1
    ones = op.full_like(won[0, 1], 1)
    columns = []
    for column in range(classes):
        rows = []
        for row in range(classes):
            if row == column:
                squares = [op.Mul(won[j, row], won[j, row]) for j in range(classes) if j != row]
                rows.append(op.Sum(*squares))
            else:
                rows.append(op.Neg(op.Mul(won[column, row], won[row, column])))
        columns.append(op.Concat(*[op.Unsqueeze(r, [1]) for r in rows], axis=1))
    solved = []
    for replaced in range(classes):
        chosen = [op.expand_like(op.Unsqueeze(ones, [1]), c) if k == replaced else c for k, c in enumerate(columns)]
        solved.append(op.Unsqueeze(op.Det(op.Concat(*[op.Unsqueeze(c, [2]) for c in chosen], axis=2)), [1]))
    parts = op.Concat(*solved, axis=1)
    return op.Div(parts, op.ReduceSum(parts, [1], keepdims=1))
