"""Expert load balancing: DeepSeek-V3's auxiliary-loss-free routing biases, and its small sequence-wise balance loss.

The bias update is not a gradient step: after each optimizer step the bias of an expert that received more than its share of the
batch goes down by `bias_update_speed`, that of one with less goes up (V3 section 2.1.2; speed 0.001 for 14.3T tokens). The
sequence-wise balance loss (eq 17-20) only guards against extreme imbalance within one sequence.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

# Shape legend: B rows, T positions, E routed experts, K chosen experts, L layers with experts.


def count_expert_load(
    routes_BTK: Int[Tensor, "B T K"], times_BT: Shaped[Tensor, "B T"], n_experts: int
) -> Int[Tensor, "E"]:
    """Count the tokens routed to each expert (E, int64), each `times`: 0 on padding, G where it stands for G tokens, else 1."""
    counts = times_BT.long().unsqueeze(-1).expand_as(routes_BTK).flatten()
    # Not bincount: the size of its result depends on the data, which torch.compile cannot trace.
    return routes_BTK.new_zeros(n_experts).scatter_add(0, routes_BTK.flatten(), counts)


def sequence_balance_loss(
    scores_BTE: Float[Tensor, "B T E"], is_token_BT: Shaped[Tensor, "B T"], n_chosen: int
) -> Float[Tensor, ""]:
    """Return the sum over experts of f_i P_i per sequence, averaged over sequences (V3 eq 17-20, without alpha).

    f_i = E / (K T) * count of tokens whose bias-free top-K contains i; P_i = mean of s_i / sum_j s_j. Perfect balance gives 1.
    Rows that hold only padding are left out of the mean. `is_token` may be a number of times, as in `count_expert_load`.
    """
    n_experts = scores_BTE.shape[-1]
    mask = is_token_BT.unsqueeze(-1).to(scores_BTE.dtype)
    tokens_B1 = mask.sum(1).clamp(min=1)
    chosen = torch.zeros_like(scores_BTE).scatter(-1, scores_BTE.detach().topk(n_chosen, dim=-1).indices, 1.0)
    frequency_BE = (chosen * mask).sum(1) * n_experts / (n_chosen * tokens_B1)
    share_BE = (scores_BTE / scores_BTE.sum(-1, keepdim=True) * mask).sum(1) / tokens_B1
    has_tokens_B = is_token_BT.any(1).to(scores_BTE.dtype)
    return ((frequency_BE * share_BE).sum(-1) * has_tokens_B).sum() / has_tokens_B.sum().clamp(min=1)


def updated_expert_bias(
    bias_LE: Float[Tensor, "L E"], load_LE: Shaped[Tensor, "L E"], bias_update_speed: float
) -> Float[Tensor, "L E"]:
    """b_i + speed * sign(mean load - load_i), per layer (V3 section 2.1.2): overloaded experts become harder to choose."""
    load_LE = load_LE.long()  # integers: a batch of R1's size exceeds 2^24, up to which FP32 counts exactly
    excess_LE = load_LE.shape[-1] * load_LE - load_LE.sum(-1, keepdim=True)
    return bias_LE - bias_update_speed * torch.sign(excess_LE).to(bias_LE.dtype)


def max_violation(load_LE: Shaped[Tensor, "L E"]) -> Float[Tensor, "L"]:
    """(max load - mean load) / mean load per layer (L): 0 is perfect balance (Wang et al. 2024, "MaxVio")."""
    load_LE = load_LE.float()
    mean_L = load_LE.mean(-1)
    return (load_LE.max(-1).values - mean_L) / mean_L.clamp(min=1e-9)  # a layer without load is balanced, not 0 / 0
