"""One-line errors: field, value, what is allowed; and the values that count as numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int, require_number


def test_the_line_names_field_value_and_what_is_allowed() -> None:
    with pytest.raises(InvalidInput) as caught:
        require(False, "rollout.group_size", "four", "it must be a whole number")
    assert str(caught.value) == "rollout.group_size='four' is not allowed: it must be a whole number"
    require(True, "rollout.group_size", "four", "never read")


def test_a_library_caller_catches_a_value_error() -> None:
    assert issubclass(InvalidInput, ValueError)


@pytest.mark.parametrize("value", ["two\nlines", "a\r\nb", ["x\ny"]])
def test_the_line_is_one_line(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        require_int("n", value, 1)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("value", "minimum", "maximum"), [(1, 1, None), (7, 1, 7), (-3, -3, 0), (10**30, 0, None)])
def test_whole_numbers_that_are_allowed(value: int, minimum: int, maximum: int | None) -> None:
    assert require_int("n", value, minimum, maximum) is None


@pytest.mark.parametrize("value", [0, 8, True, False, "3", 3.0, None, math.nan, [3], 3 + 0j])
def test_whole_numbers_that_are_not(value: object) -> None:
    """A bool is not a number here, although it is in Python; 3.0 and "3" are typical mistakes in a configuration."""
    with pytest.raises(InvalidInput) as caught:
        require_int("data.rows", value, 1, 7)
    expected = f"data.rows={value!r} is not allowed: it must be a whole number of at least 1 and at most 7"
    assert str(caught.value) == expected


def test_whole_numbers_without_an_upper_bound() -> None:
    with pytest.raises(InvalidInput, match=r"^n=0 is not allowed: it must be a whole number of at least 1$"):
        require_int("n", 0, 1)


@pytest.mark.parametrize("value", [0, 0.5, 1, 1.0, Fraction(1, 3), np.float64(0.25), np.float32(1.0)])
def test_numbers_that_are_allowed(value: object) -> None:
    assert require_number("p", value, 0, 1) is None


@pytest.mark.parametrize(
    "value", [-1e-9, 1.0000001, True, False, "0.5", None, math.nan, np.nan, math.inf, -math.inf, 1j]
)
def test_numbers_that_are_not(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        require_number("optim.lr", value, 0.0, 1.0)
    assert (
        str(caught.value) == f"optim.lr={value!r} is not allowed: it must be a number of at least 0.0 and at most 1.0"
    )


def test_infinity_is_no_setting_even_without_an_upper_bound() -> None:
    """YAML accepts `.inf`, but an infinite temperature or learning rate is always a mistake."""
    with pytest.raises(
        InvalidInput, match=r"^optim\.lr=inf is not allowed: it must be a number of at least 0 and finite$"
    ):
        require_number("optim.lr", math.inf, 0)


def test_an_open_minimum_is_left_out() -> None:
    require_number("t", 1e-9, 0.0, open_minimum=True)
    with pytest.raises(InvalidInput, match=r"^t=0\.0 is not allowed: it must be a number above 0\.0$"):
        require_number("t", 0.0, 0.0, open_minimum=True)
    with pytest.raises(InvalidInput, match=r"number above 0 and at most 1$"):
        require_number("t", 2, 0, 1, open_minimum=True)


def test_choices() -> None:
    require_choice("language", "en", ("en", "zh"))
    require_choice("language", "zh", iter(["en", "zh"]))
    with pytest.raises(InvalidInput, match=r"^language='fr' is not allowed: it must be one of en, zh$"):
        require_choice("language", "fr", (name for name in ("en", "zh")))
