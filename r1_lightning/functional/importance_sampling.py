"""Objectives with importance weights: tokens are weighted by probability ratios instead of losing their gradient to the clip.

`CISPO` (MiniMax-M1, arXiv:2506.13585, eq 4-5) keeps every token's gradient and bounds only its weight:
    J = 1 / (number of tokens) sum_it sg[ min(rho_it, 1 + eps_high) ] A_it log pi_it - beta kl_it
The paper switches its lower bound off (a very large eps_low), so there is none here.

`TruncatedImportanceSampling` (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training";
truncation: Ionides 2008) wraps any objective. If sampler and trainer differ (another engine, lower precision, top-p), tokens are
drawn from pi_sampler, but the objective's pi_old is computed by the trainer; each token gets the weight
    sg[ min(pi_old / pi_sampler, cap) ]
of the token itself, or of its whole completion. With one engine and top-p 1 both probabilities are equal and every weight is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from r1_lightning.functional.policy_loss import ClippedObjective, Objective, SampledTokens, token_mean_loss
from r1_lightning.types.errors import require, require_choice, require_number
from r1_lightning.types.tensors import LossOutput

# Shape legend: C completion tokens, S sequences.

LEVELS = ("token", "sequence")


@dataclass(frozen=True)
class CISPO(ClippedObjective):
    """CISPO: weights are capped at 1 + `clip_eps_high`, and every token keeps its gradient; `clip_eps` is not used.

    The paper does not print its cap; 5 is the value that ScaleRL (arXiv:2510.13786) chose.
    """

    level = "token"
    clip_eps_high: float | None = 4.0
    kl_coef: float = 0.0

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        """Loss (scalar) and metrics; gradients flow into `tokens.policy_logprobs` only."""
        ratio_C = torch.exp(tokens.policy_logprobs.detach() - tokens.old_logprobs)
        bound = 1 + self.upper_eps
        policy_C = ratio_C.clamp(max=bound) * tokens.advantages * tokens.policy_logprobs
        weights = tokens.policy_logprobs.new_tensor([1.0 / max(tokens.n_tokens, 1)])
        metrics = {
            "policy/ratio_mean": tokens.token_mean(ratio_C),
            "policy/clip_fraction": tokens.token_mean((ratio_C > bound).to(ratio_C.dtype)),
        }
        return token_mean_loss(tokens, policy_C, weights, self.kl, self.kl_coef, metrics)


@dataclass(frozen=True)
class TruncatedImportanceSampling:
    """`objective` with its policy term weighed by min(pi_old / pi_sampler, `cap`), per token or per sequence."""

    objective: Objective
    cap: float = 2.0
    weight_level: str = "token"

    def __post_init__(self) -> None:
        require_number("objective.cap", self.cap, 0.0, open_minimum=True)
        require_choice("objective.weight_level", self.weight_level, LEVELS)
        fits = self.objective.level == "token" or self.weight_level == "sequence"
        name = type(self.objective).__name__
        require(fits, "objective.weight_level", self.weight_level, f"{name} has one ratio per completion: sequence")

    @property
    def level(self) -> str:
        return self.objective.level

    @property
    def needs_reference(self) -> bool:
        return self.objective.needs_reference

    @property
    def kl_coef(self) -> float:
        return float(getattr(self.objective, "kl_coef", 0.0))

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        """Return the inner objective's loss and metrics, plus the mean weight and the fraction of truncated weights (0..1)."""
        log_weight_C = (tokens.old_logprobs - tokens.sampler_logprobs).detach()
        if self.weight_level == "sequence":
            log_weight_C = tokens.sum_by_sequence(log_weight_C)[tokens.sequence_ids]
        weight_C = log_weight_C.clamp(max=math.log(self.cap)).exp()
        output = self.objective(replace(tokens, importance_weights=weight_C))
        metrics = {
            "policy/importance_weight_mean": tokens.token_mean(weight_C),
            "policy/importance_truncated_fraction": tokens.token_mean(
                (log_weight_C > math.log(self.cap)).to(weight_C.dtype)
            ),
        }
        return LossOutput(output.loss, {**output.metrics, **metrics})
