"""Compares a program's output or return value with the expected one, outside the sandbox.

A hostile process wrote the data: they are text, and at most parsed as JSON. The papers print no rules; ours:

- **Printed output** (stdin tests): white space at both ends, at line ends and between tokens is ignored, line breaks are not. Two
  tokens are equal as text, or as numbers (1.0 is 1). This rule and the next are LiveCodeBench's.
- **Numbers**: equal, or, if the expected one has a decimal point or exponent, within a relative 1e-6. Integers are compared
  exactly, whatever their length. true is not 1, and NaN equals nothing, not even itself.
- **Return values** (call tests): equal as JSON. So a tuple equals a list, and a dictionary's keys are text; a set is not JSON and
  counts as wrong.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

RELATIVE_TOLERANCE = 1e-6  # LiveCodeBench's comparison of floats
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MOST_CHARS = 5_000  # of a token that is parsed as a number; longer ones are compared as text


def same_output(printed: str, expected: str) -> bool:
    """True if both outputs are equal line by line, token by token."""
    ours, theirs = _lines(printed), _lines(expected)
    if len(ours) != len(theirs):
        return False
    return all(
        len(line) == len(other) and all(map(_same_token, line, other)) for line, other in zip(ours, theirs, strict=True)
    )


def same_result(report: str, expected: str) -> bool | None:
    """True if the "result" in `report` equals the JSON value `expected`; None if `report` has no result."""
    try:
        parsed = json.loads(report)
        if not isinstance(parsed, dict) or "result" not in parsed:
            return None
        return same_value(parsed["result"], json.loads(expected))
    except (ValueError, RecursionError):
        return None


def same_value(value: Any, expected: Any) -> bool:
    """True if two JSON values are equal, with the tolerance of `expected`. Raises `RecursionError` for extreme nesting."""
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(expected, float) and isinstance(value, (int, float)):
        return _close(value, expected)
    if isinstance(expected, list) and isinstance(value, list):
        return len(value) == len(expected) and all(map(same_value, value, expected))
    if isinstance(expected, dict) and isinstance(value, dict):
        return value.keys() == expected.keys() and all(same_value(value[key], expected[key]) for key in expected)
    if isinstance(expected, int) and isinstance(value, (int, float)):
        return value == expected
    return type(value) is type(expected) and bool(value == expected)


def _close(value: float, expected: float) -> bool:
    if value == expected:
        return True
    try:
        return math.isfinite(expected) and abs(value - expected) <= RELATIVE_TOLERANCE * abs(expected)
    except OverflowError:  # an integer too large for a float is near none
        return False


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().split("\n")]


def _same_token(token: str, expected: str) -> bool:
    if token == expected:
        return True
    if max(len(token), len(expected)) > _MOST_CHARS or not (_NUMBER.fullmatch(token) and _NUMBER.fullmatch(expected)):
        return False
    value, target = Decimal(token), Decimal(expected)
    if value == target:
        return True
    return bool(re.search(r"[.eE]", expected)) and abs(value - target) <= Decimal(RELATIVE_TOLERANCE) * abs(target)
