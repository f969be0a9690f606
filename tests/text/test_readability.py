"""The filters for readable text, each with a text that it finds and the nearest one that it lets pass."""

from __future__ import annotations

import pytest

from r1_lightning.text.readability import (
    ENDLESS_PARAGRAPH,
    MIXED_LANGUAGES,
    REPEATS_ITSELF,
    STRAY_CODE,
    Readability,
    has_stray_code,
    longest_paragraph,
    repeated_share,
    spoken,
)
from r1_lightning.text.reasoning_format import reasoned
from r1_lightning.types.errors import InvalidInput

CODE = "```python\nprint(1)\n```"


def test_one_word_of_another_language_is_too_much_and_a_tolerance_lets_it_pass() -> None:
    text = reasoned("so we add 算 them up", 3)  # 5 English words, 1 Chinese: 1/6 outside the main language
    assert Readability().fault(text) == MIXED_LANGUAGES
    assert Readability(mixed_tolerance=0.16).fault(text) == MIXED_LANGUAGES
    assert Readability(mixed_tolerance=0.17).fault(text) is None
    assert Readability().fault(reasoned("加起来是3", 3)) is None


def test_words_of_a_program_are_in_no_language() -> None:
    assert Readability().fault(reasoned("用程序算", f"\n{CODE}\n"), asks_for_code=True) is None


def test_the_longest_paragraph_in_characters() -> None:
    assert longest_paragraph(" <think>abcd\nef\n \nabc</think>\n\n<answer>12345</answer> ") == 7  # "abcd\nef"
    assert longest_paragraph(f"ab\n{CODE}\ncde") == 3  # code parts the prose, and is none
    assert longest_paragraph("") == 0
    rules = Readability(max_paragraph_chars=7)
    assert rules.fault("abcd\nef") is None and rules.fault("abcd\nefg") == ENDLESS_PARAGRAPH


def test_code_is_stray_but_in_an_answer_that_is_to_be_code() -> None:
    answer = reasoned("I write it.", f"\n{CODE}\n")
    assert Readability().fault(answer) == STRAY_CODE
    assert Readability().fault(answer, asks_for_code=True) is None
    assert Readability().fault(reasoned(f"Try:\n{CODE}\n", f"\n{CODE}\n"), asks_for_code=True) == STRAY_CODE
    assert has_stray_code("x\n```python\nnever closed") and has_stray_code("~~~\nx\n~~~")
    assert not has_stray_code("inline `code` and ``` in a line")
    assert not has_stray_code(f"<think>a</think>\n{CODE}", asks_for_code=True)  # R1's own form


def test_the_share_of_runs_that_came_before() -> None:
    assert repeated_share("a b a b a b", n=2) == pytest.approx(3 / 5)  # ab ba ab ba ab: 2 of 5 are new
    assert repeated_share("a b c", n=2) == 0.0 and repeated_share("a", n=2) == 0.0
    once = "one two three four five six seven eight nine"  # 2 runs of 8
    assert Readability().fault(once) is None
    assert Readability().fault(" ".join([once] * 3)) == REPEATS_ITSELF  # 20 runs, 9 of them new
    assert Readability(max_repeated_share=0.55).fault(" ".join([once] * 3)) is None
    assert Readability().fault("等一下再算一次，" * 4) == REPEATS_ITSELF


@pytest.mark.parametrize(
    "name, value",
    [("mixed_tolerance", 1.5), ("mixed_tolerance", -0.1), ("max_paragraph_chars", 0), ("max_repeated_share", 2.0)],
)
def test_limits_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"{name}={value}"):
        Readability(**{name: value})


@pytest.mark.parametrize("text", ["```" * 20_000, "```\n" * 20_000, "\n " * 20_000, "<think>" * 20_000, "`" * 60_000])
def test_hostile_text_ends_in_some_reason_or_none(text: str) -> None:
    """A quadratic scan of these texts would take minutes, and the suite's time limit would stop it."""
    assert Readability().fault(text) in (None, STRAY_CODE, ENDLESS_PARAGRAPH, REPEATS_ITSELF)


def test_code_that_was_asked_for_is_in_no_language() -> None:
    """`def` and `return` are English words of no Chinese text: where code is asked for, what comes before it counts."""
    text = " <think>得到x-3，最后4*x-12。</think><answer>def f(x): return 4*x-12</answer>"
    assert Readability().fault(text) == MIXED_LANGUAGES and Readability().fault(text, asks_for_code=True) is None
    assert Readability().fault(text.replace("最后", "so "), asks_for_code=True) == MIXED_LANGUAGES
    assert "def" not in spoken(text, asks_for_code=True) and "def" in spoken(text)
