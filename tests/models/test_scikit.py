"""Pipelines of scikit-learn as skl2onnx exports them: string labels, dictionaries of probabilities, string features, trees."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import netsens
from netsens.analyse.thresholds import half_gaps
from tests.cli.shell import netsens as command

pytest.importorskip("sklearn")
skl2onnx = pytest.importorskip("skl2onnx")

pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 4)).astype(np.float32) * np.asarray([1, 3, 0.2, 1], np.float32)
CLASSES = np.asarray(["low", "middle", "high"])[np.digitize(X @ np.asarray([1.0, 0.5, 2.0, 0.0]), [-1, 1])]
TARGET = np.sin(X[:, 0]) + X[:, 1] * X[:, 3]


def exported(estimator: Any, x: np.ndarray = X, y: np.ndarray = CLASSES) -> tuple[Any, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = estimator.fit(x, y)
        return fitted, skl2onnx.to_onnx(fitted, x[:1]).SerializeToString()


def smooth() -> dict[str, Any]:
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, Normalizer, PolynomialFeatures, StandardScaler
    from sklearn.svm import SVC, SVR

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "perceptron": make_pipeline(MinMaxScaler(), MLPClassifier(hidden_layer_sizes=(8,), activation="tanh", max_iter=40, random_state=0)),
        "normalised": make_pipeline(Normalizer(), LogisticRegression()),
        "polynomial": make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression()),
        "linear": LinearRegression(), "ridge": make_pipeline(StandardScaler(), Ridge()), "svr": make_pipeline(StandardScaler(), SVR()),
        "neural": MLPRegressor(hidden_layer_sizes=(8,), activation="tanh", max_iter=40, random_state=0),
        "svc": make_pipeline(StandardScaler(), SVC()),
    }  # fmt: skip


@pytest.mark.parametrize("name", smooth())
def test_gradient_of_what_scikit_learn_computes(name: str) -> None:
    """Against differences of scikit-learn's own float64 predictions."""
    from sklearn.base import is_classifier

    estimator = smooth()[name]
    regression = not is_classifier(estimator)
    fitted, model = exported(estimator, y=TARGET if regression else CLASSES)
    predict = fitted.predict if regression else fitted.predict_proba if hasattr(fitted, "predict_proba") else fitted.decision_function
    loaded, x, h = netsens.load(model), X[:3], 1e-4
    column = None if regression else 1
    found = loaded.grad({"X": x}, target=column)["X"]

    def f(at: np.ndarray) -> np.ndarray:
        y = np.asarray(predict(at))
        return y if column is None else y[:, column]

    for k in range(x.shape[1]):
        step = h * np.eye(x.shape[1])[k]
        difference = (f(x.astype(np.float64) + step) - f(x.astype(np.float64) - step)) / (2 * h)
        np.testing.assert_allclose(found[:, k], difference.reshape(-1), rtol=2e-3, atol=2e-4 * max(1.0, np.abs(found).max()))


def test_dictionaries_of_probabilities() -> None:
    _, model = exported(smooth()["logistic"])
    loaded = netsens.load(model)
    assert [n.op for n in loaded.graph.nodes][-1] == "ZipMap"
    default = loaded.grad({"X": X[:2]}, target=1)["X"]
    for of in ("output_probability", "probabilities"):
        np.testing.assert_array_equal(loaded.grad({"X": X[:2]}, of=of, target=1)["X"], default)
    with pytest.warns(netsens.NetsensWarning, match="holds dictionaries: the gradient is that of 'probabilities'"):
        loaded.grad({"X": X[:2]}, target=1)
    with pytest.raises(netsens.NetsensError, match="output_label"):
        loaded.grad({"X": X[:2]}, of="output_label")


def test_at_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(exported(smooth()["logistic"])[1])
    np.save(tmp_path / "x.npy", X[:2])
    done = command("grad", "m.onnx", "--input", "x.npy", "--target", "argmax", "-o", "g.npy", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "dictionaries" in done.err
    assert np.abs(np.load(tmp_path / "g.npy")).max() > 0
    checked = command("check", "m.onnx", "--input", "x.npy", cwd=tmp_path)
    assert checked.code == 0, checked.err


def test_text_features() -> None:
    """The gradient is taken at the encoded text."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    x = np.asarray([["red", "small"], ["green", "big"], ["blue", "big"], ["red", "big"]] * 8, object)
    fitted, model = exported(make_pipeline(OneHotEncoder(), LogisticRegression()), x, np.asarray(["a", "b", "b", "a"] * 8))
    loaded = netsens.load(model)
    with pytest.warns(netsens.NetsensWarning, match="first float tensor"):
        found = loaded.grad({loaded.graph.inputs[0]: x[:2]}, target=1)
    # One tensor for each column, of as many features as it has words.
    gradient = np.concatenate([g.reshape(2, -1) for g in found.values()], axis=1)
    probability = fitted.predict_proba(x[:2])[:, 1:]
    np.testing.assert_allclose(gradient, probability * (1 - probability) * fitted[-1].coef_, atol=1e-5)


def mixed() -> tuple[Any, Any, dict[str, np.ndarray]]:
    """Two numbers, a category and a sentence to a class: the pipeline, its model and some of its inputs, as columns."""
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x = np.empty((60, 4), object)
    x[:, 0], x[:, 1] = RNG.uniform(20, 70, 60).astype(np.float32), RNG.normal(3, 1, 60).astype(np.float32)
    x[:, 2], x[:, 3] = RNG.choice(["red", "green", "blue"], 60), RNG.choice(["The cat sat", "a dog ran", "the dog sat far"], 60)
    y = np.where(x[:, 0] / 20 + x[:, 1] + (x[:, 2] == "red") > 6, "yes", "no")
    columns = [("numbers", StandardScaler(), [0, 1]), ("category", OneHotEncoder(handle_unknown="ignore"), [2]), ("sentence", TfidfVectorizer(), 3)]
    fitted = make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(x, y)
    kinds = [("age", FloatTensorType), ("income", FloatTensorType), ("colour", StringTensorType), ("said", StringTensorType)]
    model = skl2onnx.convert_sklearn(fitted, "mixed", [(name, kind([None, 1])) for name, kind in kinds], target_opset=17)
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":  # the locale that it names by default is not on every machine
            node.attribute.append(onnx.helper.make_attribute("locale", "C"))
    return fitted, model, {name: x[:4, k : k + 1].astype(np.float32 if k < 2 else str) for k, (name, _) in enumerate(kinds)}


def test_numbers_beside_categories_and_text() -> None:
    """By the numbers, against differences of scikit-learn's own predictions; by text at what encodes it, which is said."""
    fitted, model, columns = mixed()
    loaded = netsens.load(model)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = loaded.grad(columns, target=1)
    for name in ("colour", "said"):
        assert any(f"'{name}' holds text: the gradient is taken at the first float tensor behind it" in str(w.message) for w in said)
    assert list(found)[:2] == ["age", "income"]
    assert len(found) == 4
    table = np.concatenate([v.astype(object) for v in columns.values()], axis=1)
    whole = loaded.jacobian(columns, target=1)
    h = 1e-3
    for k, name in enumerate(("age", "income")):
        above, below = table.copy(), table.copy()
        above[:, k], below[:, k] = table[:, k].astype(float) + h, table[:, k].astype(float) - h
        expected = (fitted.predict_proba(above)[:, 1] - fitted.predict_proba(below)[:, 1]) / (2 * h)
        np.testing.assert_allclose(found[name][:, 0], expected, rtol=2e-3)
        np.testing.assert_allclose(whole[name].reshape(4, 4), np.diag(expected), rtol=2e-3, atol=1e-7)
        alone = loaded.grad(columns, wrt=name, target=1)
        assert list(alone) == [name]
        np.testing.assert_allclose(alone[name], found[name], rtol=1e-6)


TREES = ["forest", "boosted", "boosted classes", "scaled forest"]


def tree(name: str) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "forest": lambda: RandomForestRegressor(20, random_state=0), "boosted": lambda: GradientBoostingRegressor(random_state=0),
        "boosted classes": lambda: GradientBoostingClassifier(n_estimators=20, random_state=0),
        "scaled forest": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)),
    }[name]()  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_trees_by_differences_across_their_thresholds(name: str) -> None:
    classes = "classes" in name or "scaled" in name
    fitted, model = exported(tree(name), y=CLASSES if classes else TARGET)
    loaded, x = netsens.load(model), X[:6]
    with pytest.warns(netsens.NetsensWarning, match="piecewise constant; --method finite-difference"):
        assert not loaded.grad({"X": x}, target=1 if classes else None)["X"].any()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = loaded.grad({"X": x}, target=1 if classes else None, method="finite-difference")["X"]
    assert any("half the median gap between the thresholds" in str(w.message) for w in said)
    gaps = half_gaps([n for n in loaded.graph.nodes if n.op.startswith("Tree")])
    scale = fitted[0].scale_ if name.startswith("scaled") else np.ones(4)
    steps = np.asarray([gaps[k] * scale[k] for k in range(4)])

    def f(at: np.ndarray) -> np.ndarray:
        return fitted.predict_proba(at)[:, 1] if classes else fitted.predict(at)

    assert np.abs(found).max() > 0
    for k in range(4):
        step = steps[k] * np.eye(4)[k]
        expected = (f(x.astype(np.float64) + step) - f(x.astype(np.float64) - step)) / (2 * steps[k])
        # Where an element moved by the step comes to lie on a threshold, rounding decides.
        agree = np.isclose(found[:, k], expected, rtol=1e-3, atol=1e-4 * np.abs(found).max())
        assert agree.mean() >= 0.8
    by_hand = loaded.grad({"X": x}, target=1 if classes else None, method="finite-difference", step=0.5)["X"]
    assert by_hand.shape == x.shape
    assert not np.array_equal(by_hand, found)
