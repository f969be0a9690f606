"""The forms with token ratios against literal numbers, loops over the formulas and TRL's own loss; properties of all forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from r1_lightning.functional.importance_sampling import CISPO, TruncatedImportanceSampling
from r1_lightning.functional.policy_loss import (
    DAPO,
    MAX_LOG_RATIO,
    DrGRPO,
    SampledTokens,
    TokenLevelGRPO,
    clipped_surrogate,
    is_clipped,
)
from r1_lightning.functional.sequence_policy_loss import GSPO, SequenceLevelGRPO
from r1_lightning.types.errors import InvalidInput
from tests.functional.objectives import LENGTHS, part_of, sampled, trl_loss, two_sequences, with_gradient

MAX_TOKENS = 9


def dr_grpo(**settings):
    return DrGRPO(max_completion_tokens=MAX_TOKENS, **settings)


def corrected(**settings):
    return TruncatedImportanceSampling(TokenLevelGRPO(**settings))


CLIPPED = [TokenLevelGRPO, dr_grpo, DAPO, SequenceLevelGRPO, GSPO]
OBJECTIVES = [*CLIPPED, CISPO, corrected]


# ---------------------------------------------------------------------------------------------------- literal numbers


def test_clipped_surrogate_in_its_four_cases():
    # eps 0.2. ratio 1.5: A = +2: min(3, 1.2 * 2) = 2.4, clipped. A = -2: min(-3, -2.4) = -3, not clipped.
    # ratio 0.5: A = +2: min(1, 0.8 * 2) = 1, not clipped. A = -2: min(-1, -1.6) = -1.6, clipped.
    ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5]), torch.tensor([2.0, -2.0, 2.0, -2.0])
    torch.testing.assert_close(clipped_surrogate(ratio, advantage, 0.2, 0.2), torch.tensor([2.4, -3.0, 1.0, -1.6]))
    assert is_clipped(ratio, advantage, 0.2, 0.2).tolist() == [True, False, False, True]


def test_upper_and_lower_clip_are_told_apart():
    # eps 0.1, eps_high 0.6: the interval is [0.9, 1.6]: 1.5 is inside, 0.85 below it.
    ratio, advantage = torch.tensor([1.5, 0.85]), torch.tensor([1.0, -1.0])
    torch.testing.assert_close(clipped_surrogate(ratio, advantage, 0.1, 0.6), torch.tensor([1.5, -0.9]))
    assert is_clipped(ratio, advantage, 0.1, 0.6).tolist() == [False, True]


def test_token_level_literal_numbers():
    # Surrogates: min(2, 1.2) = 1.2; min(0.5, 0.8) = 0.5; -3. k3: 1/2 + ln 2 - 1 = 0.1931472 on the first token.
    # beta 0.1: J = 1/2 * [ (1.2 - 0.01931472 + 0.5) / 2 + (-3) ] = 1/2 * (0.84034264 - 3) = -1.07982868
    result = TokenLevelGRPO(clip_eps=0.2, kl_coef=0.1)(two_sequences())
    assert result.loss.item() == pytest.approx(1.07982868, abs=1e-6)
    assert result.metrics["policy/clip_fraction"].item() == pytest.approx(1 / 3, abs=1e-6)
    assert result.metrics["policy/ratio_mean"].item() == pytest.approx((2 + 0.5 + 1) / 3, abs=1e-6)
    assert result.metrics["policy/kl_ref"].item() == pytest.approx(0.1931472 / 3, abs=1e-6)


def test_dr_grpo_literal_numbers():
    # The same surrogates, divided by 2 completions times a constant of 4 tokens: J = (1.2 + 0.5 - 3) / 8 = -0.1625
    assert DrGRPO(max_completion_tokens=4)(two_sequences()).loss.item() == pytest.approx(0.1625, abs=1e-6)


def test_dapo_literal_numbers():
    # Clip-higher 0.28: min(2, 1.28) = 1.28. Mean over 3 tokens: J = (1.28 + 0.5 - 3) / 3 = -0.40666667
    result = DAPO()(two_sequences())
    assert result.loss.item() == pytest.approx(0.40666667, abs=1e-6)
    assert (DAPO().clip_eps, DAPO().upper_eps, DAPO().kl_coef) == (0.2, 0.28, 0.0)  # the paper's values, section 4.1


def test_k2_can_stand_in_for_k3():
    # k2 of the first token: (ln 2)^2 / 2 = 0.2402265; J = 1/2 * [ (1.2 - 0.02402265 + 0.5) / 2 - 3 ] = -1.08100566
    result = TokenLevelGRPO(kl_coef=0.1, kl_estimator="k2")(two_sequences())
    assert result.loss.item() == pytest.approx(1.08100566, abs=1e-6)


# --------------------------------------------------------------------------------------------- independent references


def _numpy_objective(tokens: SampledTokens, eps: float, eps_high: float, beta: float, denominator: str) -> float:
    """The printed formulas as loops over completions and tokens, each mean written out."""
    ids = tokens.sequence_ids.numpy()
    policy, old, ref = (x.numpy() for x in (tokens.policy_logprobs, tokens.old_logprobs, tokens.ref_logprobs))
    lengths = tokens.completion_tokens.numpy()
    total = 0.0
    for i, length in enumerate(lengths):
        for t in np.flatnonzero(ids == i):
            advantage = tokens.advantages[t].item()
            pi, pi_old, pi_ref = np.exp(policy[t]), np.exp(old[t]), np.exp(ref[t])
            ratio = pi / pi_old
            term = min(ratio * advantage, np.clip(ratio, 1 - eps, 1 + eps_high) * advantage)
            term -= beta * (pi_ref / pi - np.log(pi_ref / pi) - 1)
            divisor = {"completion": len(lengths) * length, "constant": len(lengths) * MAX_TOKENS, "all": lengths.sum()}
            total += term / divisor[denominator]
    return total


@pytest.mark.parametrize("eps_high", [None, 0.4])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("objective", "denominator"), [(TokenLevelGRPO, "completion"), (dr_grpo, "constant"), (DAPO, "all")]
)
def test_against_numpy_loops(seed, eps_high, objective, denominator):
    tokens = sampled(seed, lengths=4 * LENGTHS)
    result = objective(clip_eps=0.2, clip_eps_high=eps_high, kl_coef=0.3)(tokens)
    assert 0.0 < result.metrics["policy/clip_fraction"] < 1.0  # both sides of the clip are compared
    expected = -_numpy_objective(tokens, 0.2, eps_high or 0.2, 0.3, denominator)
    assert result.loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        (TokenLevelGRPO, {"loss_type": "grpo"}),
        (dr_grpo, {"loss_type": "dr_grpo", "max_completion_length": MAX_TOKENS}),
        (DAPO, {"loss_type": "dapo"}),
    ],
)
def test_loss_and_gradient_are_those_of_trl(objective, settings):
    tokens = with_gradient(sampled(seed=5))
    result = objective(clip_eps=0.2, clip_eps_high=0.3, kl_coef=0.04)(tokens)
    result.loss.backward()
    loss, gradient = trl_loss(tokens, epsilon_high=0.3, beta=0.04, **settings)
    torch.testing.assert_close(result.loss.detach(), loss, atol=1e-12, rtol=0)
    torch.testing.assert_close(tokens.policy_logprobs.grad, gradient, atol=1e-12, rtol=0)


def test_on_policy_gradient_is_deepseekmaths_coefficient():
    # Eq 20-21: with pi_old = pi the gradient of J is 1/G sum 1/|o_i| sum_t GC d log pi, GC = A + beta (pi_ref/pi - 1).
    tokens = sampled()
    tokens = with_gradient(replace(tokens, policy_logprobs=tokens.old_logprobs))
    TokenLevelGRPO(kl_coef=0.04)(tokens).loss.backward()
    ratio = (tokens.ref_logprobs - tokens.old_logprobs).exp()
    coefficient = tokens.advantages + 0.04 * (ratio - 1)
    weight = 1 / (len(LENGTHS) * tokens.completion_tokens[tokens.sequence_ids])
    torch.testing.assert_close(tokens.policy_logprobs.grad, -weight * coefficient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", CLIPPED)
def test_gradient_against_finite_differences(objective):
    tokens = sampled(drift=0.1)

    def loss(policy: Tensor) -> Tensor:
        return objective(clip_eps=0.2, clip_eps_high=0.3, kl_coef=0.3)(replace(tokens, policy_logprobs=policy)).loss

    assert torch.autograd.gradcheck(loss, (tokens.policy_logprobs.clone().requires_grad_(),))


# --------------------------------------------------------------------------------------------- properties of every form


@pytest.mark.parametrize("objective", CLIPPED)
def test_clipped_tokens_have_no_gradient_from_the_surrogate(objective):
    tokens = with_gradient(sampled(drift=1.0))
    objective(clip_eps=0.2, clip_eps_high=0.2, kl_coef=0.0)(tokens).loss.backward()
    values = tokens.policy_logprobs - tokens.old_logprobs
    if objective in (SequenceLevelGRPO, GSPO):
        values = tokens.sum_by_sequence(values)[tokens.sequence_ids]
    if objective is GSPO:
        values = values / tokens.completion_tokens[tokens.sequence_ids]
    clipped = is_clipped(values.exp(), tokens.advantages, 0.2, 0.2)
    assert 0 < clipped.sum() < len(clipped)
    assert torch.equal(tokens.policy_logprobs.grad == 0, clipped)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_better_completion_becomes_more_likely(objective):
    """One small step down the loss raises the log-probs of positive advantages and lowers those of negative ones."""
    tokens = with_gradient(sampled(drift=0.0))
    objective(kl_coef=0.0)(tokens).loss.backward()
    assert torch.equal(torch.sign(-tokens.policy_logprobs.grad), tokens.advantages.sign())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_zero_advantage_leaves_only_the_kl(objective):
    tokens = sampled()
    tokens = with_gradient(replace(tokens, advantages=torch.zeros_like(tokens.advantages)))
    without_kl = objective(kl_coef=0.0)(tokens)
    without_kl.loss.backward()
    assert without_kl.loss.item() == 0.0
    assert tokens.policy_logprobs.grad.abs().max() == 0.0
    assert objective(kl_coef=0.5)(tokens).loss > 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_kl_is_exactly_zero_at_the_reference_and_absent_without_one(objective):
    tokens = sampled()
    at_reference = objective(kl_coef=0.5)(replace(tokens, ref_logprobs=tokens.policy_logprobs))
    no_reference = objective(kl_coef=0.5)(replace(tokens, ref_logprobs=None))
    assert at_reference.metrics["policy/kl_ref"].item() == 0.0
    assert "policy/kl_ref" not in no_reference.metrics
    assert at_reference.loss.item() == no_reference.loss.item()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_reference_is_needed_exactly_where_it_changes_the_loss(objective):
    """Without a KL, loss and gradient are the same bits whatever the reference says, and without one."""

    def step(tokens: SampledTokens, kl_coef: float) -> list[float]:
        tokens = with_gradient(tokens)
        loss = objective(kl_coef=kl_coef)(tokens).loss
        loss.backward()
        return [loss.item(), *tokens.policy_logprobs.grad.tolist()]

    near = sampled()
    far, none = (replace(near, ref_logprobs=ref) for ref in (near.ref_logprobs - 3.0, None))
    assert objective(kl_coef=0.01).needs_reference and not objective(kl_coef=0.0).needs_reference
    assert step(near, 0.0) == step(far, 0.0) == step(none, 0.0)
    assert step(near, 0.01) != step(far, 0.01)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_order_of_tokens_and_of_sequences_does_not_matter(objective):
    tokens = sampled(sampler_drift=0.5)
    generator = torch.Generator().manual_seed(9)
    order = torch.randperm(len(tokens.sequence_ids), generator=generator)
    renamed = torch.randperm(len(LENGTHS), generator=generator)  # sequence i becomes number renamed[i]
    per_token = ("policy_logprobs", "old_logprobs", "sampler_logprobs", "ref_logprobs", "advantages")
    shuffled = replace(
        tokens,
        **{name: getattr(tokens, name)[order] for name in per_token},
        sequence_ids=renamed[tokens.sequence_ids[order]],
        completion_tokens=tokens.completion_tokens[renamed.argsort()],
    )
    torch.testing.assert_close(objective()(shuffled).loss, objective()(tokens).loss, atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("first", [1, 2, 5])
def test_two_micro_batches_sum_to_the_batch(objective, first):
    """Unequal micro-batches, in sequences and in tokens: losses and gradients add up through the denominators."""
    tokens = with_gradient(sampled(sampler_drift=0.5))
    objective()(tokens).loss.backward()
    total, gradients = 0.0, []
    for sequences in (slice(0, first), slice(first, len(LENGTHS))):
        part = with_gradient(part_of(tokens, sequences))
        loss = objective()(part).loss
        loss.backward()
        total += loss.item()
        gradients.append(part.policy_logprobs.grad)
    assert total == pytest.approx(objective()(tokens).loss.item(), abs=1e-12)
    torch.testing.assert_close(torch.cat(gradients), tokens.policy_logprobs.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_micro_batch_may_hold_no_token_of_a_sequence(objective):
    """The fields per sequence may name all sequences of the minibatch although only some are here."""
    tokens = sampled()
    inside = tokens.sequence_ids < 4
    per_token = ("policy_logprobs", "old_logprobs", "sampler_logprobs", "ref_logprobs", "advantages", "sequence_ids")
    named = replace(tokens, **{name: getattr(tokens, name)[inside] for name in per_token})
    expected = objective()(part_of(tokens, slice(0, 4))).loss
    torch.testing.assert_close(objective()(named).loss, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_policy_receives_gradients_and_metrics_none(objective):
    tokens = sampled(sampler_drift=0.5)
    for name in ("policy_logprobs", "old_logprobs", "sampler_logprobs", "ref_logprobs"):
        getattr(tokens, name).requires_grad_(name == "policy_logprobs")
    result = objective()(tokens)
    result.loss.backward()
    assert tokens.policy_logprobs.grad is not None
    assert not any(value.requires_grad for value in result.metrics.values())


def test_every_sequence_weighs_the_same_in_the_token_form_and_every_token_in_dapo():
    """|o_i| divides: repeating the tokens of one completion leaves DeepSeekMath's loss, and moves DAPO's and Dr. GRPO's."""
    short = sampled(lengths=[2, 3])
    twice = torch.tensor([0, 1, 0, 1, 2, 3, 4])  # the first completion's two tokens, two times
    per_token = ("policy_logprobs", "old_logprobs", "sampler_logprobs", "ref_logprobs", "advantages", "sequence_ids")
    long = replace(
        short,
        **{name: getattr(short, name)[twice] for name in per_token},
        completion_tokens=torch.tensor([4.0, 3.0], dtype=torch.float64),
        n_tokens=7,
    )
    torch.testing.assert_close(TokenLevelGRPO()(long).loss, TokenLevelGRPO()(short).loss, atol=1e-12, rtol=0)
    for objective in (DAPO(), dr_grpo()):
        assert abs(objective(long).loss - objective(short).loss) > 1e-3


def test_r1s_wide_interval_never_binds_from_below():
    # R1's eps 10 gives [-9, 11]; ratios are positive, so only the upper bound can bind.
    ratio = torch.tensor([1e-6, 0.5, 10.9, 11.1])
    assert is_clipped(ratio, -torch.ones(4), 10.0, 10.0).tolist() == [False] * 4
    assert is_clipped(ratio, torch.ones(4), 10.0, 10.0).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"clip_eps": 0.0}, "clip_eps=0.0"),
        ({"clip_eps_high": -1.0}, "clip_eps_high=-1.0"),
        ({"kl_coef": -0.1}, "kl_coef=-0.1"),
        ({"kl_coef": math.nan}, "kl_coef=nan"),
        ({"kl_estimator": "k1"}, "kl_estimator='k1'"),
    ],
)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bad_settings_are_named(objective, settings, field):
    with pytest.raises(InvalidInput, match=f"objective.{field}"):
        objective(**settings)


def test_dr_grpos_constant_must_be_a_number_of_tokens():
    with pytest.raises(InvalidInput, match=r"objective\.max_completion_tokens=0"):
        DrGRPO(max_completion_tokens=0)


def test_the_bound_changes_no_finite_result():
    bound = torch.tensor(MAX_LOG_RATIO)
    above = torch.nextafter(bound, torch.tensor(math.inf))
    assert torch.isfinite(bound.exp()) and torch.isinf(above.exp())  # the largest FP32 number with a finite exp
    for log_ratio in (-200.0, 0.0, 44.0, MAX_LOG_RATIO):
        assert torch.tensor(log_ratio).clamp(max=MAX_LOG_RATIO) == torch.tensor(log_ratio)
