"""Formulas are read exactly, and what the parser would read as something else is none."""

from __future__ import annotations

import pytest
import sympy

from r1_lightning.rewards.equality.formulas import read_formula


def test_decimals_are_read_exactly() -> None:
    assert read_formula("0.1x") == sympy.Rational(1, 10) * sympy.Symbol("x")
    assert read_formula("2(3)").doit() == 6 and read_formula("(42)(1)").doit() == 42
    assert read_formula(r"\frac{") is None and read_formula(r"\int_0^1 x dx") is None


@pytest.mark.parametrize("text", ["66_8", r"12_{5}+1", r"\vec{a}\times\vec{b}", r"\lim_{x\to 0} x"])
def test_what_is_no_formula(text: str) -> None:
    assert read_formula(text) is None


@pytest.mark.parametrize(
    ("first", "second"), [("f'(x)", "f(x)"), ("y''", "y'"), ("f^{-1}(x)", r"\frac{1}{f(x)}"), ("x", "X")]
)
def test_names_that_differ(first: str, second: str) -> None:
    assert read_formula(first) != read_formula(second)


def test_braces_of_a_maximum() -> None:
    assert read_formula(r"\max\{x,10\}") == read_formula(r"\max(x,10)")
