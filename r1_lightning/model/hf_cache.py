"""The cache of a model of `transformers`: its own on a CPU, and on a GPU one with room for tokens to come.

Its own `DynamicCache` grows by a copy of all keys and values with every token: a step then reads and writes the whole cache besides
what attention reads, and its shapes change. On a GPU a layer writes new columns into memory that was taken before, and attention
reads whole blocks of it, behind a mask (`model/kv_cache.py`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.model.kv_cache import LatentKVCache
from r1_lightning.model.precision import compute_type

# Shape legend: R rows being sampled, G key-value heads, T new positions, S columns so far, H head width.


class HFCache(LatentKVCache):
    """Keys and values of each layer, R x G x max_tokens x H, as `transformers` asks for them; the rest as in our own cache.

    It is given to a decoder as `past_key_values`. Layers get their memory when the first prompt comes.
    """

    def __init__(self, rows: int, max_tokens: int, device: torch.device) -> None:
        super().__init__([], rows, max_tokens, device)
        self.keys_and_values = _growing() if self.block == 1 else _with_room(self)
        self.columns: int | Tensor = 0

    @property
    def bytes(self) -> int:
        """Memory of the keys and values so far, in bytes."""
        return sum(part.nbytes for layer in self.keys_and_values.layers for part in (layer.keys, layer.values))

    def select_rows(self, rows: Tensor) -> None:
        """Keep only `rows`, in their order; an index may repeat."""
        super().select_rows(rows)
        self.keys_and_values.batch_select_indices(rows)

    def grow(self, columns: int) -> None:
        """Copy the cache, layer by layer, to where `columns` are free; that of `transformers` grows by itself."""
        super().grow(columns)
        for layer in self.keys_and_values.layers if self.block > 1 else []:
            layer.keys, layer.values = (
                F.pad(part[:, :, : self.length], (0, 0, 0, columns)) for part in (layer.keys, layer.values)
            )

    def write(self, stored_RGSH: Tensor, new_RGTH: Tensor) -> Tensor:
        """Write the newest columns of one layer; returns the columns that the step reads (a view)."""
        assert isinstance(self.columns, Tensor)
        stored_RGSH.index_copy_(2, self.columns, new_RGTH.to(stored_RGSH.dtype))
        return stored_RGSH[:, :, : self.width]


def _growing() -> Any:
    from transformers import DynamicCache

    return DynamicCache()


def _with_room(cache: HFCache) -> Any:
    """Return a cache of `transformers` whose layers write where `cache` says."""
    from transformers.cache_utils import Cache, DynamicLayer

    class Layer(DynamicLayer):
        """One layer's keys and values."""

        def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
            # Rotated keys come in FP32 under autocast, and attention would cast all of them in every step.
            self.dtype, self.device = compute_type(key_states.device.type), key_states.device
            shapes = [(*part.shape[:2], cache.mask.shape[1], part.shape[3]) for part in (key_states, value_states)]
            self.keys, self.values = (torch.zeros(shape, dtype=self.dtype, device=self.device) for shape in shapes)
            self.is_initialized = True

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            assert self.keys is not None and self.values is not None
            return cache.write(self.keys, key_states), cache.write(self.values, value_states)

        def get_seq_length(self) -> int:
            return cache.length if self.is_initialized else 0

    return Cache(layer_class_to_replicate=Layer)
