"""Expert load, the sequence-wise balance loss (V3 eq 17-20), and the bias update (V3 section 2.1.2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from r1_lightning.functional.expert_balance import (
    count_expert_load,
    max_violation,
    sequence_balance_loss,
    updated_expert_bias,
)


def _scores(rows: int = 3, positions: int = 10, experts: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Affinities in (0, 1), and rows of different length (row b has b * 3 tokens of padding at its end)."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, positions, experts, generator=generator, dtype=torch.float64)
    is_token = torch.arange(positions) < positions - 3 * torch.arange(rows).unsqueeze(1)
    return scores, is_token


# --------------------------------------------------------------------------------------------------------------- load


def test_load_literal_numbers():
    # Tokens choose (0, 2), (2, 3), and a padding token (2, 2) that must not count.
    routes, is_token = torch.tensor([[[0, 2], [2, 3], [2, 2]]]), torch.tensor([[True, True, False]])
    load = count_expert_load(routes, is_token, 5)
    assert load.tolist() == [1, 0, 2, 1, 0]
    assert load.dtype == torch.int64


def test_load_adds_up_over_micro_batches_and_to_tokens_times_chosen():
    scores, is_token = _scores()
    routes = scores.topk(2, dim=-1).indices
    load = count_expert_load(routes, is_token, 6)
    parts = [count_expert_load(routes[b : b + 1], is_token[b : b + 1], 6) for b in range(3)]
    assert torch.equal(sum(parts), load)
    assert load.sum() == 2 * is_token.sum()
    assert torch.equal(load, torch.bincount(routes[is_token].flatten(), minlength=6))


def test_load_of_nothing_is_zero():
    assert count_expert_load(torch.zeros(2, 3, 1, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool), 4).sum() == 0


def test_a_token_that_stands_for_several_counts_as_often() -> None:
    """Tokens of experts (0, 1), (1, 2) and (2, 0), counted 3, 1 and 0 times: 3, 4 and 1."""
    routes, times = torch.tensor([[[0, 1], [1, 2], [2, 0]]]), torch.tensor([[3, 1, 0]])
    assert count_expert_load(routes, times, 4).tolist() == [3, 4, 1, 0]


# ------------------------------------------------------------------------------------------------------- balance loss


def test_balance_loss_literal_numbers():
    # One sequence, 2 tokens, 2 experts, K = 1. Affinities (0.6, 0.2) and (0.9, 0.3): both tokens choose expert 0.
    # f_0 = 2 / (1 * 2) * 2 = 2, f_1 = 0. s' = (0.75, 0.25) for both, P_0 = 0.75. Loss = 2 * 0.75 = 1.5.
    scores = torch.tensor([[[0.6, 0.2], [0.9, 0.3]]])
    loss = sequence_balance_loss(scores, torch.ones(1, 2, dtype=torch.bool), 1)
    assert loss.item() == pytest.approx(1.5, abs=1e-6)
    # If the second token prefers expert 1 by as much: f = (1, 1), P = (0.5, 0.5): 1, perfect balance.
    even = sequence_balance_loss(torch.tensor([[[0.6, 0.2], [0.3, 0.9]]]), torch.ones(1, 2, dtype=torch.bool), 1)
    assert even.item() == pytest.approx(1.0, abs=1e-6)


def _numpy_balance_loss(scores: np.ndarray, n_chosen: int) -> float:
    """V3 eq 17-20 for one sequence of T tokens without padding, as loops and without alpha."""
    n_tokens, n_experts = scores.shape
    loss = 0.0
    for i in range(n_experts):
        chosen = sum(i in np.argsort(-scores[t])[:n_chosen] for t in range(n_tokens))
        frequency = n_experts / (n_chosen * n_tokens) * chosen
        share = np.mean([scores[t, i] / scores[t].sum() for t in range(n_tokens)])
        loss += frequency * share
    return loss


@pytest.mark.parametrize("n_chosen", [1, 2, 4])
def test_balance_loss_against_numpy_loops(n_chosen):
    scores, is_token = _scores()
    expected = np.mean([_numpy_balance_loss(s[m].numpy(), n_chosen) for s, m in zip(scores, is_token, strict=True)])
    assert sequence_balance_loss(scores, is_token, n_chosen).item() == pytest.approx(expected, abs=1e-12)


def test_balance_loss_ignores_padding_and_empty_rows():
    scores, is_token = _scores()
    other = torch.where(is_token.unsqueeze(-1), scores, torch.rand_like(scores))
    extra_row = torch.cat([other, torch.rand(1, 10, 6, dtype=torch.float64)])
    extra_mask = torch.cat([is_token, torch.zeros(1, 10, dtype=torch.bool)])
    expected = sequence_balance_loss(scores, is_token, 2)
    torch.testing.assert_close(sequence_balance_loss(extra_row, extra_mask, 2), expected, atol=1e-12, rtol=0)
    assert sequence_balance_loss(other, torch.zeros_like(is_token), 2).item() == 0.0


def test_balance_loss_does_not_care_about_the_order_of_tokens_or_experts():
    scores, _ = _scores()
    is_token = torch.ones(3, 10, dtype=torch.bool)
    generator = torch.Generator().manual_seed(3)
    shuffled = scores[:, torch.randperm(10, generator=generator)][..., torch.randperm(6, generator=generator)]
    expected = sequence_balance_loss(scores, is_token, 2)
    torch.testing.assert_close(sequence_balance_loss(shuffled, is_token, 2), expected, atol=1e-12, rtol=0)


def test_balance_loss_of_two_micro_batches_is_their_mean_by_sequences():
    scores, is_token = _scores()
    one, two = (sequence_balance_loss(scores[s], is_token[s], 2) for s in (slice(0, 1), slice(1, 3)))
    expected = sequence_balance_loss(scores, is_token, 2)
    torch.testing.assert_close((one + 2 * two) / 3, expected, atol=1e-12, rtol=0)


def test_balance_loss_gradient():
    scores, is_token = _scores()
    assert torch.autograd.gradcheck(lambda s: sequence_balance_loss(s, is_token, 2), (scores.requires_grad_(),))


def test_a_step_down_the_balance_loss_makes_the_busy_expert_less_attractive():
    scores = torch.full((1, 8, 4), 0.3)
    scores[..., 2] = 0.6  # everybody chooses expert 2
    scores.requires_grad_()
    sequence_balance_loss(scores, torch.ones(1, 8, dtype=torch.bool), 1).backward()
    assert (scores.grad[..., 2] > 0).all()
    assert (scores.grad[..., [0, 1, 3]] < 0).all()


# -------------------------------------------------------------------------------------------------------- bias update


def test_bias_update_literal_numbers():
    # Layer 0: loads 5, 1, 3, mean 3: the first is overloaded (-), the second underloaded (+), the third even.
    # Layer 1: loads 0, 0, 3, mean 1.
    bias = torch.tensor([[0.1, 0.2, -0.3], [0.0, 0.0, 0.0]])
    load = torch.tensor([[5, 1, 3], [0, 0, 3]])
    expected = torch.tensor([[0.099, 0.201, -0.3], [0.001, 0.001, -0.001]])
    torch.testing.assert_close(updated_expert_bias(bias, load, 0.001), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("mean", [2**24 + 1, 2**27 + 3, 150_994_945, 2**31 + 1, 3 * 2**24 + 1])
def test_bias_update_counts_every_token_of_a_large_batch(mean):
    """512 completions of 32,768 tokens with 8 experts each are 1.3e8 choices. FP32 counts whole tokens up to 2^24 = 1.7e7."""
    load = torch.tensor([[mean + 1, mean - 1, mean, mean]])
    bias = updated_expert_bias(torch.zeros(1, 4), load, 0.5)
    assert bias.tolist() == [[-0.5, 0.5, 0.0, 0.0]]


def test_bias_update_leaves_its_input_alone_and_stops_at_speed_zero():
    bias, load = torch.randn(2, 4), torch.tensor([[4, 0, 0, 0], [1, 1, 1, 1]])
    before = bias.clone()
    assert torch.equal(updated_expert_bias(bias, load, 0.0), before)
    assert torch.equal(updated_expert_bias(bias, load, 0.1)[1], before[1])  # an even layer stays
    assert torch.equal(bias, before)


def test_repeated_updates_balance_a_skewed_router():
    scores = torch.rand(1, 400, 8, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.3, 1.0, 8)
    is_token, bias = torch.ones(1, 400, dtype=torch.bool), torch.zeros(1, 8)

    def load() -> Tensor:
        return count_expert_load((scores + bias[0]).topk(2, dim=-1).indices, is_token, 8).unsqueeze(0)

    before = max_violation(load()).item()
    for _ in range(300):
        bias = updated_expert_bias(bias, load(), 0.005)
    assert before > 0.8
    assert max_violation(load()).item() < 0.15


def test_max_violation_literal_numbers():
    # Loads 2, 4, 6, 0: mean 3, max 6: (6 - 3) / 3 = 1. Even loads: 0. No load at all: 0, and no division by zero.
    load = torch.tensor([[2, 4, 6, 0], [5, 5, 5, 5], [0, 0, 0, 0]])
    assert max_violation(load).tolist() == [1.0, 0.0, 0.0]
