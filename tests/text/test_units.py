"""Units in signs and words, and the nouns of counted things."""

from __future__ import annotations

from fractions import Fraction

import pytest

from r1_lightning.text.units import noun_of, unit_of


@pytest.mark.parametrize(
    ("text", "kind", "size"),
    [
        ("cm", "length", "10"),
        ("inches", "length", "25.4"),
        ("cm^2", "area", "100"),
        ("square inches", "area", "645.16"),  # 25.4 * 25.4
        ("sq. ft", "area", "92903.04"),  # 304.8 * 304.8
        ("cm^{3}", "cubic", "1000"),
        ("cubic meters", "cubic", "1000000000"),
        ("meters squared", "area", "1000000"),
        ("km per hour", "speed_metric", "5"),
        ("m/s^2", "acceleration", "1"),
        ("units", "", "1"),
        ("square units", "units^2", "1"),
        ("cubic unit", "units^3", "1"),
    ],
)
def test_units(text: str, kind: str, size: str) -> None:
    assert unit_of(text) == (kind, Fraction(size))


@pytest.mark.parametrize("text", ["apples", "square kg", "", "x^2", "seconds squared"])
def test_what_is_no_unit(text: str) -> None:
    assert unit_of(text) is None


def test_nouns() -> None:
    assert noun_of(" students") == noun_of(" student") == {"student"}
    assert (
        noun_of(" red apples") == {"red", "apple"}
        and noun_of(" boxes") == {"box"}
        and noun_of(" cherries") == {"cherry"}
    )
    for text in (
        "abc",
        " or 4",
        " minus one",
        " is wrong",
        " AB",
        " x",
        " times",
        " half",
        " million",
        " than others or",
    ):
        assert noun_of(text) is None
