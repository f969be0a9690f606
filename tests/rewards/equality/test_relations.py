"""Equations up to a factor, inequalities up to a positive one, truths about numbers as they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.equality.relations import same_relation


@pytest.mark.parametrize(
    ("given_text", "reference", "same"),
    [
        ("20x+10=0", "2x+1=0", True),
        ("y=2x+1", "2x-y+1=0", True),
        ("y=2x+1", "y=2x-1", False),
        (r"\frac{x}{2}+\frac{y}{3}=1", "3x+2y=6", True),
        ("x(2x+1)=0", "2x+1=0", False),
        ("2x+4y<6", "x+2y<3", True),
        ("-x-2y<-3", "x+2y<3", False),
        (r"-x-2y\ge -3", r"x+2y\le 3", True),
        (r"x+2y\le 3", "x+2y<3", False),
        ("c>b>a", "a<b<c", True),
        ("a<b<c", "a<c<b", False),
        ("0=0", "2^3=8", False),
        ("8=2^3", "2^3=8", True),
        ("8=8", "2^3=8", False),
        ("3<5", "2<5", False),
        ("5>2", "2<5", True),
        ("x=x", "x=2", False),
        ("x=2", "x=x", False),
        (r"\frac{=1", "x=1", False),
    ],
)
def test_relations(given_text: str, reference: str, same: bool) -> None:
    assert same_relation(given_text, reference) is same


@given(st.integers(-9, 9), st.integers(1, 9), st.integers(-9, 9), st.integers(-9, 9))
def test_multiples(a: int, b: int, c: int, factor: int) -> None:
    line = f"{a}x+{b}y={c}"
    multiple = f"{factor * a}x+{factor * b}y={factor * c}"
    assert same_relation(multiple, line) is (factor != 0)
    assert not same_relation(f"{a}x+{b}y={c + 1}", line)
