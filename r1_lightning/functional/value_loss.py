"""The loss of PPO's value model: squared errors of values, clipped so that one rollout does not move a value far.

    L_V = 1/N sum_t 1/2 max( (V_t - G_t)^2, (clip(V_t, V_old - eps, V_old + eps) - G_t)^2 )

over the N completion tokens of a minibatch. Without the clip this is c_1 (V - V_targ)^2 of PPO's eq 9 (arXiv:1707.06347); the clip
is not in the paper but in its authors' code (openai/baselines, ppo2) and in TRL. The larger of the two errors counts: a value that
has left the interval away from its return is pulled back, one that has left it towards its return rests.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from r1_lightning.types.tensors import LossOutput

# Shape legend: C completion tokens.


def clipped_value_loss(
    values_C: Float[Tensor, "C"],
    old_values_C: Float[Tensor, "C"],
    returns_C: Float[Tensor, "C"],
    n_tokens: int,
    clip_eps: float | None,
) -> LossOutput:
    """The loss above (scalar), whose gradient flows into `values_C` only, and metrics.

    `n_tokens` is N, of the whole minibatch, so losses and metrics of micro-batches add up. `clip_eps` None does not clip.
    """
    errors_C = (values_C - returns_C).square()
    is_clipped_C = torch.zeros_like(errors_C)
    if clip_eps is not None:
        near_C = old_values_C + (values_C - old_values_C).clamp(-clip_eps, clip_eps)
        clipped_C = (near_C - returns_C).square()
        is_clipped_C = (clipped_C > errors_C).to(errors_C.dtype)
        errors_C = torch.maximum(errors_C, clipped_C)
    loss = 0.5 * errors_C.sum() / max(n_tokens, 1)
    metrics = {"value/loss": loss.detach(), "value/clip_fraction": is_clipped_C.sum() / max(n_tokens, 1)}
    return LossOutput(loss, metrics)
