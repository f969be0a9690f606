"""How much better than its group was a completion, or a step of one?

Outcome supervision (DeepSeekMath section 4.1.2; R1 eq 3): A_i = (r_i - mean r) / std r within a group, the same for all
tokens of a completion. Process supervision (DeepSeekMath section 4.1.3): the rewards of all steps of all completions of a group
are normalised together, and a token's advantage is the sum over the steps that end at it or after it.

The papers leave open which std and what happens at zero. Here: the population std by default (divide by the count), the
sample std on request, none at all for Dr. GRPO (arXiv:2503.20783, section 3.2); and a group whose rewards are all equal, to
within `SPREAD_FLOOR`, has advantage 0, exactly, because it says nothing about which completion was better. No epsilon is
added: a group whose spread is above the floor is scaled like any other.

Why a floor: dividing by the std makes any spread as large as 1, be it rounding. A model that scores the same text in other company
gives it numbers that differ by one or two units in the last place of FP32 (1.2e-7 at 1), which became advantages of up to 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Shape legend: P prompts (groups), G completions in a group, R = P * G completions, T positions of a completion,
# M rewarded steps of all completions together.

# What a group's spread divides by, and the correction that torch.std takes for it; None divides by nothing.
SCALES = {"population": 0, "sample": 1, "none": None}

# Rewards whose spread (largest less smallest) is at most this part of the largest magnitude among them, or of 1 where all are
# smaller, are equal. FP32 keeps a number to 2^-24 of it; a score is the end of many sums, so 16 such roundings are no difference.
# The 1 is for rewards that cancel: 0.1 * 3 - 0.3 is 5.6e-17, and not 0. The least that a rule here tells apart is a word or a token
# of a long completion (1 / 65,536 = 2^-16), 16 times as much.
SPREAD_FLOOR = 2.0**-20


def group_relative_advantages(rewards_PG: Float[Tensor, "P G"], scale: str = "population") -> Float[Tensor, "P G"]:
    """Rewards P x G to advantages P x G; `scale` is one of `SCALES`.

    Raises ValueError where a reward is not finite: one NaN would silently spoil its whole group.
    """
    if not torch.isfinite(rewards_PG).all():
        bad = (~torch.isfinite(rewards_PG)).nonzero()[0].tolist()
        raise ValueError(f"reward of prompt {bad[0]}, completion {bad[1]} is not finite")
    centred = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    correction = SCALES[scale]
    equal_P1 = zero_variance_groups(rewards_PG).unsqueeze(1)
    if correction is None:
        std_P1 = torch.ones_like(centred[:, :1])
    else:
        std_P1 = rewards_PG.std(dim=1, keepdim=True, correction=correction)
    return torch.where(equal_P1, 0.0, centred / torch.where(equal_P1, 1.0, std_P1))


def leave_one_out_advantages(rewards_PG: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """RLOO (Ahmadian et al. 2024, arXiv:2402.14740): A_i = r_i - mean of the other G - 1 rewards, P x G.

    It is G / (G - 1) times the reward less the mean of all. Raises ValueError where a reward is not finite.
    """
    group_size = rewards_PG.shape[1]
    return group_relative_advantages(rewards_PG, "none") * (group_size / (group_size - 1))


def per_token(advantages_PG: Float[Tensor, "P G"], completion_mask_RT: Bool[Tensor, "R T"]) -> Float[Tensor, "R T"]:
    """Outcome supervision: every token of a completion gets the completion's advantage, R x T; 0 outside of the mask."""
    return torch.where(completion_mask_RT, advantages_PG.flatten().unsqueeze(1), 0.0)


def process_advantages(
    step_rewards_M: Float[Tensor, "M"],
    step_rows_M: Int[Tensor, "M"],
    step_ends_M: Int[Tensor, "M"],
    group_size: int,
    shape: tuple[int, int],
    scale: str = "population",
) -> Float[Tensor, "R T"]:
    """Advantages R x T (`shape`) from M step rewards: sum over the steps j with index(j) >= t of their normalised rewards.

    Step m belongs to completion `step_rows_M[m]` (0 .. R - 1) and ends at its token `step_ends_M[m]` (0 .. T - 1). Mean and std
    are over all steps of the group's completions. Tokens after a completion's last step have advantage 0. Raises
    ValueError where a reward is not finite.
    """
    normalised_M = torch.zeros_like(step_rewards_M)
    for group in step_rows_M.div(group_size, rounding_mode="floor").unique():
        inside_M = step_rows_M.div(group_size, rounding_mode="floor") == group
        normalised_M[inside_M] = group_relative_advantages(step_rewards_M[inside_M][None], scale)[0]
    placed_RT = step_rewards_M.new_zeros(shape).index_put((step_rows_M, step_ends_M), normalised_M, accumulate=True)
    return placed_RT.flip(1).cumsum(1).flip(1)


def zero_variance_groups(rewards_PG: Float[Tensor, "P G"]) -> Bool[Tensor, "P"]:
    """P booleans: True where all rewards of the group are equal, to within `SPREAD_FLOOR`; False where one is NaN."""
    spread_P = rewards_PG.amax(dim=1) - rewards_PG.amin(dim=1)
    return spread_P <= SPREAD_FLOOR * rewards_PG.abs().amax(dim=1).clamp(min=1.0)
