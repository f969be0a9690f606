"""Sizes of values by hand, at the limits, and of values that hold one part many times."""

from __future__ import annotations

from typing import Any

import pytest

from r1_lightning.text.jinja_values import MAX_BITS, MAX_PARTS, MAX_TEXT_CHARS, TooMuch, rounded, size_of, to_json


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("abc", 3),
        (None, 0),
        (["ab", "c"], 5),  # two parts, three characters
        ({"a": ["bc"]}, 5),  # a part with its key "a", and one with "bc": 2 + 1 + 2
        ({"a": "b"}.items(), 5),  # the pair is a part with two parts: 1 + 2 + 2
        (([1, True], 2**30), 14),  # 2 + 2 parts; 2^30 has 31 bits, 31 // 3 = 10; 1 has one bit, 1 // 3 = 0
    ],
)
def test_sizes_by_hand(value: Any, size: int) -> None:
    assert size_of(value, written=True) == size


def test_at_the_limits() -> None:
    text, parts, bits = "a" * MAX_TEXT_CHARS, [None] * MAX_PARTS, 2**MAX_BITS
    deep: list[Any] = []
    for _ in range(49):
        deep = [deep]  # fifty lists in each other hold 49
    assert size_of(text, False) == MAX_TEXT_CHARS and size_of(parts, False) == MAX_PARTS and size_of(deep, False) == 49
    assert size_of(bits - 1, False) == 1365  # 4096 // 3
    for too_much in (text + "a", [text, "a"], [None, *parts], [parts, parts], bits, [-bits], [deep]):
        with pytest.raises(TooMuch):
            size_of(too_much, False)


def test_a_part_counts_as_often_as_it_stands_in_a_value() -> None:
    value: Any = []
    for _ in range(40):
        value = [value, value]  # 2^41 - 2 parts in forty lists
    with pytest.raises(TooMuch, match="more than 200000 parts"):
        size_of(value, False)


def test_what_has_no_text_is_not_written() -> None:
    assert size_of([len], written=False) == 1
    with pytest.raises(TooMuch, match="a value of the type builtin_function_or_method"):
        size_of([len], written=True)


def test_arguments_that_make_results_large() -> None:
    assert rounded(2.567, 1) == 2.6 and to_json({"a": [1]}, separators=(",", ":")) == '{"a":[1]}'
    for call in (lambda: rounded(1.5, 101), lambda: to_json([1], separators=("a" * 8, ":"))):
        with pytest.raises(TooMuch):
            call()
