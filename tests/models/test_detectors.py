"""A detector in small: boxes around anchors and scores from a convolution, non-maximum suppression, and what it selects, gathered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import netsens
from tests.cli.shell import netsens as command

RNG = np.random.default_rng(3)
CENTRES = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(16, 2) / 4 + 0.125
TEXT = """
<ir_version: 9, opset_import: ["":17]>
detector (float[N,3,8,8] x) => (float[K,4] chosen, float[K] certainty) {
  c = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w, b)  r = Relu(c)
  p = Conv<kernel_shape=[1,1]>(r, v)  q = Transpose<perm=[0,2,3,1]>(p)  d = Reshape(q, places)
  s = Conv<kernel_shape=[1,1]>(r, u)  t = Reshape(s, classes)  scores = Sigmoid(t)
  shift, stretch = Split<axis=2>(d, halves)
  moved = Mul(shift, size)  centre = Add(moved, centres)
  grown = Exp(stretch)  whole = Mul(grown, size)  reach = Mul(whole, half)
  low = Sub(centre, reach)  high = Add(centre, reach)  boxes = Concat<axis=2>(low, high)
  selected = NonMaxSuppression(boxes, scores, most, overlap, least)
  which = Gather<axis=1>(selected, columns)
  chosen = GatherND(boxes, which)  certainty = GatherND(scores, selected)
}
"""
WEIGHTS = {
    "w": RNG.normal(0, 0.4, (6, 3, 3, 3)), "b": RNG.normal(0, 0.4, 6), "v": RNG.normal(0, 0.4, (4, 6, 1, 1)), "u": RNG.normal(0, 0.4, (2, 6, 1, 1)),
    "centres": CENTRES, "size": np.asarray(0.4), "half": np.asarray(0.5), "overlap": np.asarray([0.4]),
}  # fmt: skip
WHOLE = {"places": [0, -1, 4], "classes": [0, 2, -1], "halves": [2, 2], "most": [3], "columns": [0, 2]}
X = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)


def detector(least: float = 0.5) -> onnx.ModelProto:
    """A box needs a score above `least`."""
    made = onnx.parser.parse_model(TEXT)
    floats = {k: np.asarray(v, np.float32) for k, v in {**WEIGHTS, "least": [least]}.items()}
    integers = {k: np.asarray(v, np.int64) for k, v in WHOLE.items()}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in {**floats, **integers}.items())
    return made


@pytest.mark.filterwarnings("ignore:The gradient by")
@pytest.mark.parametrize("of", ["chosen", "certainty", "boxes", "scores"])
def test_gradients_before_and_after_the_selection(of: str) -> None:
    report = netsens.load(detector()).check({"x": X}, of=of, wrt="all")
    assert report.ok, report.sentence
    assert report.precision == "float64"
    row = next(r for r in report.rows if r.name == "x")
    assert row.derivative != 0


@pytest.mark.filterwarnings("ignore:The gradient by")
def test_what_is_not_selected_has_no_say() -> None:
    model = netsens.load(detector())
    found = model.run({"x": X}, ["selected", "certainty"])
    by_scores = model.grad({"x": X}, wrt="scores", of="certainty")["scores"]
    expected = np.zeros_like(by_scores)
    expected[tuple(found["selected"].T)] = 1
    np.testing.assert_array_equal(by_scores, expected)
    with pytest.warns(netsens.NetsensWarning, match="NonMaxSuppression 'selected' cuts the path"):
        assert not model.grad({"x": X}, wrt=["u", "v"], of="chosen")["u"].any()


def test_nothing_is_detected() -> None:
    """The sum over no boxes is constant; a box that isn't there can't be a target."""
    model = netsens.load(detector(0.9999))
    assert model.run({"x": X}, "chosen")["chosen"].shape == (0, 4)
    assert not model.grad({"x": X}, of="chosen")["x"].any()
    with pytest.raises(netsens.UsageError, match="The target 0 is outside the layer, which has 0 components along axis 0"):
        model.grad({"x": X}, of="certainty", target=0)
    with pytest.raises(netsens.UsageError, match="outside the layer"):
        model.grad({"x": X}, of="chosen", target="[0,2]")


def test_exported_gradient_finds_the_boxes_anew(tmp_path: Path) -> None:
    onnx.save(detector(), tmp_path / "d.onnx")
    np.save(tmp_path / "x.npy", X)
    done = command("check", "d.onnx", "--input", "x.npy", "--of", "chosen", cwd=tmp_path)
    assert done.code == 0, done.err
    model = netsens.load(detector())
    gradient = netsens.load(model.grad_model(of="chosen"))
    for x in (X, X[:1], -X):
        np.testing.assert_allclose(gradient.run({"x": x}, "gradient/x")["gradient/x"], model.grad({"x": x}, of="chosen")["x"], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The gradient by")
def test_jacobian_of_as_many_boxes_as_there_are() -> None:
    """One model, asked again where another number of boxes is found."""
    model = netsens.load(detector())
    counts = set()
    for x in (X, -X, X, np.ascontiguousarray(X[::-1]) / 2):
        boxes = model.run({"x": x}, "chosen")["chosen"]
        counts.add(len(boxes))
        found = model.jacobian({"x": x}, of="chosen")["x"]
        assert found.shape == (*boxes.shape, *x.shape)
        np.testing.assert_allclose(found.sum((0, 1)), model.grad({"x": x}, of="chosen")["x"], rtol=1e-4, atol=1e-5)
        forward = model.jacobian({"x": x}, of="chosen", wrt="b", mode="forward", target="[0]")["b"]
        np.testing.assert_allclose(forward[0, 1], model.grad({"x": x}, wrt="b", of="chosen", target="[0,1]")["b"], rtol=1e-4, atol=1e-5)
    assert len(counts) > 1


@pytest.mark.filterwarnings("ignore:The gradient by")
def test_second_derivatives_of_a_box_that_was_selected() -> None:
    model = netsens.load(detector())
    along, h = RNG.standard_normal(X.shape).astype(np.float32), np.float32(3e-3)
    found = model.hvp({"x": X}, {"x": along}, of="chosen", target="[0,2]")["x"]
    above, below = (model.grad({"x": X + s * h * along}, of="chosen", target="[0,2]")["x"] for s in (1, -1))
    assert found.any()
    np.testing.assert_allclose(found, (above - below) / (2 * h), atol=2e-2 * np.abs(found).max())
