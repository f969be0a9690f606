"""GRPO's objective, as losses to minimise.

`TokenLevelGRPO` is DeepSeekMath eq 3, the default:
    J = 1/S sum_i 1/|o_i| sum_t { min(rho_it A_i, clip(rho_it, 1 - eps, 1 + eps_high) A_i) - beta k3_it }
with rho_it the ratio of token probabilities. `SequenceLevelGRPO` is the form printed in R1 (eq 1) and V3 (eq 26):
    J = 1/S sum_i { min(rho_i A_i, clip(rho_i, 1 - eps, 1 + eps_high) A_i) - beta k3_i }
with rho_i and k3_i of whole completions. Whole-completion ratios leave any clip interval after few updates, which is why
the token form is what implementations run; both are here because both are published.

Completion tokens come flat: C tokens of S sequences; `sequence_ids` C maps one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r1_lightning.functional.kl import k3
from r1_lightning.types.errors import require_number
from r1_lightning.types.tensors import LossOutput

# Shape legend: C completion tokens, S sequences.

# The largest FP32 number whose exp is finite (3.4e38). Log-ratios of whole completions pass it once a policy has moved far
# enough; exp would be inf, and inf * 0 (an advantage of 0, a clipped gradient) NaN. At or below it nothing changes.
MAX_LOG_RATIO = 88.72283


@dataclass(frozen=True)
class SampledTokens:
    """What an objective needs to know: log-probs of C tokens under three policies, and the S sequences they belong to.

    `ref_logprobs` is None where no KL is wanted. `n_sequences` is the denominator of the mean over sequences: the whole
    minibatch's count even when this is one of its micro-batches.
    """

    policy_logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor | None
    sequence_ids: Tensor
    advantages: Tensor
    completion_tokens: Tensor
    n_sequences: int

    def sum_by_sequence(self, values_C: Tensor) -> Tensor:
        """Sum over each sequence's tokens: C to S."""
        zeros = torch.zeros(len(self.advantages), dtype=values_C.dtype, device=values_C.device)
        return zeros.index_add(0, self.sequence_ids, values_C)


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip_eps: float, clip_eps_high: float) -> Tensor:
    """min(rho A, clip(rho, 1 - clip_eps, 1 + clip_eps_high) A), elementwise (PPO eq 7)."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_eps, 1 + clip_eps_high) * advantage)


def is_clipped(ratio: Tensor, advantage: Tensor, clip_eps: float, clip_eps_high: float) -> Tensor:
    """True where the clip binds, that is, where the surrogate's gradient is cut to zero."""
    return ((ratio > 1 + clip_eps_high) & (advantage > 0)) | ((ratio < 1 - clip_eps) & (advantage < 0))


@dataclass(frozen=True)
class _ClippedObjective:
    """Settings shared by both forms. `clip_eps_high=None` means a symmetric interval; `kl_coef` is beta."""

    clip_eps: float = 0.2
    clip_eps_high: float | None = None
    kl_coef: float = 0.001

    def __post_init__(self) -> None:
        require_number("objective.clip_eps", self.clip_eps, 0.0, open_minimum=True)
        if self.clip_eps_high is not None:
            require_number("objective.clip_eps_high", self.clip_eps_high, 0.0, open_minimum=True)
        require_number("objective.kl_coef", self.kl_coef, 0.0)

    @property
    def upper_eps(self) -> float:
        return self.clip_eps if self.clip_eps_high is None else self.clip_eps_high


class TokenLevelGRPO(_ClippedObjective):
    """DeepSeekMath eq 3: token ratios, mean over each completion's tokens, then over completions."""

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        """Loss (scalar) and metrics; gradients flow into `tokens.policy_logprobs` only."""
        weight_C = (1.0 / (tokens.n_sequences * tokens.completion_tokens))[tokens.sequence_ids]
        advantage_C = tokens.advantages[tokens.sequence_ids]
        ratio_C = torch.exp(tokens.policy_logprobs - tokens.old_logprobs)
        objective_C = clipped_surrogate(ratio_C, advantage_C, self.clip_eps, self.upper_eps)
        clipped = is_clipped(ratio_C, advantage_C, self.clip_eps, self.upper_eps)
        metrics = {"policy/ratio_mean": ratio_C.mean(), "policy/clip_fraction": clipped.float().mean()}
        if tokens.ref_logprobs is not None:
            kl_C = k3(tokens.policy_logprobs, tokens.ref_logprobs)
            objective_C = objective_C - self.kl_coef * kl_C
            metrics["policy/kl_ref"] = kl_C.mean()
        loss = -(weight_C * objective_C).sum()
        return LossOutput(loss, {name: value.detach() for name, value in metrics.items()})


class SequenceLevelGRPO(_ClippedObjective):
    """R1 eq 1-2: one ratio and one KL estimate per completion."""

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        """Loss (scalar) and metrics; gradients flow into `tokens.policy_logprobs` only."""
        policy_S = tokens.sum_by_sequence(tokens.policy_logprobs)
        log_ratio_S = policy_S - tokens.sum_by_sequence(tokens.old_logprobs)
        ratio_S = torch.exp(log_ratio_S.clamp(max=MAX_LOG_RATIO))
        objective_S = clipped_surrogate(ratio_S, tokens.advantages, self.clip_eps, self.upper_eps)
        clipped = is_clipped(ratio_S, tokens.advantages, self.clip_eps, self.upper_eps)
        metrics = {"policy/ratio_mean": ratio_S.mean(), "policy/clip_fraction": clipped.float().mean()}
        if tokens.ref_logprobs is not None:
            log_ref_ratio_S = tokens.sum_by_sequence(tokens.ref_logprobs) - policy_S
            kl_S = k3(torch.zeros_like(policy_S), log_ref_ratio_S.clamp(max=MAX_LOG_RATIO))
            objective_S = objective_S - self.kl_coef * kl_S
            metrics["policy/kl_ref"] = kl_S.mean()
        loss = -objective_S.sum() / tokens.n_sequences
        return LossOutput(loss, {name: value.detach() for name, value in metrics.items()})
