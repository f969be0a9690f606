"""Word counts of English, Chinese and mixed text, by hand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.text.language import count_words, is_mixed, language_of, language_share
from r1_lightning.types.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "en", "zh", "other"),
    [
        ("", 0, 0, 0),
        ("12+30=42", 0, 0, 0),
        ("First add the tens.", 4, 0, 0),
        ("don't stop", 2, 0, 0),  # an inner apostrophe does not cut a word in two
        ("所以答案是42。", 0, 5, 0),
        ("So 所以 the answer 是 42", 3, 3, 0),
        ("x + y = z, so n=3", 1, 0, 0),  # single letters are variables
        (r"\frac{1}{2} \times \boxed{3}", 0, 0, 0),
        ("<think> first </think> <answer> 4 </answer>", 1, 0, 0),
        ("итак the 答", 1, 1, 1),
        ("ひらがな", 0, 0, 1),  # one run of another script
        ("naïve café", 2, 0, 0),
    ],
)
def test_counts(text: str, en: int, zh: int, other: int) -> None:
    assert count_words(text) == {"en": en, "zh": zh, "other": other}


def test_language_of() -> None:
    assert language_of("So 所以 the answer") == "en"  # 3 against 2
    assert language_of("so 所以") == "zh"  # 1 against 2
    assert language_of("the answer 所以") == "en"  # equal: English
    assert language_of("1+1=2") is None
    assert language_of("итак") is None


def test_share_is_words_of_the_target_by_all_words() -> None:
    # English: So, the, answer; Chinese: 所, 以, 是. 3 of 6.
    assert language_share("So 所以 the answer 是 42", "en") == 0.5
    # 1 English, 3 Chinese, 0 other: 3 of 4.
    assert language_share("sum 所以是 42", "zh") == 0.75
    # 1 English, 1 Chinese, 1 other: 1 of 3.
    assert language_share("итак the 答", "zh") == pytest.approx(1 / 3, abs=1e-15)
    assert language_share("2+2=4", "zh") == 1.0


def test_mixed_means_one_word_outside_the_main_language_or_more_than_tolerated() -> None:
    assert not is_mixed("First add the tens: 12+30=42.")
    assert not is_mixed("先算十位：12+30=42。")
    assert is_mixed("First 加 the tens")
    # 1 Chinese of 4 words: a quarter.
    assert not is_mixed("First 加 the tens", tolerance=0.25)
    assert is_mixed("First 加 the tens", tolerance=0.24)
    assert not is_mixed("")


def test_bad_arguments_are_named() -> None:
    with pytest.raises((InvalidInput, TypeError), match="'de'"):  # TypeError where the suite checks annotations
        language_share("x", "de")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"tolerance=1\.5"):
        is_mixed("x", tolerance=1.5)


@given(st.text())
def test_shares_are_shares(text: str) -> None:
    en, zh = language_share(text, "en"), language_share(text, "zh")
    assert 0.0 <= en <= 1.0 and 0.0 <= zh <= 1.0
    assert en + zh <= 1.0 or sum(count_words(text).values()) == 0


@given(st.text(alphabet="0123456789+-*/= .,()"))
def test_calculation_is_in_no_language(text: str) -> None:
    assert count_words(text) == {"en": 0, "zh": 0, "other": 0}
    assert not is_mixed(text)


@pytest.mark.parametrize("text", ["a" * 1_000_000, "a'" * 500_000, "\\" * 1_000_000, "я" * 1_000_000, "<" * 1_000_000])
def test_hostile_megabytes_take_linear_time(text: str) -> None:
    start_s = time.perf_counter()
    count_words(text)
    assert time.perf_counter() - start_s < 10
