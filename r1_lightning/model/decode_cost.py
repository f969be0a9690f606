"""Bytes that a GPU's memory gives up for a decoded token, by arithmetic, beside the fewest that it could be.

Decoding reads much and computes little: per step all weights once, per row its cache. So the bytes read, over the bandwidth of the
memory, bound the speed. The floor is weights and cache in 16 bits, each read once. What a step reads beyond it is here, too: the
blocks of the cache that are masked (`model/kv_cache.py`), the mask, what stays in FP32, and the tables of the draw
(`rollout/drawing.py`). `tests/model/test_decode_cost.py` compares the arithmetic with what the operators of a step are given.

Not counted: what is written, and what is read where it was just written and fits the GPU's own cache (activations of a step; the
cached vectors of MLA, which a kernel takes as keys and again as values). Experts: each token chooses K of E evenly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from r1_lightning.model.attention import layer_kinds
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.hf_model import HFBackbone
from r1_lightning.model.kv_cache import COLUMN_BLOCK
from r1_lightning.model.precision import BF16, FP32, GroupedLinear

# Bytes that the draw reads per row and token of the vocabulary: the head's output in 16 bits; logits, log-probs, probabilities, and
# the probabilities in shares, in FP32; the shares, in 8 bytes. A temperature other than 1 takes 4 more, top-p a sort.
DRAW_READS = 2 + 4 * FP32 + 8
MASK_PASSES = 3  # over a boolean mask, once per step: negated, read and filled


@dataclass(frozen=True)
class Reads:
    """Bytes per token: `weights` without experts and head, `experts` of the rows' choice, `head`, `cache`, `masks`, `draw`."""

    weights: float
    experts: float
    head: float
    cache: float
    masks: float
    draw: float

    @property
    def total(self) -> float:
        return self.weights + self.experts + self.head + self.cache + self.masks + self.draw


def read_bytes(backbone: Any, rows: int, context: int) -> Reads:
    """What a step of `rows` reads for each, where `context` columns of the cache are in use."""
    width = -(-context // COLUMN_BLOCK) * COLUMN_BLOCK
    parts = _parts(backbone)
    layers, elements, states = _cached(backbone)
    vocabulary, d_model = backbone.head.weight.shape
    plain = sum(
        p.numel() * (BF16 if isinstance(part, nn.Linear) else FP32) for part, p in parts if not _is_expert(part)
    )
    return Reads(
        weights=plain / rows + FP32 * d_model,  # and the row of the embedding
        experts=_experts(backbone, parts, rows) / rows,
        head=BF16 * vocabulary * d_model / rows,
        cache=BF16 * elements * width + states,
        masks=(MASK_PASSES + BF16 * layers) * width,
        draw=DRAW_READS * vocabulary,
    )


def floor_bytes(backbone: Any, rows: int, context: int) -> float:
    """Weights and cache in 16 bits, each read once per step: the fewest bytes per token. A recurrent state is as it is."""
    parts = _parts(backbone)
    _, elements, states = _cached(backbone)
    plain = BF16 * sum(p.numel() for part, p in parts if not _is_expert(part))
    head = BF16 * backbone.head.weight.numel()
    return (plain + head + _experts(backbone, parts, rows)) / rows + BF16 * elements * context + states


def touched_share(rows: int, chosen: int, experts: int) -> float:
    """The share of a layer's experts that at least one of `rows` tokens chooses: 1 - (1 - K / E)^R."""
    return 1.0 - (1.0 - chosen / experts) ** rows


def _parts(backbone: Any) -> list[tuple[nn.Module, nn.Parameter]]:
    """Each weight that a step reads, and its module; embedding, head and MTP modules are left out."""
    own = [backbone.blocks, backbone.norm] if isinstance(backbone, DeepSeekBackbone) else [backbone.decoder]
    return [
        (part, parameter)
        for module in own
        for part in module.modules()
        for parameter in part.parameters(recurse=False)
        if not isinstance(part, nn.Embedding)
    ]


def _is_expert(part: nn.Module) -> bool:
    return isinstance(part, GroupedLinear)


def _experts(backbone: Any, parts: list[tuple[nn.Module, nn.Parameter]], rows: int) -> float:
    """Bytes of the experts' matrices that a step of `rows` reads."""
    numbers = sum(p.numel() for part, p in parts if _is_expert(part))
    if not numbers:
        return 0.0
    config = backbone.config
    return BF16 * numbers * touched_share(rows, config.n_activated_experts, config.n_routed_experts)


def _cached(backbone: Any) -> tuple[int, int, int]:
    """Layers with columns, elements of a column in all of them, and bytes of a row's recurrent states."""
    if isinstance(backbone, HFBackbone):
        config = backbone.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return config.num_hidden_layers, 2 * config.num_hidden_layers * heads * width, 0
    kinds, config = layer_kinds(backbone.config), backbone.config
    elements = [kind.cached_elements(config) for kind in kinds]
    return sum(map(bool, elements)), sum(elements), sum(kind.state_bytes(config) for kind in kinds)
