"""Lightning attention, MiniMax-01's linear attention (arXiv:2501.08313, section 2.2, Figure 3), as a second kind beside MLA.

    [q; k; v] = SiLU(W_qkv x),    y = W_o (sigmoid(W_g x) * RMSNorm(o))

where o is the block-wise linear attention of `functional/linear_attention.py`, normed over all heads together, and the gate has
its own projection of x. There is no softmax, no 1 / sqrt(d) and no rotation: order enters through the causal sum and the
decay. One H x H matrix per head holds the whole past, so that sampling takes the same memory and the same work for every token,
however long the text. MiniMax-01 keeps softmax attention in one layer of eight, which finds single tokens that a state of fixed
size cannot hold; here that layer is MLA.

Departures: the decay is in MiniMax's code only (the paper's mask is 0 or 1); we follow the code, also in the norm's fixed eps.
MiniMax's own blocks norm after the residual sum (DeepNorm); here lightning attention is part of DeepSeek's pre-norm block. The
state is FP32 whatever the compute type, because it is a sum over the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.functional.linear_attention import (
    BlockPlan,
    block_length,
    block_plan,
    decay_slopes,
    document_segments,
    linear_attention,
)
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.norm import RMSNorm, norm_bytes
from r1_lightning.model.precision import FP32, Precision

# Shape legend: B rows, T positions, R rows being sampled, D model width, N heads, H head width, W all heads' width (N H).

HEADS_NORM_EPS = 1e-6
# Within a block a token costs 4 N T_block H FLOPs, through the state 4 N H^2: about the same for heads 32 to 128 wide.
BLOCK_TOKENS = 64


class LightningAttention(nn.Module):
    """Attention of B x T x D onto itself (`forward`) or onto a state of constant size (`step`), for `layer` of the trunk."""

    slopes: Tensor

    def __init__(self, config: ModelConfig, precision: Precision, layer: int) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.head_dim = config.lightning_head_dim
        width = self.n_heads * self.head_dim
        self.qkv = precision.linear(config.d_model, 3 * width, fp8_eligible=True)  # head by head its q, k and v
        self.gate = precision.linear(config.d_model, width, fp8_eligible=True)
        self.norm = RMSNorm(width, HEADS_NORM_EPS)
        self.out = precision.linear(width, config.d_model, fp8_eligible=True)
        self.register_buffer("slopes", decay_slopes(self.n_heads, layer, config.n_layers), persistent=False)

    def new_state(self, rows: int, max_tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an empty state R x N x H x H in FP32; `max_tokens` and `dtype` do not affect it."""
        return torch.zeros(rows, self.n_heads, self.head_dim, self.head_dim, device=device)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: BlockPlan) -> Tensor:
        """`mask` comes from `LightningKind.row_mask`; `cos` and `sin` are not needed."""
        return self._attend(x_BTD, mask, None)[0]

    def step(
        self, x_RTD: Tensor, cos: Tensor, sin: Tensor, mask: BlockPlan, state: Tensor, start: int | Tensor
    ) -> Tensor:
        """Attention of the newest positions; `mask` comes from `LightningKind`. Overwrites `state`, R x N x H x H."""
        y_RTD, new_state = self._attend(x_RTD, mask, state)
        state.copy_(new_state)
        return y_RTD

    def _attend(self, x_BTD: Tensor, mask: BlockPlan, state: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v = F.silu(self.qkv(x_BTD)).unflatten(-1, (self.n_heads, -1)).chunk(3, dim=-1)
        o_BTNH, state = linear_attention(q, k, v, self.slopes, mask, state)
        gated_BTW = self.gate(x_BTD).sigmoid() * self.norm(o_BTNH.flatten(2))
        return self.out(gated_BTW), state


@dataclass(frozen=True)
class LightningKind:
    """Lightning attention as an `AttentionKind`: nothing of it grows with the row."""

    name: ClassVar[str] = "lightning"
    is_recurrent: ClassVar[bool] = True
    hf_refusal: ClassVar[str | None] = "transformers has no class with both MLA and lightning attention"

    def check(self, config: ModelConfig) -> None:
        """Nothing: it has the heads of MLA."""

    def build(self, config: ModelConfig, precision: Precision, layer: int | None) -> LightningAttention:
        """Raises TypeError outside of the trunk: the decay depends on the place."""
        if layer is None:
            raise TypeError("lightning attention has a place in the trunk")
        return LightningAttention(config, precision, layer)

    def rotary_width(self, config: ModelConfig) -> int:
        return 0

    def row_mask(self, document_ids_BT: Tensor, prefix_ids_BT: Tensor | None = None) -> BlockPlan:
        """Of rows without prefixes: what continues a prompt needs a state of its own, so the backbone unfolds them before."""
        assert prefix_ids_BT is None, "a recurrent kind has no rows with prefixes"
        return block_plan(document_segments(document_ids_BT), document_ids_BT > 0, BLOCK_TOKENS)

    def new_columns_mask(
        self, config: ModelConfig, is_token_RT: Tensor, attend_R1TS: Any, dtype: torch.dtype
    ) -> BlockPlan:
        """The mask of new columns, which all continue from the current state."""
        return block_plan(torch.zeros_like(is_token_RT, dtype=torch.long), is_token_RT, BLOCK_TOKENS)

    def mha_head_dim(self, config: ModelConfig) -> int:
        return config.lightning_head_dim

    def cached_elements(self, config: ModelConfig) -> int:
        return 0

    def state_bytes(self, config: ModelConfig) -> int:
        """N states of H x H in FP32."""
        return config.n_heads * config.lightning_head_dim**2 * FP32

    def is_fused(self, config: ModelConfig, device_type: str) -> bool:
        """There are no weights of T positions to keep."""
        return True

    def kept_bytes(self, config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
        """Bytes kept per token, which do not grow with the row.

        They are: q, k, v before SiLU and in blocks; q and k with their decay, and its factors; within a block the decay of all
        pairs and the scores with it; the state that enters each block; the norm, its output, the gate, and their product, the
        input of W^O.
        """
        heads, head, block = config.n_heads, config.lightning_head_dim, block_length(row_tokens, BLOCK_TOKENS)
        width = heads * head
        kept = norm_bytes(config.d_model) + FP32 * config.d_model + number * width * (3 + 3 + 2 + 3)
        kept += norm_bytes(width) + 2 * FP32 * heads + heads * block * (FP32 + number)
        return kept + number * width * head // block

    def passing_bytes(self, config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
        return self.kept_bytes(config, row_tokens, number, is_fused)

    def prefill_bytes(self, config: ModelConfig, row_tokens: int, number: int) -> int:
        return self.kept_bytes(config, row_tokens, number, is_fused=True)

    def step_mask_bytes(self, config: ModelConfig, number: int) -> int:
        return 0

    def forward_products(self, config: ModelConfig, context: float) -> float:
        """N (2 T_block H + 2 H^2), independent of the context: with the keys and values of the block, and with the state.

        For rows of at least a block. Not counted: the sums over blocks, (H / T_block)^2 products per pair of tokens and head, where
        MLA takes d_qk + d_v.
        """
        return _products(config, BLOCK_TOKENS)

    def prefill_products(self, config: ModelConfig, context: float) -> float:
        return _products(config, BLOCK_TOKENS)

    def decode_products(self, config: ModelConfig, context: float) -> float:
        """The recurrence alone."""
        return _products(config, 0)


def _products(config: ModelConfig, block: int) -> int:
    """Multiplications per token: with the keys and values of a block of `block` tokens, and with the state."""
    return config.n_heads * 2 * config.lightning_head_dim * (block + config.lightning_head_dim)
