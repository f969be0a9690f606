"""Masked cross-entropy, and the weight of MTP losses (V3 eq 23-25)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from r1_lightning.functional.cross_entropy import masked_cross_entropy, mtp_loss
from r1_lightning.functional.logprobs import token_logprobs


def _loss(logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return masked_cross_entropy(token_logprobs(logits, targets, 1.0), mask)


def _random(n: int = 8, v: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, v, generator=generator)
    targets = torch.randint(v, (n,), generator=generator)
    mask = torch.tensor([True, False, True, True, False, True, True, True])
    return logits, targets, mask


def test_literal_numbers():
    # Token 0: logits 0, ln 3, target 1: -ln 3/4 = 0.2876821. Token 1: equal logits: ln 2 = 0.6931472. Token 2 is
    # masked. Mean of two: 0.4904146.
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0], [0.0, 9.0]])
    loss = _loss(logits, torch.tensor([1, 0, 0]), torch.tensor([True, True, False]))
    assert loss.item() == pytest.approx(0.4904146, abs=1e-6)


def test_nothing_to_predict_costs_nothing():
    logits, targets, _ = _random()
    logits.requires_grad_()
    loss = _loss(logits, targets, torch.zeros(8, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.abs().max() == 0.0


def test_masked_tokens_change_neither_loss_nor_gradient():
    logits, targets, mask = _random()
    other_logits = torch.where(mask.unsqueeze(1), logits, logits + 100.0 * torch.randn_like(logits))
    other_targets = torch.where(mask, targets, (targets + 1) % 7)
    logits.requires_grad_()
    other_logits.requires_grad_()
    loss = _loss(logits, targets, mask)
    other = _loss(other_logits, other_targets, mask)
    loss.backward()
    other.backward()
    assert loss.item() == other.item()
    assert torch.equal(logits.grad, other_logits.grad)
    assert logits.grad[~mask].abs().max() == 0.0


def test_against_numpy_in_double_precision():
    logits, targets, mask = _random()
    z = logits.numpy().astype(np.float64)
    nll = np.log(np.exp(z).sum(-1)) - z[np.arange(8), targets.numpy()]
    assert _loss(logits, targets, mask).item() == pytest.approx(nll[mask.numpy()].mean(), abs=1e-6)


def test_gradient_is_probability_minus_one_hot_over_the_count():
    logits, targets, mask = _random()
    logits.requires_grad_()
    _loss(logits, targets, mask).backward()
    one_hot = torch.nn.functional.one_hot(targets, 7)
    expected = (logits.detach().softmax(-1) - one_hot) * mask.unsqueeze(1) / 6  # six tokens count
    torch.testing.assert_close(logits.grad, expected, atol=1e-6, rtol=0)


def test_order_of_tokens_does_not_matter():
    logits, targets, mask = _random()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    shuffled = _loss(logits[order], targets[order], mask[order])
    torch.testing.assert_close(shuffled, _loss(logits, targets, mask), atol=1e-6, rtol=0)


def test_micro_batches_weighted_by_their_tokens_equal_the_batch():
    logits, targets, mask = _random()
    whole = _loss(logits, targets, mask)
    parts = [(_loss(logits[s], targets[s], mask[s]), mask[s].sum()) for s in (slice(0, 3), slice(3, 8))]
    joined = sum(loss * count for loss, count in parts) / mask.sum()
    torch.testing.assert_close(joined, whole, atol=1e-6, rtol=0)


def test_mtp_loss_is_lambda_over_depth_times_the_sum():
    # 0.3 / 2 * (1.0 + 2.0) = 0.45
    assert mtp_loss([torch.tensor(1.0), torch.tensor(2.0)], 0.3).item() == pytest.approx(0.45, abs=1e-7)
    assert mtp_loss([torch.tensor(4.0)], 0.1).item() == pytest.approx(0.4, abs=1e-7)
    assert mtp_loss([], 0.3).item() == 0.0


def test_mtp_gradient_reaches_every_depth_equally():
    depths = [torch.tensor(float(i), requires_grad=True) for i in range(3)]
    mtp_loss(depths, 0.3).backward()
    assert [depth.grad.item() for depth in depths] == pytest.approx([0.1, 0.1, 0.1], abs=1e-7)


def test_parts_of_a_step_add_up_to_its_mean() -> None:
    """Log-probs -1, -2 | -6 and a masked one; 3 tokens in the whole step: (1 + 2) / 3 + 6 / 3 = 9 / 3."""
    three = torch.tensor(3)
    first = masked_cross_entropy(torch.tensor([-1.0, -2.0]), torch.tensor([True, True]), three)
    second = masked_cross_entropy(torch.tensor([-6.0, -100.0]), torch.tensor([True, False]), three)
    assert (float(first), float(second)) == (1.0, 2.0)
    assert float(masked_cross_entropy(torch.tensor([-1.0]), torch.tensor([False]), torch.tensor(0))) == 0.0
