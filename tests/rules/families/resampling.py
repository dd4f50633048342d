"""Resize in all its modes, grids and regions of interest."""

from typing import Any

import numpy as np

from tests.rules.case import Case

REGIONS = np.array([[1.37, 0.7, 8.1, 7.45], [-0.9, 2.2, 5.3, 12.1], [3.1, 3.3, 4.2, 4.6]])
NO_BODY: dict[str, Any] = {"against_body": False, "because": "AffineGrid's body chooses among shapes by If, whose branches have no types of their own"}
SOME = np.array([1, 1, 0, 1, 1, 1, 1, 0], bool)


Floats = list[float] | None


def resize(attributes: str, x: tuple[int, ...], scales: Floats = None, sizes: list[int] | None = None, roi: Floats = None, **options: Any) -> Case:
    """A Resize with constant scales or sizes. Its scales and regions are float32 always, so they stand in the text."""
    text = ""
    for name, values in (("roi", roi), ("scales", scales)):
        if values is not None:
            text += f"{name} = Constant<value = float[{len(values)}] {{{', '.join(map(repr, values))}}}>() "
    inputs = ["x", "roi" if roi else "", "scales" if scales else "", "sizes" if sizes else ""]
    while not inputs[-1]:
        inputs.pop()
    if sizes:
        text += f"sizes = Constant<value = int64[{len(sizes)}] {{{', '.join(map(str, sizes))}}}>() "
    return Case("Resize", f"{text}y = Resize<{attributes}>({', '.join(inputs)})", {"x": x}, **options)


MODES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")

CASES = [
    resize('mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"', (2, 3, 3, 4), scales=[1.0, 1.0, 2.0, 2.0]),
    resize('mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"', (2, 3, 3, 4), sizes=[2, 3, 6, 12]),
    resize('mode="nearest"', (2, 3, 4), scales=[1.0, 1.0, 4.0]),
    resize('mode="nearest", axes=[2, 3]', (2, 2, 3, 4), sizes=[5, 7]),
    resize('mode="nearest", axes=[-1]', (2, 2, 3, 4), sizes=[9]),
    *(resize(f'mode="nearest", nearest_mode="{r}", coordinate_transformation_mode="{m}"', (1, 2, 4, 5), sizes=[1, 2, 7, 3])
      for r in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") for m in ("half_pixel", "asymmetric", "align_corners")),
    resize('mode="nearest", nearest_mode="floor", coordinate_transformation_mode="tf_half_pixel_for_nn"', (1, 2, 4, 5), sizes=[1, 2, 8, 3], opset=12),
    *(resize(f'mode="linear", coordinate_transformation_mode="{m}"', (2, 2, 4, 5), sizes=[2, 2, 7, 3]) for m in MODES),
    *(resize(f'mode="cubic", coordinate_transformation_mode="{m}"', (1, 2, 4, 5), scales=[1.0, 1.0, 1.6, 0.7]) for m in MODES),
    resize('mode="linear"', (2, 2, 3, 4), scales=[1.0, 1.0, 2.0, 2.0]),
    resize('mode="linear"', (1, 1, 5, 4), scales=[1.0, 1.0, 1.1, 2.5]),
    resize('mode="linear", axes=[2, 3], antialias=1', (1, 2, 7, 8), sizes=[3, 5]),
    resize('mode="cubic", antialias=1', (1, 2, 7, 8), sizes=[1, 2, 4, 3]),
    resize('mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1', (1, 2, 5, 6), sizes=[1, 2, 8, 4]),
    resize('mode="linear"', (1, 2, 3, 2, 3), sizes=[1, 2, 5, 4, 3]),
    resize('mode="linear"', (3, 4), sizes=[5, 6]),
    resize('mode="linear", coordinate_transformation_mode="tf_crop_and_resize"', (1, 2, 6, 5), sizes=[1, 2, 4, 7],
           roi=[0.0, 0.0, 0.2, 0.1, 1.0, 1.0, 0.8, 0.7]),
    resize('mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=3.5', (1, 2, 6, 5), sizes=[1, 2, 4, 7],
           roi=[0.0, 0.0, -0.2, 0.1, 1.0, 1.0, 0.8, 1.3]),
    resize('mode="linear", keep_aspect_ratio_policy="not_larger", axes=[2, 3]', (1, 2, 4, 6), sizes=[7, 8]),
    resize('mode="nearest", keep_aspect_ratio_policy="not_smaller", axes=[2, 3]', (1, 2, 4, 6), sizes=[7, 8]),
    Case("Resize", 'z = Compress<axis=3>(x, c) s = Constant<value = float[4] {1.0, 1.0, 1.5, 2.5}>() y = Resize<mode="linear">(z, , s)',
         {"x": (2, 2, 3, 8), "c": SOME}),
    Case("Resize", 'z = Compress<axis=2>(x, c) y = Resize<mode="nearest">(z, , , s)',
         {"x": (2, 2, 8, 3), "c": SOME, "s": np.array([2, 2, 5, 7])}, symbolic=False),
    *(Case("GridSample", f'y = GridSample<mode="{m}", padding_mode="{p}", align_corners={a}>(x, g)',
           {"x": (2, 3, 4, 5), "g": (2, 3, 2, 2)}, domain=(-1.6, 1.6), seed=3)
      for m in ("linear", "nearest", "cubic") for p in ("zeros", "border", "reflection") for a in (0, 1)),
    *(Case("GridSample", f'y = GridSample<mode="{m}", padding_mode="{p}", align_corners=1>(x, g)',
           {"x": (2, 2, 3, 4, 3), "g": (2, 2, 1, 2, 3)}, domain=(-1.4, 1.4), seed=2)
      for m in ("linear", "nearest") for p in ("zeros", "border", "reflection")),
    Case("GridSample", 'y = GridSample<padding_mode="reflection">(x, g)', {"x": (1, 2, 3, 1), "g": (1, 3, 4, 2)}, domain=(-4.0, 4.0), seed=4),
    Case("GridSample", 'y = GridSample<padding_mode="reflection", align_corners=1>(x, g)', {"x": (1, 2, 3, 1), "g": (1, 3, 4, 2)}, domain=(-4.0, 4.0), seed=4),
    Case("GridSample", "y = GridSample(x, g)", {"x": (2, 3, 4, 5), "g": (2, 3, 2, 2)}, domain=(-0.9, 0.9), wrt=("x",)),
    Case("AffineGrid", "y = AffineGrid(t, s)", {"t": (2, 2, 3), "s": np.array([2, 3, 4, 5])}, constants=("s",), **NO_BODY),
    Case("AffineGrid", "y = AffineGrid<align_corners=1>(t, s)", {"t": (2, 2, 3), "s": np.array([2, 3, 4, 5])}, constants=("s",), **NO_BODY),
    Case("AffineGrid", "y = AffineGrid(t, s)", {"t": (2, 3, 4), "s": np.array([2, 1, 2, 3, 4])}, constants=("s",), **NO_BODY),
    Case("AffineGrid", "g = AffineGrid(t, s) y = GridSample(x, g)",
         {"x": (2, 2, 4, 5), "t": (2, 2, 3), "s": np.array([2, 2, 3, 4])}, constants=("s",), domain=(-0.7, 0.9), **NO_BODY),
    *(Case("RoiAlign", f'y = RoiAlign<mode="{m}", coordinate_transformation_mode="{c}", output_height=2, output_width=3, sampling_ratio={r}, '
           "spatial_scale=0.5>(x, r, b)",
           {"x": (2, 3, 5, 6), "r": REGIONS, "b": np.array([0, 1, 1])}, symbolic=False)
      for m in ("avg", "max") for c in ("half_pixel", "output_half_pixel") for r in (0, 2)),
    Case("RoiAlign", "y = RoiAlign<output_height=3, output_width=2>(x, r, b)", {"x": (1, 2, 4, 5), "r": REGIONS[:2] / 2, "b": np.array([0, 0])}),
    Case("MaxRoiPool", "y = MaxRoiPool<pooled_shape=[2, 2]>(x, r)",
         {"x": (2, 3, 5, 6), "r": np.array([[0, 0.2, 1.1, 3.3, 4.2], [1, 2, 0, 5.3, 2.9]])}, wrt=("x",)),
    Case("MaxRoiPool", "y = MaxRoiPool<pooled_shape=[3, 2], spatial_scale=0.5>(x, r)",
         {"x": (2, 2, 4, 4), "r": np.array([[1, 2.3, 1.1, 7.3, 6.2], [0, 8.2, 8.3, 12.3, 11.4]])}, wrt=("x",)),
    Case("DeformConv", "y = DeformConv(x, w, o)", {"x": (2, 2, 4, 4), "w": (3, 2, 2, 2), "o": (2, 8, 3, 3)}, opset=22),
    Case("DeformConv", "y = DeformConv<offset_group=2, pads=[1, 1, 1, 1], strides=[2, 1]>(x, w, o, b, m)",
         {"x": (1, 4, 4, 3), "w": (3, 4, 2, 2), "o": (1, 16, 3, 4), "b": (3,), "m": (1, 8, 3, 4)}, opset=22),
    Case("DeformConv", "y = DeformConv<group=2, dilations=[2, 1]>(x, w, o, , m)",
         {"x": (1, 4, 5, 4), "w": (2, 2, 2, 2), "o": (1, 8, 3, 3), "m": (1, 4, 3, 3)}, opset=22),
]  # fmt: skip
