"""Equation lists: what makes two paths the same."""

from __future__ import annotations

import pytest

from r1_lightning.text.equations import equations

CASES = {
    "7*8=56, 56-19=37": ("7*8=56", "56-19=37"),
    "7*8=56。56-19=37": ("7*8=56", "56-19=37"),
    "12*3+5=36+5=41": ("12*3+5=41", "36+5=41"),  # a calculation equals the next plain number
    "12*3=36=36.0": ("12*3=36",),
    "She sold 48/2 = <<48/2=24>>24 clips. 48 + 24 = 72": ("48/2=24", "48+24=72"),  # GSM8K's notes
    r"\(3 \times 4 = 12\), \left(1+2\right)\cdot 3=9": ("3*4=12", "(1+2)*3=9"),
    "８ ÷ ２ = ４ and 5 − 3 = 2": ("8/2=4", "5-3=2"),
    "1,200 × 3 = 3,600.00": ("1200*3=3600",),
    "$5 + $6.50 = $11.50": ("5+6.5=11.5",),
    "x = 3+1 = 4": ("3+1=4",),
    "- 3+4=7\n- 5-9=-4": ("3+4=7", "5-9=-4"),  # bullets are no signs
    "x+y=3, 3x=6, 2x+3*4=5, 5=5, 12, a=b": (),
    "50%*3=1.5": ("50%*3=1.5",),
    "3+4=8. Wait, 3+4=7": ("3+4=8", "3+4=7"),
    "no equation": (),
}


@pytest.mark.parametrize("text", CASES)
def test_equations_by_hand(text: str) -> None:
    assert equations(text) == CASES[text]


def test_words_do_not_count_and_the_order_of_operands_does() -> None:
    assert equations("First 2+3=5.\nThen 5*4 = 20!") == equations("we get 2 + 3 = 5, so 5 × 4 = 20.0")
    assert equations("2+3=5") != equations("3+2=5")
    assert equations("2+3=5, 5+1=6") != equations("5+1=6, 2+3=5")


@pytest.mark.parametrize(
    "text",
    ["1+" * 20_000, "=1" * 20_000, "(" * 40_000, "1," * 20_000, "<<" * 20_000, " " * 40_000 + "%", "1." + "0" * 40_000],
)
def test_hostile_text_holds_no_equation(text: str) -> None:
    """A quadratic scan of these texts would take minutes, and the suite's time limit would stop it."""
    assert equations(text) == ()
