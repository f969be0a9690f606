"""Group-relative advantages (DeepSeekMath section 4.1.2; R1 eq 3)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from r1_lightning.functional.advantages import group_relative_advantages, zero_variance_groups


def _rewards(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))


def test_literal_numbers():
    # Rewards 1, 0, 0, 1: mean 1/2, population std 1/2: advantages +1, -1, -1, +1.
    # Sample std: sqrt(4 * 1/4 / 3) = 1 / sqrt 3 = 0.5773503: advantages +-0.8660254.
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert group_relative_advantages(rewards).tolist() == [[1.0, -1.0, -1.0, 1.0]]
    expected = [math.sqrt(3) / 2 * sign for sign in (1, -1, -1, 1)]
    assert group_relative_advantages(rewards, ddof=1)[0].tolist() == pytest.approx(expected, abs=1e-6)
    # One right of four: mean 1/4, std sqrt(3)/4: the right one gets 3/4 / (sqrt(3)/4) = sqrt 3, others -1/sqrt 3.
    one_right = group_relative_advantages(torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    assert one_right[0].tolist() == pytest.approx([-0.5773503, -0.5773503, 1.7320508, -0.5773503], abs=1e-6)


@pytest.mark.parametrize("ddof", [0, 1])
def test_against_numpy_each_group_alone(ddof):
    rewards = _rewards()
    advantages = group_relative_advantages(rewards, ddof)
    for group, result in zip(rewards.double().numpy(), advantages.numpy(), strict=True):
        np.testing.assert_allclose(result, (group - group.mean()) / group.std(ddof=ddof), atol=1e-5)


def test_each_group_has_mean_zero_and_std_one():
    advantages = group_relative_advantages(_rewards())
    assert advantages.mean(1).abs().max() < 1e-6
    assert (advantages.std(1, correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.7, 1e8])
@pytest.mark.parametrize("ddof", [0, 1])
def test_equal_rewards_give_exactly_zero(value, ddof):
    # 0.1 seven times has a mean that is not 0.1 in floating point: without care the advantages would be noise.
    rewards = torch.full((2, 7), value)
    rewards[1, 3] += 1.0 + abs(value)
    advantages = group_relative_advantages(rewards, ddof)
    assert advantages[0].tolist() == [0.0] * 7
    assert advantages[1].abs().min() > 0
    assert zero_variance_groups(rewards).tolist() == [True, False]


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
