"""Generalised advantages against numbers worked out by hand, the definition as loops in NumPy, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from r1_lightning.functional.gae import (
    explained_variance,
    generalised_advantages,
    rewards_to_go,
    token_rewards,
    value_metrics,
    whitened,
)


def mask_of(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def test_two_completions_by_hand() -> None:
    """gamma 1/2, lambda 1/2, so gamma lambda = 1/4.

    First, three tokens, rewards 0 0 1, values 1/2 1/4 1/2:   delta_2 = 1 - 1/2 = 1/2                     A_2 = 1/2
    delta_1 = 0 + 1/2 * 1/2 - 1/4 = 0                         A_1 = 0 + 1/4 * 1/2 = 1/8
    delta_0 = 0 + 1/2 * 1/4 - 1/2 = -3/8                      A_0 = -3/8 + 1/4 * 1/8 = -11/32
    Second, one token, reward -1, value 1/2: A_0 = -3/2; what stands in its padding is not read.
    """
    rewards = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 7.0, 7.0]])
    values = torch.tensor([[0.5, 0.25, 0.5], [0.5, 9.0, float("nan")]])
    found = generalised_advantages(rewards, values, mask_of([3, 1], 3), 0.5, 0.5)
    assert found.tolist() == [[-11 / 32, 1 / 8, 1 / 2], [-3 / 2, 0.0, 0.0]]


def test_lambda_one_is_all_later_rewards_less_the_value_and_lambda_zero_one_step() -> None:
    """Rewards 1 2 4, values 1 1 1, no discount: to go 7 6 4, less 1; one step ahead 1 + 1 - 1, 2 + 1 - 1, 4 + 0 - 1."""
    rewards, values, mask = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3), mask_of([3], 3)
    assert rewards_to_go(rewards, mask).tolist() == [[7.0, 6.0, 4.0]]
    assert generalised_advantages(rewards, values, mask, 1.0).tolist() == [[6.0, 5.0, 3.0]]
    assert generalised_advantages(rewards, values, mask, 0.0).tolist() == [[1.0, 2.0, 3.0]]


def by_definition(rewards: np.ndarray, values: np.ndarray, gae_lambda: float, discount: float) -> np.ndarray:
    """A_t = sum_l (gamma lambda)^l delta_{t+l} of one completion, term by term (Schulman et al. 2015, eq 16)."""
    after = np.append(values[1:], 0.0)
    delta = rewards + discount * after - values
    return np.array(
        [
            sum((discount * gae_lambda) ** step * delta[start + step] for step in range(len(delta) - start))
            for start in range(len(delta))
        ]
    )


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_padded_rows_are_the_definition_of_each_alone(gae_lambda: float, discount: float) -> None:
    draw, lengths, width = np.random.default_rng(0), [7, 1, 4, 0, 9], 9
    rewards, values = draw.normal(size=(5, width)), draw.normal(size=(5, width))
    mask = mask_of(lengths, width)
    given = (torch.from_numpy(rewards), torch.from_numpy(values), mask)
    found = generalised_advantages(*given, gae_lambda, discount).numpy()
    for row, length in enumerate(lengths):
        alone = by_definition(rewards[row, :length], values[row, :length], gae_lambda, discount)
        np.testing.assert_allclose(found[row, :length], alone, rtol=1e-12, atol=1e-14)
        assert not found[row, length:].any()


def test_the_lambda_return_of_perfect_values_is_the_value() -> None:
    """If V is what will come, nothing is better or worse than expected, whatever lambda."""
    rewards, mask = torch.tensor([[0.5, -0.25, 2.0]]), mask_of([3], 3)
    values = rewards_to_go(rewards, mask, 0.5)
    for gae_lambda in (0.0, 0.3, 1.0):
        assert not generalised_advantages(rewards, values, mask, gae_lambda, 0.5).any()


def test_the_reward_comes_with_the_last_token_and_the_penalty_with_each() -> None:
    """beta 1/2, KL 1 -2 4: penalties -1/2 1 -2, and the reward 3 with the last token, or with the only one."""
    kl = torch.tensor([[1.0, -2.0, 4.0], [1.0, 8.0, 8.0], [1.0, 8.0, 8.0]])
    found = token_rewards(torch.tensor([3.0, 3.0, 3.0]), kl, mask_of([3, 1, 0], 3), 0.5)
    assert found.tolist() == [[-0.5, 1.0, 1.0], [2.5, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_whitened_by_hand() -> None:
    """1 2 3 over two rows: mean 2, sample variance 1 (+ 1e-8); the padding is neither read nor changed."""
    mask = mask_of([2, 1], 2)
    found = whitened(torch.tensor([[1.0, 2.0], [3.0, 99.0]]), mask)
    torch.testing.assert_close(found, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("equal", [[[0.3, 0.3]], [[0.3, 0.0]]])
def test_whitening_does_not_blow_up_what_is_equal(equal: list[list[float]]) -> None:
    """Equal advantages, also but for a rounding (2e-7 apart, one variance of 1e-14 beside 1e-8), and a single one."""
    mask = torch.tensor([[True, equal[0][1] != 0]])
    assert float(whitened(torch.tensor(equal), mask).abs().max()) == 0.0
    assert float(whitened(torch.tensor([[0.3, 0.3 + 2e-7]]), mask_of([2], 2)).abs().max()) < 2e-3


def test_explained_variance_by_hand() -> None:
    """Returns 0 2, variance 1. Values 0 1 leave 0 1, variance 1/4; constants explain nothing; the wrong sign leaves 0 4."""
    returns = torch.tensor([0.0, 2.0])
    found = [explained_variance(torch.tensor(v), returns) for v in ([0.0, 2.0], [0.0, 1.0], [5.0, 5.0], [0.0, -2.0])]
    assert found == [1.0, 0.75, 0.0, -3.0]
    assert math.isnan(explained_variance(returns, torch.ones(2))) and math.isnan(
        explained_variance(returns[:0], returns[:0])
    )


def test_metrics_count_tokens_inside_the_mask() -> None:
    """Values 1 3 and returns 2 6: means 2 and 4, Var(1 3) / Var(2 6) = 1/4 is left."""
    values, returns = torch.tensor([[1.0, 50.0], [3.0, 50.0]]), torch.tensor([[2.0, 70.0], [6.0, 70.0]])
    found = value_metrics(values, returns, mask_of([1, 1], 2))
    assert found == {"value/mean": 2.0, "value/return_mean": 4.0, "value/explained_variance": 0.75}
