"""Multi-token prediction (V3 section 2.2, eq 21-25): module k predicts the token k + 1 positions ahead.

    h'_i = M [RMSNorm(h_i^{k-1}); RMSNorm(Emb(t_{i+k}))]        (21)
    h^k  = TRM(h')                                              (22)

In sampling, module 1 can draft tokens (`rollout/mtp_drafts.py`): `step` is `forward` for the newest positions only, with a latent
cache of its own, because the module's block attends to the module's own past.

Embedding and output head are the main model's. h^0 is the main model's output after its final norm, as inference engines use
the published weights; the report does not say on which side of the norm to take it. The concatenation is the report's, hidden
first (HuggingFace and vLLM put the embedding first: `model/hf_weights.py` swaps the halves of M).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.model.block import Block
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.moe import RoutingStats
from r1_lightning.model.norm import RMSNorm
from r1_lightning.model.precision import Precision


class MTPModule(nn.Module):
    """One prediction depth: hidden B x T x D of the previous depth and the embeddings of the next tokens, to normed B x T x D."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.hidden_norm = RMSNorm(config.d_model, config.norm_eps)
        self.embedding_norm = RMSNorm(config.d_model, config.norm_eps)
        self.combine = precision.linear(2 * config.d_model, config.d_model, fp8_eligible=True)  # M of eq 21
        self.block = Block(config, precision, is_dense=config.n_dense_layers == config.n_layers)
        self.norm = RMSNorm(config.d_model, config.norm_eps)

    def forward(
        self, hidden: Tensor, embedding: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, is_token: Tensor
    ) -> tuple[Tensor, RoutingStats | None]:
        output, stats = self.block(self._combined(hidden, embedding), cos, sin, mask, is_token)
        return self.norm(output), stats

    def step(
        self,
        hidden: Tensor,
        embedding: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        is_token: Tensor,
        state: Tensor,
        start: int | Tensor,
    ) -> Tensor:
        """`forward` for the newest positions, as `Block.step`; drops the routing statistics."""
        output, _ = self.block.step(self._combined(hidden, embedding), cos, sin, mask, is_token, state, start)
        normed: Tensor = self.norm(output)
        return normed

    def _combined(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """h' of eq 21."""
        pair = torch.cat([self.hidden_norm(hidden), self.embedding_norm(embedding)], dim=-1)
        combined: Tensor = self.combine(pair)
        return combined


def shift_left(x_BTD: Tensor, places: int) -> Tensor:
    """Move every entry from t + places to t and fill the end with zeros. Losses mask targets in another document."""
    return F.pad(x_BTD, (0, 0, 0, places))[:, places:]  # padded first: a row may be shorter than `places`
