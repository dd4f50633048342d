"""Imports of optional packages, when they are used; a missing one is an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from netsens.errors import UsageError

EXTRAS: dict[str, tuple[str, str]] = {
    # module: (what it is for, the extra that brings it)
    "PIL.Image": ("reading images", "images"),
    "matplotlib": ("drawing pictures", "plot"),
    "safetensors.numpy": ("writing .safetensors", "safetensors"),
    "pyarrow": (".parquet", "parquet"),
    "pyarrow.parquet": (".parquet", "parquet"),
    "fsspec.core": ("a path with ://", "remote"),
    "distributed": ("--dask", "dask"),
    "h5py": ("writing .h5", "hdf5"),
}


def require(module: str) -> ModuleType:
    """The module, imported now; `UsageError` with the `pip install` line when its package is not installed."""
    purpose, extra = EXTRAS[module]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(f"{purpose} needs the package {package!r}, which cannot be imported ({error}): pip install 'netsens[{extra}]'") from error
