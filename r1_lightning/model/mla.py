"""Multi-head latent attention (V3 section 2.1.1, eq 1-11).

Keys and values are compressed into one latent c^KV per token, and position enters through a separate rotary key shared by
all heads. Training expands the latent into per-head keys and values. Sampling never does: W^UK is absorbed into the query
and W^UV applied after the weighted sum (V2 section 2.1.2), so that attention runs on the cached latents themselves.

Departures from the paper: none in the mathematics. The report's "additional scaling factors at the width bottlenecks" are
the RMSNorms after c^KV and c^Q, as in the published code; those two keep the code's fixed eps of 1e-6.
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
from r1_lightning.model.norm import RMSNorm, norm_bytes
from r1_lightning.model.precision import FP32, Precision, multiplied_input, multiplied_weight
from r1_lightning.model.rope import rotate, softmax_scale

# Shape legend: B rows, T positions, S cached positions, D model width, N heads, C latent width (kv_lora_rank),
# R rotary width, P per-head width without rotation (qk_nope_head_dim), U value width per head.

LATENT_NORM_EPS = 1e-6


def step_mask(attend_R1TS: Tensor | RowAttention, n_heads: int, dtype: torch.dtype) -> Tensor | RowAttention:
    """Return the additive mask of `MLA.step`, R x 1 x NT x S: 0 where a token may attend, the lowest number elsewhere.

    Not -inf: a row of padding attends to nothing, so its softmax would be NaN, and NaN times 0 is NaN for every other row. A
    `RowAttention` needs no mask, and stays what it is. On a GPU the mask of one column, which all heads share, is R x 1 x 1 x S.
    """
    if not isinstance(attend_R1TS, Tensor):
        return attend_R1TS
    mask = torch.zeros_like(attend_R1TS, dtype=dtype).masked_fill_(~attend_R1TS, torch.finfo(dtype).min)
    if mask.shape[2] == 1 and mask.device.type == "cuda":
        return mask
    return mask.expand(-1, n_heads, -1, -1).flatten(1, 2).unsqueeze(1)


class MLA(nn.Module):
    """Attention of B x T x D onto itself (`forward`) or onto a latent cache (`step`)."""

    def __init__(self, config: ModelConfig, precision: Precision) -> None:
        super().__init__()
        self.config = config
        self.scale = softmax_scale(config.qk_head_dim, config.yarn)
        self.static_shapes = precision.static_shapes
        query_width = config.n_heads * config.qk_head_dim
        if config.q_lora_rank is None:
            self.q_proj = precision.linear(config.d_model, query_width, fp8_eligible=True)
        else:
            self.q_down = precision.linear(config.d_model, config.q_lora_rank, fp8_eligible=True)  # W^DQ
            self.q_norm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS)
            self.q_up = precision.linear(config.q_lora_rank, query_width, fp8_eligible=True)  # W^UQ and W^QR
        self.kv_down = precision.linear(config.d_model, config.cache_width, fp8_eligible=True)  # W^DKV and W^KR
        self.kv_norm = RMSNorm(config.kv_lora_rank, LATENT_NORM_EPS)
        key_value_width = config.n_heads * (config.qk_nope_head_dim + config.v_head_dim)
        self.kv_up = precision.linear(config.kv_lora_rank, key_value_width, fp8_eligible=True)  # W^UK and W^UV
        self.out = precision.linear(config.n_heads * config.v_head_dim, config.d_model, fp8_eligible=True)  # W^O

    def new_state(self, rows: int, max_tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return zeros for the latents and rotary keys of `max_tokens` columns, rows x max_tokens x (C + R)."""
        return torch.zeros(rows, max_tokens, self.config.cache_width, dtype=dtype, device=device)

    def _queries(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Per-head queries without rotation B x T x N x P and with it B x T x N x R (eq 6-8)."""
        config = self.config
        q = self.q_proj(x_BTD) if config.q_lora_rank is None else self.q_up(self.q_norm(self.q_down(x_BTD)))
        q_nope, q_rope = q.unflatten(-1, (config.n_heads, -1)).split(
            [config.qk_nope_head_dim, config.qk_rope_head_dim], -1
        )
        return q_nope, rotate(q_rope, cos.unsqueeze(-2), sin.unsqueeze(-2))

    def _latents(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normed latent B x T x C and the shared rotary key B x T x R (eq 1 and 3), which the cache holds."""
        latent, k_rope = self.kv_down(x_BTD).split([self.config.kv_lora_rank, self.config.qk_rope_head_dim], -1)
        return self.kv_norm(latent), rotate(k_rope, cos, sin)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: RowAttention) -> Tensor:
        """`cos`, `sin` B x T x R / 2; `mask` comes from `row_attention`."""
        return self.joined(mask(*self.heads(x_BTD, cos, sin), self.scale, self.static_shapes))

    def heads(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys B x T x N x (P + R), values B x T x N x U."""
        return self._expanded(*self._queries(x_BTD, cos, sin), *self._latents(x_BTD, cos, sin))

    def joined(self, o_BTNU: Tensor) -> Tensor:
        """W^O of the heads' weighted sums (eq 11), B x T x D."""
        y_BTD: Tensor = self.out(o_BTNU.flatten(2))
        return y_BTD

    def _expanded(
        self, q_nope: Tensor, q_rope: Tensor, latent_BTC: Tensor, k_rope_BTR: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries as they are multiplied, and the keys and values per head of latents (eq 2-5)."""
        config = self.config
        kv = self.kv_up(latent_BTC).unflatten(-1, (config.n_heads, -1))
        k_nope, v = kv.split([config.qk_nope_head_dim, config.v_head_dim], -1)
        q = torch.cat([q_nope, q_rope], -1)
        k = torch.cat([k_nope, k_rope_BTR.unsqueeze(2).expand_as(q_rope)], -1)
        return q, k, v

    def step(
        self, x_RTD: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | RowAttention, state: Tensor, start: int | Tensor
    ) -> Tensor:
        """The same attention with absorbed projections; `mask` R x 1 x NT x S comes from `step_mask`.

        The new latents are written into the layer's cached `state` from column `start` on. Long prompts, which come with a
        `RowAttention`, look at themselves alone: `forward`'s products are then the fewer.
        """
        config = self.config
        q_nope, q_rope = self._queries(x_RTD, cos, sin)
        latent, k_rope = self._latents(x_RTD, cos, sin)
        latent = multiplied_input(self.kv_up, latent)  # as W^UK and W^UV meet it in training
        width = mask.shape[-1] if isinstance(mask, Tensor) else None
        cached_RSC = append_columns(state, torch.cat([latent, k_rope], -1), start, width)
        if not isinstance(mask, Tensor):
            return self.joined(mask(*self._expanded(q_nope, q_rope, latent, k_rope), self.scale, self.static_shapes))
        w_up = multiplied_weight(self.kv_up).view(config.n_heads, -1, config.kv_lora_rank)
        w_k_NPC, w_v_NUC = w_up.split([config.qk_nope_head_dim, config.v_head_dim], 1)
        rows, new = x_RTD.shape[:2]
        q_latent = torch.bmm(q_nope.flatten(0, 1).transpose(0, 1), w_k_NPC)  # N x RT x C: W^UK absorbed
        q_latent = q_latent.transpose(0, 1).unflatten(0, (rows, new))
        q = torch.cat([q_latent, q_rope], -1).transpose(1, 2).flatten(1, 2).unsqueeze(1)  # R x 1 x NT x (C + R)
        # Heads share their keys, so they take the place of positions: one fused kernel instead of a product per row. Values
        # are the same cached vectors; the rotary part of the sum is cut off.
        cached = cached_RSC.unsqueeze(1).to(q.dtype)
        o = F.scaled_dot_product_attention(q, cached, cached, attn_mask=mask, scale=self.scale)
        o_latent = o[..., : config.kv_lora_rank].reshape(rows, config.n_heads, new, -1).transpose(0, 1).flatten(1, 2)
        o = torch.bmm(o_latent, w_v_NUC.transpose(1, 2))  # N x RT x U: W^UV after the sum
        return self.out(o.transpose(0, 1).reshape(rows, new, -1))


@dataclass(frozen=True)
class MLAKind:
    """MLA's masks, bytes and products from the model's shape, as an `AttentionKind`."""

    name: ClassVar[str] = "mla"
    is_recurrent: ClassVar[bool] = False
    cache_name: ClassVar[str] = "latent cache"
    hf_refusal: ClassVar[str | None] = None

    def check(self, config: ModelConfig) -> None:
        """Do nothing: `ModelConfig` checks its own fields."""

    def build(self, config: ModelConfig, precision: Precision, layer: int | None) -> MLA:
        return MLA(config, precision)

    def rotary_width(self, config: ModelConfig) -> int:
        return config.qk_rope_head_dim

    def row_mask(self, document_ids_BT: Tensor, prefix_ids_BT: Tensor | None = None) -> RowAttention:
        return packed_attention(document_ids_BT, prefix_ids_BT)

    def new_columns_mask(
        self, config: ModelConfig, is_token_RT: Tensor, attend_R1TS: Tensor | RowAttention, dtype: torch.dtype
    ) -> Tensor | RowAttention:
        """R x 1 x NT x S."""
        return step_mask(attend_R1TS, config.n_heads, dtype)

    def mha_head_dim(self, config: ModelConfig) -> int:
        return config.qk_nope_head_dim

    def cached_elements(self, config: ModelConfig) -> int:
        """The latent and the shared rotary key (V2 Table 1: d_c + d_h^R)."""
        return config.cache_width

    def state_bytes(self, config: ModelConfig) -> int:
        return 0

    def is_fused(self, config: ModelConfig, device_type: str) -> bool:
        """True if the fused kernel applies; the CPU's needs queries, keys and values of one width."""
        return device_type != "cpu" or config.qk_head_dim == config.v_head_dim

    def kept_bytes(self, config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
        heads, value = config.n_heads, config.v_head_dim
        kept = norm_bytes(config.d_model) + FP32 * config.d_model  # the input, once in FP32 or twice in BF16
        if config.q_lora_rank is not None:
            kept += norm_bytes(config.q_lora_rank) + number * config.q_lora_rank
        kept += norm_bytes(config.kv_lora_rank) + number * config.kv_lora_rank
        kept += number * heads * value  # the output, the input of W^O
        if is_fused:  # query, key, W^UK and W^UV's output, the logarithm of the softmax's sum
            key_value = config.qk_nope_head_dim + value
            if not is_dense(
                row_tokens
            ):  # and the output a second time; with two widths, value and first output are widened
                wide = max(config.qk_head_dim, value)
                kept += number * heads * (value if wide == min(config.qk_head_dim, value) else 2 * wide - key_value)
                return kept + number * heads * (2 * wide + key_value) + FP32 * heads
            return kept + number * heads * (2 * config.qk_head_dim + key_value) + FP32 * heads
        return kept + FP32 * heads * (2 * config.qk_head_dim + value + row_tokens)

    def passing_bytes(self, config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
        """The bytes that training would keep; without fusion, attention's weights a second time."""
        again = 0 if is_fused else FP32 * config.n_heads * row_tokens
        return self.kept_bytes(config, row_tokens, number, is_fused) + again

    def prefill_bytes(self, config: ModelConfig, row_tokens: int, number: int) -> int:
        """Per head: the query before and after rotation, absorbed (twice: its order changes), joined, and the weighted sum.

        Of long prompts: the query as it comes, rotated and joined, keys and values as they come, keys joined, what is widened, and
        the output of the documents and of all.
        """
        if not is_dense(row_tokens):
            query, value = config.qk_head_dim, config.v_head_dim
            wide = max(query, value)
            widened = (wide if value < wide else 0) + (2 * wide if query < wide else 0)
            joined = 3 * query + config.qk_rope_head_dim + config.qk_nope_head_dim + value
            return number * config.n_heads * (joined + widened + 2 * wide)
        return number * config.n_heads * 2 * (config.qk_head_dim + config.kv_lora_rank + config.cache_width)

    def step_mask_bytes(self, config: ModelConfig, number: int) -> int:
        """One number per head (`step_mask`)."""
        return number * config.n_heads

    def forward_products(self, config: ModelConfig, context: float) -> float:
        """N (d_qk + d_v) per token of the context."""
        return context * config.n_heads * (config.qk_head_dim + config.v_head_dim)

    def prefill_products(self, config: ModelConfig, context: float) -> float:
        """Those of `decode_products`; of long prompts, which attend with keys and values per head, those of `forward`."""
        is_short = is_dense(round(2 * context))  # a token sees half of its prompt on average
        return self.decode_products(config, context) if is_short else self.forward_products(config, context)

    def decode_products(self, config: ModelConfig, context: float) -> float:
        """N (2 C + R) per cached token: attention runs on the cached latents (V2 section 2.1.2).

        The fused kernel also sums the rotary part, N R more products, and cuts it off; these are not counted.
        """
        return context * config.n_heads * (2 * config.kv_lora_rank + config.qk_rope_head_dim)
