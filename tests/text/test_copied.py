"""Answers copied from the question, in any spelling and order, and answers that only happen to occur in it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.text.copied import is_copied


@pytest.mark.parametrize(
    ("answer", "reference", "question"),
    [
        ("139+27+23+11", "200", "Compute $139+27+23+11$."),
        ("27 + 139 + 11 + 23", "200", "Compute $139+27+23+11$."),
        (r"\log_8 2", r"\frac13", r"Evaluate $\log_{8}{2}$."),
        (r"$\log_8 2$.", r"\frac13", r"Evaluate $\log_8 2$."),
        (r"\frac{2}{4}", r"\frac12", r"Reduce $\dfrac24$."),
        ("2/4", r"\frac12", r"Reduce $\frac{2}{4}$."),
        ("0.75", r"\frac34", "Write 0.75 as a fraction."),
        (r"25\%", r"\frac14", r"Express $25\%$ as a fraction."),
        ("(x+2)(x+1)", "x^2+3x+2", "Expand $(x+1)(x+2)$."),
        ("x^2+3x+2", "(x+1)(x+2)", "Factor $x^2 + 3x + 2$."),
        ("48/2", "24", "She sold 48/2 clips."),
        ("48/2+48", "72", "In April she sold 48 clips, in May a half (1/2) of them."),
        ("2^{10}", "1024", "Compute 2^10."),
        ("5!", "120", "What is $5!$?"),
        (r"1,000\cdot 2", "2000", r"Find $1000 \times 2$."),
    ],
)
def test_the_question_s_own_expression(answer: str, reference: str, question: str) -> None:
    assert is_copied(answer, reference, question)


@pytest.mark.parametrize(
    ("answer", "reference", "question"),
    [
        ("200", "200", "Compute $139+27+23+11$ (not 200)."),
        ("200.0", "200", "About 200.0 or less?"),
        (r"\frac23", r"\frac{2}{3}", r"Which is larger, $\frac{2}{3}$ or $\frac35$?"),
        ("2/3", r"\frac{2}{3}", "Two of three: 2/3 or 3/5?"),
        ("x=3", "3", "Is it x=3 or x=4?"),
        ("18 apples", "18", "Of 20, 18 apples are red."),
        ("$5.00", "5", "One costs $5.00 and one $4.00."),
        ("1,200", "1200", "1,200 or 1,300?"),
        ("1+x", "x+1", "Is x+1 or x-1 larger?"),
        ("(x-3)(x-2)", "(x-2)(x-3)", "Factor $x^2-5x+6$."),
        (r"5\sqrt2", r"5\sqrt{2}", r"Simplify $\sqrt{50}$."),
        ("2^{10}", "1024", "How many subsets has a set of 10 elements?"),
        ("12+3", "15", "Compute $112+3$ and $120+30$."),  # cut out of longer numbers
        ("blue", "blue", "Blue or red?"),
        ("42", "42", ""),
    ],
)
def test_what_is_an_answer(answer: str, reference: str, question: str) -> None:
    assert not is_copied(answer, reference, question)


@given(st.lists(st.integers(1, 99), min_size=2, max_size=5))
def test_a_sum_is_not_its_value(numbers: list[int]) -> None:
    expression, question = "+".join(map(str, numbers)), f"Compute ${' + '.join(map(str, numbers))}$."
    assert is_copied(expression, str(sum(numbers)), question)
    assert not is_copied(str(sum(numbers)), str(sum(numbers)), question)


def test_the_time_is_linear_in_the_question() -> None:
    start_s = time.perf_counter()
    assert not is_copied("1+2+" * 50 + "4", "154", "1+2+3+" * 3_000)
    assert time.perf_counter() - start_s < 1.0
