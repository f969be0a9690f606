"""Multi-token prediction (V3 section 2.2, eq 21-25): module k predicts the token k + 1 places ahead.

    h'_i = M [RMSNorm(h_i^{k-1}); RMSNorm(Emb(t_{i+k}))]        (21)
    h^k  = TRM(h')                                              (22)

When completions are sampled, module 1 can draft (`rollout/mtp_drafts.py`): `step` is `forward` for the newest positions only, on
a latent cache of its own, because its block attends to its own past.

Embedding and output head are the main model's. h^0 is the main model's output after its final norm, as the published
weights are used by inference engines; the report leaves open which side of the norm it is taken from. The concatenation is
the report's, hidden first (HuggingFace and vLLM keep the embedding first: `model/hf_weights.py` says how weights are carried over).
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
    """One prediction depth: previous hidden B x T x D and the embeddings one place further on, to normed B x T x D."""

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
        start: int,
    ) -> Tensor:
        """`forward` for the newest positions, as `Block.step`; what the experts did is not told."""
        output, _ = self.block.step(self._combined(hidden, embedding), cos, sin, mask, is_token, state, start)
        normed: Tensor = self.norm(output)
        return normed

    def _combined(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """h' of eq 21."""
        pair = torch.cat([self.hidden_norm(hidden), self.embedding_norm(embedding)], dim=-1)
        combined: Tensor = self.combine(pair)
        return combined


def shift_left(x_BTD: Tensor, places: int) -> Tensor:
    """Entry t becomes what stood at t + places; the end is filled with zeros. Losses mask what crosses a border."""
    return F.pad(x_BTD, (0, 0, 0, places))[:, places:]  # padded first: a row may be shorter than `places`
