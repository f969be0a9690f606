"""Values of formulas at points: real ones, odd roots, branches, and as many digits as a formula needs."""

from __future__ import annotations

import mpmath
import pytest
import sympy

from r1_lightning.rewards.equality.formulas import read_formula
from r1_lightning.rewards.equality.real_values import (
    MAX_DIGITS,
    SPARE_DIGITS,
    NoValue,
    as_names,
    digits_needed,
    value_at,
)

X = sympy.Symbol("x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^{10}", 1024),
        (r"\sqrt[3]{-8}", -2),
        (r"(-32)^{3/5}", -8),
        (r"\frac{1}{4}", 0.25),
        ("|-3|", 3),
        (r"\max(2,7)", 7),
        ("5!", 120),
        (r"\lfloor -2.5\rfloor", -3),
        (r"\binom{5}{2}", 10),
        (r"\log_2 8", 3),
        (r"\ln e", 1),
        (r"\tan\frac{\pi}{4}", 1),
        ("0^0", 1),
        (r"\arccos(-1)", mpmath.pi),
    ],
)
def test_values(text: str, value: object) -> None:
    assert mpmath.almosteq(value_at(read_formula(text), {}, 40), value, 1e-14)


@pytest.mark.parametrize(
    "text", [r"\sqrt{-4}", r"\ln(-1)", r"\ln 0", r"\frac{1}{0}", r"\arcsin 2", r"\infty", "(-1)^{1/2}", r"(-2)^{\pi}"]
)
def test_what_has_no_real_value(text: str) -> None:
    with pytest.raises(NoValue):
        value_at(read_formula(text), {}, 40)


def test_complex_values_follow_the_principal_branch() -> None:
    assert value_at(sympy.sqrt(sympy.Integer(-4), evaluate=False), {}, 30, is_complex=True) == mpmath.mpc(0, 2)
    root = value_at(sympy.Pow(-8, sympy.Rational(1, 3), evaluate=False), {}, 30, is_complex=True)
    assert mpmath.almosteq(root, mpmath.mpc(1, mpmath.sqrt(3)), 1e-14)


def test_digits_that_are_needed() -> None:
    """2^100 has 31 digits, so 31 more than the spare ones; a formula that needs too many says so by more than the limit."""
    assert digits_needed(read_formula("x")) == SPARE_DIGITS
    assert 30 <= digits_needed(read_formula("2^{100}-1")) - SPARE_DIGITS <= 50
    assert digits_needed(read_formula("10^{-999}")) > SPARE_DIGITS + 999
    assert digits_needed(read_formula("999^{9999}")) > MAX_DIGITS


def test_sums_that_lose_digits_are_computed_again() -> None:
    """cosh^2 - sinh^2 = 1, and at 2000 both squares have 1,737 digits."""
    value = value_at(sympy.cosh(X) ** 2 - sympy.sinh(X) ** 2, {X: sympy.Integer(2000)}, 60)
    assert abs(value - 1) < mpmath.mpf(10) ** -40


def test_undefined_functions_and_derivatives_are_names() -> None:
    f, y = sympy.Function("f"), sympy.Symbol("y")
    named = as_names(2 * f(X) + sympy.Derivative(y, X))
    assert len(named.free_symbols) == 2 and not named.has(f, sympy.Derivative)
    assert as_names(f(X)) != as_names(f(X + 1))
