"""Names before a value, and equations that are not names."""

from __future__ import annotations

import pytest

from r1_lightning.text.labels import labelled


@pytest.mark.parametrize(
    ("text", "label", "value"),
    [
        ("x = 5", "x", "5"),
        (r"P(A)=\frac12", "P(A)", r"\frac12"),
        ("P(X=3)=1/4", "P(X=3)", "1/4"),
        ("AB=5", "AB", "5"),
        ("BA=5", "AB", "5"),
        ("a_{10}=55", "a_10", "55"),
        ("f(0.5)=1", "f(1/2)", "1"),
        (r"f(\frac{1}{2})=1", "f(1/2)", "1"),
        ("f'(x)=2x", "f'(x)", "2x"),
        (r"\angle ABC=40", r"\angleABC", "40"),
        ("S_{ABC}=12", "S_ABC", "12"),
        ("(x,y)=(3,4)", "(x,y)", "(3,4)"),
        (r"\frac{dy}{dx}=2x", r"\fracdydx", "2x"),
        (r"x\in[1,2]", "x", "[1,2]"),
        ("a:b=2:3", "a:b", "2:3"),
        ("area=12", "area", "12"),
    ],
)
def test_names(text: str, label: str, value: str) -> None:
    found = labelled(text)
    assert found is not None and (found.label, found.value, found.expression) == (label, value, False)


def test_kinds_of_names() -> None:
    assert labelled("x=5").simple and not labelled("f(1)=5").simple  # type: ignore[union-attr]
    assert labelled("a+b=5").expression and labelled("xy=5").expression  # type: ignore[union-attr]
    assert labelled("x=2+3=5").between == ("2+3",)  # type: ignore[union-attr]
    assert labelled(r"\overrightarrow{BA}=5").label != labelled(r"\overrightarrow{AB}=5").label  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text", ["5", "2x=10", "x+1=5", "x^2=5", "2=2", "x<5", "x=1<2", "x=", "=5", "not blue = 5", "x=5, y<6"]
)
def test_what_names_nothing(text: str) -> None:
    assert labelled(text) is None
