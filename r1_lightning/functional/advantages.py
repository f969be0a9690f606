"""Group-relative advantages (DeepSeekMath section 4.1.2; R1 eq 3): A_i = (r_i - mean r) / std r within a group.

The papers leave open which std and what happens at zero. Here: the population std by default (divide by G), and a group
whose rewards are all equal has advantage 0, exactly, because it says nothing about which completion was better. No epsilon
is added: a group with the smallest spread is scaled like any other.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Shape legend: P prompts (groups), G completions in a group.


def group_relative_advantages(rewards_PG: Tensor, ddof: int = 0) -> Tensor:
    """Rewards P x G to advantages P x G; `ddof` 0 is the population std, 1 the sample std.

    Raises ValueError where a reward is not finite: one NaN would silently spoil its whole group.
    """
    if not torch.isfinite(rewards_PG).all():
        bad = (~torch.isfinite(rewards_PG)).nonzero()[0].tolist()
        raise ValueError(f"reward of prompt {bad[0]}, completion {bad[1]} is not finite")
    centred = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    std_P1 = rewards_PG.std(dim=1, keepdim=True, correction=ddof)
    equal_P1 = zero_variance_groups(rewards_PG).unsqueeze(1)
    return torch.where(equal_P1, 0.0, centred / torch.where(equal_P1, 1.0, std_P1))


def zero_variance_groups(rewards_PG: Tensor) -> Tensor:
    """P booleans: True where all rewards of the group are equal."""
    return (rewards_PG == rewards_PG[:, :1]).all(dim=1)
