"""Formulas are read exactly, are the same if their values are, and go to math-verify where they have none."""

from __future__ import annotations

import sympy
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.formulas import agree_at_points, read_formula, verified


def test_decimals_are_read_exactly() -> None:
    assert read_formula("0.1x") == sympy.Rational(1, 10) * sympy.Symbol("x")
    assert read_formula("2(3)").doit() == 6 and read_formula("(42)(1)").doit() == 42
    assert read_formula(r"\frac{") is None and read_formula(r"\int_0^1 x dx") is None


def test_values_at_points() -> None:
    x, y = sympy.symbols("x y")
    assert agree_at_points((x + 1) ** 2, x**2 + 2 * x + 1) is True
    assert agree_at_points(sympy.sqrt(x**2), x) is False  # half of the points are negative
    assert agree_at_points(x, y) is False
    assert agree_at_points(sympy.sqrt(2) ** 2 - 2, sympy.Integer(0)) is True
    assert agree_at_points(sympy.zoo, sympy.zoo) is False and agree_at_points(sympy.oo, sympy.Integer(1)) is False
    assert agree_at_points(sympy.Interval(1, 2), x) is None


@given(st.integers(-99, 99), st.integers(-99, 99), st.integers(-99, 99), st.integers(-99, 99))
def test_a_quadratic_is_the_product_of_its_own_roots_only(a: int, b: int, c: int, d: int) -> None:
    x = sympy.Symbol("x")
    same = sorted((a, b)) == sorted((c, d))
    assert agree_at_points((x - a) * (x - b), x**2 - (c + d) * x + c * d) is same


def test_relations_go_to_math_verify_without_its_rounding() -> None:
    assert verified("y=2x+1", "2x-y+1=0") and not verified("y=2x+1", "y=2x-1")
    assert verified("x<3", r"(-\infty,3)") and not verified("x=0.0000001", "x=0.0000004")
    assert not verified(r"\frac{", "x=1")
