"""GRPO objectives with one probability ratio per completion.

    J = 1/S sum_i { min(rho_i A_i, clip(rho_i, 1 - eps, 1 + eps_high) A_i) - beta kl_i }

| class | rho_i | kl_i | paper |
|---|---|---|---|
| `SequenceLevelGRPO` | pi(o_i) / pi_old(o_i) | k3 of the whole completion | R1 eq 1-2, V3 eq 26-27 |
| `GSPO` | (pi(o_i) / pi_old(o_i))^(1 / |o_i|) | mean of the tokens' k3 | Zheng et al. 2025 (arXiv:2507.18071) eq 5-7 |

Ratios of whole completions leave any clip interval after few updates, which is why implementations of R1 use token ratios
(`policy_loss.py`). GSPO takes the geometric mean over tokens, with an interval about a thousand times narrower. GSPO's paper has
no KL term; if `kl_coef` is set, the term is the mean over the completion's tokens, as in `policy_loss.py`.

A log-ratio is computed as the sum of the tokens' differences, never as the difference of two sums: at 32,768 tokens each sum is
some -65,000 nats, where FP32 resolves only 0.008, and the summation rounds at every token.

All tokens of a completion must share one advantage: process supervision needs a form of `policy_loss.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from r1_lightning.functional.policy_loss import MAX_LOG_RATIO, ClippedObjective, SampledTokens
from r1_lightning.types.tensors import LossOutput

# Shape legend: C completion tokens, S sequences.


class _SequenceRatio(ClippedObjective, ABC):
    """Base class; a subclass defines the log-ratio and the KL of a completion."""

    level = "sequence"

    @abstractmethod
    def log_ratio(self, tokens: SampledTokens) -> Float[Tensor, "S"]:
        """log rho_i (S)."""

    @abstractmethod
    def sequence_kl(self, tokens: SampledTokens, ref_logprobs: Float[Tensor, "C"]) -> Float[Tensor, "S"]:
        """kl_i (S)."""

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        """Loss (scalar) and metrics; gradients flow into `tokens.policy_logprobs` only."""
        ratio_S = torch.exp(self.log_ratio(tokens).clamp(max=MAX_LOG_RATIO))
        advantage_S = tokens.shared_by_sequence(tokens.advantages)
        objective_S = self.surrogate(ratio_S, advantage_S)
        metrics = {
            "policy/ratio_mean": tokens.sequence_mean(ratio_S),
            "policy/clip_fraction": tokens.sequence_mean(self.clipped(ratio_S, advantage_S)),
        }
        if tokens.importance_weights is not None:
            objective_S = objective_S * tokens.shared_by_sequence(tokens.importance_weights)
        if tokens.ref_logprobs is not None:
            kl_S = self.sequence_kl(tokens, tokens.ref_logprobs)
            objective_S = objective_S - self.kl_coef * kl_S
            metrics["policy/kl_ref"] = tokens.sequence_mean(kl_S)
        loss = -objective_S.sum() / tokens.n_sequences
        return LossOutput(loss, metrics)


class SequenceLevelGRPO(_SequenceRatio):
    """R1 eq 1-2: ratio and KL estimate use the probability of the whole completion."""

    def log_ratio(self, tokens: SampledTokens) -> Float[Tensor, "S"]:
        return tokens.sum_by_sequence(tokens.policy_logprobs - tokens.old_logprobs)

    def sequence_kl(self, tokens: SampledTokens, ref_logprobs: Float[Tensor, "C"]) -> Float[Tensor, "S"]:
        log_ref_ratio_S = tokens.sum_by_sequence(ref_logprobs - tokens.policy_logprobs)
        return self.kl(torch.zeros_like(log_ref_ratio_S), log_ref_ratio_S.clamp(max=MAX_LOG_RATIO))


@dataclass(frozen=True)
class GSPO(_SequenceRatio):
    """GSPO eq 5-7: the geometric mean of token ratios. The interval is the paper's (section 5.1)."""

    clip_eps: float = 3e-4
    clip_eps_high: float | None = 4e-4
    kl_coef: float = 0.0

    def log_ratio(self, tokens: SampledTokens) -> Float[Tensor, "S"]:
        return tokens.sum_by_sequence(tokens.policy_logprobs - tokens.old_logprobs) / tokens.completion_tokens

    def sequence_kl(self, tokens: SampledTokens, ref_logprobs: Float[Tensor, "C"]) -> Float[Tensor, "S"]:
        return tokens.sum_by_sequence(self.kl(tokens.policy_logprobs, ref_logprobs)) / tokens.completion_tokens
