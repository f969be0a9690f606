"""Language consistency: the share of words in the question's language, over the thinking."""

from __future__ import annotations

import pytest

from r1_lightning.rewards.language import LanguageConsistencyReward, thinking_of, thinking_words
from r1_lightning.types.text import Completion, Language, Problem


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("<think>first add two</think><answer>5</answer>", "en", 1.0),
        ("<think>first add two</think><answer>5</answer>", "zh", 0.0),
        ("<think>先算 add</think><answer>5</answer>", "zh", 2 / 3),  # two Han characters, one English word
        ("<think>2+3=5</think><answer>5</answer>", "zh", 1.0),  # no words at all
        ("<think>add</think><answer>五</answer>", "en", 1.0),  # the answer is not thinking
        ("先算 add", "en", 1 / 3),  # no think block: all of it counts
        ("<think>add<think>先", "en", 0.5),
    ],
)
def test_by_hand(text: str, language: Language, expected: float) -> None:
    verdict = LanguageConsistencyReward()(Problem("", "", "", language), Completion(text, 1, True))
    assert verdict.score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "thinking", "words"),
    [
        ("<think>先算 add 2+3</think><answer>five</answer>", "先算 add 2+3", 3),
        ("<think>2+3=5</think><answer>five</answer>", "2+3=5", 0),
        ("so five", "so five", 2),
        ("<think>a b</think> then <think>so</think>", "<think>a b</think> then <think>so</think>", 2),  # then, so
    ],
)
def test_the_thinking_and_its_words(text: str, thinking: str, words: int) -> None:
    completion = Completion(text, 1, True)
    assert thinking_of(completion) == thinking
    assert thinking_words(completion) == words
