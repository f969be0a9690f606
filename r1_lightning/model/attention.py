"""The kinds of attention: one interface, and the one table that says which kind a layer has.

A kind has two sides. `Attention` is the layer itself, with weights: `forward` for packed training rows, `step` for the newest
positions, with the past in the state that `new_state` made. `AttentionKind` describes all layers of the kind without their weights:
the masks of a batch, made once for all layers, and the bytes and products that `model/cost.py` and `model/cache_sizes.py` sum up.
Code that needs such a number asks the kind for it, and never compares its name.

A new kind is one file with both sides (as `model/mla.py` and `model/lightning_attention.py` are). Its `AttentionKind` is a frozen
dataclass of its settings, which a configuration names by `_target_` in `model.attention_kind`. `KINDS` holds the two kinds without
settings of their own, which a configuration names by a word.

A kind's numbers are per layer and token. Bytes are those of tensors alive at once. Products are multiplications with the tokens
that a token attends to (`context` tokens on average, itself included). Projections are not among them: they are weights, and
`cost.count_parameters` counts them on the layers.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor

from r1_lightning.model.config import AttentionSettings, ModelConfig
from r1_lightning.model.lightning_attention import LightningKind
from r1_lightning.model.mla import MLAKind
from r1_lightning.model.precision import Precision

# Shape legend: B rows, T positions, R rows being sampled, S cached positions, D model width.


class Attention(Protocol):
    """A layer of attention, an `nn.Module`. cos and sin hold the angles of the positions, ... x `rotary_width` / 2."""

    def __call__(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Any) -> Tensor:
        """Attention of packed rows B x T x D onto themselves; `mask` comes from the kind's `row_mask`."""
        ...

    def step(self, x_RTD: Tensor, cos: Tensor, sin: Tensor, mask: Any, state: Tensor, start: int | Tensor) -> Tensor:
        """Attention of the newest positions, R x T x D, at columns `start` and following; updates `state`.

        `mask` comes from the kind's `new_columns_mask`.
        """
        ...

    def new_state(self, rows: int, max_tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return an empty state, rows first: rows x max_tokens x elements of `dtype`, or constant in size if recurrent."""
        ...


class SoftmaxAttention(Attention, Protocol):
    """A layer whose `mask` is a `RowAttention`, in its three parts: `joined(mask(*heads(x, cos, sin), scale))` is its `forward`."""

    scale: float

    def heads(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as a `RowAttention` takes them."""
        ...

    def joined(self, o_BTNU: Tensor) -> Tensor:
        """What comes of the heads' weighted sums, B x T x D."""
        ...


class AttentionKind(AttentionSettings, Protocol):
    """The properties of a kind of attention that follow from the model's shape; equal settings are equal objects."""

    @property
    def hf_refusal(self) -> str | None:
        """Why no class of `transformers` can hold a model with this kind; None where one does."""
        ...

    def build(self, config: ModelConfig, precision: Precision, layer: int | None) -> Attention:
        """The layer in place `layer` of the trunk, None in an MTP module."""
        ...

    def rotary_width(self, config: ModelConfig) -> int:
        """Elements of a query that are rotated; 0 for a kind without rotation."""
        ...

    def row_mask(self, document_ids_BT: Tensor, prefix_ids_BT: Tensor | None = None) -> Any:
        """Return the mask of packed rows for `Attention.__call__` (document 0 is padding).

        `prefix_ids` are those of `TokenBatch`; a recurrent kind never gets any.
        """
        ...

    def new_columns_mask(self, config: ModelConfig, is_token_RT: Tensor, attend_R1TS: Any, dtype: torch.dtype) -> Any:
        """Return the mask of new columns for `Attention.step`, from their tokens and the columns they attend to (True: attend).

        `attend_R1TS` is a `RowAttention` where the columns are whole prompts that attend to themselves without a mask.
        """
        ...

    def mha_head_dim(self, config: ModelConfig) -> int:
        """Width of the keys and values that plain attention with the same heads would cache (d_h in V2's Table 1)."""
        ...

    def cached_elements(self, config: ModelConfig) -> int:
        """Elements of the cache; 0 for a recurrent kind."""
        ...

    def state_bytes(self, config: ModelConfig) -> int:
        """Bytes per row of a state whose size does not depend on the tokens; 0 for a cache."""
        ...

    def is_fused(self, config: ModelConfig, device_type: str) -> bool:
        """Whether training runs without keeping the N x T weights of attention."""
        ...

    def kept_bytes(self, config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
        """Bytes that a training forward keeps for the backward, the norm before it included and masks apart.

        `number` is the size of the compute type.
        """
        ...

    def passing_bytes(self, config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
        """Bytes that a forward without gradients has alive at once."""
        ...

    def prefill_bytes(self, config: ModelConfig, row_tokens: int, number: int) -> int:
        """Bytes per token that `step` has alive at once on a prompt of `row_tokens`, masks apart."""
        ...

    def step_mask_bytes(self, config: ModelConfig, number: int) -> int:
        """Bytes of the mask of `new_columns_mask` per cached position."""
        ...

    def forward_products(self, config: ModelConfig, context: float) -> float:
        """Multiplications of `forward`, beside the projections."""
        ...

    def prefill_products(self, config: ModelConfig, context: float) -> float:
        """Multiplications of `step` on a whole prompt."""
        ...

    def decode_products(self, config: ModelConfig, context: float) -> float:
        """Multiplications of `step` on one new position."""
        ...


KINDS: dict[str, AttentionKind] = {"mla": MLAKind(), "lightning": LightningKind()}


def layer_kinds(config: ModelConfig) -> tuple[AttentionKind, ...]:
    """The kind of each layer of the trunk."""
    return tuple(map(_kind, config.attention_kinds))


def mtp_kind(config: ModelConfig) -> AttentionKind:
    """The kind of the MTP modules: the one in the model that rotates and keeps a cache of columns."""
    return _kind(config.mtp_attention_kind)


def kinds_by_name(config: ModelConfig) -> dict[str, AttentionKind]:
    """Every kind that the model has, MTP modules included, in the order of their names."""
    kinds = {kind.name: kind for kind in (*layer_kinds(config), mtp_kind(config))}
    return dict(sorted(kinds.items()))


def _kind(named: str | AttentionSettings) -> AttentionKind:
    return KINDS[named] if isinstance(named, str) else cast(AttentionKind, named)
