"""GRPO objectives with one probability ratio per token, in their published forms, as losses to minimise.

They share the clipped surrogate with a k3 penalty, for token t of completion i,
    J_it = min(rho_it A_it, clip(rho_it, 1 - eps, 1 + eps_high) A_it) - beta k3_it,    rho_it = pi / pi_old,
and differ in the weight of a token, J = sum_it w_it J_it, over S completions:

| class | w_it | paper |
|---|---|---|
| `TokenLevelGRPO` | 1 / (S |o_i|): every completion weighs the same | DeepSeekMath (arXiv:2402.03300) eq 3; the default |
| `DrGRPO` | 1 / (S L), L a constant: long wrong answers are not favoured | Liu et al. 2025 (arXiv:2503.20783) section 3.2 |
| `DAPO` | 1 / (number of all tokens): every token weighs the same | Yu et al. 2025 (arXiv:2503.14476) eq 8 |

Dr. GRPO also drops the group's std from the advantage (`rollout.advantage_scale=none`). DAPO also resamples until every group has
different rewards (`rollout.dynamic_sampling_attempts`) and shapes the reward of overlong answers
(`rewards.length.OverlongPunishment`). `sequence_policy_loss.py` has the objectives with one ratio per completion,
`importance_sampling.py` those that weight tokens instead of clipping.

Completion tokens are flat: C tokens of S sequences; `sequence_ids` C maps tokens to sequences.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from r1_lightning.functional.kl import LOSS_ESTIMATORS
from r1_lightning.types.errors import require_choice, require_int, require_number
from r1_lightning.types.tensors import LossOutput

# Shape legend: C completion tokens, S sequences.

# The largest FP32 number whose exp is finite (3.4e38). Log-ratios of whole completions exceed it once a policy has moved far; exp
# would then be inf, and inf * 0 (an advantage of 0, a clipped gradient) NaN. Values up to it are unchanged.
MAX_LOG_RATIO = 88.72283


@dataclass(frozen=True)
class SampledTokens:
    """The input of an objective: log-probs of C tokens under four policies, and the S sequences they belong to.

    `old_logprobs` are those of the policy that sampled, computed by the trainer; `sampler_logprobs` those of the distribution
    actually drawn from. `ref_logprobs` is None if there is no KL term. `advantages` are per token (C), under outcome supervision
    the same for all tokens of a completion; `completion_tokens` are per sequence (S). `n_sequences` and `n_tokens` are the
    denominators of means: the counts of the whole minibatch, even if this is one of its micro-batches. `importance_weights` (C,
    without gradient) multiply the policy term; None means 1.
    """

    policy_logprobs: Float[Tensor, "C"]
    old_logprobs: Float[Tensor, "C"]
    sampler_logprobs: Float[Tensor, "C"]
    ref_logprobs: Float[Tensor, "C"] | None
    sequence_ids: Int[Tensor, "C"]
    advantages: Float[Tensor, "C"]
    completion_tokens: Float[Tensor, "S"]
    n_sequences: int
    n_tokens: int
    importance_weights: Float[Tensor, "C"] | None = None

    def sum_by_sequence(self, values_C: Float[Tensor, "C"]) -> Float[Tensor, "S"]:
        """Sum over each sequence's tokens: C to S."""
        zeros = torch.zeros(len(self.completion_tokens), dtype=values_C.dtype, device=values_C.device)
        return zeros.index_add(0, self.sequence_ids, values_C)

    def shared_by_sequence(self, values_C: Float[Tensor, "C"]) -> Float[Tensor, "S"]:
        """The value that all tokens of a sequence share: C to S, exactly; 0 for a sequence without a token here."""
        zeros = torch.zeros(len(self.completion_tokens), dtype=values_C.dtype, device=values_C.device)
        return zeros.scatter_reduce(0, self.sequence_ids, values_C, "amax", include_self=False)

    def token_mean(self, values_C: Float[Tensor, "C"]) -> Float[Tensor, ""]:
        """Return this micro-batch's contribution to the mean over the minibatch's tokens, for metrics; contributions add up."""
        return values_C.detach().sum() / max(self.n_tokens, 1)

    def sequence_mean(self, values_S: Float[Tensor, "S"]) -> Float[Tensor, ""]:
        """Return this micro-batch's contribution to the mean over sequences; sequences without a token here do not count."""
        is_here = self.sum_by_sequence(torch.ones_like(self.policy_logprobs)).detach() > 0
        return (values_S.detach() * is_here).sum() / self.n_sequences


@runtime_checkable
class Objective(Protocol):
    """A loss over sampled tokens; `level` says whether it uses one ratio per "token" or per "sequence".

    If `needs_reference` is False, the loss does not depend on the reference model, so none is made and
    `SampledTokens.ref_logprobs` is None.
    """

    @property
    def level(self) -> str: ...

    @property
    def needs_reference(self) -> bool: ...

    def __call__(self, tokens: SampledTokens) -> LossOutput: ...


def clipped_surrogate(
    ratio: Float[Tensor, "*shape"], advantage: Float[Tensor, "*shape"], clip_eps: float, clip_eps_high: float
) -> Float[Tensor, "*shape"]:
    """min(rho A, clip(rho, 1 - clip_eps, 1 + clip_eps_high) A), elementwise (PPO eq 7)."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_eps, 1 + clip_eps_high) * advantage)


def is_clipped(
    ratio: Float[Tensor, "*shape"], advantage: Float[Tensor, "*shape"], clip_eps: float, clip_eps_high: float
) -> Bool[Tensor, "*shape"]:
    """True where the clip binds, that is, where the surrogate's gradient is cut to zero."""
    return ((ratio > 1 + clip_eps_high) & (advantage > 0)) | ((ratio < 1 - clip_eps) & (advantage < 0))


@dataclass(frozen=True)
class ClippedObjective:
    """Settings of every clipped form. `clip_eps_high=None` means a symmetric interval; `kl_coef` is beta.

    `kl_estimator` is k3 (the papers') or k2; see `functional/kl.py` for what their gradients are.
    """

    clip_eps: float = 0.2
    clip_eps_high: float | None = None
    kl_coef: float = 0.001
    kl_estimator: str = "k3"

    def __post_init__(self) -> None:
        require_number("objective.clip_eps", self.clip_eps, 0.0, open_minimum=True)
        if self.clip_eps_high is not None:
            require_number("objective.clip_eps_high", self.clip_eps_high, 0.0, open_minimum=True)
        require_number("objective.kl_coef", self.kl_coef, 0.0)
        require_choice("objective.kl_estimator", self.kl_estimator, LOSS_ESTIMATORS)

    @property
    def needs_reference(self) -> bool:
        """Whether the KL to the reference weighs anything."""
        return self.kl_coef > 0

    @property
    def upper_eps(self) -> float:
        return self.clip_eps if self.clip_eps_high is None else self.clip_eps_high

    def surrogate(self, ratio: Float[Tensor, "*shape"], advantage: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The clipped surrogate with this objective's interval, elementwise."""
        return clipped_surrogate(ratio, advantage, self.clip_eps, self.upper_eps)

    def clipped(self, ratio: Float[Tensor, "*shape"], advantage: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """1 where the clip cuts the gradient, else 0."""
        return is_clipped(ratio, advantage, self.clip_eps, self.upper_eps).to(ratio.dtype)

    def kl(
        self, policy_logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """The chosen estimator of KL[pi || pi_ref], elementwise."""
        return LOSS_ESTIMATORS[self.kl_estimator](policy_logprobs, ref_logprobs)


def token_mean_loss(
    tokens: SampledTokens,
    policy_C: Float[Tensor, "C"],
    weights_C: Float[Tensor, "#C"],
    kl: Callable[[Tensor, Tensor], Tensor],
    kl_coef: float,
    metrics: dict[str, Tensor],
) -> LossOutput:
    """-sum_it w_it (policy_it - beta kl_it): the end that all forms with a term per token share.

    Importance weights multiply the policy's term only: the KL is of the policy that trains, whoever sampled.
    """
    objective_C = policy_C if tokens.importance_weights is None else policy_C * tokens.importance_weights
    if tokens.ref_logprobs is not None:
        kl_C = kl(tokens.policy_logprobs, tokens.ref_logprobs)
        objective_C = objective_C - kl_coef * kl_C
        metrics["policy/kl_ref"] = tokens.token_mean(kl_C)
    loss = -(weights_C * objective_C).sum()
    return LossOutput(loss, metrics)


class _TokenRatio(ClippedObjective, ABC):
    """The forms of the table above; a subclass gives the weights."""

    level = "token"

    @abstractmethod
    def weights(self, tokens: SampledTokens) -> Float[Tensor, "_"]:
        """w_it of each token (C), or one for all (1)."""

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        """Loss (scalar) and metrics; gradients flow into `tokens.policy_logprobs` only."""
        ratio_C = torch.exp(tokens.policy_logprobs - tokens.old_logprobs)
        surrogate_C = self.surrogate(ratio_C, tokens.advantages)
        metrics = {
            "policy/ratio_mean": tokens.token_mean(ratio_C),
            "policy/clip_fraction": tokens.token_mean(self.clipped(ratio_C, tokens.advantages)),
        }
        return token_mean_loss(tokens, surrogate_C, self.weights(tokens), self.kl, self.kl_coef, metrics)


class TokenLevelGRPO(_TokenRatio):
    """DeepSeekMath eq 3: token ratios, mean over each completion's tokens, then over completions."""

    def weights(self, tokens: SampledTokens) -> Float[Tensor, "_"]:
        return (1.0 / (tokens.n_sequences * tokens.completion_tokens))[tokens.sequence_ids]


@dataclass(frozen=True)
class DrGRPO(_TokenRatio):
    """Dr. GRPO: the sum over a completion's tokens by a constant, `max_completion_tokens`, instead of by its length.

    Use it with `rollout.advantage_scale=none`: the paper takes r_i - mean r as the advantage.
    """

    kl_coef: float = 0.0  # the paper trains without
    max_completion_tokens: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("objective.max_completion_tokens", self.max_completion_tokens, 1)

    def weights(self, tokens: SampledTokens) -> Float[Tensor, "_"]:
        return tokens.policy_logprobs.new_tensor([1.0 / (tokens.n_sequences * self.max_completion_tokens)])


@dataclass(frozen=True)
class DAPO(_TokenRatio):
    """DAPO eq 8: the mean over all tokens of the minibatch, the upper clip further out than the lower, and no KL."""

    clip_eps_high: float | None = 0.28
    kl_coef: float = 0.0

    def weights(self, tokens: SampledTokens) -> Float[Tensor, "_"]:
        return tokens.policy_logprobs.new_tensor([1.0 / max(tokens.n_tokens, 1)])
