"""Group-relative advantages: how much better a completion, or a step of one, is than its group.

Outcome supervision (DeepSeekMath section 4.1.2; R1 eq 3): A_i = (r_i - mean r) / std r within a group, the same for all
tokens of a completion. Process supervision (DeepSeekMath section 4.1.3): the rewards of all steps of all completions of a group
are normalised together, and a token's advantage is the sum over the steps that end at it or after it.

The papers leave open which std they use and what happens at zero. Here: the population std by default (divide by the count), the
sample std on request, and no std for Dr. GRPO (arXiv:2503.20783, section 3.2). A group whose rewards are all equal, to within
`SPREAD_FLOOR`, has advantage exactly 0, because it does not say which completion was better. No epsilon is added: a group whose
spread is above the floor is scaled like any other.

The floor is needed because dividing by the std scales every spread to 1, even one from rounding. A model that scores the same text
in different batches gives scores that differ by one or two units in the last place of FP32 (1.2e-7 at 1); without the floor these
became advantages of up to 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Shape legend: P prompts (groups), G completions in a group, R = P * G completions, T positions of a completion,
# M rewarded steps of all completions together.

# The std that divides a group's rewards -> the `correction` of torch.std; None means no division.
SCALES = {"population": 0, "sample": 1, "none": None}

# Rewards are equal if their spread (largest minus smallest) is at most this fraction of their largest magnitude, or of 1 if all are
# smaller. FP32 has a relative precision of 2^-24; a score is the result of many sums, so 16 such roundings count as equal. The 1
# covers rewards that cancel: 0.1 * 3 - 0.3 is 5.6e-17, not 0. The smallest difference that a rule-based reward makes is a word or a
# token of a long completion (1 / 65,536 = 2^-16), 16 times as much.
SPREAD_FLOOR = 2.0**-20


def group_relative_advantages(rewards_PG: Float[Tensor, "P G"], scale: str = "population") -> Float[Tensor, "P G"]:
    """Map rewards P x G to advantages P x G; `scale` is one of `SCALES`.

    Raises ValueError if a reward is not finite, because one NaN would silently make its whole group NaN.
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

    This is G / (G - 1) times (reward minus mean of all G rewards). Raises ValueError if a reward is not finite.
    """
    group_size = rewards_PG.shape[1]
    return group_relative_advantages(rewards_PG, "none") * (group_size / (group_size - 1))


def per_token(advantages_PG: Float[Tensor, "P G"], completion_mask_RT: Bool[Tensor, "R T"]) -> Float[Tensor, "R T"]:
    """Outcome supervision: give every token of a completion the completion's advantage, R x T; 0 outside the mask."""
    return torch.where(completion_mask_RT, advantages_PG.flatten().unsqueeze(1), 0.0)


def process_advantages(
    step_rewards_M: Float[Tensor, "M"],
    step_rows_M: Int[Tensor, "M"],
    step_ends_M: Int[Tensor, "M"],
    group_size: int,
    shape: tuple[int, int],
    scale: str = "population",
) -> Float[Tensor, "R T"]:
    """Map M step rewards to advantages R x T (`shape`): per token the sum of normalised rewards of steps that end there or later.

    Step m belongs to completion `step_rows_M[m]` (0 .. R - 1) and ends at its token `step_ends_M[m]` (0 .. T - 1). Mean and std
    are over all steps of the group's completions. Tokens after a completion's last step have advantage 0. Raises
    ValueError if a reward is not finite.
    """
    normalised_M = torch.zeros_like(step_rewards_M)
    for group in step_rows_M.div(group_size, rounding_mode="floor").unique():
        inside_M = step_rows_M.div(group_size, rounding_mode="floor") == group
        normalised_M[inside_M] = group_relative_advantages(step_rewards_M[inside_M][None], scale)[0]
    placed_RT = step_rewards_M.new_zeros(shape).index_put((step_rows_M, step_ends_M), normalised_M, accumulate=True)
    return placed_RT.flip(1).cumsum(1).flip(1)


def zero_variance_groups(rewards_PG: Float[Tensor, "P G"]) -> Bool[Tensor, "P"]:
    """Return for each of P groups True if its rewards are equal to within `SPREAD_FLOOR`; False if one is NaN."""
    spread_P = rewards_PG.amax(dim=1) - rewards_PG.amin(dim=1)
    return spread_P <= SPREAD_FLOOR * rewards_PG.abs().amax(dim=1).clamp(min=1.0)
