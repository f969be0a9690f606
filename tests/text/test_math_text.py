"""Normalised spelling of mathematics, the structure of lists, and texts that are refused before any parser reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.text.math_text import (
    MAX_DEPTH,
    MAX_MATH_CHARS,
    WrittenList,
    danger,
    depth_of,
    is_balanced,
    plain_math,
    spelled,
    split_list,
)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"$\dfrac12$.", r"\frac12"),
        ("（１，２）", "(1,2)"),
        (r"\left( 1, 2 \right)", "( 1, 2 )"),
        (r"\boxed{\text{blue}}", "blue"),
        ("x²", "x^{2}"),
        ("90°", r"90^\circ"),
        (r"90^{\circ}", r"90^\circ"),
        ("sqrt(2)", r"\sqrt{2}"),
        (r"\sqrt{2}", r"\sqrt{2}"),
        ("sin x", r"\sin x"),
        (r"1{,}200\,\mathrm{cm}", "1,200 cm"),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}1 \\ 2\end{pmatrix}"),
        ("The answer is: 5", "5"),
        (r"x\geqslant 1", r"x\ge 1"),
        (r"\lg 100", r"\log_{10} 100"),
        (r"0.1\overline{6}", r"\frac{1}{6}"),
        (r"0.\dot{1}\dot{2}", r"\frac{4}{33}"),
        (r"x>2\text{ or }x<-2", "x>2 or x<-2"),
        (r"x>2\lor x<-2", "x>2 or x<-2"),
        ("12\u00a0square\u202funits", "12 square units"),
        (r"{3\over 7}", r"\frac{3}{7}"),
        (r"\lbrace 1,2\rbrace", r"\{1,2\}"),
        ("x¹⁰", "x^{10}"),
        (r"f^{\prime}(x)", "f'(x)"),
        ("", ""),
    ],
)
def test_spelling(text: str, plain: str) -> None:
    assert plain_math(text) == plain


@pytest.mark.parametrize(
    ("text", "brackets", "items"),
    [
        ("(1,2)", "()", ("1", "2")),
        (r"\{1; 2\}", "{}", ("1", "2")),
        ("[1,2)", "[)", ("1", "2")),
        ("1 and 2", "", ("1", "2")),
        ("1,200", "", ("1200",)),
        ("(1,200)", "()", ("1", "200")),
        ("1,200, 3", "", ("1200", "3")),
        ("(x+1)(x+2)", "", ("(x+1)(x+2)",)),
        ("(1,2),(3,4)", "", ("(1,2)", "(3,4)")),
        ("{1,2,3}", "{}", ("1", "2", "3")),
        ("{1}", "", ("1",)),
        (r"\frac{1,2}{3}", "", (r"\frac{1,2}{3}",)),
    ],
)
def test_lists(text: str, brackets: str, items: tuple[str, ...]) -> None:
    assert split_list(text) == WrittenList(brackets, items)


@pytest.mark.parametrize(
    "text",
    [
        "1" * (MAX_MATH_CHARS + 1),
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "1" * 41,
        "10^{10^{10}}",
        "10^10^10",
        "((9^{99})^{99})^{99}",
        "2^{10000}",
        "2**10000",
        "9999!",
        "9!!",
        r"\binom{10000}{5}",
        r"\Gamma(10000)",
        "1\x00",
        "x^2" * 13,
        r"[1,2]" + r"\cup[1,2]" * 9,
    ],
)
def test_what_is_refused(text: str) -> None:
    assert danger(text)


@pytest.mark.parametrize(
    "text", ["", "42", "(x^2)^3", "2^{2005}", "e^{-x^2}", "999!", "**42**", "1\n2", "三", "(" * 10 + ")" * 10]
)
def test_what_is_not(text: str) -> None:
    assert danger(text) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"\frac12", r"\frac{1}{2}"),
        (r"\frac1{2004!}", r"\frac{1}{2004!}"),
        ("2^{10}", "2^10"),
        (r"\sqrt2", r"\sqrt{2}"),
        ("x_1", "x_{1}"),
    ],
)
def test_braces_that_may_be_left_out(first: str, second: str) -> None:
    assert spelled(first) == spelled(second)


def test_depth_and_balance() -> None:
    assert (depth_of("((1)[2])"), depth_of(")))1"), depth_of("")) == (2, 0, 0)
    assert is_balanced("[1,2)") and is_balanced("{[}") is False and not is_balanced("(1") and not is_balanced("1)")


@given(st.text(alphabet="x1,;()[]{}\\$ .^_^frac½²（，−", max_size=60))
def test_plain_text_never_fails_and_lists_keep_their_items(text: str) -> None:
    plain = plain_math(text)
    assert isinstance(danger(text), str | None)
    assert len(split_list(plain).items) >= 1
