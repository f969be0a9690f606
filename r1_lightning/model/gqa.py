"""Grouped-query attention with RoPE (Ainslie et al. 2023, arXiv:2305.13245): G key-value heads, each shared by N / G query heads.

    o_i = softmax(R(q_i) R(k_g)^T / sqrt(H)) v_g    with g the group of head i and R the rotation of the whole head

G = N is multi-head attention, G = 1 multi-query attention (Shazeer 2019). These are the baselines that DeepSeek-V2 compares MLA
with (V2 Table 1): a token costs 2 G H cached elements per layer, where MLA costs d_c + d_h^R. Training repeats keys and values for
the heads of their group; sampling reads the cached ones as they are.

Departures from Llama's attention: none in the mathematics. Pairs that are rotated stand next to each other (`model/rope.py`), and
keys and values come from one projection, keys first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1_lightning.model.config import ModelConfig
from r1_lightning.model.continued_rows import packed_attention
from r1_lightning.model.kv_cache import append_columns
from r1_lightning.model.masked_attention import RowAttention, is_dense
from r1_lightning.model.mla import step_mask
from r1_lightning.model.norm import norm_bytes
from r1_lightning.model.precision import FP32, Precision
from r1_lightning.model.rope import rotate, softmax_scale
from r1_lightning.types.errors import require, require_int

# Shape legend: B rows, T positions, R rows being sampled, S cached positions, D model width, N heads, G key-value heads,
# P heads of a group (N / G), H head width.


class GroupedQueryAttention(nn.Module):
    """Attention of B x T x D onto itself (`forward`) or onto cached keys and values (`step`)."""

    def __init__(self, config: ModelConfig, precision: Precision, n_kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, n_kv_heads, head_dim
        self.group_size = config.n_heads // n_kv_heads
        self.scale = softmax_scale(head_dim, config.yarn)
        self.static_shapes = precision.static_shapes
        width = config.n_heads * head_dim
        self.q_proj = precision.linear(config.d_model, width, fp8_eligible=True)
        self.kv_proj = precision.linear(config.d_model, 2 * n_kv_heads * head_dim, fp8_eligible=True)
        self.out = precision.linear(width, config.d_model, fp8_eligible=True)

    def new_state(self, rows: int, max_tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for the rotated keys and the values of `max_tokens` columns, rows x max_tokens x 2 G H."""
        return torch.zeros(rows, max_tokens, 2 * self.n_kv_heads * self.head_dim, dtype=dtype, device=device)

    def heads(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries B x T x N x H, rotated keys and values B x T x G x H."""
        q = self.q_proj(x_BTD).unflatten(-1, (self.n_heads, -1))
        k, v = self.kv_proj(x_BTD).unflatten(-1, (2, self.n_kv_heads, -1)).unbind(-3)
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: RowAttention) -> Tensor:
        """`cos`, `sin` B x T x H / 2; `mask` comes from `row_attention`."""
        return self.joined(mask(*self.heads(x_BTD, cos, sin), self.scale, self.static_shapes))

    def joined(self, o_BTNH: Tensor) -> Tensor:
        """W^O of the heads' weighted sums, B x T x D."""
        y_BTD: Tensor = self.out(o_BTNH.flatten(2))
        return y_BTD

    def step(
        self, x_RTD: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | RowAttention, state: Tensor, start: int | Tensor
    ) -> Tensor:
        """The newest positions; `mask` R x 1 x PT x S comes from `GQAKind`. Writes keys and values into `state` from `start` on.

        Long prompts come with a `RowAttention`, and look at themselves alone.
        """
        q_RTNH, k, v = self.heads(x_RTD, cos, sin)
        width = mask.shape[-1] if isinstance(mask, Tensor) else None
        cached = append_columns(state, torch.cat([k, v], -2).flatten(2), start, width).to(q_RTNH.dtype)
        if not isinstance(mask, Tensor):
            return self.joined(mask(q_RTNH, k, v, self.scale))
        k_RGSH, v_RGSH = cached.unflatten(-1, (2, self.n_kv_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        # The heads of a group share their keys, so they stand where positions would, and nothing is repeated.
        q = q_RTNH.unflatten(2, (self.n_kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # R x G x PT x H
        o = F.scaled_dot_product_attention(q, k_RGSH, v_RGSH, attn_mask=mask, scale=self.scale)
        o_RTGPH = o.unflatten(2, (self.group_size, -1)).permute(0, 3, 1, 2, 4)
        return self.out(o_RTGPH.flatten(2))


@dataclass(frozen=True)
class GQAKind:
    """Grouped-query attention as an `AttentionKind`: `n_kv_heads` heads of keys and values, all heads `head_dim` wide.

    Raises InvalidInput where `n_kv_heads` does not divide `model.n_heads`, or `head_dim` is odd.
    """

    n_kv_heads: int
    head_dim: int

    name: ClassVar[str] = "gqa"
    is_recurrent: ClassVar[bool] = False
    cache_name: ClassVar[str] = "key-value cache"
    hf_refusal: ClassVar[str | None] = "weights and config.json of transformers are written for MLA only"

    def __post_init__(self) -> None:
        require_int("model.attention_kind.n_kv_heads", self.n_kv_heads, 1)
        require_int("model.attention_kind.head_dim", self.head_dim, 2)
        require(self.head_dim % 2 == 0, "model.attention_kind.head_dim", self.head_dim, "it must be even")

    def check(self, config: ModelConfig) -> None:
        allowed = f"it must divide model.n_heads={config.n_heads}"
        require(config.n_heads % self.n_kv_heads == 0, "model.attention_kind.n_kv_heads", self.n_kv_heads, allowed)

    def build(self, config: ModelConfig, precision: Precision, layer: int | None) -> GroupedQueryAttention:
        return GroupedQueryAttention(config, precision, self.n_kv_heads, self.head_dim)

    def rotary_width(self, config: ModelConfig) -> int:
        """The whole head."""
        return self.head_dim

    def row_mask(self, document_ids_BT: Tensor, prefix_ids_BT: Tensor | None = None) -> RowAttention:
        return packed_attention(document_ids_BT, prefix_ids_BT)

    def new_columns_mask(
        self, config: ModelConfig, is_token_RT: Tensor, attend_R1TS: Tensor | RowAttention, dtype: torch.dtype
    ) -> Tensor | RowAttention:
        """R x 1 x PT x S."""
        return step_mask(attend_R1TS, config.n_heads // self.n_kv_heads, dtype)

    def mha_head_dim(self, config: ModelConfig) -> int:
        return self.head_dim

    def cached_elements(self, config: ModelConfig) -> int:
        """2 n_g d_h (V2 Table 1)."""
        return 2 * self.n_kv_heads * self.head_dim

    def state_bytes(self, config: ModelConfig) -> int:
        return 0

    def is_fused(self, config: ModelConfig, device_type: str) -> bool:
        """Queries, keys and values have one width, and as many heads."""
        return True

    def kept_bytes(self, config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
        """The norm, its output (once in FP32, or twice in BF16), query, repeated key and value, and the output, which meets W^O."""
        width = config.n_heads * self.head_dim
        kept = norm_bytes(config.d_model) + FP32 * config.d_model + number * width
        if (
            is_fused
        ):  # and the logarithm of the softmax's sum; keys as they came where nobody repeats; long rows' output twice
            again = (self.n_kv_heads == config.n_heads) + (not is_dense(row_tokens))
            return kept + (3 + again) * number * width + FP32 * config.n_heads
        return kept + FP32 * (3 * width + config.n_heads * row_tokens)

    def passing_bytes(self, config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
        """What would be kept; where it is not fused, its weights once more."""
        again = 0 if is_fused else FP32 * config.n_heads * row_tokens
        return self.kept_bytes(config, row_tokens, number, is_fused) + again

    def prefill_bytes(self, config: ModelConfig, row_tokens: int, number: int) -> int:
        """Query as it comes, rotated and in groups, and the sum; keys and values as they come, rotated, and joined.

        Of long prompts: no groups, but keys and values repeated for them, and the output of the documents and of all.
        """
        if not is_dense(row_tokens):
            repeated = 0 if self.n_kv_heads == config.n_heads else 2 * config.n_heads
            return number * self.head_dim * (4 * config.n_heads + 3 * self.n_kv_heads + repeated)
        return number * self.head_dim * (4 * config.n_heads + 6 * self.n_kv_heads)

    def step_mask_bytes(self, config: ModelConfig, number: int) -> int:
        """One number per head of a group (`step_mask`)."""
        return number * config.n_heads // self.n_kv_heads

    def forward_products(self, config: ModelConfig, context: float) -> float:
        """2 N H per token in sight: scores, and the weighted sum."""
        return context * config.n_heads * 2 * self.head_dim

    def prefill_products(self, config: ModelConfig, context: float) -> float:
        return self.forward_products(config, context)

    def decode_products(self, config: ModelConfig, context: float) -> float:
        return self.forward_products(config, context)
