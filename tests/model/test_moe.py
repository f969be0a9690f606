"""The mixture layer: shared plus routed experts, and what it reports about its routing."""

from __future__ import annotations

import pytest
import torch

from r1_lightning.functional.expert_balance import sequence_balance_loss
from r1_lightning.model.moe import MoE
from r1_lightning.model.precision import PlainPrecision
from tests.model.tiny import normal, randomise, tiny, twins

IS_TOKEN = torch.arange(11) < torch.tensor([[11], [6]])  # the second row ends with five places of padding


def _moe(**changes) -> MoE:
    moe = MoE(tiny(**changes), PlainPrecision())
    randomise(moe, seed=0)
    return moe


@pytest.mark.parametrize("n_shared", [1, 3])
@torch.no_grad()
def test_against_huggingface(n_shared):
    model, twin = twins(tiny(n_shared_experts=n_shared))
    x = normal(2, 11, 32)
    y, _ = model.blocks[1].feed_forward(x, IS_TOKEN)
    torch.testing.assert_close(y, twin.model.layers[1].mlp(x), atol=1e-5, rtol=0)


@torch.no_grad()
def test_output_is_routed_plus_shared():
    moe, x = _moe(), normal(2, 11, 32)
    y, stats = moe(x, IS_TOKEN)
    _, chosen, gates = moe.router(x.flatten(0, 1))
    routed = moe.experts(x.flatten(0, 1), chosen, gates).view_as(x)
    torch.testing.assert_close(y, routed + moe.shared(x), atol=1e-5, rtol=0)
    assert torch.equal(stats.routes, chosen.view(2, 11, 2))
    assert min(routed.std(), moe.shared(x).std()) > 0.1


def test_load_counts_tokens_and_no_padding_in_training():
    moe, x = _moe().train(), normal(2, 11, 32)
    _, stats = moe(x, IS_TOKEN)
    assert torch.equal(stats.load, torch.bincount(stats.routes[IS_TOKEN].flatten(), minlength=8))
    assert stats.load.sum() == 17 * 2


def test_evaluation_counts_nothing():
    moe, x = _moe().eval(), normal(2, 11, 32)
    y, stats = moe(x, IS_TOKEN)
    assert stats.load.tolist() == [0] * 8
    assert stats.balance_loss.item() == 0.0
    assert torch.equal(y, moe.train()(x, IS_TOKEN)[0])


def test_balance_loss_is_alpha_times_the_sequence_wise_loss():
    moe, x = _moe(balance_loss_alpha=0.01).train(), normal(2, 11, 32)
    _, stats = moe(x, IS_TOKEN)
    scores = moe.router(x.flatten(0, 1))[0].view(2, 11, 8)
    expected = 0.01 * sequence_balance_loss(scores, IS_TOKEN, 2)
    torch.testing.assert_close(stats.balance_loss, expected, atol=1e-8, rtol=0)
    assert stats.balance_loss > 0.005
    stats.balance_loss.backward()
    assert moe.router.weight.grad.abs().max() > 0
    assert moe.experts.gate_up.weight.grad is None


def test_alpha_zero_has_no_balance_loss():
    _, stats = _moe(balance_loss_alpha=0.0).train()(normal(2, 11, 32), IS_TOKEN)
    assert stats.balance_loss.item() == 0.0


def test_padding_changes_neither_load_nor_balance_loss():
    moe, x = _moe().train(), normal(2, 11, 32)
    other = torch.where(IS_TOKEN.unsqueeze(-1), x, normal(2, 11, 32, seed=8))
    (y, stats), (other_y, other_stats) = moe(x, IS_TOKEN), moe(other, IS_TOKEN)
    assert torch.equal(stats.load, other_stats.load)
    torch.testing.assert_close(stats.balance_loss, other_stats.balance_loss, atol=1e-8, rtol=0)
    torch.testing.assert_close(y[IS_TOKEN], other_y[IS_TOKEN], atol=1e-5, rtol=0)
