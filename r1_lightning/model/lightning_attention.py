"""Lightning attention, MiniMax-01's linear attention (arXiv:2501.08313, section 2.2, Figure 3), as a second kind beside MLA.

    [q; k; v] = SiLU(W_qkv x),    y = W_o (sigmoid(W_g x) * RMSNorm(o))

where o is the block-wise linear attention of `functional/linear_attention.py`, normed over all heads together, and the gate has
a projection of x of its own. There is no softmax, no 1 / sqrt(d) and no rotation: order enters through the causal sum and the
decay. What the past leaves behind is one H x H matrix per head, so that sampling takes the same memory and the same work for
every token, however long the text. MiniMax-01 keeps softmax attention in one layer of eight, which finds single tokens that a
state of fixed size cannot hold; here that layer is MLA.

Departures: the decay stands in MiniMax's code only (the paper's mask is 0 or 1), and it is the code that is followed, as in the
norm's fixed eps. MiniMax's own blocks norm after the residual sum (DeepNorm); here lightning attention sits in DeepSeek's
pre-norm block. The state is kept in FP32 whatever the compute type: it is a sum over the whole text.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.functional.linear_attention import (
    BlockPlan,
    block_plan,
    decay_slopes,
    document_segments,
    linear_attention,
)
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.norm import RMSNorm
from r1_lightning.model.precision import Precision

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

    @staticmethod
    def row_mask(document_ids_BT: Tensor) -> BlockPlan:
        """What `forward` must know of packed rows: the same for all layers."""
        return block_plan(document_segments(document_ids_BT), document_ids_BT > 0, BLOCK_TOKENS)

    @staticmethod
    def new_columns_mask(is_token_RT: Tensor, attend_R1TS: Tensor, n_heads: int, dtype: torch.dtype) -> BlockPlan:
        """What `step` must know of its new columns, which all go on where the state stands."""
        return block_plan(torch.zeros_like(is_token_RT, dtype=torch.long), is_token_RT, BLOCK_TOKENS)

    def new_state(self, rows: int, max_tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """An empty state R x N x H x H in FP32; `max_tokens` and `dtype` have no say in it."""
        return torch.zeros(rows, self.n_heads, self.head_dim, self.head_dim, device=device)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: BlockPlan) -> Tensor:
        """`mask` comes from `row_mask`; `cos` and `sin` are not needed."""
        return self._attend(x_BTD, mask, None)[0]

    def step(self, x_RTD: Tensor, cos: Tensor, sin: Tensor, mask: BlockPlan, state: Tensor, start: int) -> Tensor:
        """The newest positions; `mask` comes from `new_columns_mask`. Writes the new state over `state`, R x N x H x H."""
        y_RTD, new_state = self._attend(x_RTD, mask, state)
        state.copy_(new_state)
        return y_RTD

    def _attend(self, x_BTD: Tensor, mask: BlockPlan, state: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v = F.silu(self.qkv(x_BTD)).unflatten(-1, (self.n_heads, -1)).chunk(3, dim=-1)
        o_BTNH, state = linear_attention(q, k, v, self.slopes, mask, state)
        gated_BTW = self.gate(x_BTD).sigmoid() * self.norm(o_BTNH.flatten(2))
        return self.out(gated_BTW), state
