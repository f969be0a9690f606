"""The forms with one ratio per completion; what every form has in common is tested in test_policy_loss.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from r1_lightning.functional.sequence_policy_loss import GSPO, SequenceLevelGRPO
from tests.functional.objectives import LENGTHS, far, sampled, trl_loss, two_sequences, with_gradient


def test_sequence_level_literal_numbers():
    # Ratio of sequence 0: 2 * 1/2 = 1, of sequence 1: 1. k3 of sequence 0: pi_ref/pi = 1/2: 0.1931472; of 1: 0.
    # beta 0.1: J = 1/2 * [ (1 - 0.01931472) + (-3) ] = -1.00965736
    result = SequenceLevelGRPO(clip_eps=0.2, kl_coef=0.1)(two_sequences())
    assert result.loss.item() == pytest.approx(1.00965736, abs=1e-6)
    assert result.metrics["policy/clip_fraction"].item() == 0.0
    assert result.metrics["policy/kl_ref"].item() == pytest.approx(0.1931472 / 2, abs=1e-6)


def test_gspo_literal_numbers():
    # One completion of two tokens with ratios 4 and 1: the geometric mean is 2. A = 1, eps_high 0.5: min(2, 1.5) = 1.5.
    tokens = far(0.0, 0.0, (1.0,))
    tokens.policy_logprobs.data[0] = math.log(4.0)
    assert GSPO(clip_eps=0.2, clip_eps_high=0.5)(tokens).loss.item() == pytest.approx(-1.5, abs=1e-6)
    assert GSPO(clip_eps=0.2, clip_eps_high=5.0)(tokens).loss.item() == pytest.approx(-2.0, abs=1e-6)
    assert (GSPO().clip_eps, GSPO().upper_eps, GSPO().kl_coef) == (3e-4, 4e-4, 0.0)  # the paper's values, section 5.1


@pytest.mark.parametrize("eps_high", [None, 0.4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_numpy_loops(seed, eps_high):
    """R1 eq 1 with eq 2, and GSPO eq 5-7 with the mean of the tokens' k3, completion by completion."""
    tokens = sampled(seed, lengths=4 * LENGTHS)
    ids = tokens.sequence_ids.numpy()
    policy, old, ref = (x.numpy() for x in (tokens.policy_logprobs, tokens.old_logprobs, tokens.ref_logprobs))
    totals = {SequenceLevelGRPO: 0.0, GSPO: 0.0}
    for i in range(len(tokens.completion_tokens)):
        t = np.flatnonzero(ids == i)
        advantage = tokens.advantages[t[0]].item()
        whole = np.exp(policy[t].sum()) / np.exp(old[t].sum())
        ref_ratio = np.exp(ref[t].sum()) / np.exp(policy[t].sum())
        k3s = np.exp(ref[t]) / np.exp(policy[t]) - (ref[t] - policy[t]) - 1
        for form, ratio, kl in (
            (SequenceLevelGRPO, whole, ref_ratio - np.log(ref_ratio) - 1),
            (GSPO, whole ** (1 / len(t)), k3s.mean()),
        ):
            clipped = np.clip(ratio, 0.8, 1 + (eps_high or 0.2))
            totals[form] += (min(ratio * advantage, clipped * advantage) - 0.3 * kl) / len(tokens.completion_tokens)
    for form, total in totals.items():
        result = form(clip_eps=0.2, clip_eps_high=eps_high, kl_coef=0.3)(tokens)
        assert 0.0 < result.metrics["policy/clip_fraction"] < 1.0
        assert result.loss.item() == pytest.approx(-total, abs=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_gspo_loss_and_gradient_are_those_of_trl(beta):
    tokens = with_gradient(sampled(seed=5))
    result = GSPO(clip_eps=0.2, clip_eps_high=0.3, kl_coef=beta)(tokens)
    result.loss.backward()
    loss, gradient = trl_loss(tokens, importance_sampling_level="sequence", epsilon_high=0.3, beta=beta)
    torch.testing.assert_close(result.loss.detach(), loss, atol=1e-12, rtol=0)
    torch.testing.assert_close(tokens.policy_logprobs.grad, gradient, atol=1e-12, rtol=0)


def test_a_completion_of_one_token_is_the_same_in_both():
    tokens = sampled(lengths=[1] * 8)
    settings = {"clip_eps": 0.2, "clip_eps_high": 0.2, "kl_coef": 0.1}
    torch.testing.assert_close(GSPO(**settings)(tokens).loss, SequenceLevelGRPO(**settings)(tokens).loss)


# ------------------------------------------------------------------------------------------------ ratios beyond any number


def test_a_log_ratio_of_100_nats_is_no_nan():
    # Advantages 0 and +1: the surrogate is 0 and, clipped at 1.2, 1.2: loss -(0 + 1.2) / 2 = -0.6; no gradient from either.
    tokens = far(50.0, 50.0, (0.0, 1.0))
    output = SequenceLevelGRPO(clip_eps=0.2, kl_coef=0.0)(tokens)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(-0.6, abs=1e-6)
    assert tokens.policy_logprobs.grad.tolist() == [0.0] * 4
    # The reference 100 nats likelier than the policy: k3 is cut off, and with kl_coef 0 it weighs nothing.
    tokens = far(0.0, 50.0, (1.0, -1.0))
    SequenceLevelGRPO(kl_coef=0.0)(tokens).loss.backward()
    assert tokens.policy_logprobs.grad.tolist() == [-0.5, -0.5, 0.5, 0.5]
