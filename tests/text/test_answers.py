"""Strict and lenient answers, and exact comparison of numbers, against written-out cases and hostile text."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.text.answers import (
    MAX_ANSWER_CHARS,
    answer_key,
    final_answer,
    given_answer,
    last_number,
    lenient_answer,
    normalise_text,
    parse_number,
    same_answer,
    same_number,
)


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("<think>a</think><answer> 42 </answer>", "42", "42"),
        ("<answer>42</answer>", "42", "42"),
        ("<answer>41</answer> <answer>42</answer>", None, "42"),
        ("<think>so</think><answer>42", None, "42"),
        ("<answer></answer> 41 or 42", None, "42"),
        ("<answer>\u200b</answer>", None, None),
        ("<think><answer>42</answer></think>", None, "42"),
        (r"thus \boxed{41} and \boxed{\frac{1}{2}}.", None, r"\frac{1}{2}"),
        (r"\boxed{41", None, "41"),  # not closed, so only the number at the end remains
        ("steps: 48/2=24\n#### 24\nbye", None, "24"),
        ("8-5 = 3.", None, "3"),
        ("nothing", None, None),
        ("", None, None),
    ],
)
def test_strict_and_lenient_answers(text: str, strict: str | None, lenient: str | None) -> None:
    assert final_answer(text) == strict
    assert lenient_answer(text) == lenient


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it is 42", "42"),
        ("8-5", "5"),  # a difference, not minus five
        ("x=-5", "-5"),
        ("8 - 5 = −3", "-3"),
        ("1,200 apples", "1,200"),
        ("1/2", "1/2"),
        ("3.50.", "3.50"),
        ("１２。", "12"),
        ("(7)", "7"),
        ("none", None),
        ("1" * 2_000, None),  # began before the tail that is searched: its digits are not all there
        ("9" * 2_000 + " 17", "17"),
    ],
)
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        (" 42\n", 42),
        ("+42", 42),
        ("-42", -42),
        ("−42", -42),
        ("007", 7),
        ("1,234,567", 1_234_567),
        ("42.", 42),
        ("42。", 42),
        ("42.0", 42),
        ("42.50", Fraction(85, 2)),
        (".5", Fraction(1, 2)),
        ("0.1", Fraction(1, 10)),
        ("3/4", Fraction(3, 4)),
        ("3/4.", Fraction(3, 4)),
        ("-0", 0),
        ("$18", 18),
        ("＋１２，３４５．５", Fraction(24_691, 2)),
    ],
)
def test_numbers_that_are_understood(text: str, value: int | Fraction) -> None:
    assert parse_number(text) == value


NO_NUMBERS = [
    "",
    " ",
    ".",
    "+",
    "-",
    "1,23",
    "12,3456",
    "1,,234",
    "1 2",
    "1e9",
    "1/0",
    "1/2/3",
    "0x10",
    "²",
    "٣",
    "nan",
]
NO_NUMBERS += ["inf", "1_000", "--1", "50%", "5 apples", "2+2", "__import__('os')", "9" * (MAX_ANSWER_CHARS + 1)]

HOSTILE = {
    "digits": "9" * 1_000_000,
    "commas": "1,111" * 200_000,
    "boxes": "\\boxed{" * 150_000,
    "braces": "\\boxed{" + "{" * 1_000_000,
    "hashes": "#" * 1_000_000,
    "spaces": "####" + " " * 1_000_000,
    "signs": "-" * 1_000_000,
    "answers": "<answer>" * 125_000,
    "endless": "<answer>" + "9" * 1_000_000,
}


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None
    assert not same_number(text, text)


def test_equal_numbers_in_any_spelling() -> None:
    for spelling in ("1200", "1,200", "1200.0", "+01200", "１２００。", "2400/2"):
        assert same_number(spelling, "1200")
    for other in ("1201", "120", "-1200", "1200.0000001", "12000"):
        assert not same_number(other, "1200")


@given(st.integers(), st.integers())
def test_integers_are_the_same_exactly_if_they_are_equal(first: int, second: int) -> None:
    assert same_number(str(first), f"{second:,}") == (first == second)
    assert same_number(str(first), f"{first:+,}.00")


@given(st.fractions())
def test_fractions_are_read_back(value: Fraction) -> None:
    assert parse_number(str(value)) == value
    assert answer_key(str(value)) == str(value)


@given(st.text(), st.text())
def test_comparison_is_symmetric_and_agrees_with_the_key(first: str, second: str) -> None:
    assert same_number(first, second) == same_number(second, first)
    key = answer_key(first)
    assert same_answer(first, second) == (key is not None and key == answer_key(second))


@given(st.text(), st.text(max_size=30))
def test_a_strict_answer_is_also_the_lenient_one(before: str, body: str) -> None:
    text = f"{before}<answer>{body}</answer>"
    if final_answer(text) is not None:
        assert final_answer(text) == lenient_answer(text) == body.strip()


def test_text_answers_are_compared_without_case_spacing_and_full_stop() -> None:
    assert normalise_text("  The  Blue\nCar. ") == "the blue car"
    assert same_answer("The  Blue car。", "the blue car")
    assert not same_answer("the red car", "the blue car")
    assert not same_answer("", "")
    assert not same_answer("forty-two", "42")


def test_keys_count_equal_answers_as_one() -> None:
    assert [answer_key(text) for text in ("1,200.", "1200", "0.5", " B. ", "", None)] == [
        "1200",
        "1200",
        "1/2",
        "b",
        None,
        None,
    ]


def test_an_answer_of_more_than_a_thousand_characters_is_none() -> None:
    exact, too_long = "x" * MAX_ANSWER_CHARS, "x" * (MAX_ANSWER_CHARS + 1)
    assert final_answer(f"<answer>{exact}</answer>") == exact
    assert final_answer(f"<answer>{too_long}</answer>") is None
    assert same_answer(exact, exact)
    assert not same_answer(too_long, too_long)
    assert answer_key(too_long) is None


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_megabytes_take_linear_time(text: str) -> None:
    start_s = time.perf_counter()
    assert final_answer(text) is None
    lenient_answer(text)
    assert not same_answer(text, "42")
    assert time.perf_counter() - start_s < 10  # quadratic time would take hours


def test_the_place_of_an_answer_is_that_of_the_form() -> None:
    boxed = "<think>4</think>It is \\boxed{ 5 }."
    assert (final_answer(boxed, "r1"), final_answer(boxed), final_answer(boxed, "r1_zero")) == ("5", None, None)
    block = "<think>4</think><answer>5</answer>"
    assert (final_answer(block, "r1"), final_answer(block)) == (None, "5")
    assert final_answer("<think>4</think> 5 ", "r1") == "5" and final_answer("<think>4</think>\\boxed{}", "r1") is None


@pytest.mark.parametrize("form", ["r1_zero", "r1"])
def test_a_reward_says_how_long_its_answers_may_be(form: str) -> None:
    for length in (1_000, 1_001, 5_000):
        body = "4" * length
        text = f"<think>so</think>\\boxed{{{body}}}" if form == "r1" else f"<think>so</think><answer>{body}</answer>"
        assert final_answer(text, form) == (body if length <= 1_000 else None)
        assert final_answer(text, form, length) == body and final_answer(text, form, length - 1) is None


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("<think>1+1</think> <answer>2</answer>", "2"),
        ("<think>1+1</think> 3 <answer>2", "2"),  # not closed: the lenient answer
        ("it is 41", "41"),
        ("nothing", None),
    ],
)
def test_what_was_answered_is_the_strict_answer_or_else_the_lenient_one(text: str, given: str | None) -> None:
    assert given_answer(text) == given
