"""The cost of a model from its shape alone: parameters, bytes and FLOPs, before anything runs.

Weights, gradients, optimizer state, reference and cache are counted on a backbone on the `meta` device, which has shapes but no
values, so the largest model takes a second. Formulas give the rest: the bytes that the forward keeps for the backward (derived
from the modules, tensor by tensor; `tests/model/test_cost.py` measures the same), and FLOPs, two per weight and token forward and
four backward (Kaplan et al. 2020, arXiv:2001.08361, section 2.1) plus those of attention. Each kind of attention counts its own
part (`model/attention.py`). Not counted: short-lived copies, padding, and recomputation that saves memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from r1_lightning.functional.logprobs import tile_shape
from r1_lightning.model import fp8_cost
from r1_lightning.model.attention import AttentionKind, kinds_by_name, layer_kinds, mtp_kind
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.masked_attention import is_dense
from r1_lightning.model.norm import norm_bytes
from r1_lightning.model.precision import BF16 as BF16
from r1_lightning.model.precision import FP32 as FP32
from r1_lightning.model.precision import Precision

# Shape legend: B rows, T positions, V vocabulary, D model width, N heads, E experts.

# FLOPs per weight and token.
FORWARD_FLOPS = 2
TRAINING_FLOPS = 6

INDEX = 8  # bytes of a position in a tensor
# Tables of rows x vocabulary while a token is drawn: logits, log-probs, probabilities, their running sum.
SAMPLER_TABLES = 4
# Tiles alive at once: logits, their powers, and the next tile's logits.
LOGIT_TILES = 3


def meta_backbone(config: ModelConfig, precision: Precision | None = None) -> DeepSeekBackbone:
    """Return a backbone of this shape on the meta device, without memory."""
    with torch.device("meta"):
        return DeepSeekBackbone(config, precision)


def parameter_bytes(module: nn.Module) -> int:
    """Bytes of the parameters of `module`, which is also the size of their gradients; a shared parameter counts once."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of the parameters and buffers of `module`."""
    return parameter_bytes(module) + sum(b.numel() * b.element_size() for b in module.buffers())


@dataclass(frozen=True)
class Parameters:
    """Counts of weights.

    `embeddings` is the embedding and the head (once where they are tied), `head` the V x D weights of the head's products,
    `mtp` all MTP modules. `activated` weights multiply each token in the main model: projections, chosen and shared experts,
    router, head; not the embedding, which is looked up, nor `norms`, the vectors of the main model. `mtp_activated` is the same in
    all MTP modules, without the head that they share.
    """

    total: int
    embeddings: int
    head: int
    mtp: int
    activated: int
    mtp_activated: int
    norms: int


def count_parameters(backbone: DeepSeekBackbone) -> Parameters:
    """Count the parameters of a backbone, which may be a `meta_backbone`."""
    config = backbone.config

    def activated(module: nn.Module) -> int:
        matrices = [p for p in module.parameters() if p.dim() > 1]
        chosen = config.n_activated_experts
        return sum(p.numel() * chosen // len(p) if p.dim() == 3 else p.numel() for p in matrices)  # 3: stacked experts

    head = backbone.head.weight.numel()
    return Parameters(
        total=sum(p.numel() for p in backbone.parameters()),
        embeddings=backbone.embedding.weight.numel() + (0 if config.tie_embeddings else head),
        head=head,
        mtp=sum(p.numel() for p in backbone.mtp_modules.parameters()),
        activated=activated(backbone.blocks) + head,
        mtp_activated=activated(backbone.mtp_modules),
        norms=sum(p.numel() for part in (backbone.blocks, backbone.norm) for p in part.parameters() if p.dim() == 1),
    )


# --------------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class MicroBatch:
    """Size of one forward and backward: B `rows` of T `row_tokens`, padding included.

    `targets` tokens have a loss, with logits computed tile by tile. `mtp_depth` MTP modules run, 0 if the stage does not train
    them; their losses cover every position.
    """

    rows: int
    row_tokens: int
    targets: int
    mtp_depth: int


def is_attention_fused(config: ModelConfig, device_type: str) -> bool:
    """True if attention keeps no N x T weights per token, in all layers; on rows that are not `is_dense` it never does."""
    return all(kind.is_fused(config, device_type) for kind in kinds_by_name(config).values())


def activation_bytes(config: ModelConfig, batch: MicroBatch, number: int = FP32, is_fused: bool = True) -> int:
    """Bytes that a training forward keeps for the backward, logits apart; `number` is the size of the compute type.

    Per token: ids, rotary tables, blocks, the final norm; per MTP depth three norms, the pair of eq 21 and a block. Per target:
    the hidden state that meets the head. Short rows share one mask of attention, kept once; long ones have none, and keep no
    weights of attention, whatever `is_fused` says.
    """
    dense = is_dense(batch.row_tokens)
    is_fused = is_fused or not dense
    width, depths = config.d_model, batch.mtp_depth
    kinds = _kinds(config, depths)
    n_dense = config.n_dense_layers + (depths if config.n_dense_layers == config.n_layers else 0)
    per_token = INDEX + FP32 * mtp_kind(config).rotary_width(config) + norm_bytes(width)
    per_token += depths * (3 * norm_bytes(width) + 2 * width * number)
    per_token += sum(kind.kept_bytes(config, batch.row_tokens, number, is_fused) for kind in kinds)
    per_token += n_dense * _dense(config, number) + (len(kinds) - n_dense) * _mixture(config, number)
    if is_fused and dense:
        per_token += batch.row_tokens * number
    per_token += depths * width * FP32  # an MTP loss covers every position
    return batch.rows * batch.row_tokens * per_token + batch.targets * width * FP32


def block_bytes(config: ModelConfig, batch: MicroBatch, number: int = FP32, is_fused: bool = True) -> tuple[int, int]:
    """Bytes that the largest block keeps for the backward, and all of them, those of MTP modules too, their masks apart."""
    is_fused = is_fused or not is_dense(batch.row_tokens)
    per_token = [
        kind.kept_bytes(config, batch.row_tokens, number, is_fused)
        + (_dense if min(layer, config.n_layers - 1) < config.n_dense_layers else _mixture)(config, number)
        for layer, kind in enumerate(_kinds(config, batch.mtp_depth))
    ]
    tokens = batch.rows * batch.row_tokens
    return tokens * max(per_token), tokens * sum(per_token)


def inference_bytes(config: ModelConfig, batch: MicroBatch, number: int = FP32, is_fused: bool = True) -> int:
    """Bytes that a forward without gradients has alive at once: the larger half of the largest block, and attention's mask."""
    dense = is_dense(batch.row_tokens)
    is_fused = is_fused or not dense
    attention = max(kind.passing_bytes(config, batch.row_tokens, number, is_fused) for kind in layer_kinds(config))
    passing = max(attention, _feed_forward(config, number))
    return batch.rows * batch.row_tokens * (passing + (FP32 * batch.row_tokens if dense else 0))


def prefill_bytes(config: ModelConfig, prompts: int, tokens: int, number: int = FP32) -> int:
    """Bytes alive at once while `prompts` rows of `tokens` are read into the cache: the masks, the stream, and half a block.

    Masks are those of all kinds of attention, beside the boolean that they are made from; long prompts have none.
    """
    kinds = kinds_by_name(config).values()
    attention = max(kind.prefill_bytes(config, tokens, number) for kind in layer_kinds(config))
    masks = sum(kind.step_mask_bytes(config, number) for kind in kinds) + 1 if is_dense(tokens) else 0
    feed_forward = _feed_forward(config, number) - norm_bytes(config.d_model)
    per_token = masks * tokens + 2 * FP32 * config.d_model + max(attention, feed_forward)
    return prompts * tokens * per_token


def _kinds(config: ModelConfig, mtp_depth: int) -> list[AttentionKind]:
    """Return the kind of attention of every layer that runs: the trunk's layers and `mtp_depth` MTP modules."""
    return [*layer_kinds(config), *[mtp_kind(config)] * mtp_depth]


def _feed_forward(config: ModelConfig, number: int) -> int:
    """Bytes of the model's larger feed-forward: the mixture if it has one, else the dense one."""
    return _mixture(config, number) if config.n_dense_layers < config.n_layers else _dense(config, number)


def _swiglu(hidden: int, number: int) -> int:
    """Bytes of gate and up, silu(gate), and their product."""
    return 4 * hidden * number


def _dense(config: ModelConfig, number: int) -> int:
    return norm_bytes(config.d_model) + number * config.d_model + _swiglu(config.d_ff_dense, number)


def _mixture(config: ModelConfig, number: int) -> int:
    """The norm; the router's input (FP32) and scores; per chosen expert input, SwiGLU, output, gate and four indices."""
    width, chosen = config.d_model, config.n_activated_experts
    shared_input = 0 if number == FP32 else number * width  # in FP32 it is the router's
    router = FP32 * (width + config.n_routed_experts + 3)
    per_expert = 2 * number * width + _swiglu(config.d_ff_expert, number) + FP32 + number + 3 * INDEX
    shared = shared_input + _swiglu(config.n_shared_experts * config.d_ff_expert, number)
    return norm_bytes(width) + router + chosen * per_expert + shared


def converted_weight_bytes(backbone: DeepSeekBackbone, number: int, with_mtp: bool, is_decoding: bool = False) -> int:
    """Bytes of the weights' copies in the compute type, alive from forward to backward, or in a decoding step; 0 in FP32.

    The router keeps FP32, and layers in FP8 keep no copies.
    """
    if number == FP32:
        return 0
    modules: list[Any] = [backbone.blocks, backbone.head, *([backbone.mtp_modules] if with_mtp else [])]
    in_fp8 = {id(layer.weight) for _, layer in fp8_cost.in_fp8(backbone, is_decoding)}
    named = [(name, p) for module in modules for name, p in module.named_parameters() if id(p) not in in_fp8]
    return sum(number * p.numel() for name, p in named if p.dim() > 1 and "router" not in name)


def logit_bytes(vocab_size: int, batch: MicroBatch, device_type: str) -> int:
    """Peak bytes of a micro-batch's logits, gradients included (FP32)."""
    tokens = batch.rows * batch.row_tokens if batch.mtp_depth else batch.targets
    height, width = tile_shape(tokens, vocab_size, device_type)
    return LOGIT_TILES * FP32 * height * width


# ---------------------------------------------------------------------------------------------------------------- FLOPs


def forward_flops(
    config: ModelConfig, counts: Parameters, tokens: float, targets: float, context: float, mtp_depth: int = 0
) -> float:
    """FLOPs of a forward over `tokens`, each looking at `context` tokens on average, with logits of `targets` only.

    2 tokens (activated - head) + 2 targets head, and 2 tokens per product of attention, which its kind counts.
    """
    weights = counts.activated - counts.head + (counts.mtp_activated if mtp_depth else 0)
    attention = sum(kind.forward_products(config, context) for kind in _kinds(config, mtp_depth))
    return FORWARD_FLOPS * (tokens * (weights + attention) + (1 + mtp_depth) * targets * counts.head)


def sampling_flops(
    config: ModelConfig, counts: Parameters, prompts: float, group_size: int, prompt_tokens: float, new_tokens: float
) -> float:
    """FLOPs of `group_size` completions of `new_tokens` for each prompt, which is read once for its group.

    Attention's kind counts the products of a prefill and of a decoding step, whose token attends to the prompt and, on average, to
    half of the completion.
    """
    kinds, seen = layer_kinds(config), prompt_tokens + new_tokens / 2
    reading = sum(kind.prefill_products(config, prompt_tokens / 2) for kind in kinds)
    drawing = sum(kind.decode_products(config, seen) for kind in kinds)
    read = prompts * prompt_tokens * (counts.activated - counts.head + reading)
    drawn = prompts * group_size * new_tokens * (counts.activated + drawing)
    return FORWARD_FLOPS * (read + drawn)
