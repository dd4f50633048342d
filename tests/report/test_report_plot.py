"""Pictures: the right one for an array, written whole, nothing lost in what is drawn."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from netsens.errors import OutputError, UsageError
from netsens.report.grid import draw_grid
from netsens.report.heatmap import as_images
from netsens.report.matrix import block_extremes
from netsens.report.plot import figure_of, plot_array, plot_grid, suitable_kind

generator = np.random.default_rng(0)
MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize(
    ("shape", "has_input", "has_features", "kind"),
    [
        ((), False, False, "bars"),
        ((5,), False, False, "bars"),
        ((4, 5), True, False, "bars"),
        ((4, 5), False, True, "bars"),
        ((4, 5), False, False, "matrix"),
        ((1, 5), False, False, "bars"),
        ((2, 28, 28), True, False, "image"),
        ((2, 3, 28, 28), True, False, "image"),
        ((2, 28, 28, 3), True, False, "image"),
        ((8, 1, 3, 3), False, False, "matrix"),
        ((2, 64, 14, 14), False, False, "matrix"),
        ((2, 3, 4, 5, 6), False, False, "matrix"),
    ],
)
def test_the_suitable_picture(shape: tuple[int, ...], has_input: bool, has_features: bool, kind: str) -> None:
    assert suitable_kind(shape, has_input=has_input, has_features=has_features) == kind


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_files_are_written_the_same_each_time(tmp_path: Path, ending: str) -> None:
    array = generator.standard_normal((1, 1, 8, 8))
    paths = [tmp_path / f"{number}{ending}" for number in range(2)]
    for path in paths:
        plot_array(path, "x", array, input_array=np.abs(array))
    assert paths[0].read_bytes().startswith(MAGIC[ending])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 8, 8)),
        np.full((1, 1, 8, 8), np.nan),
        np.asarray(1.5),
        np.zeros(4, np.float16),
        np.asarray([np.inf, 1, np.nan]),
        generator.standard_normal((300, 4)),
        np.zeros((3, 4)),
        np.full((3, 4), np.nan),
        generator.standard_normal((10, 12, 9)),
    ],
)
def test_every_array_is_drawn_without_a_warning(array: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for beneath in (None, np.zeros_like(array)):
            figure_of("a $name$ with /signs_", array, input_array=beneath).savefig(io.BytesIO(), format="png")


def test_bars_are_named_sorted_and_cut_to_twenty() -> None:
    values = np.arange(30.0)[None] * np.where(np.arange(30) % 2, 1, -1)
    figure = figure_of("x", values, features=[f"feature {index}" for index in range(30)])
    (axis,) = figure.axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == [f"feature {index}" for index in range(29, 9, -1)]
    assert [bar.get_width() for bar in axis.patches][:2] == [29.0, -28.0]
    assert "20 largest of 30" in axis.texts[0].get_text()


def test_bars_of_several_rows_are_mean_magnitudes() -> None:
    figure = figure_of("x", np.asarray([[1.0, -4.0], [-3.0, 4.0]]), features=["a", "b"])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [4.0, 2.0]


def test_channels_are_summed_in_either_layout() -> None:
    first = generator.standard_normal((2, 3, 6, 7))
    np.testing.assert_allclose(as_images(first)[0], first.sum(1))
    np.testing.assert_allclose(as_images(first.transpose(0, 2, 3, 1))[0], first.sum(1))
    assert as_images(first[0])[0].shape == (1, 6, 7)
    assert as_images(first[:, 0])[0].shape == (2, 6, 7)


def test_blocks_lose_no_entry() -> None:
    row, column = np.asarray([0, 5, 999, 998]), np.asarray([0, 3, 6, 6])
    blocks, size = block_extremes(row, column, np.asarray([1.0, -2.0, 0.5, -3.0]), (1000, 7), most=10)
    assert size == (100, 1)
    assert blocks.shape == (10, 7)
    assert blocks[0, 0] == 1
    assert blocks[0, 3] == -2
    assert blocks[9, 6] == -3
    assert np.count_nonzero(blocks) == 3


def test_sparse_and_many_axes() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    figure = figure_of("J", sparse.random(1000, 50, 0.01, random_state=0))
    assert "500 of 50000 entries not zero (1 %)" in figure.axes[0].texts[0].get_text()
    figure = figure_of("J", np.ones((2, 3, 4, 5)), kind="matrix", row_axes=2)
    assert figure.axes[0].get_ylabel() == "row (of 6)"


def test_a_jacobian_is_drawn_tensor_by_tensor(tmp_path: Path) -> None:
    rows, columns = [("relu1", (1, 8, 6, 6))], [("conv1.weight", (8, 1, 3, 3)), ("conv1.bias", (8,)), ("a_name_that_is_rather_long", (8,))]
    blocks = {("relu1", name): generator.standard_normal((288, int(np.prod(shape)))) for name, shape in columns}
    blocks["relu1", "conv1.bias"] *= 1000
    figure = draw_grid("Jacobian of relu1", rows, columns, blocks, label="derivative")
    panels = figure.axes[:3]
    assert [axis.get_xlabel().split("\n")[0].split(" ")[0] for axis in panels] == [name for name, _ in columns]
    assert panels[0].get_ylabel() == "relu1 1x8x6x6"
    assert [t.get_text() for t in panels[0].get_yticklabels()] == [f"[{k}]" for k in range(8)]
    # A tensor with far larger derivatives has a scale of its own, which is written above it.
    assert panels[1].get_title().startswith("±")
    assert float(panels[1].get_title()[1:]) > 100 * float(panels[0].get_title()[1:])
    figure = draw_grid("structure", rows, columns[:1], {("relu1", "conv1.weight"): np.eye(288, 72)}, label="", structure=True)
    assert len(figure.axes) == 1
    assert "72 of 20,736 entries may be non-zero" in figure.texts[-1].get_text()
    many = [(f"p{k}", (1,)) for k in range(40)]
    figure = draw_grid("J", [("y", ())], many, {("y", name): np.ones((1, 1)) for name, _ in many}, label="derivative")
    assert "24 more tensors are not drawn" in figure.texts[-1].get_text()
    plot_grid(tmp_path / "J.svg", "J", rows, columns, blocks, label="derivative")
    assert (tmp_path / "J.svg").read_bytes().startswith(b"<?xml")


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ends in no picture format"):
        plot_array(tmp_path / "x.bmp", "x", np.ones(3))
    with pytest.raises(OutputError, match="nothing to draw"):
        plot_array(tmp_path / "x.png", "x", np.ones((0, 3)))
    with pytest.raises(OutputError, match="no folder"):
        plot_array(tmp_path / "missing" / "x.png", "x", np.ones(3))
