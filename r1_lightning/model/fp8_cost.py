"""What FP8 changes in the bytes that a training forward keeps, beside the formulas of `model/cost.py` for BF16.

A layer in FP8 keeps its input as bytes, with an FP32 scale for each channel of every 128 tokens: 1.03 bytes per number in place of
2, and each layer keeps its own. One input costs more: that of the projection after softmax attention is attention's output, which
a fused kernel keeps in any case. Weights have no copies in BF16: the backward cuts them into blocks again.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from r1_lightning.functional.fp8_tiles import TILE
from r1_lightning.model.precision import BF16, FP32, FP8Layer

BYTES = 1 + FP32 / TILE  # of a number that is kept in FP8, its share of the scale included


def in_fp8(module: nn.Module, is_decoding: bool = False) -> list[tuple[str, Any]]:
    """Return the names and layers of `module` that train in FP8, or those that sample in it."""
    layers: list[tuple[str, Any]] = [
        (name, part) for name, part in module.named_modules() if isinstance(part, FP8Layer)
    ]
    return [(name, layer) for name, layer in layers if is_decoding or not layer.precision.rollouts_only]


def held_weight_bytes(backbone: Any, with_mtp: bool = False) -> int:
    """Bytes that a rollout holds of weights in FP8 (`precision.unchanged_weights`), beside the weights themselves.

    A linear layer holds the bytes and, as FP32, the numbers that the emulation multiplies; experts hold one of both. Transformer
    Engine quantises in every forward. Scales are counted.
    """
    parts = [backbone.blocks, *([backbone.mtp_modules] if with_mtp else [])]
    return sum(_held(layer) for part in parts for _, layer in in_fp8(part, is_decoding=True))


def _held(layer: Any) -> int:
    backend, shape = layer.precision.backend, layer.weight.shape
    emulated = FP32 * layer.weight.numel() if backend == "emulate" else 0
    if backend == "te" or (backend == "emulate" and len(shape) == 3):
        return emulated
    blocks = -(-shape[-2] // TILE) * -(-shape[-1] // TILE) * (shape[0] if len(shape) == 3 else 1)
    return emulated + int(layer.weight.numel()) + FP32 * blocks


def kept_difference(part: nn.Module, is_fused: bool, n_chosen: int) -> float:
    """Bytes per token that a block or an MTP module keeps more in FP8, below 0 where it keeps less.

    Each token goes to `n_chosen` experts. `is_fused` says that attention keeps its output.
    """
    found = 0.0
    for name, layer in in_fp8(part):
        weight = layer.weight
        inputs = weight.shape[1] * (n_chosen if weight.dim() == 3 else 1)  # the second of out x in, and of E x in x out
        is_shared = is_fused and name.endswith("attention.out")
        found += inputs * (BYTES - (0 if is_shared else BF16))
    return found


def kept_differences(backbone: Any, batch: Any, is_fused: bool) -> list[int]:
    """`kept_difference` of every block, and of the MTP modules that run, for all tokens of a `cost.MicroBatch`."""
    tokens, chosen = batch.rows * batch.row_tokens, backbone.config.n_activated_experts
    parts = (*backbone.blocks, *list(backbone.mtp_modules)[: batch.mtp_depth])
    return [round(tokens * kept_difference(part, is_fused, chosen)) for part in parts]
