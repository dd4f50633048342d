"""Pictures (.png, .jpg) as the array that an image model expects: its layout, channels and size. Pillow is an extra."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from netsens.errors import InputError, NetsensWarning
from netsens.report.dtypes import Array, kind_of
from netsens.report.extras import require
from netsens.report.specs import InputSpec, format_shape

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
LAYOUTS = ("NCHW", "NHWC", "CHW", "HWC", "NHW", "HW")


@dataclass(frozen=True)
class ImageOptions:
    """How pictures become arrays: pixels from 0 to 255 times `scale` (None: to 0 ... 1 for floats, left alone for integers), less `mean`, by `std`.

    `size` is (height, width); with `crop` the shorter side is resized to `crop` times the wanted one, and the middle cut out. `layout` is one of
    `LAYOUTS`; None: what the input's shape tells."""

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float | None = None
    layout: str | None = None
    crop: float | None = None


PLAIN = ImageOptions()
PRESETS = {
    # what torchvision's models of ImageNet are evaluated with: 256 on the shorter side, the middle 224 x 224
    "imagenet": ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=256 / 224, size=(224, 224))
}


@dataclass(frozen=True)
class Layout:
    """Where height, width and channels sit in an input; `channels` None: what the picture has (grey or RGB)."""

    axes: str  # a permutation of NCHW, or CHW, HWC, NHW, HW
    channels: int | None
    height: int | None
    width: int | None


def image_layout(spec: InputSpec) -> Layout:
    """The layout that the input's shape tells of; NCHW where it could be either. `InputError` for what is no image."""
    shape = spec.shape if spec.shape is not None else (None, None, None, None)
    fixed = tuple(size if isinstance(size, int) else None for size in shape)
    for likely in ((1, 3), (4,)):  # four channels are rare: a side of four is likelier
        match fixed:
            case (_, channels, height, width) if channels in likely:
                return Layout("NCHW", channels, height, width)
            case (_, height, width, channels) if channels in likely:
                return Layout("NHWC", channels, height, width)
            case (channels, height, width) if channels in likely:
                return Layout("CHW", channels, height, width)
            case (height, width, channels) if channels in likely:
                return Layout("HWC", channels, height, width)
    match fixed:
        case (_, None, height, width):
            return Layout("NCHW", None, height, width)
        case (None, height, width):
            return Layout("NHW", 1, height, width)
        case (height, width):
            return Layout("HW", 1, height, width)
    raise InputError(f"input {spec.name!r} has shape {format_shape(shape)}, which is not that of an image; give it as .npy or .npz")


def chosen_layout(spec: InputSpec, axes: str) -> Layout:
    """The layout that the user names, with the sizes that the input's shape fixes."""
    shape = spec.shape if spec.shape is not None else (None,) * len(axes)
    if len(shape) != len(axes):
        raise InputError(f"the layout {axes} has {len(axes)} axes and input {spec.name!r} is {format_shape(spec.shape)}")
    fixed = {axis: size if isinstance(size, int) else None for axis, size in zip(axes, shape, strict=True)}
    channels = fixed["C"] if "C" in axes else 1
    if channels is not None and channels not in _MODES:
        raise InputError(f"the layout {axes} would give input {spec.name!r} ({format_shape(spec.shape)}) {channels} channels; pictures have 1, 3 or 4")
    return Layout(axes, channels, fixed["H"], fixed["W"])


def read_image(stream: BinaryIO, spec: InputSpec, source: str, options: ImageOptions = PLAIN) -> Array:
    """The picture as the input's array: floats from 0 to 1, or 0 to 255 where the input is an integer, or as the options say.

    Without a size among the options it is resized (bilinear, with one warning) only when the model fixes another size. EXIF rotation is
    not applied, as in torchvision and Keras.
    """
    image_module = require("PIL.Image")
    layout = image_layout(spec) if options.layout is None else chosen_layout(spec, options.layout)
    try:
        image = image_module.open(stream)
        image.load()
    except Exception as error:  # Pillow's readers of damaged files raise nearly anything
        raise InputError(f"{source!r} cannot be read as an image ({error}); it is damaged, or no image at all") from error
    grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
    channels = layout.channels or (1 if grey else 3)
    deep = image.mode.startswith("I;16") or image.mode == "I"
    if image.mode == "F":
        raise InputError(f"{source!r} holds 32-bit floating pixels, whose range is unknown; give it as .npy")
    if deep:
        # Pillow clips 16 bits at 255 when it converts, so they are scaled here
        image = image_module.fromarray((np.asarray(image, dtype=np.float32) / 65535 * 255).astype(np.float32))
    elif image.mode in ("RGBA", "LA", "PA") and channels != 4 and image.getchannel("A").getextrema()[0] < 255:
        _note(f"{source!r} is partly transparent; its transparency is left out")
    if not deep:
        image = image.convert(_MODES[channels])
    height, width = options.size or (image.height, image.width)
    size = (layout.width or width, layout.height or height)
    if options.size is not None and options.crop is None and size != (width, height):
        raise InputError(
            f"--image-size {height}x{width} is not what input {spec.name!r} ({format_shape(spec.shape)}) takes: leave it out, and pictures get the model's size"
        )
    if options.crop is not None and options.size is not None:
        image = _middle(image, size, options.crop, image_module.Resampling.BILINEAR)
    elif options.size == size[::-1]:
        image = image.resize(size, image_module.Resampling.BILINEAR)
    elif image.size != size:
        _note(f"{source!r} is {image.width}x{image.height} pixels; it is resized to the model's {size[0]}x{size[1]}")
        image = image.resize(size, image_module.Resampling.BILINEAR)
    pixels = np.asarray(image)
    pixels = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    if pixels.shape[2] != channels:
        pixels = np.repeat(pixels, channels, axis=2)
    return _arrange(_scale(pixels, spec.dtype, options, source), layout.axes)


def _middle(image: Any, size: tuple[int, int], crop: float, filter_: Any) -> Any:
    """The picture with its shorter side at `crop` times the wanted one, cut to `size` (width, height) around its middle."""
    factor = max(size[0] * crop / image.width, size[1] * crop / image.height)
    # torchvision truncates the longer side, and rounds where it cuts
    whole = (max(int(image.width * factor + 1e-6), size[0]), max(int(image.height * factor + 1e-6), size[1]))
    left, top = round((whole[0] - size[0]) / 2), round((whole[1] - size[1]) / 2)
    return image.resize(whole, filter_).crop((left, top, left + size[0], top + size[1]))


def _scale(pixels: Array, dtype: np.dtype[Any], options: ImageOptions, source: str) -> Array:
    kind = kind_of(dtype)
    for option, values in (("mean", options.mean), ("std", options.std)):
        if len(values) not in (0, 1, pixels.shape[2]):
            raise InputError(f"--image-{option} has {len(values)} numbers, and {source!r} is read with {pixels.shape[2]} channels")
    if kind == "float":
        # [H, W, C], channel by channel
        scaled = pixels.astype(np.float64) * options.scale if options.scale is not None else pixels.astype(np.float64) / 255
        return ((scaled - np.asarray(options.mean or 0.0)) / np.asarray(options.std or 1.0)).astype(dtype)
    if options.mean or options.std or options.scale is not None:
        raise InputError(f"the model takes whole numbers ({dtype.name}) from {source!r}, which are not scaled: leave the scale, mean and deviation out")
    if kind == "integer" and dtype.name not in ("int8", "int4", "uint4"):
        return np.rint(pixels).astype(dtype)
    raise InputError(f"pixels from 0 to 255 do not fit an input of {dtype.name}; give it as .npy, scaled as it should be")


def _arrange(pixels: Array, axes: str) -> Array:
    # [H, W, C] -> the layout's axes
    array = pixels[..., 0] if "C" not in axes else pixels
    array = array.transpose(2, 0, 1) if "CHW" in axes else array
    return np.ascontiguousarray(array[np.newaxis] if axes.startswith("N") else array)


def _note(text: str) -> None:
    warnings.warn(NetsensWarning(text), stacklevel=3)
