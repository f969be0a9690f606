"""Pairs of a model's own completions that another model has judged: kept by their gap, counted, the same after a resume."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from r1_lightning.rollout import judged_preferences
from r1_lightning.rollout.judged_preferences import ALIKE, JudgedPreferences
from r1_lightning.rollout.pair_judge import UNREADABLE
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import Processes
from tests.rollout.test_pair_judge import judge, shown
from tests.support.miniature import CharTokenizer, Miniature, Sums, backbone
from tests.support.processes import in_processes


def digits(text: str) -> int:
    """The score of a response, 1 to 9: how many digits are in it."""
    return 1 + min(8, len(re.findall(r"\d", text)))


def counting(prompt: str) -> str:
    a, b = map(digits, shown(prompt))
    return f"Scores: A={a}, B={b}"


def judged(
    reply: Callable[[str], str | None] = counting, gap: float = 1.0, samples: int = 2, part: str = "whole"
) -> JudgedPreferences:
    tokenizer: Any = CharTokenizer()
    generate = Miniature(model=backbone(0)).sampler()
    return JudgedPreferences(Sums(), generate, tokenizer, PLAIN, judge(reply)[0], samples, part, gap)


def test_pairs_by_hand() -> None:
    """Kept are exactly the pairs of which the judge's scores differ by more than 1, the better first."""
    pairs = judged().training_items(0, 12)
    assert len(pairs) == 12
    for pair in pairs:
        assert pair.score_gap == digits(pair.chosen) - digits(pair.rejected) and pair.score_gap > 1.0
    stream = [Sums().train_problem(0, index).question for index in range(500)]
    order = [stream.index(pair.question) for pair in pairs]
    assert order == sorted(set(order)), "one pair per problem, along the stream"
    wider = judged(gap=3.0).training_items(0, 6)
    assert all((pair.score_gap or 0.0) > 3.0 for pair in wider)


def test_every_problem_is_accounted_for() -> None:
    source = judged()
    pairs = source.held_out_items(60)
    apart = "the judge's scores differ by no more than 1"
    assert set(source.left_out) <= {ALIKE, apart} and source.left_out[apart] > 0
    assert len(pairs) + source.left_out.total() == 60
    assert source.replies["all"] == 4 * (60 - source.left_out[ALIKE]) and source.replies["unreadable"] == 0


def test_the_same_pairs_again_and_fewer_are_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = judged().training_items(0, 8)
    assert judged().training_items(0, 8) == pairs and judged().training_items(0, 3) == pairs[:3]
    again = judged()
    again.held_out_items(5)
    monkeypatch.setattr(
        judged_preferences, "PROBLEMS_PER_CALL", 40
    )  # in another number of calls, after another question
    assert again.training_items(0, 8) == pairs
    assert judged().training_items(1, 8) != pairs


def test_more_samples_are_more_that_differ() -> None:
    few, many = judged(samples=2), judged(samples=6)
    few.held_out_items(60)
    many.held_out_items(60)
    assert many.left_out[ALIKE] <= few.left_out[ALIKE]


def test_a_judge_that_prefers_the_first_place_gives_no_pair() -> None:
    with pytest.raises(
        InvalidInput, match=r"gave 0 judged pairs of the 3 wanted; left out: .*differ by no more than 1"
    ):
        judged(lambda prompt: "Scores: A=9, B=2").training_items(0, 3)
    with pytest.raises(InvalidInput, match=r"5 held-out problems gave no judged pair; .*0 of \d+ replies"):
        judged(lambda prompt: "Scores: A=9, B=2").held_out_items(5)


def test_a_judge_that_says_nothing_gives_no_pair_and_is_not_asked_for_ever() -> None:
    source = judged(lambda prompt: "hm")
    with pytest.raises(InvalidInput, match="128 problems gave 0 judged pairs of the 100000 wanted") as refused:
        source.training_items(0, 100_000)
    asked = source.replies["all"]
    assert 0 < asked <= 4 * 128 and f"{asked // 4} ({UNREADABLE}), " in str(refused.value)
    assert str(refused.value).endswith(f"; {asked} of {asked} replies of the judge cannot be read")


def test_one_unreadable_reply_leaves_out_its_pair_only() -> None:
    chosen = [pair.question for pair in judged().held_out_items(60)]
    spoilt = judged(lambda prompt: "hm" if f"\n{chosen[0]}\n" in prompt else counting(prompt))
    assert [pair.question for pair in spoilt.held_out_items(60)] == chosen[1:]
    assert spoilt.left_out[UNREADABLE] == 1 and spoilt.replies["unreadable"] == 4


def _together(processes: Processes) -> Any:
    source = replace(judged(), processes=processes)
    return source.held_out_items(60), dict(source.left_out), dict(source.replies)


def test_several_processes_judge_the_pairs_of_one() -> None:
    """Pairs, what was left out and the replies of the judge."""
    (expected,) = in_processes(1, _together)
    assert in_processes(2, _together) == [expected] * 2
