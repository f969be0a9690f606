"""Comparison of outputs: the rules by example, and outputs that must never count as equal."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.equality.code import same_output, same_result, same_value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("42\n", "42", True),
        ("\n 42  \n\n", "42\n", True),
        ("1  2\r\n3\t\n", "1 2\n3", True),
        ("1\n2", "1 2", False),  # line breaks count
        ("1 2", "12", False),
        ("Yes", "YES", False),
        ("42.0", "42", True),
        ("042", "42", True),
        ("42.00001", "42", False),  # a whole number is compared exactly
        ("0.33333334", "0.33333333", True),  # 3e-8 apart, of 3.3e-7 allowed
        ("0.333334", "0.333333", False),  # 1e-6 apart
        ("1000000.9", "1000000.0", True),  # 0.9 apart, of 1.0 allowed
        ("1000001.1", "1000000.0", False),
        ("1e3", "1000.0", True),
        ("nan", "nan", True),  # as text; a number it is not
        ("inf", "1e999", False),
        ("9" * 400, "9" * 399 + "8", False),
        ("1e999999999", "1.0", False),
        ("", "", True),
        ("", "0", False),
        ("8\0", "8", False),
        ("８", "8", False),
        ("8\n" * 9, "8", False),
    ],
)
def test_printed(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


@pytest.mark.parametrize(
    ("result", "expected", "same"),
    [
        ("[1, 2]", "[1, 2]", True),
        ("[1, 2]", "[2, 1]", False),
        ("[1]", "[1, 1]", False),
        ("1", "true", False),
        ("true", "1", False),
        ("true", "true", True),
        ("0", "null", False),
        ("2", "2.0", True),
        ("2.0", "2", True),
        ("2.0000001", "2", False),  # the tolerance is the expected value's
        ("2.0000001", "2.0", True),  # 1e-7 apart, of 2e-6 allowed
        ("2.00001", "2.0", False),
        ("0.0000001", "0.0", False),  # relative to zero there is nothing
        ("NaN", "NaN", False),
        ("NaN", "1.0", False),
        ("Infinity", "Infinity", True),
        ("Infinity", "1e308", False),
        ("1" + "0" * 400, "1.0", False),
        ('"2"', "2", False),
        ('{"a": [1.0]}', '{"a": [1]}', True),
        ('{"a": 1, "b": 2}', '{"a": 1}', False),
        ("9007199254740993", "9007199254740992", False),  # 2^53 + 1: no rounding to floats
    ],
)
def test_returned(result: str, expected: str, same: bool) -> None:
    assert same_result(f'{{"result": {result}}}', expected) is same


@pytest.mark.parametrize(
    "report",
    [
        "",
        "8",
        "[8]",
        '{"result": 8}\n{"result": 8}',
        '{"error": "x"}',
        '{"result": ' + "[" * 60_000,
        "1" * 5_000,
        "\0",
        "null",
    ],
)
def test_a_report_without_a_result_is_none(report: str) -> None:
    assert same_result(report, "8") is None


@given(JSON)
def test_a_value_equals_itself_printed_and_returned(value: Any) -> None:
    text = json.dumps(value)
    assert same_value(value, json.loads(text))
    assert same_result(f'{{"result": {text}}}', text)
    assert same_output(text, text)


@given(JSON, JSON)
def test_what_is_equal_is_equal_for_python_too_or_near(value: Any, other: Any) -> None:
    """One way: Python's own comparison is laxer about true and 1, stricter about floats."""
    if same_value(value, other) and value != other:
        assert any(isinstance(leaf, float) and math.isfinite(leaf) for leaf in _leaves(other))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]
