"""Jacobians and Hessians against PyTorch's in float64."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest

import netsens

torch = pytest.importorskip("torch")
SAMPLES = Path(__file__).parents[2] / "sample_models"
pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch warns of itself


@pytest.fixture(scope="module")
def digits() -> netsens.Model:
    return netsens.load(SAMPLES / "digits_cnn.onnx", threads=1)


@pytest.fixture(scope="module")
def digit() -> np.ndarray:
    return np.load(SAMPLES / "digits.npy")


def torch_relu1(model: netsens.Model):  # torch has no stubs here
    """relu1 of digits_cnn as a function of the image and the parameters before it."""
    names = ["conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"]
    values = {n: torch.from_numpy(np.array(model.graph.constants[n])).double() for n in names}

    def relu1(image, parameters):
        p = parameters
        c = torch.nn.functional.conv2d(image, p["conv1.weight"], p["conv1.bias"], padding=1)
        shape = (1, -1, 1, 1)
        scale = p["bn1.weight"] / torch.sqrt(p["bn1.running_var"] + 1e-5)
        return torch.relu((c - p["bn1.running_mean"].reshape(shape)) * scale.reshape(shape) + p["bn1.bias"].reshape(shape))

    return relu1, values


def test_relu1_by_all_parameters_before_it_takes_as_many_passes_as_colours(digits: netsens.Model, digit: np.ndarray) -> None:
    plan = digits.jacobian_plan(digit, "relu1", "params")
    assert (plan.mode, plan.passes) == ("forward", 14)  # 9 taps, and a pass for each of 5 vectors a channel
    trained = ["conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"]
    assert digits.jacobian_plan(digit, "relu1", trained).passes == 12
    found = digits.jacobian(digit, "relu1", "params")
    relu1, values = torch_relu1(digits)
    expected = torch.func.jacfwd(relu1, argnums=1)(torch.from_numpy(digit).double(), values)
    assert set(found) == set(expected)
    for name, array in found.items():
        exact = expected[name].numpy()
        assert array.shape == exact.shape
        assert np.abs(array - exact).max() <= 1e-6 * max(1.0, np.abs(exact).max())


def test_relu1_by_the_image_takes_nine_passes(digits: netsens.Model, digit: np.ndarray) -> None:
    assert digits.jacobian_plan(digit, "relu1").passes == 9
    relu1, values = torch_relu1(digits)
    exact = torch.func.jacfwd(relu1, argnums=0)(torch.from_numpy(digit).double(), values).numpy()
    dense = digits.jacobian(digit, "relu1")["image"]
    assert np.abs(dense - exact).max() <= 1e-6 * max(1.0, np.abs(exact).max())
    sparse = digits.jacobian(digit, "relu1", sparse=True)["image"]
    np.testing.assert_array_equal(sparse.toarray(), dense.reshape(sparse.shape))
    assert sparse.nnz <= 53792


def exported(module, x, names=("x",), batch=True):
    file = io.BytesIO()
    axes = {"x": {0: "N"}, "y": {0: "N"}} if batch else None
    torch.onnx.export(module, (x,), file, dynamo=False, input_names=list(names), output_names=["y"], dynamic_axes=axes)
    return netsens.load(file.getvalue(), threads=1)


def test_a_narrow_waist_is_multiplied_through() -> None:
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 3), nn.Tanh(), nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 40)).eval()
    for count in (1, 4):
        x = torch.randn(count, 40)
        model = exported(module, x)
        plan = model.jacobian_plan(x.numpy())
        assert plan.mode == "mixed"
        assert plan.passes == 6
        wide = copy.deepcopy(module).double()
        exact = torch.func.jacrev(wide)(x.double()).detach().numpy()
        for mode in ("auto", "forward", "reverse", "mixed"):
            np.testing.assert_allclose(model.jacobian(x.numpy(), mode=mode)["x"], exact, atol=2e-7)
        alone = model.jacobian(x.numpy(), per_sample=True)["x"]
        np.testing.assert_allclose(alone, np.einsum("nonx->nox", exact), atol=2e-7)
        parameters = model.jacobian(x.numpy(), wrt="params")
        expected = torch.func.jacrev(lambda w: torch.func.functional_call(wide, w, (x.double(),)))(wide.state_dict())  # noqa: B023
        exact_ones = [e.numpy() for e in expected.values()]
        exact_ones += [np.swapaxes(e, -1, -2) for e in exact_ones]  # an exporter may turn a weight
        for name, array in parameters.items():
            assert any(e.shape == array.shape and np.abs(array - e).max() <= 1e-6 for e in exact_ones), name


def test_hessian_and_its_products() -> None:
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)).eval()
    x = torch.randn(1, 6)
    model = exported(module, x)
    h = model.hessian(x.numpy())["x"]["x"]
    wide = copy.deepcopy(module).double()
    exact = torch.func.jacrev(torch.func.jacrev(lambda v: wide(v).sum()))(x.double()).detach().numpy()
    assert h.shape == (1, 6, 1, 6)
    np.testing.assert_allclose(h, exact, atol=1e-6)
    v = np.random.default_rng(0).standard_normal((4, 1, 6)).astype(np.float32)
    np.testing.assert_allclose(model.hvp(x.numpy(), v)["x"].reshape(4, 6), v.reshape(4, 6) @ h.reshape(6, 6).T, atol=1e-6)
    both = model.hessian(x.numpy(), wrt="all")
    for row, line in both.items():
        for column, block in line.items():
            half = block.ndim - len(model.graph.types[column].shape or ())
            turned = np.moveaxis(block, range(half), range(-half, 0))
            np.testing.assert_allclose(both[column][row], turned, atol=1e-6)
    np.testing.assert_allclose(both["x"]["x"], h, atol=1e-6)


def test_a_hessian_of_many_numbers_is_refused(digits: netsens.Model, digit: np.ndarray) -> None:
    with pytest.raises(netsens.NetsensError, match="--target"):
        digits.hessian(digit, "logits")


def test_a_result_above_the_limit_is_refused_or_goes_to_files(digits: netsens.Model, digit: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(netsens.NetsensError, match=r"18\.8 MiB"):
        digits.jacobian(digit, "relu1", memory_limit=1 << 20)
    found = digits.jacobian(digit, "relu1", memory_limit=1 << 20, folder=tmp_path)["image"]
    np.testing.assert_array_equal(found, digits.jacobian(digit, "relu1")["image"])
    assert [p.name for p in tmp_path.iterdir()] == ["image.npy"]


def test_samples_of_a_batch(digits: netsens.Model) -> None:
    batch = np.load(SAMPLES / "digits_batch.npy")
    alone = digits.jacobian(batch, "logits", per_sample=True)["image"]
    assert alone.shape == (4, 10, 1, 28, 28)
    for k in range(4):
        np.testing.assert_allclose(alone[k], digits.jacobian(batch[k : k + 1], "logits")["image"][0, :, 0], atol=2e-5)
    whole = digits.jacobian(batch, "logits")["image"]
    np.testing.assert_allclose(np.einsum("nonchw->nochw", whole), alone, atol=1e-6)
    assert digits.jacobian_plan(batch, "logits").passes == 10


def test_what_has_a_waist_can_be_sparse_and_summed_up() -> None:
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 3), nn.Tanh(), nn.Linear(3, 40)).eval()
    x = torch.randn(2, 40)
    model = exported(module, x)
    dense = model.jacobian(x.numpy())["x"]
    sparse = model.jacobian(x.numpy(), sparse=True)["x"]
    np.testing.assert_allclose(sparse.toarray(), dense.reshape(sparse.shape), atol=2e-7)
    from netsens.jacobian.figures import figures

    point = model.linearize(x.numpy())
    plan = model.jacobian_plan(x.numpy())
    assert plan.waist is not None
    np.testing.assert_allclose(figures(point, plan)["x"].frobenius, np.linalg.norm(dense), rtol=1e-6)


def test_by_an_input_and_by_a_value_that_it_leads_to(digits: netsens.Model, digit: np.ndarray) -> None:
    """Each for itself: a change of the inner value comes on top of what the image makes of it, in whichever mode."""
    found = {mode: digits.jacobian(digit, "logits", ["image", "pool2", "relu3"], mode=mode) for mode in ("forward", "reverse")}
    for name, exact in found["reverse"].items():
        alone = digits.jacobian(digit, "logits", name, mode="reverse")[name]
        assert np.abs(alone).max() > 0.1
        for array in (exact, found["forward"][name]):
            np.testing.assert_allclose(array, alone, atol=1e-4)
