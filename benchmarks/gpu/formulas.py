"""How good is a rate? Two limits that no program passes: the device's arithmetic and its memory bandwidth.

Training is bound by arithmetic. Model FLOPs utilisation (MFU; Chowdhery et al. 2022, arXiv:2204.02311, appendix B) is the share of
the device's FLOP/s that the model's own arithmetic takes: 6 FLOPs per activated weight and token and those of attention
(`model/cost.py`); what is computed besides (balance loss, casts, masked-out attention) does not count as useful.

Decoding is bound by reading: each step makes one token per row and has to read, at least once, every weight that meets any of
them and the whole latent cache. Bytes / bandwidth is the shortest time in which a step can end.
"""

from __future__ import annotations

from r1_lightning.model.attention import layer_kinds
from r1_lightning.model.cache_sizes import own_elements
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import (
    FORWARD_FLOPS,
    FP32,
    TRAINING_FLOPS,
    count_parameters,
    forward_flops,
    meta_backbone,
)
from r1_lightning.model.decode_cost import touched_share


def training_flops_per_token(config: ModelConfig, row_tokens: int) -> float:
    """FLOPs of forward and backward per token of full rows, without MTP: with MLA 6 (activated + L S N (d_qk + d_v)).

    S = (T + 1) / 2 is the mean number of tokens that a token of a row of T `row_tokens` looks at, itself included.
    """
    counts = count_parameters(meta_backbone(config))
    forward = forward_flops(config, counts, tokens=1, targets=1, context=(row_tokens + 1) / 2)
    return forward * TRAINING_FLOPS / FORWARD_FLOPS


def mfu(tokens_per_s: float, flops_per_token: float, flops_per_s: float) -> float:
    """Model FLOPs utilisation, 0..1."""
    return tokens_per_s * flops_per_token / flops_per_s


def decoding_bytes(config: ModelConfig, rows: int, context: float, number: int) -> float:
    """Bytes that a decoding step of `rows` must read, with `context` cached tokens each; `number` is that of the compute type.

    All matrices of the blocks and the head, the cache, and of E routed experts the E (1 - (1 - K/E)^rows) that are expected to
    be chosen by some row when routing is even. Norms and router are FP32. The embedding is looked up: nothing beside the rest.
    A recurrent kind of attention has one state per row for a cache.
    """
    backbone = meta_backbone(config)
    touched = touched_share(rows, config.n_activated_experts, config.n_routed_experts)
    total: float = backbone.norm.weight.numel() * FP32 + backbone.head.weight.numel() * number
    for name, parameter in backbone.blocks.named_parameters():
        is_fp32 = parameter.dim() == 1 or "router" in name
        share = touched if parameter.dim() == 3 else 1.0  # 3: stacked experts
        total += parameter.numel() * share * (FP32 if is_fp32 else number)
    states = sum(kind.state_bytes(config) for kind in layer_kinds(config))
    return total + rows * (context * own_elements(config) * number + states)


def floor_tokens_per_s(rows: int, step_bytes: float, bytes_per_s: float) -> float:
    """Tokens/s of `rows` rows if a decoding step took no longer than reading `step_bytes`: the bandwidth's limit."""
    return rows * bytes_per_s / step_bytes
