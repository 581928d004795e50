"""Constraints: the parser against expressions whose value is known by construction."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfsearch.search.constraints import parse_constraint

VALUES = {"loss.margin": 5.5, "time/evaluation_seconds": 42.0, "a_b": -3.0}

_leaves = st.one_of(
    st.sampled_from(sorted(VALUES)).map(lambda name: (name, VALUES[name])),
    st.integers(0, 99).map(lambda n: (str(n), float(n))),
    st.sampled_from([("1e-4", 1e-4), (".5", 0.5), ("2.", 2.0), ("3E2", 300.0)]),
)


def _combine(children: st.SearchStrategy[tuple[str, float]]) -> st.SearchStrategy:
    def join(parts: tuple[tuple[str, float], str, tuple[str, float]]) -> tuple[str, float]:
        (left, x), sign, (right, y) = parts
        value = {"+": x + y, "-": x - y, "*": x * y}[sign]
        return f"({left} {sign} {right})", value

    return st.tuples(children, st.sampled_from("+-*"), children).map(join)


expressions = st.recursive(_leaves, _combine, max_leaves=8)


@given(left=expressions, right=expressions, sign=st.sampled_from(["<=", ">="]))
def test_violation_is_the_difference_of_the_sides(
    left: tuple[str, float], right: tuple[str, float], sign: str
) -> None:
    violation = parse_constraint(f"{left[0]} {sign} {right[0]}").violation(VALUES)
    difference = left[1] - right[1] if sign == "<=" else right[1] - left[1]
    assert violation is not None
    assert math.isclose(violation, difference, rel_tol=1e-12, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ("2 + 3 * 4 <= 0", 14),
        ("10 - 4 - 3 <= 0", 3),
        ("12 / 2 / 3 <= 0", 2),
        ("-loss.margin <= -2 * 3", 0.5),
        ("time/evaluation_seconds / 2 <= 20", 1),
        ("loss.margin<=5", 0.5),
        ("1 <= loss.margin", -4.5),
    ],
)
def test_precedence_and_slashes_of_names(text: str, violation: float) -> None:
    assert parse_constraint(text).violation(VALUES) == pytest.approx(violation)


def test_names_are_listed_once_in_order() -> None:
    constraint = parse_constraint("b.c + time/x * b.c >= a.d")
    assert set(constraint.names) == {"a.d", "b.c", "time/x"}


@pytest.mark.parametrize("values", [{}, {"classifier.norm_bound": None}])
def test_an_absent_or_null_setting_is_not_constrained(values: dict[str, None]) -> None:
    assert parse_constraint("classifier.norm_bound <= 50").violation(values) is None


def test_nothing_is_compared_after_a_division_by_zero() -> None:
    assert parse_constraint("1 / a <= 2").violation({"a": 0.0}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss.margin < 3", "use <= or >="),
        ("loss.margin", "must compare two sides"),
        ("loss.margin <= ", "ends where"),
        ("(loss.margin <= 3", "parenthesis"),
        ("loss.margin <= 3 <= 4", "not expected"),
        ("loss.margin + <= 3", "stands where"),
        ("__import__('os') <= 3", "cannot be read"),
        ("", "ends where"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_constraint(text)
