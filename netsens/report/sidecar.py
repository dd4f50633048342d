"""The files of a gradient model: the ONNX file, its weights where they lie beside it, and the JSON that says what each output is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from netsens.errors import OutputError
from netsens.report.atomic import unwritable

FORMAT = 1  # of the sidecar; a reader of this number can read whatever has it
MEANING = {
    "sum": "the gradient of the sum of all components of `of`",
    "target": "the gradient of the sum of the components of `of` that `target` chooses",
    "cotangent": "the gradient of the dot product of `of` with the input `cotangent`",
}


def describe(
    *,
    model: str | None,
    file: str,
    of: str,
    target: Any,
    convention: str,
    inputs: Mapping[str, Mapping[str, Any]],
    outputs: Mapping[str, Mapping[str, Any]],
    gradients: Mapping[str, str],
    of_type: Mapping[str, Any],
    cotangent: str | None,
    zeros: Mapping[str, str],
    notes: Sequence[str],
    opset: int,
) -> dict[str, Any]:
    """What the sidecar says. `gradients` are the outputs that hold one, by what it is taken by; types have `dtype` and `shape`."""
    by_output = {output: wrt for wrt, output in gradients.items()}
    return {
        "format": FORMAT,
        "gradient_model": file,
        "data": None,
        "model": model,
        "opset": opset,
        "of": {"name": of, **of_type},
        "target": None if target is None else target if isinstance(target, (int, str)) else str(target),
        "convention": convention,
        "meaning": MEANING[convention],
        "inputs": [{"name": name, "role": "cotangent" if name == cotangent else "input", **type_} for name, type_ in inputs.items()],
        "outputs": [
            {"name": name, "role": "gradient", "of": of, "wrt": by_output[name], "convention": convention, **type_}
            if name in by_output
            else {"name": name, "role": "output", **type_}
            for name, type_ in outputs.items()
        ],
        "zeros": dict(zeros),
        "notes": list(notes),
    }


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """`model.grad.onnx` -> `model.grad.onnx.json`."""
    return Path(f"{os.fspath(path)}.json")


def write_gradient_model(path: str | os.PathLike[str], save: Callable[[Path], Sequence[Path]], sidecar: dict[str, Any], verify: Callable[[Path], None]) -> None:
    """Lets `save` write the model into a folder beside its place and `verify` look at it there, and moves it with its sidecar.

    `save` gives the files that it wrote, the model first and then its data file where it has one (which the sidecar then names). The model
    comes last, so that it never stands there without what belongs to it. `OutputError` for whatever the system refuses."""
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{str(path)!r} is a folder; name a file in it, as {target / 'model.grad.onnx'}")
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        model, *data = save(folder / target.name)
        verify(model)
        sidecar["data"] = data[0].name if data else None
        described = folder / f"{target.name}.json"
        described.write_text(json.dumps(sidecar, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for file in (described, *data, model):
            os.replace(file, target.parent / file.name)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
