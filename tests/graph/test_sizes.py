"""Expressions of symbols say what the numbers would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netsens.graph.sizes import (
    Expression,
    Size,
    dim_of,
    larger,
    less_but_not_below_zero,
    product,
    quotient,
    remainder,
    size_of,
    smaller,
    symbol,
    symbols_of,
    total,
)
from tests.graph.agreement import evaluated

NAMES = ("N", "T", "H")
LENGTHS = st.fixed_dictionaries({n: st.integers(0, 50) for n in NAMES})


@st.composite
def sizes(draw: st.DrawFn) -> Size:
    """Sums of products, which never come out below zero."""
    result: Size = draw(st.integers(0, 5))
    for _ in range(draw(st.integers(0, 3))):
        term: Size = draw(st.integers(1, 4))
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=2)):
            term = term * symbol(name)
        result = result + term
    return result


def worth(size: Size | None, lengths: dict[str, int]) -> int:
    assert size is not None
    value = evaluated(size, lengths)
    assert value is not None
    return value


@given(sizes(), sizes(), st.integers(1, 7), st.integers(1, 5), LENGTHS)
def test_arithmetic(a: Size, b: Size, k: int, m: int, lengths: dict[str, int]) -> None:
    x, y = worth(a, lengths), worth(b, lengths)
    assert worth(a + b, lengths) == x + y
    assert worth(a - b, lengths) == x - y
    assert worth(a * b, lengths) == x * y
    assert worth(quotient(a, k), lengths) == x // k
    assert worth(remainder(a, k), lengths) == x % k
    first = quotient(a + 3, k)
    assert first is not None
    assert worth(quotient(first + 1, m), lengths) == ((x + 3) // k + 1) // m


@given(sizes(), sizes(), LENGTHS)
def test_bounds(a: Size, b: Size, lengths: dict[str, int]) -> None:
    x, y = worth(a, lengths), worth(b, lengths)
    assert worth(less_but_not_below_zero(a, b), lengths) == max(0, x - y)
    assert worth(larger(a, b), lengths) == max(x, y)
    assert worth(smaller(a, b), lengths) == min(x, y)
    assert less_but_not_below_zero(a, b) + smaller(a, b) == a  # [:k] and [k:] make the whole


@given(sizes())
def test_a_dimension_keeps_what_it_stands_for(a: Size) -> None:
    assert size_of(dim_of(a)) == a


def test_texts_are_canonical() -> None:
    n, t = symbol("N"), symbol("T")
    assert dim_of(2 * n * t + 1) == dim_of(t * n + 1 + n * t) == "2*N*T + 1"
    assert quotient(quotient(n + 1, 2) + 1, 2) == quotient(n + 3, 4)  # type: ignore[operator]
    assert quotient(n * t * 8, t * 8) == n
    assert quotient(n + t, n) is None
    assert product(["N", 3, "T"]) == "3*N*T"
    assert total(["N", 2, "N"]) == "2*N + 2"
    assert product(["N", None]) is None


def test_symbols_inside_of_functions() -> None:
    inner = quotient(symbol("N") + 1, 2)
    assert isinstance(inner, Expression)
    assert symbols_of(dim_of(inner * symbol("T"))) == {"N", "T"}
