"""The structure of matrix products."""

from __future__ import annotations

from netsens.modes.structures.layout import elementwise
from netsens.modes.structures.view import Link, StructureView, rule


@rule("MatMul")
def _matmul(s: StructureView, k: int, j: int) -> list[Link]:
    out, in_ = s.results[0], s.shapes[k]
    left, right = len(s.shapes[0]), len(s.shapes[1])
    tail = (left > 1) + (right > 1)  # how many of the output's last axes are rows and columns
    links: list[Link] = []
    batch_out, batch_in = len(out) - tail, max(len(in_) - 2, 0)
    for a in range(batch_in):
        at = batch_out - batch_in + a
        if in_[a] == out[at]:
            links.append((at, a, None))
    if k == 0 and left > 1:
        links.append((len(out) - tail, left - 2, None))
    if k == 1 and right > 1:
        links.append((len(out) - 1, right - 1, None))
    return links


@rule("Gemm")
def _gemm(s: StructureView, k: int, j: int) -> list[Link]:
    if k == 2:
        return elementwise(s, k, j)
    if k == 0:
        return [(0, 1 if s["transA"] else 0, None)]
    return [(1, 0 if s["transB"] else 1, None)]


@rule("Einsum")
def _einsum(s: StructureView, k: int, j: int) -> list[Link]:
    equation = str(s["equation"]).replace(" ", "")
    if "->" not in equation or "." in equation:
        return []
    terms, result = equation.split("->")
    term = terms.split(",")[k]
    if len(set(term)) < len(term) or len(set(result)) < len(result):
        return []
    return [(result.index(c), a, None) for a, c in enumerate(term) if c in result and s.results[0][result.index(c)] == s.shapes[k][a]]
