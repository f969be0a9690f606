"""Sets of real numbers in all spellings: ordered pieces, merged where they touch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.equality.real_sets import looks_like_set, read_set, same_set


def same(first: str, second: str) -> bool:
    one, other = read_set(first), read_set(second)
    assert one is not None and other is not None
    assert same_set(one, other) == same_set(other, one)
    return same_set(one, other)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("x>2 or x<-2", r"(-\infty,-2)\cup(2,\infty)", True),
        ("x<-2, x>2", r"(-\infty,-2)\cup(2,\infty)", True),
        ("x>1, x<2", "1<x<2", True),  # both can be, so both are meant
        ("x>1 and x<2", "2>x>1", True),
        (r"[1,2]\cup[2,3]", "[1,3]", True),
        (r"[1,2)\cup(2,3]", "[1,3]", False),
        (r"[1,2)\cup\{2\}\cup(2,3]", "[1,3]", True),
        (r"x\ne 2", r"\mathbb{R}\setminus\{2\}", True),
        (r"x\ne 1,2", r"(-\infty,1)\cup(1,2)\cup(2,\infty)", True),
        (r"(-\infty,3]\cap[1,\infty)", "[1,3]", True),
        (r"\{x\mid x>2\}", r"(2,\infty)", True),
        (r"\{x: 1<x<2\}", "(1,2)", True),
        ("x>2", "y>2", False),
        (r"x\le\frac{1}{2}", "x<=0.5", True),
        (r"x<\sqrt{2}", r"(-\infty,2^{1/2})", True),
        (r"x<\sqrt{2}", "x<1.41421356", False),
        (r"\emptyset", r"x<1 and x>2", True),
        (r"(-\infty,\infty)", r"\mathbb{R}", True),
    ],
)
def test_sets(first: str, second: str, expected: bool) -> None:
    assert same(first, second) is expected


@pytest.mark.parametrize(
    "text", ["2x>4", "x>x^2", "x", "(2,1)", "x+y<3", "|x|<2", "a<b<c", "(1,2,3)", "x>y", "x<1 or y<1"]
)
def test_what_is_not_solved_is_no_set(text: str) -> None:
    assert read_set(text) is None


def test_signs_that_only_sets_have() -> None:
    assert looks_like_set("x<1") and looks_like_set(r"(1,\infty)") and looks_like_set(r"\mathbb{R}")
    assert not looks_like_set("(1,2)") and not looks_like_set(r"-\infty") and not looks_like_set("x=1")


@given(st.integers(-9, 9), st.integers(1, 9), st.integers(1, 9))
def test_a_gap_is_seen(start: int, first: int, gap: int) -> None:
    low, middle, high = start, start + first, start + first + gap
    assert same(rf"[{low},{middle}]\cup[{middle},{high}]", f"[{low},{high}]")
    assert not same(rf"[{low},{middle}]\cup[{high},{high + 1}]", f"[{low},{high + 1}]")
