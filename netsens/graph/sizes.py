"""Arithmetic of dimensions that are not numbers yet: `N * T`, `2 * H + 1`, `(H + 1) // 2`. Two values whose dimensions come out as the
same text have the same length, whatever is fed. A type holds the text; this module knows what it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeGuard

from netsens.graph.graph import Dim

Monomial = tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Expression:
    """A polynomial with integer coefficients over symbols, which are lengths and so at least 0."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Size) -> Size:
        return _sum(self, other)

    __radd__ = __add__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return _sum(self, -other)

    def __rsub__(self, other: Size) -> Size:
        return _sum(-self, other)

    def __mul__(self, other: Size) -> Size:
        total: dict[Monomial, int] = {}
        for a, m in self.terms:
            for b, n in _terms(other):
                key = tuple(sorted((*a, *b)))
                total[key] = total.get(key, 0) + m * n
        return _made(total)

    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for symbols, factor in self.terms:
            size = "*".join(([] if abs(factor) == 1 and symbols else [str(abs(factor))]) + list(symbols))
            text += (" - " if factor < 0 else " + ") + size
        return text[3:] if text.startswith(" + ") else "-" + text[3:]

    __repr__ = __str__


Size = int | Expression

# What the compound texts, and those symbols that are functions of sizes, stand for. Only ever added to; the texts are canonical.
_MEANING: dict[str, Expression] = {}
_QUOTIENTS: dict[str, tuple[Size, int]] = {}
_ARGUMENTS: dict[str, tuple[Size, ...]] = {}


def size_of(dim: Dim) -> Size | None:
    """What a dimension of a type stands for."""
    return _MEANING.get(dim) or symbol(dim) if isinstance(dim, str) else dim


def dim_of(size: object) -> Dim:
    """A dimension for a type; None where there is none."""
    if isinstance(size, Expression):
        text = str(size)
        if len(size.terms) > 1 or size.terms[0][1] != 1 or len(size.terms[0][0]) > 1:
            _MEANING[text] = size
        return text
    return int(size) if is_integer(size) else None


def is_integer(size: object) -> TypeGuard[int]:
    return isinstance(size, int) or getattr(getattr(size, "dtype", None), "kind", "") in ("i", "u")


def symbol(name: str) -> Expression:
    return Expression((((name,), 1),))


def symbols_of(dim: Dim) -> set[str]:
    """The symbols that a dimension mentions, inside of functions too."""
    size = size_of(dim)
    found: set[str] = set()
    for monomial, _ in size.terms if isinstance(size, Expression) else ():
        for name in monomial:
            if name not in _ARGUMENTS:
                found.add(name)
            for argument in _ARGUMENTS.get(name, ()):
                found |= symbols_of(dim_of(argument))
    return found


def _terms(size: Size) -> Iterable[tuple[Monomial, int]]:
    return size.terms if isinstance(size, Expression) else (((), size),)


def _made(total: dict[Monomial, int]) -> Size:
    terms = tuple(sorted(((k, v) for k, v in total.items() if v), key=lambda t: (-len(t[0]), t[0])))
    if not terms:
        return 0
    return terms[0][1] if terms == (((), terms[0][1]),) else Expression(terms)


def _sum(a: Size, b: Size) -> Size:
    total = dict(_terms(a))
    for key, value in _terms(b):
        total[key] = total.get(key, 0) + value
    return _made(total)


def at_least_zero(size: Size) -> bool:
    """Whether it surely is, symbols being lengths."""
    return all(v >= 0 for _, v in _terms(size))


def quotient(size: Size, by: Size) -> Size | None:
    """`size // by`, rounded down; None where `by` may be zero or the sign is not sure."""
    if isinstance(by, Expression):
        return 1 if size == by else _exact(size, by)
    if by < 1:
        return None
    if isinstance(size, int):
        return size // by
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for key, value in size.terms:
        # floor((k * a + b) / k) = a + floor(b / k)
        if value % by == 0:
            whole[key] = value // by
        elif key == ():
            whole[key], rest[key] = value // by, value % by
        else:
            rest[key] = value
    left = _made(rest)
    if isinstance(left, int):
        return _sum(_made(whole), left // by)
    # floor((floor(x / a) + c) / b) = floor((x + a * c) / (a * b))
    names = [(k, v) for k, v in left.terms if k]
    if len(names) == 1 and names[0][1] == 1 and len(names[0][0]) == 1 and names[0][0][0] in _QUOTIENTS:
        inner, divisor = _QUOTIENTS[names[0][0][0]]
        nested = quotient(_sum(inner, divisor * rest.get((), 0)), divisor * by)
        return None if nested is None else _sum(_made(whole), nested)
    name = f"({left})//{by}"
    _QUOTIENTS[name] = (left, by)
    _ARGUMENTS[name] = (left,)
    return _sum(_made(whole), symbol(name))


def _exact(size: Size, by: Expression) -> Size | None:
    """The quotient by a product of symbols that is known to go in."""
    if len(by.terms) != 1:
        return None
    (below, factor), total = by.terms[0], {}
    for key, value in _terms(size):
        left = list(key)
        for name in below:
            if name not in left:
                return None
            left.remove(name)
        if value % factor:
            return None
        total[tuple(left)] = value // factor
    return _made(total)


def named(name: str, *sizes: Size) -> Expression:
    """A function of sizes that is not a polynomial, as a symbol: the same for the same sizes."""
    text = f"{name}({', '.join(map(str, sizes))})"
    _ARGUMENTS[text] = sizes
    return symbol(text)


def less_but_not_below_zero(size: Size, by: Size) -> Size:
    """`max(0, size - by)`."""
    left = _sum(size, -by)
    if isinstance(left, int):
        return max(left, 0)
    if at_least_zero(left):
        return left
    if at_least_zero(-left):
        return 0
    if left.terms[0][1] < 0:
        return _sum(left, less_but_not_below_zero(-left, 0))  # max(0, a) - max(0, -a) = a
    return named("max", 0, left)


def larger(a: Size, b: Size) -> Size:
    """`max(a, b)`."""
    return _sum(b, less_but_not_below_zero(a, b)) if isinstance(b, int) else _sum(a, less_but_not_below_zero(b, a))


def smaller(a: Size, b: Size) -> Size:
    """`min(a, b)`."""
    return _sum(a, -less_but_not_below_zero(a, b))


def remainder(size: Size, by: int) -> Size | None:
    """`size mod by`."""
    whole = quotient(size, by)
    return None if whole is None else _sum(size, -(whole * by))


def product(dims: Sequence[Dim]) -> Dim:
    """The product of dimensions; None where one is unknown."""
    total: Size = 1
    for dim in dims:
        size = size_of(dim)
        if size is None:
            return None
        total = total * size
    return dim_of(total)


def total(dims: Sequence[Dim]) -> Dim:
    """The sum of dimensions; None where one is unknown."""
    result: Size = 0
    for dim in dims:
        size = size_of(dim)
        if size is None:
            return None
        result = result + size
    return dim_of(result)


def scaled(size: Size, factor: float) -> Size:
    """`floor(size * factor)`, as Resize computes it in float32."""
    ratio = Fraction(factor)
    if ratio.denominator == 1:
        return size * ratio.numerator
    if isinstance(size, int):
        import numpy as np

        return int(np.floor(np.float32(size) * np.float32(factor)))
    if ratio.numerator == 1:
        exact = quotient(size, ratio.denominator)
        if exact is not None:
            return exact
    return named(f"floor {factor!r} *", size)
