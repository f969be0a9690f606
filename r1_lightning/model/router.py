"""The router of DeepSeekMoE with auxiliary-loss-free balancing (V3 section 2.1.2, eq 12-16).

Each token's affinity to expert i is s_i = sigmoid(u . e_i). The router chooses experts by s_i + b_i; a balancing update moves the
bias b_i after every optimizer step so that overloaded experts are chosen less (see `functional.expert_balance`). The gate of a
chosen expert depends on s_i alone. Node-limited routing first keeps the `n_limited_groups` groups whose two best biased
affinities have the highest sums.

V2's router (`router_scoring="softmax"`, V2 eq 20-22) has s = softmax(u . e), no bias, and gates that are the affinities.

The report prints no `route_scale`; the published code multiplies the normalised gates by it (2.5 in V3). Forbidden groups are
masked with -inf: with 0.0 a forbidden expert beats a permitted one as soon as biases are negative. The router runs in FP32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.model.config import ModelConfig

# Shape legend: N tokens, E routed experts, K chosen experts, M expert groups.


def choose_experts(scores_NE: Tensor, bias_E: Tensor | float, n_chosen: int, n_groups: int, n_limited: int) -> Tensor:
    """Indices N x K of the chosen experts: top-K of scores + bias within the `n_limited` best groups (V3 eq 16)."""
    biased_NE = scores_NE + bias_E
    if n_groups > 1:
        grouped_NMe = biased_NE.unflatten(-1, (n_groups, -1))
        group_score_NM = grouped_NMe.topk(2, dim=-1).values.sum(-1)
        kept_NK = group_score_NM.topk(n_limited, dim=-1).indices
        allowed_NM = torch.zeros_like(group_score_NM, dtype=torch.bool).scatter_(-1, kept_NK, True)
        biased_NE = grouped_NMe.masked_fill(~allowed_NM.unsqueeze(-1), float("-inf")).flatten(-2)
    return biased_NE.topk(n_chosen, dim=-1).indices


def gate_weights(scores_NE: Tensor, chosen_NK: Tensor, route_scale: float, normalise: bool = True) -> Tensor:
    """Gates N x K: the chosen experts' unbiased affinities, normalised to sum to `route_scale` (V3 eq 13), or only scaled by it."""
    chosen_scores_NK = scores_NE.gather(-1, chosen_NK)
    if not normalise:
        return chosen_scores_NK * route_scale
    # The reference adds 1e-20 so that affinities that all underflow give 0 and not NaN.
    return chosen_scores_NK / (chosen_scores_NK.sum(-1, keepdim=True) + 1e-20) * route_scale


class Router(nn.Module):
    """Tokens N x D to affinities N x E, chosen experts N x K and gates N x K.

    `expert_bias` is a buffer: it is saved with the weights, has no gradient, and the stage that balances the load sets it. Routes
    may be replayed ("Rollout Routing Replay", arXiv:2510.11370): the sampler's experts with gates of the current weights and
    gradients.
    """

    expert_bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.d_model))
        self.is_sigmoid = config.router_scoring == "sigmoid"
        self.register_buffer("expert_bias", torch.zeros(config.n_routed_experts) if self.is_sigmoid else None)

    def forward(self, x_ND: Tensor, replayed_NK: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """`replayed_NK` are the experts to use; where it is -1 the router chooses."""
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = F.linear(x_ND.float(), self.weight.float())
            scores_NE = logits_NE.sigmoid() if self.is_sigmoid else logits_NE.softmax(-1)
        config = self.config
        bias = self.expert_bias if self.is_sigmoid else 0.0
        with torch.no_grad():
            chosen_NK = choose_experts(
                scores_NE, bias, config.n_activated_experts, config.n_expert_groups, config.n_limited_groups
            )
            if replayed_NK is not None:
                chosen_NK = torch.where(replayed_NK >= 0, replayed_NK, chosen_NK)
        return scores_NE, chosen_NK, gate_weights(scores_NE, chosen_NK, config.route_scale, self.is_sigmoid)
