"""Equations as steps: where each ends, whether it is true, and no text that takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.steps import EquationSteps, value_of
from r1_lightning.types.text import Completion, Problem

PROBLEM = Problem("", "", "")


def steps(text: str) -> list[tuple[str, float]]:
    """The text up to each step's end, last characters only as long as its equation, and its score."""
    return [
        (text[verdict.end - len(verdict.reason) : verdict.end], verdict.score)
        for verdict in EquationSteps()(PROBLEM, Completion(text, 1, True))
    ]


def test_each_equation_is_a_step() -> None:
    text = "<think>First 7*8=56, then 56-19=36. Wait, 56-19=37。</think><answer>37</answer>"
    assert steps(text) == [("7*8=56", 1.0), ("56-19=36", 0.0), ("56-19=37", 1.0)]


def test_a_chain_has_a_step_per_sign() -> None:
    verdicts = EquationSteps()(PROBLEM, Completion("2*3+4=6+4=11", 1, True))
    assert [(v.end, v.score) for v in verdicts] == [(9, 1.0), (12, 0.0)]


@pytest.mark.parametrize("text", ["", "37", "x=3", "1=", "=1", "1+=2", "٣+٤=٧", "1+1==2", "9" * 13 + "=1"])
def test_what_is_no_equation(text: str) -> None:
    assert steps(text) == []


@given(st.lists(st.integers(0, 99), min_size=1, max_size=6), st.lists(st.sampled_from("+-*"), min_size=5, max_size=5))
def test_values_against_python(numbers: list[int], signs: list[str]) -> None:
    text = str(numbers[0]) + "".join(sign + str(number) for sign, number in zip(signs, numbers[1:], strict=False))
    assert value_of(text) == eval(text)  # generated here, nobody's input


@pytest.mark.parametrize("text", ["1=" * 50_000, "1+" * 50_000, "1" * 100_000, "1+1=2" * 20_000, "-" * 100_000])
def test_no_text_takes_long(text: str) -> None:
    started_s = time.monotonic()
    EquationSteps()(PROBLEM, Completion(text, 1, True))
    assert time.monotonic() - started_s < 10  # linear: a fraction of a second, however busy the machine
