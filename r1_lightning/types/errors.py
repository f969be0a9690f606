"""The one error a user is meant to read.

`InvalidInput` carries a single line: which field, which value, what is allowed. The command line prints that line and
exits with 2; a library caller catches an ordinary `ValueError`. Anything else that escapes is a defect of ours and keeps
its traceback.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from numbers import Real
from typing import Any


class InvalidInput(ValueError):
    """Input from outside (a configuration, a file, a folder) is not acceptable; the message is one line."""


STOPPED_BY_TIME = 124  # the exit code of a run that reached its time limit; the same as that of `timeout`


class Stopped(BaseException):
    """Stops work early on request (a signal, no time left); the exit `code` says which.

    Not an `Exception`, so that no handler that repairs or reports faults catches it. `step` is the optimizer step from which the
    same command resumes; None if no saved state is known.
    """

    def __init__(self, reason: str, code: int, step: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.code, self.step = reason, code, step


def require(condition: bool, field: str, value: Any, allowed: str) -> None:
    """Raise `InvalidInput` naming `field`, `value` and what is `allowed` unless `condition` holds."""
    if not condition:
        raise InvalidInput(f"{field}={value!r} is not allowed: {allowed}")


def require_int(field: str, value: Any, minimum: int, maximum: int | None = None) -> None:
    """Raise `InvalidInput` unless `value` is an `int` (not a bool, not a string) in [minimum, maximum]."""
    upper = f" and at most {maximum}" if maximum is not None else ""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    in_range = is_int and value >= minimum and (maximum is None or value <= maximum)
    require(in_range, field, value, f"it must be a whole number of at least {minimum}{upper}")


def require_number(
    field: str, value: Any, minimum: float, maximum: float | None = None, open_minimum: bool = False
) -> None:
    """Raise `InvalidInput` unless `value` is finite and real, in [minimum, maximum], or (minimum, maximum] with `open_minimum`."""
    word = "above" if open_minimum else "of at least"
    upper = f" and at most {maximum}" if maximum is not None else " and finite" if value == math.inf else ""
    is_number = isinstance(value, Real) and not isinstance(value, bool) and value == value and abs(value) != math.inf
    in_range = (
        is_number and (value > minimum if open_minimum else value >= minimum) and (maximum is None or value <= maximum)
    )
    require(bool(in_range), field, value, f"it must be a number {word} {minimum}{upper}")


def require_choice(field: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise `InvalidInput` unless `value` is one of `choices`."""
    allowed = list(choices)
    require(value in allowed, field, value, f"it must be one of {', '.join(map(str, allowed))}")


def require_duration(field: str, text: str) -> float:
    """Return the seconds of "HH:MM:SS" or "DD:HH:MM:SS". Raises `InvalidInput` with `field` for another form, and for 0 s."""
    is_time = re.fullmatch(r"(?:\d{1,3}:)?\d{1,3}:[0-5]?\d:[0-5]?\d", text, re.ASCII) is not None
    allowed = 'it must be "HH:MM:SS" or "DD:HH:MM:SS", more than 0'
    require(is_time, field, text, allowed)
    numbers = [int(part) for part in text.split(":")]
    seconds = sum(number * unit for number, unit in zip(reversed(numbers), (1, 60, 3600, 86400), strict=False))
    require(seconds > 0, field, text, allowed)
    return float(seconds)
