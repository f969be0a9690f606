"""One transformer block: x + attention(norm(x)), then x + feed_forward(norm(x)), dense or mixture of experts.

The two kinds of attention have one interface: `row_mask` and `new_columns_mask` turn a batch into what `forward` and `step` of
that kind must know about it, once for all its layers, and `new_state` is what sampling keeps of the past. Nothing outside of
construction asks for the kind.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from r1_lightning.model.config import ModelConfig
from r1_lightning.model.feed_forward import FeedForward
from r1_lightning.model.lightning_attention import LightningAttention
from r1_lightning.model.mla import MLA
from r1_lightning.model.moe import MoE, RoutingStats
from r1_lightning.model.norm import RMSNorm
from r1_lightning.model.precision import Precision

ATTENTION: dict[str, type[MLA] | type[LightningAttention]] = {"mla": MLA, "lightning": LightningAttention}


class Block(nn.Module):
    """B x T x D to B x T x D; routing statistics are None for a dense block. `replayed` as in `Router`, B x T x K.

    `layer` is the block's place in the trunk, which says its `attention_kind`; None outside of it (MTP), where that is MLA.
    `mask` is what the `row_mask` or `new_columns_mask` of that kind has made.
    """

    attention: MLA | LightningAttention

    def __init__(self, config: ModelConfig, precision: Precision, is_dense: bool, layer: int | None = None) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention_kind = "mla" if layer is None else config.attention_kinds[layer]
        if layer is None or self.attention_kind == "mla":
            self.attention = MLA(config, precision)
        else:
            self.attention = LightningAttention(config, precision, layer)
        self.feed_forward_norm = RMSNorm(config.d_model, config.norm_eps)
        self.is_dense = is_dense
        self.run = precision.compiled(_run_block)
        self.feed_forward: nn.Module
        if is_dense:
            self.feed_forward = FeedForward(config.d_model, config.d_ff_dense, precision)
        else:
            self.feed_forward = MoE(config, precision)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Any, is_token: Tensor, replayed: Tensor | None = None
    ) -> tuple[Tensor, RoutingStats | None]:
        output: tuple[Tensor, RoutingStats | None] = self.run(self, x, cos, sin, mask, is_token, replayed)
        return output

    def step(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Any, is_token: Tensor, state: Tensor, start: int
    ) -> tuple[Tensor, RoutingStats | None]:
        """`forward` for the newest positions only, which stand from column `start` on in the cached `state` of this layer."""
        x = x + self.attention.step(self.attention_norm(x), cos, sin, mask, state, start)
        return self.add_feed_forward(x, is_token)

    def add_feed_forward(
        self, x: Tensor, is_token: Tensor, replayed: Tensor | None = None
    ) -> tuple[Tensor, RoutingStats | None]:
        """The second half of a block."""
        normed = self.feed_forward_norm(x)
        if self.is_dense:
            return x + self.feed_forward(normed), None
        y, stats = self.feed_forward(normed, is_token, replayed)
        return x + y, stats


def _run_block(
    block: Block, x: Tensor, cos: Tensor, sin: Tensor, mask: Any, is_token: Tensor, replayed: Tensor | None
) -> tuple[Tensor, RoutingStats | None]:
    """`Block.forward`, as a plain function: all blocks and all copies of them share what is compiled."""
    x = x + block.attention(block.attention_norm(x), cos, sin, mask)
    return block.add_feed_forward(x, is_token, replayed)
