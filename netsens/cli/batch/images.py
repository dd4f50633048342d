"""The options of pictures: how their pixels become the numbers that a model takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from netsens.report.images import ImageOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def image_options(command: Command) -> Command:
    """How pictures become arrays."""
    for option in reversed((
        click.option("--image-preset", type=click.Choice(["imagenet"]), help="imagenet: shorter side to 256, middle 224 x 224, ImageNet's mean and deviation."),
        click.option("--image-size", metavar="HxW", help="Resize pictures to this height and width."),
        click.option("--image-scale", metavar="S", help="Multiply pixels (0 to 255) by this. Default: 1/255 where the model takes floats."),
        click.option("--image-mean", metavar="M,...", help="Subtract this after scaling, one number or one a channel."),
        click.option("--image-std", metavar="D,...", help="Divide by this after that."),
        click.option("--image-layout", metavar="AXES", help="NCHW, NHWC, CHW, HWC, NHW or HW. Default: what the input's shape tells."),
    )):  # fmt: skip
        command = option(command)
    return command


def parse_image_options(preset: str | None, size: str | None, scale: str | None, mean: str | None, std: str | None, layout: str | None) -> ImageOptions | None:
    """The options as the reader of pictures has them; those given override the preset's. None where there are none."""
    if all(option is None for option in (preset, size, scale, mean, std, layout)):
        return None
    from netsens.report.images import LAYOUTS, PLAIN, PRESETS

    found = PRESETS[preset] if preset else PLAIN
    if size is not None:
        parts = size.lower().split("x")
        if len(parts) not in (1, 2) or not all(p.isdigit() and int(p) for p in parts):
            raise click.BadParameter(f"'{size}' is not a size; write 224x224.", param_hint="--image-size")
        found = replace(found, size=(int(parts[0]), int(parts[-1])))
    if scale is not None:
        over, _, under = scale.partition("/")
        found = replace(found, scale=_numbers(over, "--image-scale")[0] / (_numbers(under, "--image-scale")[0] if under else 1.0))
    if mean is not None:
        found = replace(found, mean=_numbers(mean, "--image-mean"))
    if std is not None:
        found = replace(found, std=_numbers(std, "--image-std"))
        if 0.0 in found.std:
            raise click.BadParameter("a deviation of 0 can't be divided by.", param_hint="--image-std")
    if layout is not None:
        if layout.upper() not in LAYOUTS:
            raise click.BadParameter(f"'{layout}' is none of {', '.join(LAYOUTS)}.", param_hint="--image-layout")
        found = replace(found, layout=layout.upper())
    return found


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a number, or several with commas between.", param_hint=option) from None
