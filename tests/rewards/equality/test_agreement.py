"""Formulas are the same if their values are: where both are real, on every branch, and to the last digit."""

from __future__ import annotations

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.equality.agreement import agree_at_points, branches, has_borders, points_for, symbols_of
from r1_lightning.rewards.equality.formulas import read_formula


def test_values_at_points() -> None:
    x, y = sympy.symbols("x y")
    assert agree_at_points((x + 1) ** 2, x**2 + 2 * x + 1) is True
    assert agree_at_points(sympy.sqrt(x**2), x) is False  # half of the points are negative
    assert agree_at_points(x, y) is False
    assert agree_at_points(sympy.sqrt(2) ** 2 - 2, sympy.Integer(0)) is True
    assert agree_at_points(sympy.zoo, sympy.zoo) is False and agree_at_points(sympy.oo, sympy.Integer(1)) is False
    assert agree_at_points(-sympy.oo, sympy.oo) is False
    assert agree_at_points(sympy.Interval(1, 2), x) is None


@given(st.integers(-99, 99), st.integers(-99, 99), st.integers(-99, 99), st.integers(-99, 99))
def test_a_quadratic_is_the_product_of_its_own_roots_only(a: int, b: int, c: int, d: int) -> None:
    x = sympy.Symbol("x")
    same = sorted((a, b)) == sorted((c, d))
    assert agree_at_points((x - a) * (x - b), x**2 - (c + d) * x + c * d) is same


@given(st.integers(1, 10**6))
def test_a_bend_is_seen_wherever_it_is(border: int) -> None:
    bend = read_formula(f"|x-{border}|")
    assert agree_at_points(read_formula(f"x-{border}"), bend) is False
    assert agree_at_points(read_formula(f"{border}-x"), bend) is False
    assert agree_at_points(read_formula(rf"\sqrt{{({border}-x)^2}}"), bend) is True


@pytest.mark.parametrize(
    ("given_text", "reference", "same"),
    [
        (r"\ln a+\ln b", r"\ln ab", True),
        (r"(\sqrt{5-x})^2", "|x-5|", False),  # the reference is meant for every x
        (r"(-1)^n", r"\cos(n\pi)", True),  # real at whole numbers alone
        (r"(-1)^n", "1", False),
        (r"\sqrt{-4}", "2i", True),
        (r"e^{i\pi}", "-1", True),
        ("2^{500}+1", "2^{500}", False),
        (r"\sqrt{(x-7)^2}", "7-x", False),
        (r"\lceil x\rceil-1", r"\lfloor x\rfloor", False),  # differ at whole numbers alone
        (r"\min(a,b,7)", r"\min(a,b)", False),
        ("999^{9999}", "999^{9998}", False),  # not computed
    ],
)
def test_where_values_count(given_text: str, reference: str, same: bool) -> None:
    assert agree_at_points(read_formula(given_text), read_formula(reference)) is same


def test_points_lie_on_both_sides_of_every_number() -> None:
    bend = read_formula("|x-1000|+|x-3|")
    (x,) = symbols_of(bend)
    values = [point[x] for point in points_for(bend)]
    assert min(values) < -1000 and max(values) > 1000 and any(3 < value < 4 for value in values)
    assert 3 in values and 1000 in values and branches(bend) and not branches(read_formula(r"\sqrt{x}"))
    assert has_borders(read_formula(r"\sqrt{x}")) and not has_borders(read_formula(r"x\sqrt{2}"))
    assert points_for(read_formula("2")) == [{}]
