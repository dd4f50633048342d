"""Products of matrices in every combination of ranks, Gemm with every flag, Einsum, determinants of regular and singular matrices."""

from collections.abc import Sequence

import numpy as np

from tests.rules.case import Case

SINGULAR = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, -1.0]])
SUMMED = "onnxruntime refuses an ellipsis that the result leaves out"
RANK_ONE = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [-1.0, -2.0, -3.0]])


def matmul(a: Sequence[int], b: Sequence[int], constants: Sequence[str] = ()) -> Case:
    return Case("MatMul", "y = MatMul(a, b)", {"a": tuple(a), "b": tuple(b)}, constants=constants)


def gemm(a: Sequence[int], b: Sequence[int], c: Sequence[int] | None, attributes: str = "") -> Case:
    given = {"a": tuple(a), "b": tuple(b), **({"c": tuple(c)} if c is not None else {})}
    return Case("Gemm", f"y = Gemm{attributes}({', '.join(given)})", given)


def einsum(equation: str, *shapes: Sequence[int], symbolic: bool = True, because: str = "") -> Case:
    names = "abcd"[: len(shapes)]
    inputs = dict(zip(names, map(tuple, shapes), strict=True))
    return Case("Einsum", f'y = Einsum<equation="{equation}">({", ".join(names)})', inputs, symbolic=symbolic, float32=not because, because=because)


CASES = [
    matmul((2, 3), (3, 4)),
    matmul((2, 3), (3, 4), ("b",)),
    matmul((3,), (3,)),
    matmul((3,), (3, 4)),
    matmul((2, 3), (3,)),
    matmul((3,), (2, 3, 4)),
    matmul((3,), (2, 5, 3, 4)),
    matmul((2, 4, 3), (3,)),
    matmul((5, 2, 4, 3), (3,)),
    matmul((2, 4, 3), (3, 5)),
    matmul((2, 6, 4, 3), (3, 5), ("b",)),
    matmul((4, 3), (2, 3, 5)),
    matmul((2, 4, 3), (2, 3, 5)),
    matmul((1, 4, 3), (2, 3, 5)),
    matmul((2, 4, 3), (1, 3, 5)),
    matmul((2, 1, 4, 3), (6, 3, 5)),
    matmul((6, 4, 3), (2, 1, 3, 5)),
    matmul((1, 1), (1, 1)),
    Case("MatMul", "y = MatMul(a, a)", {"a": (3, 3)}),
    *(gemm((3, 2) if ta else (2, 3), (4, 3) if tb else (3, 4), (4,), f"<alpha=0.7, beta=1.5, transA={ta}, transB={tb}>") for ta in (0, 1) for tb in (0, 1)),
    *(gemm((2, 3), (3, 4), c, attributes) for c in ((2, 4), (1, 4), (2, 1), (1, 1), (1,), (), (4,)) for attributes in ("", "<beta=0.5>")),
    gemm((2, 3), (3, 4), None),
    gemm((3, 2), (4, 3), None, "<alpha=-2.0, transA=1, transB=1>"),
    Case("Gemm", "y = Gemm<transB=1>(a, b, c)", {"a": (2, 3), "b": (4, 3), "c": (4,)}, constants=("b", "c")),
    Case("Gemm", "y = Gemm<beta=0.3>(a, b, c)", {"a": (2, 3), "b": (3, 4), "c": (4,)}, wrt=("c",)),
    einsum("ij,jk->ik", (2, 3), (3, 4)),
    einsum("ij,jk", (2, 3), (3, 4)),
    einsum("ba,ca", (2, 3), (4, 3)),
    einsum("i,j->ij", (2,), (3,)),
    einsum("i,i->", (3,), (3,)),
    einsum("ij->ji", (2, 3)),
    einsum("ij->", (2, 3)),
    einsum("ij->j", (2, 3)),
    einsum("ij", (2, 3)),
    einsum("ba", (2, 3)),
    einsum("ii->i", (3, 3), symbolic=False),
    einsum("ii", (3, 3), symbolic=False),
    einsum("iij->j", (3, 3, 2), symbolic=False),
    einsum("iji->ij", (3, 2, 3), symbolic=False),
    einsum("iii->i", (3, 3, 3), symbolic=False),
    einsum("ii,ij->j", (3, 3), (3, 2), symbolic=False),
    einsum("ij,kl->il", (2, 3), (4, 5)),
    einsum("ij,k->", (2, 3), (4,)),
    einsum("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    einsum("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
    einsum("...ij,jk->...ik", (2, 6, 3, 4), (4, 5)),
    einsum("...ij,...jk", (2, 3, 4), (2, 4, 5)),
    einsum("...i,...j->ij", (2, 3), (2, 4), because=SUMMED),
    einsum("...i,...i->", (2, 3), (1, 3), because=SUMMED),
    einsum("ij,jk->ik", (2, 1), (3, 4)),
    einsum("ij,ij->", (2, 1), (1, 4)),
    einsum("...i,...i->...", (2, 3, 4), (1, 3, 4)),
    einsum("...i,...i->...", (2, 1, 4), (1, 3, 4)),
    einsum("i...->...", (2, 3, 4)),
    einsum("...ii->...i", (2, 3, 3)),
    einsum("b...d, dh -> b...h", (2, 3, 4), (4, 5)),
    einsum("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    einsum("ij,j,i->ij", (2, 3), (3,), (2,)),
    einsum("a,b,c,d->dcba", (2,), (3,), (4,), (2,)),
    einsum("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
    einsum(",ij->ij", (), (2, 3)),
    einsum("ij,ij->i", (2, 3), (2, 3)),
    Case("Einsum", 'y = Einsum<equation="ij,ij->">(a, a)', {"a": (2, 3)}),
    Case("Einsum", 'y = Einsum<equation="ij,jk->ik">(a, b)', {"a": (2, 3), "b": (3, 4)}, constants=("b",), wrt=("a",)),
    Case("Det", "y = Det(x)", {"x": (1, 1)}, symbolic=False),
    Case("Det", "y = Det(x)", {"x": (2, 2)}, symbolic=False),
    Case("Det", "y = Det(x)", {"x": (3, 3)}, symbolic=False),
    Case("Det", "y = Det(x)", {"x": (4, 4)}),
    Case("Det", "y = Det(x)", {"x": (2, 3, 4, 4)}),
    Case("Det", "y = Det(x)", {"x": (3, 2, 2)}),
    Case("Det", "y = Det(x)", {"x": (3, 1, 1)}),
    Case("Det", "y = Det(x)", {"x": SINGULAR}),
    Case("Det", "y = Det(x)", {"x": np.stack([RANK_ONE, SINGULAR, np.zeros((3, 3))])}),
]
