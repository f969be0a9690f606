"""Exact values of plain quantities, in figures and in Chinese, and when two of them are the same amount."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.text.quantities import chinese_number, parse_quantity, same_quantity, split_unit


@pytest.mark.parametrize(
    ("text", "number", "percent"),
    [
        ("1,200", "1200", False),
        ("1 200", "1200", False),
        ("-3/4", "-3/4", False),
        (r"-\frac34", "-3/4", False),
        ("2 1/2", "5/2", False),
        (r"-2\frac{1}{2}", "-5/2", False),
        ("1.5e3", "1500", False),
        (r"3\times10^{-2}", "3/100", False),
        ("10^{-3}", "1/1000", False),
        ("12.5%", "25/2", True),
        ("百分之五", "5", True),
        ("-$5.00", "-5", False),
        ("三分之二", "2/3", False),
        (".5", "1/2", False),
    ],
)
def test_values(text: str, number: str, percent: bool) -> None:
    quantity = parse_quantity(text)
    assert quantity is not None and (quantity.number, quantity.percent) == (Fraction(number), percent)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1/0",
        "1,20",
        "2 3/2",
        "--3",
        "5 or 6",
        "5abc",
        "1.2.3",
        "5 is wrong",
        "7 remainder 1",
        "$5%",
        "€5 dollars",
        "1e9999",
    ],
)
def test_what_is_no_quantity(text: str) -> None:
    assert parse_quantity(text) is None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("30 mm", "3 cm", True),
        ("3", "3 cm", True),
        ("3 m", "3 cm", False),
        ("3 kg", "3 cm", False),
        ("36 km/h", "10 m/s", True),
        ("500 cents", "$5", True),
        ("€5", "$5", False),
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("50%", "5", False),
        ("0.5%", "50", False),
        ("5 m", "5%", False),
        ("25 个", "25", True),
        ("575 students", "575", True),
        ("575 students", "575 teachers", False),
        ("18 red apples", "18 apples", True),
        ("18 apples", "18 cm", False),
        ("12 square units", "12", True),
        ("12 square units", "12 cubic units", False),
        ("12 square inches", "12 in^2", True),
        ("1 hour 30 minutes", "90 minutes", True),
        ("12 dollars and 50 cents", "$12.50", True),
        ("45^\\circ 30'", "45.5^\\circ", True),
        ("5 million", "5000000", True),
        ("二又三分之一", "7/3", True),
    ],
)
def test_amounts_both_ways_round(first: str, second: str, same: bool) -> None:
    one, other = parse_quantity(first), parse_quantity(second)
    assert one and other and same_quantity(one, other) == same_quantity(other, one) == same


@pytest.mark.parametrize(
    ("text", "number"),
    [("十", "10"), ("二十五", "25"), ("一百零五", "105"), ("一万零三", "10003"), ("三亿二千万", "320000000"), ("二〇二四", "2024"),
     ("三点一四", "3.14"), ("点", None), ("", None)],
)  # fmt: skip
def test_chinese_numbers(text: str, number: str | None) -> None:
    assert chinese_number(text) == number


def test_units_at_the_end_of_a_number_without_letters() -> None:
    centimetres = parse_quantity("1 cm")
    assert centimetres and split_unit(r"3\sqrt{2} cm") == (r"3\sqrt{2}", centimetres.unit)
    assert split_unit("3x m") == ("3x m", None)
    assert split_unit("cm") == ("cm", None)


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_only_equal_numbers_are_the_same(first: int, second: int) -> None:
    one, other = parse_quantity(f"{first:,}"), parse_quantity(f"{second}.0")
    assert one and other and same_quantity(one, other) == (first == second)
