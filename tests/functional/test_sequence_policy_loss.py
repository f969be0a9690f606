"""The forms with one ratio per completion; what every form has in common is tested in test_policy_loss.py."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from r1_lightning.functional.cross_entropy import masked_cross_entropy
from r1_lightning.functional.importance_sampling import TruncatedImportanceSampling
from r1_lightning.functional.policy_loss import SampledTokens
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


# ----------------------------------------------------------------------------------------------------- long completions


def long_completions(length: int, drift: float, level: float, seed: int = 0) -> SampledTokens:
    """Four FP32 completions of `length` tokens, each `level` nats likely on average, with policies `drift` nats apart."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.empty(4 * length).exponential_(1 / level, generator=generator)
    policy, ref = (old + drift * torch.randn(4 * length, generator=generator) for _ in range(2))
    return replace(
        sampled(lengths=[length] * 4),
        policy_logprobs=policy,
        old_logprobs=old,
        ref_logprobs=ref,
        sampler_logprobs=old,
        completion_tokens=torch.full((4,), float(length)),
    )


# Length, how far policies are apart per token, mean surprise of a token: DeepSeek's length limits, drifts of one update and of a
# hundred, models that are sure and models that are not.
LONG = [
    (1024, 1e-3, 2.0),
    (8192, 1e-3, 2.0),
    (32_768, 1e-3, 2.0),
    (32_768, 1e-4, 0.3),
    (65_536, 1e-3, 1.0),
    (32_768, 0.0, 8.0),
]


@pytest.mark.parametrize(("length", "drift", "level"), LONG)
def test_log_ratios_and_kl_of_long_completions_against_float64(length, drift, level):
    """The differences are exact in float64; what FP32 may lose is the rounding of some 32,768 small numbers' sum."""
    tokens = long_completions(length, drift, level)
    policy, old, ref = (
        x.double().numpy().reshape(4, length)
        for x in (tokens.policy_logprobs, tokens.old_logprobs, tokens.ref_logprobs)
    )
    wanted = (policy - old).sum(1)
    np.testing.assert_allclose(SequenceLevelGRPO().log_ratio(tokens).numpy(), wanted, atol=5e-7)
    np.testing.assert_allclose(GSPO().log_ratio(tokens).numpy(), wanted / length, atol=1e-11)
    log_ratio = (ref - policy).sum(1)
    kl = SequenceLevelGRPO().sequence_kl(tokens, tokens.ref_logprobs).numpy()
    np.testing.assert_allclose(kl, np.expm1(log_ratio) - log_ratio, atol=1e-6)


@pytest.mark.parametrize("length", [1, 1024, 65_536])
def test_a_policy_that_has_not_moved_has_ratio_1_exactly_at_any_length(length):
    tokens = long_completions(length, 0.0, 2.0)
    for form in (SequenceLevelGRPO(), GSPO()):
        result = form(tokens)
        assert form.log_ratio(tokens).tolist() == [0.0] * 4
        assert result.metrics["policy/ratio_mean"].item() == 1.0
        assert result.metrics["policy/kl_ref"].item() == 0.0


@pytest.mark.parametrize("length", [1024, 32_768])
def test_other_long_sums_against_float64(length):
    """The sums that are right already: weights, means over tokens and cross-entropies keep to 1e-6 of NumPy's float64."""
    tokens = long_completions(length, 1e-3, 2.0)
    tokens = replace(tokens, sampler_logprobs=tokens.ref_logprobs)
    output = TruncatedImportanceSampling(SequenceLevelGRPO(), cap=2.0, weight_level="sequence")(tokens)
    old, drawn = (x.double().numpy().reshape(4, length) for x in (tokens.old_logprobs, tokens.sampler_logprobs))
    weights = np.minimum(np.exp((old - drawn).sum(1)), 2.0)
    assert output.metrics["policy/importance_weight_mean"].item() == pytest.approx(weights.mean(), abs=1e-5)
    mean = masked_cross_entropy(tokens.old_logprobs, torch.ones_like(tokens.old_logprobs, dtype=torch.bool)).item()
    assert mean == pytest.approx(-old.mean(), rel=1e-6)
    assert tokens.token_mean(tokens.old_logprobs).item() == pytest.approx(old.mean(), rel=1e-6)
