"""Generalised advantage estimation: how much better than a value model expected a token turned out (Schulman et al. 2015).

An episode is one completion: the state before token t is the prompt with the tokens before it, the action is token t, and the
episode ends with the last token, finished or cut off, behind which every value is 0. With V the value of a state and r a reward,

    delta_t = r_t + gamma V_{t+1} - V_t,    A_t = sum_l (gamma lambda)^l delta_{t+l}    (arXiv:1506.02438 eq 16; PPO eq 11-12)

lambda = 1 compares all later rewards with V_t alone, without bias whatever V is; a smaller one trusts the values of later states,
with less variance and the bias of a value model that is wrong. R1v2 appendix A.3 finds 0.95 much worse than GRPO, and 1.0 near it.

The reward of a completion comes with its last token; PPO's KL penalty is a reward of every token (DeepSeekMath eq 2).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Shape legend: R completions, T positions of a completion, right-padded.

WHITENING_EPS = 1e-8  # on the variance, as in TRL: advantages that differ by rounding alone stay small


def token_rewards(
    rewards_R: Float[Tensor, "R"], kl_RT: Float[Tensor, "R T"], mask_RT: Bool[Tensor, "R T"], kl_coef: float
) -> Float[Tensor, "R T"]:
    """r_t = r [t is the last token] - kl_coef kl_t (DeepSeekMath eq 2), R x T, 0 outside of completions.

    `kl_RT` is log pi - log pi_ref of each token (k1, nats). A completion without a token has no reward.
    """
    is_last_RT = mask_RT & ~torch.nn.functional.pad(mask_RT[:, 1:], (0, 1))
    return torch.where(is_last_RT, rewards_R.unsqueeze(1), 0.0) - torch.where(mask_RT, kl_coef * kl_RT, 0.0)


def generalised_advantages(
    rewards_RT: Float[Tensor, "R T"],
    values_RT: Float[Tensor, "R T"],
    mask_RT: Bool[Tensor, "R T"],
    gae_lambda: float,
    discount: float = 1.0,
) -> Float[Tensor, "R T"]:
    """Advantages A_t of R x T tokens, 0 outside of completions.

    `values_RT[:, t]` is V of the state before token t; rewards and values outside of the mask are not read. A_t + V_t is the return
    that the value model learns (the lambda-return).
    """
    rewards_RT, values_RT = (torch.where(mask_RT, numbers, 0.0) for numbers in (rewards_RT, values_RT))
    advantages_RT = torch.zeros_like(rewards_RT)
    next_value_R = later_R = torch.zeros_like(rewards_RT[:, 0])
    for place in reversed(range(rewards_RT.shape[1])):
        delta_R = rewards_RT[:, place] + discount * next_value_R - values_RT[:, place]
        # Behind the last token all is 0, so padding need not be told from completions before the end.
        later_R = torch.where(mask_RT[:, place], delta_R + discount * gae_lambda * later_R, 0.0)
        advantages_RT[:, place], next_value_R = later_R, values_RT[:, place]
    return advantages_RT


def rewards_to_go(
    rewards_RT: Float[Tensor, "R T"], mask_RT: Bool[Tensor, "R T"], discount: float = 1.0
) -> Float[Tensor, "R T"]:
    """G_t = sum_l gamma^l r_{t+l}, what the value of the state before token t estimates; R x T, 0 outside of completions."""
    return generalised_advantages(rewards_RT, torch.zeros_like(rewards_RT), mask_RT, 1.0, discount)


def whitened(advantages_RT: Float[Tensor, "R T"], mask_RT: Bool[Tensor, "R T"]) -> Float[Tensor, "R T"]:
    """Advantages with mean 0 and (sample) variance 1 over all tokens in the mask, 0 outside; as in InstructGPT's code and TRL.

    A single token, or none, has nothing to be compared with: 0.
    """
    inside = advantages_RT[mask_RT]
    if inside.numel() < 2:
        return torch.zeros_like(advantages_RT)
    variance, mean = torch.var_mean(inside, correction=1)
    return torch.where(mask_RT, (advantages_RT - mean) * torch.rsqrt(variance + WHITENING_EPS), 0.0)


def explained_variance(values_C: Float[Tensor, "C"], returns_C: Float[Tensor, "C"]) -> float:
    """1 - Var(G - V) / Var(G): 1 for perfect values, 0 for constant ones, below 0 for worse; NaN if all returns are equal."""
    spread = returns_C.var(correction=0) if returns_C.numel() else returns_C.new_zeros(())
    if not spread > 0:
        return float("nan")
    return float(1 - (returns_C - values_C).var(correction=0) / spread)


def value_metrics(
    values_RT: Float[Tensor, "R T"], returns_RT: Float[Tensor, "R T"], mask_RT: Bool[Tensor, "R T"]
) -> Mapping[str, float]:
    """Scalars to log of a rollout's values before anything was learned from it, against the rewards that came."""
    values_C, returns_C = values_RT[mask_RT], returns_RT[mask_RT]
    return {
        "value/mean": float(values_C.mean()),
        "value/return_mean": float(returns_C.mean()),
        "value/explained_variance": explained_variance(values_C, returns_C),
    }
