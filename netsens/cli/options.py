"""Options that several commands share, and the values they stand for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from netsens.cli.messages import Messages

if TYPE_CHECKING:
    from netsens.graph.graph import TensorType
    from netsens.model import Model
    from netsens.report.specs import InputSpec

Command = TypeVar("Command", bound=Callable[..., Any])

SUMMARIES = ["table", "markdown", "csv", "json", "none"]


def _together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def model_argument(command: Command) -> Command:
    """MODEL, which may be left out where it can be told."""
    return click.argument("model", required=False, type=click.Path(path_type=str))(command)


def input_options(command: Command) -> Command:
    return _together(
        click.option("--input", "-i", "inputs", multiple=True, metavar="[NAME=]SRC",
                     help="What the model runs on: a file (.npy .npz .csv .tsv .json .pb .png .jpg), - for standard input, a quoted glob, or random, "
                          "random:SEED, zeros, ones. Repeatable. Default: random:0."),
        click.option("--shape", "shapes", multiple=True, metavar="[NAME=]1x3x224x224", help="The shape of a generated input whose dimensions are symbolic."),
    )(command)  # fmt: skip


def of_option(command: Command) -> Command:
    return click.option("--of", "--layer", "of", metavar="SEL", help="What is differentiated: an output or any layer, by name, unique end of a name, or glob. "
                        "Default: the first output.")(command)  # fmt: skip


def wrt_option(default: str) -> Callable[[Command], Command]:
    return click.option("--wrt", "wrt", multiple=True, metavar="SEL", default=(default,), show_default=True,
                        help="By what: inputs, params, all, a name, a unique end of a name, a glob, or LAYER:SLOT. Repeatable.")  # fmt: skip


def target_option(command: Command) -> Command:
    return click.option("--target", metavar="T", help="Components of --of: an index (3), several (0,2), a slice as NumPy writes it ([:,3]), or argmax. "
                        "Default: the sum of all.")(command)  # fmt: skip


def cotangent_option(command: Command) -> Command:
    return click.option("--cotangent", metavar="[NAME=]SRC",
                        help="An imposed output gradient, a file of the shape of --of: the gradient of the dot product with it.")(command)  # fmt: skip


def output_option(command: Command) -> Command:
    return click.option("--output", "-o", metavar="PATH", help="Where results go: .npy .npz .safetensors .csv .parquet .h5, a folder, - for standard output, or "
                        "none. Default: NAME.COMMAND.npz here.")(command)  # fmt: skip


def summary_option(command: Command) -> Command:
    return click.option("--summary", type=click.Choice(SUMMARIES), help="The summary on standard output. Default: table on a terminal, json in a pipe.")(
        command
    )


def run_options(command: Command) -> Command:
    return _together(
        click.option("--provider", default="auto", show_default=True, help="onnxruntime's execution provider: auto, cpu, cuda, ..."),
        click.option(
            "--quantized",
            type=click.Choice(["zero", "straight-through"]),
            default="zero",
            show_default=True,
            help="What rounding to quantised integers does to a derivative: its true zero, or it passes where nothing saturates.",
        ),
        click.option("--compute-dtype", type=click.Choice(["float32", "float64"]), help="Compute the whole model in this precision. Default: its own."),
        click.option("--threads", type=click.IntRange(1), help="onnxruntime's threads. Default: its own choice."),
    )(command)


def message_options(command: Command) -> Command:
    return _together(
        click.option("-q", "--quiet", is_flag=True, help="Standard error says errors alone."),
        click.option("-v", "--verbose", is_flag=True, help="Standard error says more, with tracebacks."),
        click.option("--no-progress", is_flag=True, help="No progress bar."),
    )(command)


def messages(quiet: bool, verbose: bool, no_progress: bool) -> Messages:
    return Messages(quiet, verbose, not no_progress and not quiet)


def resolve_model(model: str | None, say: Messages) -> Path:
    """The model's path: as given, from NETSENS_MODEL, or the one .onnx file of the folder (which is said)."""
    chosen = model or os.environ.get("NETSENS_MODEL")
    if chosen and not Path(chosen).is_dir():
        if not model:
            say.note(f"using the model {chosen} (NETSENS_MODEL).")
        return Path(chosen)
    folder = Path(chosen) if chosen else Path()
    found = sorted(folder.glob("*.onnx"))
    if len(found) != 1:
        where = f"the folder '{folder}'" if chosen else "this folder"
        raise click.UsageError(
            f"No model was given, and {where} holds no .onnx file." if not found
            else f"No model was given, and {where} holds {len(found)} .onnx files: {', '.join(p.name for p in found[:4])}{', ...' if len(found) > 4 else ''}."
        )  # fmt: skip
    say.note(f"using the model {found[0]}.")
    return found[0]


def input_specs(model: Model) -> list[InputSpec]:
    """The model's inputs as the readers of files know them."""
    from netsens.report.specs import InputSpec

    return [InputSpec(name, _numpy_dtype(type_), type_.shape) for name, type_ in model.inputs.items()]


def _numpy_dtype(type_: TensorType) -> Any:
    import numpy as np

    from netsens.graph.dtypes import numpy_dtype

    return numpy_dtype(type_.dtype) if type_.dtype else np.dtype(np.float32)


def read_cotangent(model: Model, option: str, of: str | None) -> Any:
    """The cotangent from its file; a generated one takes the layer's shape."""
    import sys

    import numpy as np

    from netsens.errors import InputError
    from netsens.graph.dtypes import numpy_dtype
    from netsens.graph.names import find_layer
    from netsens.report.inputs import read_inputs
    from netsens.report.specs import InputSpec

    layer = find_layer(model.graph, of)
    known = model.graph.types.get(layer)
    dtype = numpy_dtype(known.dtype) if known is not None and known.dtype else np.dtype(np.float32)
    spec = InputSpec(layer, dtype, known.shape if known is not None else None)
    try:
        return next(read_inputs([option], [spec], stdin=sys.stdin.buffer)).arrays[layer]
    except InputError as error:
        raise InputError(f"--cotangent: {error}") from error


def parse_shapes(options: Sequence[str], specs: Sequence[InputSpec]) -> dict[str, tuple[int, ...]]:
    from netsens.report.specs import parse_shape_option

    return dict(parse_shape_option(option, specs) for option in options)


_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "kib": 2**10, "m": 10**6, "mb": 10**6, "mib": 2**20, "g": 10**9, "gb": 10**9, "gib": 2**30}


class Bytes(click.ParamType):  # type: ignore[type-arg]  # older clicks have no type argument
    """A number of bytes: `500MB`, `1GiB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
        if match is None or match[2].lower() not in _UNITS:
            self.fail(f"'{value}' is not a size; write 500MB or 1GiB.", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].lower()])


_CACHE = "netsens.cache"


def cache_option(command: Command) -> Command:
    """--no-cache, which `caches` tells of."""

    def remember(context: click.Context, option: click.Parameter, off: bool) -> None:
        context.meta[_CACHE] = not off

    return click.option("--no-cache", is_flag=True, expose_value=False, callback=remember,
                        help="Build the gradient graph anew, and keep nothing in the cache folder.")(command)  # fmt: skip


def caches() -> bool:
    """Whether built graphs may be kept, and taken from where they were kept."""
    return bool(click.get_current_context().meta.get(_CACHE, True))


def memory_option(command: Command) -> Command:
    return click.option(
        "--memory-limit",
        type=Bytes(),
        metavar="SIZE",
        help="The most memory that results and buffers may take, as 1GiB; grad takes images in parts, keeps less and computes more again.",
    )(command)
