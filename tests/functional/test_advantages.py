"""Group-relative advantages (DeepSeekMath section 4.1.2; R1 eq 3)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from r1_lightning.functional.advantages import (
    SCALES,
    SPREAD_FLOOR,
    group_relative_advantages,
    leave_one_out_advantages,
    per_token,
    process_advantages,
    zero_variance_groups,
)


def _rewards(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))


def test_literal_numbers():
    # Rewards 1, 0, 0, 1: mean 1/2, population std 1/2: advantages +1, -1, -1, +1.
    # Sample std: sqrt(4 * 1/4 / 3) = 1 / sqrt 3 = 0.5773503: advantages +-0.8660254.
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert group_relative_advantages(rewards).tolist() == [[1.0, -1.0, -1.0, 1.0]]
    expected = [math.sqrt(3) / 2 * sign for sign in (1, -1, -1, 1)]
    assert group_relative_advantages(rewards, "sample")[0].tolist() == pytest.approx(expected, abs=1e-6)
    # One right of four: mean 1/4, std sqrt(3)/4: the right one gets 3/4 / (sqrt(3)/4) = sqrt 3, others -1/sqrt 3.
    one_right = group_relative_advantages(torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    assert one_right[0].tolist() == pytest.approx([-0.5773503, -0.5773503, 1.7320508, -0.5773503], abs=1e-6)


@pytest.mark.parametrize(("scale", "ddof"), [("population", 0), ("sample", 1)])
def test_against_numpy_each_group_alone(scale, ddof):
    rewards = _rewards()
    advantages = group_relative_advantages(rewards, scale)
    for group, result in zip(rewards.double().numpy(), advantages.numpy(), strict=True):
        np.testing.assert_allclose(result, (group - group.mean()) / group.std(ddof=ddof), atol=1e-5)


def test_each_group_has_mean_zero_and_std_one():
    advantages = group_relative_advantages(_rewards())
    assert advantages.mean(1).abs().max() < 1e-6
    assert (advantages.std(1, correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.7, 1e8])
@pytest.mark.parametrize("scale", SCALES)
def test_equal_rewards_give_exactly_zero(value, scale):
    # 0.1 seven times has a mean that is not 0.1 in floating point: without care the advantages would be noise.
    rewards = torch.full((2, 7), value)
    rewards[1, 3] += 1.0 + abs(value)
    advantages = group_relative_advantages(rewards, scale)
    assert advantages[0].tolist() == [0.0] * 7
    assert advantages[1].abs().min() > 0
    assert zero_variance_groups(rewards).tolist() == [True, False]


# Sixteen scores of one text, as FP32 gives them in other company: one or two units in the last place apart (2^-24 at 0.5). Then
# the same of a raw score of 31, of a sum of two scores, of rewards that cancel in float64, and of a negative score.
ULP = 2.0**-24
ROUNDING = {
    "sigmoid": [0.5 + ULP * (i % 3) for i in range(16)],
    "one of sixteen": [0.7310586] * 15 + [0.7310586 + 2 * ULP],
    "raw": [31.0 + 32 * ULP * (i % 4) for i in range(16)],
    "with accuracy": [1.0 + 0.3 + 2 * ULP * (i % 2) for i in range(16)],
    "cancelled": [0.1 * 3 - 0.3] * 3 + [0.0] * 13,
    "negative": [-7.25 - 8 * ULP * (i % 5) for i in range(16)],
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ROUNDING)
def test_a_spread_that_is_rounding_is_none(kind, scale):
    rewards = torch.tensor([ROUNDING[kind]])
    assert len(rewards.unique()) > 1, "the case must hold a spread"
    assert zero_variance_groups(rewards).tolist() == [True]
    assert group_relative_advantages(rewards, scale).tolist() == [[0.0] * 16]
    assert zero_variance_groups(rewards.flip(1)).tolist() == [True]


@pytest.mark.parametrize("level", [1e-9, 0.5, 1.0, 3.0, 100.0])
def test_the_floor_is_where_it_says_and_relative_to_the_rewards(level):
    """Half of the floor is nothing, twice as much is scaled like any other spread: +1 and -1 of a pair."""
    floor = SPREAD_FLOOR * max(level, 1.0)
    below, above = (torch.tensor([[level, level + factor * floor]], dtype=torch.float64) for factor in (0.5, 2.0))
    assert group_relative_advantages(below).tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(
        group_relative_advantages(above), torch.tensor([[-1.0, 1.0]]).double(), atol=1e-6, rtol=0
    )
    assert zero_variance_groups(torch.cat([below, above])).tolist() == [True, False]


def test_the_least_that_a_rule_tells_apart_is_above_the_floor():
    """A language share of 65,536 words, one of them foreign, beside one without, and other rewards of 2 with it."""
    rewards = 2.0 + torch.tensor([[1.0, 1.0 - 1 / 65_536]])
    torch.testing.assert_close(group_relative_advantages(rewards), torch.tensor([[1.0, -1.0]]), atol=1e-5, rtol=0)


def test_steps_whose_spread_is_rounding_say_nothing():
    rows, ends = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    assert process_advantages(torch.tensor([0.5, 0.5 + ULP, 0.5]), rows, ends, 2, (2, 2)).tolist() == [[0.0, 0.0]] * 2


def test_a_group_with_a_reward_that_is_no_number_is_not_of_zero_variance():
    assert zero_variance_groups(torch.tensor([[math.nan, 1.0], [1.0, math.nan]])).tolist() == [False, False]


def test_a_group_of_one_says_nothing():
    assert group_relative_advantages(torch.tensor([[0.7]])).tolist() == [[0.0]]


def test_order_within_a_group_goes_with_the_rewards():
    rewards = _rewards()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    shuffled = group_relative_advantages(rewards[:, order])
    torch.testing.assert_close(shuffled, group_relative_advantages(rewards)[:, order], atol=1e-6, rtol=0)


def test_shift_and_scale_of_the_rewards_do_not_matter():
    rewards = _rewards()
    torch.testing.assert_close(
        group_relative_advantages(0.25 * rewards - 3.0), group_relative_advantages(rewards), atol=1e-5, rtol=0
    )


def test_groups_do_not_influence_each_other():
    rewards = _rewards()
    parts = torch.cat([group_relative_advantages(rewards[:2]), group_relative_advantages(rewards[2:])])
    assert torch.equal(parts, group_relative_advantages(rewards))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_reward_that_is_no_number_is_named(bad):
    rewards = _rewards()
    rewards[3, 5] = bad
    with pytest.raises(ValueError, match="prompt 3, completion 5"):
        group_relative_advantages(rewards)


def test_without_a_scale_it_is_dr_grpos_difference_to_the_mean():
    # Rewards 1, 0, 0, 1 and 0.9, 0.1: means 1/2; differences +-0.5 and +-0.4.
    assert group_relative_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), "none").tolist() == [[0.5, -0.5, -0.5, 0.5]]
    small = group_relative_advantages(torch.tensor([[0.9, 0.1]]), "none")
    torch.testing.assert_close(small, torch.tensor([[0.4, -0.4]]))


def test_leave_one_out_literal_numbers_and_by_loops() -> None:
    # 1 0 0 1: the first against (0 + 0 + 1) / 3: 2/3; the second against (1 + 0 + 1) / 3: -2/3.
    found = leave_one_out_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[2 / 3, -2 / 3, -2 / 3, 2 / 3]]))
    rewards = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = torch.stack([rewards[:, [j for j in range(5) if j != i]].mean(1) for i in range(5)], 1)
    torch.testing.assert_close(leave_one_out_advantages(rewards), rewards - others)
    assert leave_one_out_advantages(torch.full((1, 4), 0.1)).tolist() == [[0.0] * 4]


def test_every_token_of_a_completion_shares_its_advantage():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert per_token(torch.tensor([[2.0, -1.0]]), mask).tolist() == [[2.0, 2.0, 0.0], [-1.0, -1.0, -1.0]]


# ------------------------------------------------------------------------------------------------- process supervision


def test_process_supervision_literal_numbers():
    # One group of two completions. Completion 0 has steps ending at tokens 1 and 3 with rewards 1 and 0, completion 1 one
    # step ending at token 2 with reward 1, and a step of reward 0 at token 4. Mean 1/2, population std 1/2: +1, -1, +1, -1.
    # Completion 0: tokens 0-1 get 1 - 1 = 0, tokens 2-3 get -1, token 4 is after its last step: 0.
    # Completion 1: tokens 0-2 get 1 - 1 = 0, tokens 3-4 get -1.
    rewards, rows, ends = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 3, 2, 4])
    advantages = process_advantages(rewards, rows, ends, group_size=2, shape=(2, 5))
    assert advantages.tolist() == [[0.0, 0.0, -1.0, -1.0, 0.0], [0.0, 0.0, 0.0, -1.0, -1.0]]


@pytest.mark.parametrize(("scale", "ddof"), [("population", 0), ("sample", 1)])
def test_process_supervision_against_the_printed_sums(scale, ddof):
    """DeepSeekMath section 4.1.3 as loops: normalise over the group's steps, then sum over index(j) >= t."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, 6, 30))  # two groups of three completions
    ends, rewards = rng.integers(0, 9, 30), rng.normal(size=30)
    expected = np.zeros((6, 9))
    for row in range(6):
        in_group = rows // 3 == row // 3
        mean, std = rewards[in_group].mean(), rewards[in_group].std(ddof=ddof)
        for t in range(9):
            later = (rows == row) & (ends >= t)
            expected[row, t] = ((rewards[later] - mean) / std).sum()
    found = process_advantages(*map(torch.from_numpy, (rewards, rows, ends)), 3, (6, 9), scale)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_one_step_at_the_end_of_each_completion_is_outcome_supervision():
    rewards = _rewards()
    mask = torch.arange(7)[None, :] < torch.randint(1, 8, (40, 1), generator=torch.Generator().manual_seed(1))
    ends = mask.sum(1) - 1
    process = process_advantages(rewards.flatten(), torch.arange(40), ends, 8, (40, 7))
    torch.testing.assert_close(process, per_token(group_relative_advantages(rewards), mask), atol=1e-6, rtol=0)


def test_steps_that_are_all_alike_say_nothing_and_nan_is_refused():
    rows, ends = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    assert process_advantages(torch.full((3,), 0.1), rows, ends, 2, (2, 2)).abs().max() == 0.0
    with pytest.raises(ValueError, match="not finite"):
        process_advantages(torch.tensor([0.0, math.nan, 1.0]), rows, ends, 2, (2, 2))
