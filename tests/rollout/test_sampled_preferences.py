"""Pairs of a model's own completions: the better first, one per problem, the same for the same weights and seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout import sampled_preferences
from r1_lightning.rollout.sampled_preferences import SampledPreferences
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import Processes
from r1_lightning.types.text import Completion, Problem, Verdict
from tests.support.miniature import CharTokenizer, HashReward, Miniature, Sums, backbone
from tests.support.processes import in_processes


class AllAlike:
    name = "alike"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(0.5, "whatever")


class Rounding:
    """Scores of one text as FP32 gives them in other company."""

    name = "rounding"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(0.5 + 2.0**-24 * (len(completion.text) % 3), "whatever")


def sampled(reward: Any = None, seed: int = 0, samples: int = 4) -> SampledPreferences:
    tokenizer: Any = CharTokenizer()
    generate = Miniature(model=backbone(seed)).sampler()
    judge = WeightedSum([reward or HashReward()])
    return SampledPreferences(Sums(), generate, tokenizer, PLAIN, judge, samples)


def score(question: str, text: str) -> float:
    return HashReward()(Problem(question, "", ""), Completion(text, 1, True)).score


def test_the_chosen_is_the_best_of_its_problem_s_samples() -> None:
    pairs = sampled().training_items(0, 20)
    assert len(pairs) == 20
    assert all(score(p.question, p.chosen) > score(p.question, p.rejected) for p in pairs)
    stream = [Sums().train_problem(0, index).question for index in range(200)]
    order = [stream.index(pair.question) for pair in pairs]
    assert order == sorted(set(order)), "one pair per problem, along the stream"


def test_the_same_pairs_again_and_fewer_are_their_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = sampled().training_items(0, 12)
    assert sampled().training_items(0, 12) == pairs
    assert sampled().training_items(0, 5) == pairs[:5]
    monkeypatch.setattr(sampled_preferences, "PROBLEMS_PER_CALL", 3)  # in another number of calls
    assert sampled().training_items(0, 12) == pairs
    assert sampled().training_items(1, 12) != pairs
    assert sampled(seed=1).training_items(0, 12) != pairs


def test_held_out_pairs_are_of_held_out_problems() -> None:
    held_out = {problem.question for problem in Sums().held_out_problems(10)}
    pairs = sampled().held_out_items(10)
    assert 0 < len(pairs) <= 10 and {pair.question for pair in pairs} <= held_out


def test_a_reward_that_never_differs_is_one_line() -> None:
    with pytest.raises(InvalidInput, match=r"128 problems with 4 samples each gave 0 pairs of the 3 wanted"):
        sampled(AllAlike()).training_items(0, 3)
    with pytest.raises(InvalidInput, match="gave no pair"):
        sampled(AllAlike()).held_out_items(3)


def test_rounding_makes_no_pair() -> None:
    with pytest.raises(InvalidInput, match="gave 0 pairs"):
        sampled(Rounding()).training_items(0, 3)
    with pytest.raises(InvalidInput, match="gave no pair"):
        sampled(Rounding()).held_out_items(3)


def _together(processes: Processes) -> Any:
    return replace(sampled(), processes=processes).training_items(0, 12)


def test_several_processes_make_the_pairs_of_one() -> None:
    (expected,) = in_processes(1, _together)
    assert in_processes(2, _together) == [expected] * 2
