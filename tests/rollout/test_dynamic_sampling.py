"""Dynamic sampling by hand: which groups are kept, in which order, and what happens when attempts run out."""

from __future__ import annotations

import dataclasses

import torch

from r1_lightning.rollout.dynamic_sampling import joined_rollouts, select_groups, until_informative
from r1_lightning.rollout.results import Rollout
from tests.rollout.fakes import rollout_of

EQUAL, DIFFERENT = [1.0, 1.0], [0.0, 1.0]
PAD = 0


def drawn(*rewards: list[float], first: int = 0) -> Rollout:
    """Groups of two with these rewards; group g's prompt and completions start with first + g."""
    prompts = [[10 * (first + g)] for g in range(len(rewards))]
    completions = [[10 * (first + g) + 1 + i] * (1 + i) for g in range(len(rewards)) for i in range(2)]
    return rollout_of(prompts, completions, torch.tensor(rewards))


class Draws:
    """Gives prepared rollouts and counts how many were asked for."""

    def __init__(self, *rollouts: Rollout) -> None:
        self.rollouts, self.asked = rollouts, 0

    def __call__(self, attempt: int) -> Rollout:
        assert attempt == self.asked
        self.asked += 1
        return self.rollouts[attempt]


def starts(rollout: Rollout) -> list[int]:
    return [prompt[0] for prompt in rollout.prompts]


def test_nothing_more_is_drawn_when_every_group_teaches() -> None:
    draws = Draws(drawn(DIFFERENT, DIFFERENT))
    rollout = until_informative(draws, 2, 5, PAD)
    assert draws.asked == 1 and starts(rollout) == [0, 10] and rollout.drawn_groups == 2


def test_groups_that_differ_are_kept_until_there_are_enough() -> None:
    draws = Draws(drawn(EQUAL, DIFFERENT), drawn(EQUAL, EQUAL, first=2), drawn(DIFFERENT, DIFFERENT, first=4))
    rollout = until_informative(draws, 2, 5, PAD)
    assert draws.asked == 3 and starts(rollout) == [10, 40] and rollout.drawn_groups == 6
    assert rollout.zero_variance_fraction == 0.0
    assert rollout.rewards.tolist() == [DIFFERENT, DIFFERENT]
    assert rollout.generation.completion_ids.tolist() == [[11, 0], [12, 12], [41, 0], [42, 42]]
    assert len(rollout.problems) == len(rollout.texts) / 2 == 2


def test_when_attempts_run_out_the_others_are_taken_after_all() -> None:
    draws = Draws(drawn(EQUAL, DIFFERENT), drawn(EQUAL, EQUAL, first=2))
    rollout = until_informative(draws, 3, 2, PAD)
    assert starts(rollout) == [10, 0, 20] and round(3 * rollout.zero_variance_fraction) == 2


def test_a_group_that_could_not_be_judged_teaches_nothing() -> None:
    rollout = until_informative(Draws(drawn([float("nan"), 1.0], DIFFERENT)), 1, 1, PAD)
    assert starts(rollout) == [10]


def test_a_group_of_which_only_masked_completions_differ_teaches_nothing() -> None:
    """The second group's only advantages are of completions that were cut off; the third has one that ended."""
    draw = drawn(EQUAL, DIFFERENT, DIFFERENT)
    finished = torch.tensor([True, True, False, False, False, True])
    cut = dataclasses.replace(draw, generation=dataclasses.replace(draw.generation, finished=finished))
    assert starts(until_informative(Draws(cut), 3, 1, PAD, train_on_truncated=False)) == [20, 0, 10]
    assert starts(until_informative(Draws(cut), 3, 1, PAD)) == [10, 20, 0]
    # Of the second group the completion that ended has the mean reward, and so an advantage of 0.
    ended = dataclasses.replace(cut.generation, finished=torch.tensor([True, True, False, True, False, False]))
    zero = cut.advantages.clone()
    zero[3] = 0.0
    even = dataclasses.replace(cut, generation=ended, advantages=zero)
    assert starts(until_informative(Draws(even), 1, 1, PAD, train_on_truncated=False)) == [0]


def test_selecting_and_joining_keep_every_row_with_its_own_numbers() -> None:
    """The advantages of the fakes are row numbers: rows 2 and 3 belong to the second group."""
    whole = drawn(EQUAL, DIFFERENT, EQUAL)
    second = select_groups(whole, torch.tensor([False, True, False]))
    assert second.advantages.tolist() == [[2.0, 0.0], [3.0, 3.0]]
    assert second.parts["accuracy"].tolist() == [DIFFERENT]
    assert second.reasons == {"accuracy": ["row 2", "row 3"]}
    torch.testing.assert_close(second.generation.policy_logprobs, whole.generation.policy_logprobs[2:4])
    again = joined_rollouts(
        [select_groups(whole, torch.tensor(keep)) for keep in ([True, True, False], [False, False, True])], PAD
    )
    assert starts(again) == starts(whole)
    assert again.reasons == whole.reasons == {"accuracy": [f"row {row}" for row in range(6)]}
    assert torch.equal(again.advantages, whole.advantages) and torch.equal(again.rewards, whole.rewards)
    assert torch.equal(again.generation.completion_ids, whole.generation.completion_ids)
