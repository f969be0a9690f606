"""GRPO's objective in both published forms, against literal numbers, loops over the formula, and TRL's own loss."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from r1_lightning.functional.policy_loss import (
    MAX_LOG_RATIO,
    SampledTokens,
    SequenceLevelGRPO,
    TokenLevelGRPO,
    clipped_surrogate,
    is_clipped,
)
from r1_lightning.types.errors import InvalidInput

LENGTHS = [5, 1, 3, 7, 2, 4]
OBJECTIVES = [TokenLevelGRPO, SequenceLevelGRPO]


def _sampled(seed: int = 0, drift: float = 0.3, lengths: list[int] = LENGTHS) -> SampledTokens:
    """Random log-probs of completions of `lengths` tokens; `drift` is how far policy and reference are from old."""
    generator = torch.Generator().manual_seed(seed)

    def normal(n: int) -> Tensor:
        return torch.randn(n, generator=generator, dtype=torch.float64)

    total = sum(lengths)
    old = -normal(total).abs() - 0.1
    return SampledTokens(
        policy_logprobs=old + drift * normal(total),
        old_logprobs=old,
        ref_logprobs=old + drift * normal(total),
        sequence_ids=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        advantages=normal(len(lengths)),
        completion_tokens=torch.tensor(lengths, dtype=torch.float64),  # else weights would be FP32 and tolerances loose
        n_sequences=len(lengths),
    )


def _with_gradient(tokens: SampledTokens) -> SampledTokens:
    return replace(tokens, policy_logprobs=tokens.policy_logprobs.clone().requires_grad_())


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


def _two_sequences() -> SampledTokens:
    # Sequence 0: two tokens with ratios 2 and 1/2, A = 1. Sequence 1: one token with ratio 1, A = -3.
    # The reference gives the first token half of the policy's probability, the others the policy's own.
    old = torch.log(torch.tensor([0.2, 0.8, 0.5]))
    policy = torch.log(torch.tensor([0.4, 0.4, 0.5]))
    ref = torch.log(torch.tensor([0.2, 0.4, 0.5]))
    return SampledTokens(policy, old, ref, torch.tensor([0, 0, 1]), torch.tensor([1.0, -3.0]), torch.tensor([2, 1]), 2)


def test_token_level_literal_numbers():
    # Surrogates: min(2, 1.2) = 1.2; min(0.5, 0.8) = 0.5; -3. k3: 1/2 + ln 2 - 1 = 0.1931472 on the first token.
    # beta 0.1: J = 1/2 * [ (1.2 - 0.01931472 + 0.5) / 2 + (-3) ] = 1/2 * (0.84034264 - 3) = -1.07982868
    result = TokenLevelGRPO(clip_eps=0.2, kl_coef=0.1)(_two_sequences())
    assert result.loss.item() == pytest.approx(1.07982868, abs=1e-6)
    assert result.metrics["policy/clip_fraction"].item() == pytest.approx(1 / 3, abs=1e-6)
    assert result.metrics["policy/ratio_mean"].item() == pytest.approx((2 + 0.5 + 1) / 3, abs=1e-6)
    assert result.metrics["policy/kl_ref"].item() == pytest.approx(0.1931472 / 3, abs=1e-6)


def test_sequence_level_literal_numbers():
    # Ratio of sequence 0: 2 * 1/2 = 1, of sequence 1: 1. k3 of sequence 0: pi_ref/pi = 1/2: 0.1931472; of 1: 0.
    # beta 0.1: J = 1/2 * [ (1 - 0.01931472) + (-3) ] = -1.00965736
    result = SequenceLevelGRPO(clip_eps=0.2, kl_coef=0.1)(_two_sequences())
    assert result.loss.item() == pytest.approx(1.00965736, abs=1e-6)
    assert result.metrics["policy/clip_fraction"].item() == 0.0
    assert result.metrics["policy/kl_ref"].item() == pytest.approx(0.1931472 / 2, abs=1e-6)


# --------------------------------------------------------------------------------------------- independent references


def _numpy_objective(tokens: SampledTokens, eps: float, eps_high: float, beta: float, by_token: bool) -> float:
    """The printed formulas as loops: DeepSeekMath eq 3 with eq 4 (`by_token`), or R1 eq 1 with eq 2."""
    ids = tokens.sequence_ids.numpy()
    policy, old, ref = (x.numpy() for x in (tokens.policy_logprobs, tokens.old_logprobs, tokens.ref_logprobs))
    total = 0.0
    for i, advantage in enumerate(tokens.advantages.numpy()):
        places = [[t] for t in np.flatnonzero(ids == i)] if by_token else [np.flatnonzero(ids == i)]
        terms = []
        for t in places:
            pi, pi_old, pi_ref = (np.exp(x[t].sum()) for x in (policy, old, ref))
            ratio = pi / pi_old
            surrogate = min(ratio * advantage, np.clip(ratio, 1 - eps, 1 + eps_high) * advantage)
            terms.append(surrogate - beta * (pi_ref / pi - np.log(pi_ref / pi) - 1))
        total += np.mean(terms)
    return total / len(tokens.advantages)


@pytest.mark.parametrize("eps_high", [None, 0.4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_numpy_loops(seed, eps_high):
    tokens = _sampled(seed, lengths=4 * LENGTHS)
    for objective, by_token in ((TokenLevelGRPO, True), (SequenceLevelGRPO, False)):
        result = objective(clip_eps=0.2, clip_eps_high=eps_high, kl_coef=0.3)(tokens)
        assert 0.0 < result.metrics["policy/clip_fraction"] < 1.0  # both sides of the clip are compared
        assert result.loss.item() == pytest.approx(
            -_numpy_objective(tokens, 0.2, eps_high or 0.2, 0.3, by_token), abs=1e-12
        )


def _trl_loss(tokens: SampledTokens, eps: float, eps_high: float, beta: float) -> tuple[Tensor, Tensor]:
    """TRL's `GRPOTrainer._compute_loss` (loss_type "grpo") on the same numbers, padded; loss and its gradient C."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    ids = tokens.sequence_ids
    column = torch.cat([torch.arange(n) for n in tokens.completion_tokens.int()])
    shape = (len(tokens.advantages), int(tokens.completion_tokens.max()))

    def padded(values: Tensor) -> Tensor:
        return torch.zeros(shape, dtype=values.dtype).index_put((ids, column), values)

    mask = padded(torch.ones(len(ids), dtype=torch.float64))
    policy = padded(tokens.policy_logprobs.detach()).requires_grad_()
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (policy, torch.zeros(shape), None),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _entropy_bonus_enabled=False,
        accelerator=SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        aux_loss_enabled=False,
        beta=beta,
        current_gradient_accumulation_steps=1.0,
        epsilon_high=eps_high,
        epsilon_low=eps,
        importance_sampling_level="token",
        loss_type="grpo",
        model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
    )
    inputs = {  # prompts, ids and model are not looked at: the log-probs come from the line above
        "prompt_ids": torch.zeros(shape[0], 1, dtype=torch.long),
        "prompt_mask": torch.ones(shape[0], 1),
        "completion_ids": torch.zeros(shape, dtype=torch.long),
        "completion_mask": mask,
        "advantages": tokens.advantages,
        "old_per_token_logps": padded(tokens.old_logprobs),
        "ref_per_token_logps": padded(tokens.ref_logprobs),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return loss.detach(), policy.grad[ids, column]


def test_token_level_loss_and_gradient_are_those_of_trl():
    tokens = _with_gradient(_sampled(seed=5))
    result = TokenLevelGRPO(clip_eps=0.2, clip_eps_high=0.3, kl_coef=0.04)(tokens)
    result.loss.backward()
    loss, gradient = _trl_loss(tokens, eps=0.2, eps_high=0.3, beta=0.04)
    torch.testing.assert_close(result.loss.detach(), loss, atol=1e-12, rtol=0)
    torch.testing.assert_close(tokens.policy_logprobs.grad, gradient, atol=1e-12, rtol=0)


def test_on_policy_gradient_is_deepseekmaths_coefficient():
    # Eq 20-21: with pi_old = pi the gradient of J is 1/G sum 1/|o_i| sum_t GC d log pi, GC = A + beta (pi_ref/pi - 1).
    tokens = _sampled()
    tokens = _with_gradient(replace(tokens, policy_logprobs=tokens.old_logprobs))
    TokenLevelGRPO(kl_coef=0.04)(tokens).loss.backward()
    ratio = (tokens.ref_logprobs - tokens.old_logprobs).exp()
    coefficient = tokens.advantages[tokens.sequence_ids] + 0.04 * (ratio - 1)
    weight = 1 / (len(LENGTHS) * tokens.completion_tokens[tokens.sequence_ids])
    torch.testing.assert_close(tokens.policy_logprobs.grad, -weight * coefficient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradient_against_finite_differences(objective):
    tokens = _sampled(drift=0.1)

    def loss(policy: Tensor) -> Tensor:
        return objective(clip_eps=0.2, kl_coef=0.3)(replace(tokens, policy_logprobs=policy)).loss

    assert torch.autograd.gradcheck(loss, (tokens.policy_logprobs.clone().requires_grad_(),))


# --------------------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_clipped_tokens_have_no_gradient_from_the_surrogate(objective):
    tokens = _with_gradient(_sampled(drift=1.0))
    objective(kl_coef=0.0)(tokens).loss.backward()
    values = tokens.policy_logprobs - tokens.old_logprobs
    if objective is SequenceLevelGRPO:
        values = tokens.sum_by_sequence(values)[tokens.sequence_ids]
    clipped = is_clipped(values.exp(), tokens.advantages[tokens.sequence_ids], 0.2, 0.2)
    assert 0 < clipped.sum() < len(clipped)
    assert torch.equal(tokens.policy_logprobs.grad == 0, clipped)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_better_completion_becomes_more_likely(objective):
    """One small step down the loss raises the log-probs of positive advantages and lowers those of negative ones."""
    tokens = _sampled(drift=0.0)
    tokens = _with_gradient(tokens)
    objective(kl_coef=0.0)(tokens).loss.backward()
    assert torch.equal(torch.sign(-tokens.policy_logprobs.grad), tokens.advantages.sign()[tokens.sequence_ids])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_zero_advantage_leaves_only_the_kl(objective):
    tokens = _sampled()
    tokens = _with_gradient(replace(tokens, advantages=torch.zeros_like(tokens.advantages)))
    without_kl = objective(kl_coef=0.0)(tokens)
    without_kl.loss.backward()
    assert without_kl.loss.item() == 0.0
    assert tokens.policy_logprobs.grad.abs().max() == 0.0
    assert objective(kl_coef=0.5)(tokens).loss > 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_kl_is_exactly_zero_at_the_reference_and_absent_without_one(objective):
    tokens = _sampled()
    at_reference = objective(kl_coef=0.5)(replace(tokens, ref_logprobs=tokens.policy_logprobs))
    no_reference = objective(kl_coef=0.5)(replace(tokens, ref_logprobs=None))
    assert at_reference.metrics["policy/kl_ref"].item() == 0.0
    assert "policy/kl_ref" not in no_reference.metrics
    assert at_reference.loss.item() == no_reference.loss.item()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_order_of_tokens_and_of_sequences_does_not_matter(objective):
    tokens = _sampled()
    generator = torch.Generator().manual_seed(9)
    order = torch.randperm(len(tokens.sequence_ids), generator=generator)
    renamed = torch.randperm(len(LENGTHS), generator=generator)  # sequence i becomes number renamed[i]
    old_of_new = renamed.argsort()
    shuffled = SampledTokens(
        policy_logprobs=tokens.policy_logprobs[order],
        old_logprobs=tokens.old_logprobs[order],
        ref_logprobs=tokens.ref_logprobs[order],
        sequence_ids=renamed[tokens.sequence_ids[order]],
        advantages=tokens.advantages[old_of_new],
        completion_tokens=tokens.completion_tokens[old_of_new],
        n_sequences=tokens.n_sequences,
    )
    torch.testing.assert_close(objective()(shuffled).loss, objective()(tokens).loss, atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("first", [1, 2, 5])
def test_two_micro_batches_sum_to_the_batch(objective, first):
    """Unequal micro-batches, in sequences and in tokens: losses and gradients add up through `n_sequences`."""
    tokens = _with_gradient(_sampled())
    objective()(tokens).loss.backward()
    total, gradients = 0.0, []
    for sequences in (slice(0, first), slice(first, len(LENGTHS))):
        inside = (tokens.sequence_ids >= sequences.start) & (tokens.sequence_ids < sequences.stop)
        part = _with_gradient(
            SampledTokens(
                policy_logprobs=tokens.policy_logprobs.detach()[inside],
                old_logprobs=tokens.old_logprobs[inside],
                ref_logprobs=tokens.ref_logprobs[inside],
                sequence_ids=tokens.sequence_ids[inside] - sequences.start,
                advantages=tokens.advantages[sequences],
                completion_tokens=tokens.completion_tokens[sequences],
                n_sequences=tokens.n_sequences,
            )
        )
        loss = objective()(part).loss
        loss.backward()
        total += loss.item()
        gradients.append(part.policy_logprobs.grad)
    assert total == pytest.approx(objective()(tokens).loss.item(), abs=1e-12)
    torch.testing.assert_close(torch.cat(gradients), tokens.policy_logprobs.grad, atol=1e-12, rtol=0)


def test_every_sequence_weighs_the_same_in_the_token_form():
    """|o_i| divides: repeating the tokens of one completion does not change the loss."""
    short = _sampled(lengths=[2, 3])
    twice = torch.tensor([0, 1, 0, 1, 2, 3, 4])  # the first completion's two tokens, two times
    long = replace(
        short,
        policy_logprobs=short.policy_logprobs[twice],
        old_logprobs=short.old_logprobs[twice],
        ref_logprobs=short.ref_logprobs[twice],
        sequence_ids=short.sequence_ids[twice],
        completion_tokens=torch.tensor([4.0, 3.0], dtype=torch.float64),
    )
    torch.testing.assert_close(TokenLevelGRPO()(long).loss, TokenLevelGRPO()(short).loss, atol=1e-12, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_policy_receives_gradients_and_metrics_none(objective):
    tokens = _sampled()
    for name in ("policy_logprobs", "old_logprobs", "ref_logprobs"):
        getattr(tokens, name).requires_grad_(name == "policy_logprobs")
    result = objective()(tokens)
    result.loss.backward()
    assert tokens.policy_logprobs.grad is not None
    assert not any(value.requires_grad for value in result.metrics.values())


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
    ],
)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bad_settings_are_named(objective, settings, field):
    with pytest.raises(InvalidInput, match=f"objective.{field}"):
        objective(**settings)


# ------------------------------------------------------------------------------------------------ ratios beyond any number


def _far(policy: float, reference: float, advantages: tuple[float, ...]) -> SampledTokens:
    """Two tokens a completion, each `policy` nats more likely than when sampled, and the reference `reference` nats."""
    n = len(advantages)
    zeros = torch.zeros(2 * n)
    return SampledTokens(
        policy_logprobs=(zeros + policy).requires_grad_(),
        old_logprobs=zeros,
        ref_logprobs=zeros + reference,
        sequence_ids=torch.arange(n).repeat_interleave(2),
        advantages=torch.tensor(advantages),
        completion_tokens=torch.full((n,), 2.0),
        n_sequences=n,
    )


def test_a_log_ratio_of_100_nats_is_no_nan_at_sequence_level():
    # Advantages 0 and +1: the surrogate is 0 and, clipped at 1.2, 1.2: loss -(0 + 1.2) / 2 = -0.6; no gradient from either.
    tokens = _far(50.0, 50.0, (0.0, 1.0))
    output = SequenceLevelGRPO(clip_eps=0.2, kl_coef=0.0)(tokens)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(-0.6, abs=1e-6)
    assert tokens.policy_logprobs.grad.tolist() == [0.0] * 4
    # The reference 100 nats likelier than the policy: k3 is cut off, and with kl_coef 0 it weighs nothing.
    tokens = _far(0.0, 50.0, (1.0, -1.0))
    SequenceLevelGRPO(kl_coef=0.0)(tokens).loss.backward()
    assert tokens.policy_logprobs.grad.tolist() == [-0.5, -0.5, 0.5, 0.5]


def test_the_bound_changes_no_finite_result():
    bound = torch.tensor(MAX_LOG_RATIO)
    above = torch.nextafter(bound, torch.tensor(math.inf))
    assert torch.isfinite(bound.exp()) and torch.isinf(above.exp())  # the largest FP32 number with a finite exp
    for log_ratio in (-200.0, 0.0, 44.0, MAX_LOG_RATIO):
        assert torch.tensor(log_ratio).clamp(max=MAX_LOG_RATIO) == torch.tensor(log_ratio)
