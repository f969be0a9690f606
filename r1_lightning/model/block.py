"""One transformer block: x + attention(norm(x)), then x + feed_forward(norm(x)), dense or mixture of experts.

`model/attention.py` decides which kind of attention a block has; nothing in the block depends on the kind.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from r1_lightning.model.attention import Attention, SoftmaxAttention, layer_kinds, mtp_kind
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.feed_forward import FeedForward
from r1_lightning.model.moe import MoE, RoutingStats
from r1_lightning.model.norm import RMSNorm
from r1_lightning.model.precision import Precision


class Block(nn.Module):
    """B x T x D to B x T x D; routing statistics are None for a dense block. `replayed` as in `Router`, B x T x K.

    `layer` is the block's index in the trunk, None outside of it (MTP); it determines the kind of attention.
    `attention_kind` is that kind's name; `mask` comes from its `row_mask` or `new_columns_mask`. One that cannot be compiled
    (`model/masked_attention.py`) runs between two compiled halves. With `recompute` the backward computes the block's forward again
    in place of keeping its activations; the statistics are those of the first forward, so no expert is counted twice.
    """

    attention: Attention
    recompute = False

    def __init__(self, config: ModelConfig, precision: Precision, is_dense: bool, layer: int | None = None) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        kind = mtp_kind(config) if layer is None else layer_kinds(config)[layer]
        self.attention_kind = kind.name
        self.attention = kind.build(config, precision, layer)
        self.feed_forward_norm = RMSNorm(config.d_model, config.norm_eps)
        self.is_dense = is_dense
        self.run = precision.compiled(_run_block)
        self.run_before = precision.compiled(_before_attention)
        self.run_after = precision.compiled(_after_attention)
        self.feed_forward: nn.Module
        if is_dense:
            self.feed_forward = FeedForward(config.d_model, config.d_ff_dense, precision)
        else:
            self.feed_forward = MoE(config, precision)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Any, is_token: Tensor, replayed: Tensor | None = None
    ) -> tuple[Tensor, RoutingStats | None]:
        run = self.run if getattr(mask, "compiles", True) else _run_halves
        arguments = (self, x, cos, sin, mask, is_token, replayed)
        output: tuple[Tensor, RoutingStats | None]
        if self.recompute and torch.is_grad_enabled():
            # A block draws no random numbers, so their state need not be kept.
            output = checkpoint(run, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            output = run(*arguments)
        return output

    def step(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Any, is_token: Tensor, state: Tensor, start: int | Tensor
    ) -> tuple[Tensor, RoutingStats | None]:
        """`forward` for the newest positions only, from column `start` on in the cached `state` of this layer."""
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
    """`Block.forward` as a plain function, so that all blocks and all their copies share the compiled code."""
    x = x + block.attention(block.attention_norm(x), cos, sin, mask)
    return block.add_feed_forward(x, is_token, replayed)


def _run_halves(
    block: Block, x: Tensor, cos: Tensor, sin: Tensor, mask: Any, is_token: Tensor, replayed: Tensor | None
) -> tuple[Tensor, RoutingStats | None]:
    """The same with attention left out of what is compiled: its work depends on the lengths of the documents."""
    attended = mask(*block.run_before(block, x, cos, sin), cast(SoftmaxAttention, block.attention).scale)
    output: tuple[Tensor, RoutingStats | None] = block.run_after(block, x, attended, is_token, replayed)
    return output


def _before_attention(block: Block, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return cast(SoftmaxAttention, block.attention).heads(block.attention_norm(x), cos, sin)


def _after_attention(
    block: Block, x: Tensor, attended: Tensor, is_token: Tensor, replayed: Tensor | None
) -> tuple[Tensor, RoutingStats | None]:
    x = x + cast(SoftmaxAttention, block.attention).joined(attended)
    return block.add_feed_forward(x, is_token, replayed)
