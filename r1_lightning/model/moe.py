"""DeepSeekMoE (V3 eq 12): shared experts for every token, routed experts for the tokens that chose them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from r1_lightning.functional.expert_balance import count_expert_load, sequence_balance_loss
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.experts import Experts
from r1_lightning.model.feed_forward import FeedForward
from r1_lightning.model.precision import Precision
from r1_lightning.model.router import Router


class RoutingStats(NamedTuple):
    """Routing statistics of one MoE layer: load E (tokens per expert), balance loss, routes B x T x K."""

    load: Tensor
    balance_loss: Tensor
    routes: Tensor


class MoE(nn.Module):
    """B x T x D to B x T x D plus `RoutingStats`; `is_token` B x T says how often the
    statistics count a token: padding not at all (False), a shared prompt as often as it is continued."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.config = config
        self.router = Router(config)
        self.experts = Experts(config, precision)
        self.shared = FeedForward(config.d_model, config.n_shared_experts * config.d_ff_expert, precision)

    def forward(
        self, x_BTD: Tensor, is_token_BT: Tensor, replayed_BTK: Tensor | None = None
    ) -> tuple[Tensor, RoutingStats]:
        rows, positions, _ = x_BTD.shape
        x_ND = x_BTD.flatten(0, 1)
        replayed_NK = None if replayed_BTK is None else replayed_BTK.flatten(0, 1)
        scores_NE, chosen_NK, gates_NK = self.router(x_ND, replayed_NK)
        y_BTD = self.experts(x_ND, chosen_NK, gates_NK).view_as(x_BTD) + self.shared(x_BTD)
        scores_BTE = scores_NE.view(rows, positions, -1)
        routes_BTK = chosen_NK.view(rows, positions, -1)
        # Only training forwards count: the bias update must not see the load of sampling and reference passes.
        if not self.training:
            return y_BTD, RoutingStats(chosen_NK.new_zeros(scores_NE.shape[-1]), scores_NE.new_zeros(()), routes_BTK)
        load = count_expert_load(routes_BTK, is_token_BT, self.config.n_routed_experts)
        balance = scores_NE.new_zeros(())
        if self.config.balance_loss_alpha > 0:
            n_chosen = self.config.n_activated_experts
            balance = self.config.balance_loss_alpha * sequence_balance_loss(scores_BTE, is_token_BT, n_chosen)
        return y_BTD, RoutingStats(load, balance, routes_BTK)
