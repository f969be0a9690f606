"""CISPO and truncated importance sampling; what every form has in common is tested in test_policy_loss.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from r1_lightning.functional.importance_sampling import CISPO, TruncatedImportanceSampling
from r1_lightning.functional.policy_loss import DAPO, TokenLevelGRPO
from r1_lightning.functional.sequence_policy_loss import GSPO, SequenceLevelGRPO
from r1_lightning.types.errors import InvalidInput
from tests.functional.objectives import sampled, trl_loss, two_sequences, with_gradient


def test_cispo_literal_numbers():
    # Ratios 2, 1/2, 1; log pi -0.9162907, -0.9162907, -0.6931472; A 1, 1, -3. Bound 1 + 0.5: weights 1.5, 0.5, 1.
    # J = (1.5 * -0.9162907 + 0.5 * -0.9162907 + 3 * 0.6931472) / 3 = (-1.8325815 + 2.0794415) / 3 = 0.0822867
    # Gradient of J by log pi: weight * A / 3 = 0.5, 0.1666667, -1: no token is dropped.
    tokens = with_gradient(two_sequences())
    result = CISPO(clip_eps_high=0.5)(tokens)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-0.0822867, abs=1e-6)
    assert (-tokens.policy_logprobs.grad).tolist() == pytest.approx([0.5, 1 / 6, -1.0], abs=1e-6)
    assert result.metrics["policy/clip_fraction"].item() == pytest.approx(1 / 3, abs=1e-6)


def test_cispo_loss_and_gradient_are_those_of_trl():
    # TRL's epsilon_high is the bound itself, ours (as the paper's) is added to 1.
    tokens = with_gradient(sampled(seed=5))
    result = CISPO(clip_eps_high=0.3, kl_coef=0.04)(tokens)
    result.loss.backward()
    loss, gradient = trl_loss(tokens, loss_type="cispo", epsilon_high=1.3, beta=0.04)
    assert 0.0 < result.metrics["policy/clip_fraction"] < 1.0
    torch.testing.assert_close(result.loss.detach(), loss, atol=1e-12, rtol=0)
    torch.testing.assert_close(tokens.policy_logprobs.grad, gradient, atol=1e-12, rtol=0)


def test_token_weights_literal_numbers():
    # pi_old / pi_sampler: 1/2, 2, 4, truncated at 3: weights 0.5, 2, 3. Surrogates of DeepSeekMath's form: 1.2, 0.5, -3.
    # J = 1/2 * [ (0.6 + 1.0) / 2 - 9 ] = -4.1
    result = TruncatedImportanceSampling(TokenLevelGRPO(kl_coef=0.0), cap=3.0)(two_sequences())
    assert result.loss.item() == pytest.approx(4.1, abs=1e-5)
    assert result.metrics["policy/importance_weight_mean"].item() == pytest.approx((0.5 + 2 + 3) / 3, abs=1e-5)
    assert result.metrics["policy/importance_truncated_fraction"].item() == pytest.approx(1 / 3, abs=1e-6)


def test_sequence_weights_literal_numbers():
    # Products of pi_old / pi_sampler: 1/2 * 2 = 1 and 4, truncated at 3: weights 1, 1, 3.
    # DeepSeekMath's form: J = 1/2 * [ (1.2 + 0.5) / 2 - 9 ] = -4.075; R1's form: J = 1/2 * [ 1 - 9 ] = -4.
    tokens = two_sequences()
    for objective, loss in ((TokenLevelGRPO(kl_coef=0.0), 4.075), (SequenceLevelGRPO(kl_coef=0.0), 4.0)):
        weighed = TruncatedImportanceSampling(objective, cap=3.0, weight_level="sequence")
        assert weighed(tokens).loss.item() == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_loss_and_gradient_are_those_of_trl(loss_type):
    """TRL multiplies the policy's term by the truncated ratio of trainer and sampler, and adds the KL after it."""
    tokens = with_gradient(sampled(seed=5, sampler_drift=0.8))
    inner = {"grpo": TokenLevelGRPO, "dapo": DAPO}[loss_type](clip_eps_high=0.3, kl_coef=0.04)
    result = TruncatedImportanceSampling(inner, cap=1.5)(tokens)
    result.loss.backward()
    ratio = (tokens.old_logprobs - tokens.sampler_logprobs).exp().clamp(max=1.5)
    assert 0.0 < result.metrics["policy/importance_truncated_fraction"] < 1.0
    loss, gradient = trl_loss(tokens, ratio, loss_type=loss_type, epsilon_high=0.3, beta=0.04)
    torch.testing.assert_close(result.loss.detach(), loss, atol=1e-12, rtol=0)
    torch.testing.assert_close(tokens.policy_logprobs.grad, gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("objective", [TokenLevelGRPO(), DAPO(), CISPO()])
def test_one_engine_is_not_corrected_at_all(objective, level):
    tokens = sampled()
    assert torch.equal(tokens.old_logprobs, tokens.sampler_logprobs)
    weighed = TruncatedImportanceSampling(objective, weight_level=level)(tokens)
    assert weighed.loss.item() == objective(tokens).loss.item()


def test_weighing_makes_the_sampler_exchangeable():
    """In the mean over what another sampler draws, the weighed gradient is that of pi_old's own draws (no truncation)."""
    generator = torch.Generator().manual_seed(0)
    policy, sampler = torch.randn(2, 7, generator=generator, dtype=torch.float64).log_softmax(-1)
    value = torch.randn(7, generator=generator, dtype=torch.float64)
    tokens = sampled(lengths=[1] * 7)
    tokens = replace(tokens, old_logprobs=policy, policy_logprobs=policy, advantages=value, ref_logprobs=None)

    def mean_gradient(drawn_from, objective, sampler_logprobs):
        one = with_gradient(replace(tokens, sampler_logprobs=sampler_logprobs))
        objective(one).loss.backward()
        return (drawn_from.exp() * one.policy_logprobs.grad).sum()  # each of 7 tokens as often as it is drawn

    own = mean_gradient(policy, TokenLevelGRPO(), policy)
    weighed = mean_gradient(sampler, TruncatedImportanceSampling(TokenLevelGRPO(), cap=1e9), sampler)
    torch.testing.assert_close(weighed, own, atol=1e-12, rtol=0)
    assert abs(mean_gradient(sampler, TokenLevelGRPO(), sampler) - own) > 1e-3


@pytest.mark.parametrize("objective", [SequenceLevelGRPO(), GSPO()])
def test_one_ratio_per_completion_takes_one_weight_per_completion(objective):
    with pytest.raises(InvalidInput, match=r"objective\.weight_level='token' .* one ratio per completion"):
        TruncatedImportanceSampling(objective)
    assert TruncatedImportanceSampling(objective, weight_level="sequence").level == "sequence"


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"cap": 0.0}, r"cap=0\.0"), ({"cap": math.inf}, "cap=inf"), ({"weight_level": "word"}, "weight_level='word'")],
)
def test_bad_settings_are_named(settings, field):
    with pytest.raises(InvalidInput, match=rf"objective\.{field}"):
        TruncatedImportanceSampling(TokenLevelGRPO(), **settings)
