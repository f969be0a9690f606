"""The format reward: 1.0 for one think block and one answer block in a finished completion, 0.0 for anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.format import FormatReward
from r1_lightning.rewards.language import LanguageConsistencyReward
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem

PROBLEM = Problem("What is 2+3?", "5", "2+3")
GOOD = "<think> 2+3 </think> <answer> 5 </answer>"


def score(text: str, finished: bool = True, **settings: bool) -> float:
    return FormatReward(**settings)(PROBLEM, Completion(text, 1, finished)).score


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, 1.0),
        ("\n" + GOOD + "\n", 1.0),
        ("<think>x</think><answer>wrong</answer>", 1.0),  # form only, not content
        ("<think>x</think><answer></answer>", 0.0),
        ("<think> </think><answer>5</answer>", 0.0),
        ("<answer>5</answer>", 0.0),
        ("<think>x</think>5", 0.0),
        (GOOD + GOOD, 0.0),
        (GOOD + "<answer>6</answer>", 0.0),
        (GOOD + " 5", 0.0),
        ("<think>x<answer>5</answer></think>", 0.0),
        ("", 0.0),
    ],
)
def test_scores(text: str, expected: float) -> None:
    assert score(text) == expected


def test_a_completion_that_was_cut_off_has_no_form() -> None:
    verdict = FormatReward()(PROBLEM, Completion(GOOD, 64, finished=False))
    assert (verdict.score, verdict.reason) == (0.0, "cut off by the length limit")


def test_an_empty_think_is_allowed_only_on_request() -> None:
    text = "<think></think><answer>5</answer>"
    assert (score(text), score(text, allow_empty_think=True)) == (0.0, 1.0)


def test_the_reason_names_every_fault() -> None:
    reason = FormatReward()(PROBLEM, Completion("so <answer></answer>", 1, True)).reason
    assert (
        reason
        == "no think tag at all; nothing visible between the answer tags; text before, between or after the blocks"
    )
    assert FormatReward()(PROBLEM, Completion(GOOD, 1, True)).reason == "well formed"


@given(st.text())
def test_only_zero_or_one_and_never_for_text_without_all_four_tags(text: str) -> None:
    assert score(text) in (0.0, 1.0)
    if "</think>" not in text:
        assert score(text) == 0.0


def test_the_name_is_the_metric() -> None:
    assert FormatReward().name == "format"


def test_r1_s_form_on_request() -> None:
    summary, reward = "<think>2+3</think>It is 5.", FormatReward(form="r1")
    assert reward(PROBLEM, Completion(summary, 1, True)).score == 1.0
    assert reward(PROBLEM, Completion(summary, 1, False)).reason == "cut off by the length limit"
    assert reward(PROBLEM, Completion(GOOD, 1, True)).reason == "a tag in the summary"
    assert reward(PROBLEM, Completion("<think></think>", 1, True)).reason == (
        "nothing visible between the think tags; nothing visible after the think block"
    )
    assert score(summary) == 0.0
    with pytest.raises(InvalidInput, match="form='r2' is not allowed"):
        FormatReward(form="r2")  # type: ignore[arg-type]


def test_a_named_tag_costs_neither_form_nor_accuracy_and_a_second_answer_both() -> None:
    named = Completion("<think>I put it in <answer> tags. 2+3=5</think><answer>5</answer>", 9, True)
    doubled = Completion("<think>I put it in <answer>5</answer>.</think><answer>5</answer>", 9, True)
    for completion, expected in ((named, 1.0), (doubled, 0.0)):
        assert [reward(PROBLEM, completion).score for reward in (FormatReward(), AccuracyReward())] == [expected] * 2


def test_the_rewards_of_a_prompt_that_opens_the_think_block() -> None:
    rewards = [kind(form="r1_opened") for kind in (FormatReward, AccuracyReward, LanguageConsistencyReward)]
    good = Completion("First add.\n</think>\n答案是\\boxed{5}", 9, True)
    assert [reward(PROBLEM, good).score for reward in rewards] == [1.0, 1.0, 1.0]  # the summary is not the thinking
    again = Completion("<think>First add.</think>5", 9, True)
    assert rewards[0](PROBLEM, again).reason == "more than one think block"
