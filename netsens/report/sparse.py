"""Sparse results: SciPy's own `.npz` form, which `scipy.sparse.load_npz` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from netsens.errors import UsageError
from netsens.report.atomic import replacing


def check_sparse_output(output: str) -> None:
    """Raises before any computing where the path can't take a sparse result."""
    if output not in ("-", "none") and not output.endswith(("/", os.sep)) and Path(output).suffix.lower() != ".npz":
        raise UsageError(f"A sparse Jacobian is written in SciPy's .npz form, and '{output}' ends otherwise; name a .npz file.")


def write_sparse(path: str | os.PathLike[str], matrices: Mapping[str, Any], stream: Any = None) -> None:
    """One matrix of all tensors side by side, with two arrays more: the tensors' `names`, and the `starts` of their columns (one more than there are
    tensors). `-` writes to `stream`."""
    import scipy.sparse

    whole = scipy.sparse.hstack(list(matrices.values()), format="csr") if len(matrices) > 1 else next(iter(matrices.values())).tocsr()
    whole.sum_duplicates()
    arrays = {
        "indices": whole.indices, "indptr": whole.indptr, "format": np.asarray(b"csr"), "shape": np.asarray(whole.shape), "data": whole.data,
        "names": np.asarray(list(matrices)), "starts": np.cumsum([0, *(m.shape[1] for m in matrices.values())]),
    }  # fmt: skip
    if os.fspath(path) == "-":
        import io

        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        stream.write(buffer.getbuffer())
        stream.flush()
        return
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
