"""Advantage estimators by hand on six completions: outcome and process supervision, leave-one-out, and one of somebody's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.advantage_estimators import (
    AdvantageEstimator,
    GroupRelative,
    LeaveOneOut,
    StepRelative,
    estimate_of,
    estimator_of,
    last_token,
)
from r1_lightning.rollout.judging import judge
from r1_lightning.rollout.results import JudgedSamples
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem, StepVerdict
from tests.rollout.letters import EOS, GENERATION, SAMPLES, A, B, C, Letters, Matches


def advantages_of(reward: WeightedSum, chosen: AdvantageEstimator | None = None) -> Tensor:
    """What a rollout's maker does with judged samples."""
    tokenizer: Any = Letters()
    return estimate_of(estimator_of(chosen, "population", reward, tokenizer), judge(SAMPLES, reward)).advantages


@pytest.mark.parametrize(("scale", "std"), [("population", 0.5), ("none", 1.0)])
def test_outcome_supervision_by_hand(scale: str, std: float) -> None:
    """Rewards 1 0 0 and 1 1 0 minus their means, over the std where it is asked for; 0 outside of completions."""
    advantages = advantages_of(WeightedSum([Matches()]), GroupRelative(scale))
    by_row = torch.tensor([2 / 3, -1 / 3, -1 / 3, 1 / 3, 1 / 3, -2 / 3])
    if scale == "population":
        by_row = by_row / (2**0.5 / 3)
    torch.testing.assert_close(advantages, by_row[:, None] * GENERATION.completion_mask)


class EveryA:
    """A step ends after each letter a; it is worth 1 where it is the first letter."""

    def __call__(self, problem: Problem, completion: Completion) -> Sequence[StepVerdict]:
        return [StepVerdict(i + 1, float(i == 0), "") for i, letter in enumerate(completion.text) if letter == "a"]


def test_process_supervision_by_hand() -> None:
    """Group 0: "a" has steps 1 (token 0) and its outcome 1 (token 1); "b" its outcome 0 (token 1); "aaa", cut off, has steps
    1, 0, 0 (tokens 0, 1, 2) and its outcome 0 (token 2). Seven rewards 1 1 0 1 0 0 0: mean 3/7, std sqrt(12)/7.
    """
    advantages = advantages_of(WeightedSum([Matches()], steps=EveryA()))
    high, low = 4 / 12**0.5, -3 / 12**0.5
    expected = [[2 * high, high, 0], [low, low, 0], [high + 3 * low, 3 * low, 2 * low]]
    torch.testing.assert_close(advantages[:3], torch.tensor(expected))
    # Group 1 has no letter a: outcomes 1 1 0 alone, which is outcome supervision.
    torch.testing.assert_close(advantages[3:], advantages_of(WeightedSum([Matches()]))[3:])


def test_the_token_at_which_a_step_ends() -> None:
    tokenizer: Any = Letters()
    assert [last_token([A, B, C, EOS], end, tokenizer) for end in (0, 1, 2, 3, 4)] == [0, 0, 1, 2, 3]
    assert last_token([A], 9, tokenizer) == 0


def test_leave_one_out_by_hand() -> None:
    """Rewards 1 0 0: 1 - 0, then 0 - 1/2 twice; 1 1 0: 1 - 1/2 twice, then 0 - 1. No scale, 0 outside of completions."""
    advantages = advantages_of(WeightedSum([Matches()]), LeaveOneOut())
    by_row = torch.tensor([1.0, -0.5, -0.5, 0.5, 0.5, -1.0])
    torch.testing.assert_close(advantages, by_row[:, None] * GENERATION.completion_mask)


def test_a_group_that_could_not_be_judged_has_no_advantage() -> None:
    """The second group is compared as if the first, with a score that is no number, were not there."""
    judged = judge(SAMPLES, WeightedSum([Matches()]))
    rewards = judged.rewards.clone()
    rewards[0, 1] = float("nan")
    advantages = estimate_of(GroupRelative(), replace(judged, rewards=rewards)).advantages
    assert advantages[:3].abs().max() == 0.0
    low = 0.5**0.5  # accuracies 1 1 0: mean 2/3, population std sqrt(2)/3
    torch.testing.assert_close(
        advantages[3:], torch.tensor([low, low, -2 * low])[:, None] * GENERATION.completion_mask[3:]
    )


def test_an_estimator_of_one_s_own_says_each_token_s_and_only_completions_count() -> None:
    """One that looks at places: what it says of padding is left out."""

    def by_place(samples: JudgedSamples) -> Tensor:
        return torch.arange(samples.generation.completion_mask.shape[1]).float().expand(6, 3) + 1

    expected = [[1, 2, 0], [1, 2, 0], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 0, 0]]
    assert advantages_of(WeightedSum([Matches()]), by_place).tolist() == expected


def test_the_reward_s_steps_decide_where_nothing_is_chosen() -> None:
    tokenizer: Any = Letters()
    steps = WeightedSum([Matches()], steps=EveryA())
    assert estimator_of(None, "none", WeightedSum([Matches()]), tokenizer) == GroupRelative("none")
    assert isinstance(estimator_of(None, "none", steps, tokenizer), StepRelative)
    with pytest.raises(InvalidInput, match=r"^rollout\.advantages='LeaveOneOut' is not allowed: with reward\.steps"):
        estimator_of(LeaveOneOut(), "none", steps, tokenizer)
