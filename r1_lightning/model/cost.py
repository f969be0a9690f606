"""What a model costs before anything runs: parameters, bytes and FLOPs, from its shape alone.

Weights, gradients, optimizer state, reference and cache are counted on a backbone of the `meta` device, which has shapes and
no numbers: the largest model is counted in a second. What has no tensors before it runs is written as a formula: what the
forward keeps for the backward (read off the modules, tensor by tensor; `tests/model/test_cost.py` measures the same), and
FLOPs, two per weight and token forward and four backward (Kaplan et al. 2020, arXiv:2001.08361, section 2.1) plus those of
attention. Not counted: copies that live for a moment only, padding, and what is computed twice to save memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from r1_lightning.functional.linear_attention import block_length
from r1_lightning.functional.logprobs import tile_shape
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.lightning_attention import BLOCK_TOKENS
from r1_lightning.model.precision import Precision

# Shape legend: B rows, T positions, V vocabulary, D model width, N heads, H lightning head width, C latent width,
# R rotary width, E experts.

# Per weight and token.
FORWARD_FLOPS = 2
TRAINING_FLOPS = 6

FP32, BF16, INDEX = 4, 2, 8  # bytes of a number
# Tables of rows x vocabulary while a token is drawn: logits, log-probs, probabilities, their running sum.
SAMPLER_TABLES = 4
# Tiles alive at once: logits, their powers, and the next tile's logits.
LOGIT_TILES = 3


def meta_backbone(config: ModelConfig, precision: Precision | None = None) -> DeepSeekBackbone:
    """A backbone of this shape without memory."""
    with torch.device("meta"):
        return DeepSeekBackbone(config, precision)


def parameter_bytes(module: nn.Module) -> int:
    """Bytes of the parameters of `module`, and of their gradients; what two names share counts once."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def tensor_bytes(module: nn.Module) -> int:
    """The same with the buffers."""
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
    """Counts of a backbone, which may be a `meta_backbone`."""
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
    """What one forward and backward compute: B `rows` of T `row_tokens`, padding included.

    `targets` tokens have a loss, their logits made tile by tile. `mtp_depth` MTP modules run, 0 where the stage leaves them
    alone; their losses take every position.
    """

    rows: int
    row_tokens: int
    targets: int
    mtp_depth: int


def is_attention_fused(config: ModelConfig, device_type: str) -> bool:
    """Whether attention runs without keeping its N x T weights per token: the CPU's kernel wants one width per head."""
    return device_type != "cpu" or config.qk_head_dim == config.v_head_dim


def activation_bytes(config: ModelConfig, batch: MicroBatch, number: int = FP32, is_fused: bool = True) -> int:
    """Bytes that a training forward keeps for the backward, logits apart; `number` is the size of the compute type.

    Per token: ids, rotary tables, blocks, the final norm; per MTP depth three norms, the pair of eq 21 and a block. Per target:
    the hidden state that meets the head. Attention's mask is kept once in FP32, and once per layer where it is converted.
    """
    width, depths = config.d_model, batch.mtp_depth
    layers = config.n_layers + depths
    n_dense = config.n_dense_layers + (depths if config.n_dense_layers == config.n_layers else 0)
    per_token = INDEX + FP32 * config.qk_rope_head_dim + _norm(width)
    per_token += depths * (3 * _norm(width) + 2 * width * number)
    n_lightning = config.n_lightning_layers
    per_token += (layers - n_lightning) * _attention(config, batch.row_tokens, number, is_fused)
    per_token += n_lightning * _lightning(config, batch.row_tokens, number)
    per_token += n_dense * _dense(config, number) + (layers - n_dense) * _mixture(config, number)
    if is_fused:
        per_token += batch.row_tokens * (FP32 if number == FP32 else (layers - n_lightning) * number)
    per_token += depths * width * FP32  # an MTP loss takes every position
    return batch.rows * batch.row_tokens * per_token + batch.targets * width * FP32


def inference_bytes(config: ModelConfig, batch: MicroBatch, number: int = FP32, is_fused: bool = True) -> int:
    """Bytes that a forward without gradients has alive at once: half a block, attention's mask or its weights once more."""
    mixed = config.n_dense_layers < config.n_layers
    feed_forward = _mixture(config, number) if mixed else _dense(config, number)
    attention = _attention(config, batch.row_tokens, number, is_fused)
    if not is_fused:
        attention += FP32 * config.n_heads * batch.row_tokens
    if config.n_lightning_layers:
        attention = max(attention, _lightning(config, batch.row_tokens, number))
    return batch.rows * batch.row_tokens * (max(attention, feed_forward) + FP32 * batch.row_tokens)


def prefill_bytes(config: ModelConfig, prompts: int, tokens: int, number: int = FP32) -> int:
    """Bytes alive at once while `prompts` rows of `tokens` are read into the cache: the mask, the stream, and half a block.

    The mask is N T x T per row (`mla.step_mask`), beside the boolean it is made from. Attention has per head the query as it
    comes and rotated, absorbed (twice, for it changes its order), the two joined, and the sum over the cached vectors.
    """
    heads, width = config.n_heads, config.d_model
    attention = number * heads * 2 * (config.qk_head_dim + config.kv_lora_rank + config.cache_width)
    if config.n_lightning_layers:
        attention = max(attention, _lightning(config, tokens, number))
    mixed = config.n_dense_layers < config.n_layers
    feed_forward = (_mixture(config, number) if mixed else _dense(config, number)) - _norm(width)
    per_token = (number * heads + 1) * tokens + 2 * FP32 * width + max(attention, feed_forward)
    return prompts * tokens * per_token


def _norm(width: int) -> int:
    """The input, one over its root mean square, and their product; the output belongs to whoever reads it."""
    return FP32 * (2 * width + 1)


def _attention(config: ModelConfig, row_tokens: int, number: int, is_fused: bool) -> int:
    heads, value = config.n_heads, config.v_head_dim
    kept = _norm(config.d_model) + FP32 * config.d_model  # as input: once in FP32, or twice in BF16 (two projections)
    if config.q_lora_rank is not None:
        kept += _norm(config.q_lora_rank) + number * config.q_lora_rank
    kept += _norm(config.kv_lora_rank) + number * config.kv_lora_rank
    kept += number * heads * value  # the output, which meets W^O
    if is_fused:  # query, key, W^UK and W^UV's output, the logarithm of the softmax's sum
        key_value = config.qk_nope_head_dim + value
        return kept + number * heads * (2 * config.qk_head_dim + key_value) + FP32 * heads
    return kept + FP32 * heads * (2 * config.qk_head_dim + value + row_tokens)


def _lightning(config: ModelConfig, row_tokens: int, number: int) -> int:
    """The same for a layer of lightning attention: nothing that grows with the row.

    Before SiLU and in blocks q, k, v; q and k with their decay, and its factors; within a block the decay of all pairs and the
    scores with it; the state that enters each block; the norm, its output, the gate, and their product, which meets W^O.
    """
    heads, head, block = config.n_heads, config.lightning_head_dim, block_length(row_tokens, BLOCK_TOKENS)
    width = heads * head
    kept = _norm(config.d_model) + FP32 * config.d_model + number * width * (3 + 3 + 2 + 3) + _norm(width)
    kept += 2 * FP32 * heads + heads * block * (FP32 + number)
    return kept + number * width * head // block


def _swiglu(hidden: int, number: int) -> int:
    """Gate and up, silu(gate), and the product."""
    return 4 * hidden * number


def _dense(config: ModelConfig, number: int) -> int:
    return _norm(config.d_model) + number * config.d_model + _swiglu(config.d_ff_dense, number)


def _mixture(config: ModelConfig, number: int) -> int:
    """The norm; the router's input (FP32) and scores; per chosen expert input, SwiGLU, output, gate and four indices."""
    width, chosen = config.d_model, config.n_activated_experts
    shared_input = 0 if number == FP32 else number * width  # in FP32 it is the router's
    router = FP32 * (width + config.n_routed_experts + 3)
    per_expert = 2 * number * width + _swiglu(config.d_ff_expert, number) + FP32 + number + 3 * INDEX
    shared = shared_input + _swiglu(config.n_shared_experts * config.d_ff_expert, number)
    return _norm(width) + router + chosen * per_expert + shared


def converted_weight_bytes(backbone: DeepSeekBackbone, number: int, with_mtp: bool) -> int:
    """Copies of the weights in the compute type, which live from forward to backward; 0 in FP32. The router keeps FP32."""
    if number == FP32:
        return 0
    modules: list[Any] = [backbone.blocks, backbone.head, *([backbone.mtp_modules] if with_mtp else [])]
    named = [(name, p) for module in modules for name, p in module.named_parameters()]
    return sum(number * p.numel() for name, p in named if p.dim() > 1 and "router" not in name)


def logit_bytes(vocab_size: int, batch: MicroBatch) -> int:
    """The most memory that logits of a micro-batch take at once, their gradients included (FP32)."""
    tokens = batch.rows * batch.row_tokens if batch.mtp_depth else batch.targets
    height, width = tile_shape(tokens, vocab_size)
    return LOGIT_TILES * FP32 * height * width


# ---------------------------------------------------------------------------------------------------------------- FLOPs


def forward_flops(
    config: ModelConfig, counts: Parameters, tokens: float, targets: float, context: float, mtp_depth: int = 0
) -> float:
    """FLOPs of a forward over `tokens`, each looking at `context` tokens on average, with logits of `targets` only.

    2 tokens (activated - head) + 2 targets head, and per MLA layer 2 tokens context N (d_qk + d_v) for attention; lightning
    attention takes the same for every token, as long as rows have at least a block (left out: its sums over blocks, (H / T_block)^2
    products per pair of tokens and head where MLA takes d_qk + d_v).
    """
    layers = config.n_layers - config.n_lightning_layers + mtp_depth
    weights = counts.activated - counts.head + (counts.mtp_activated if mtp_depth else 0)
    attention = layers * context * config.n_heads * (config.qk_head_dim + config.v_head_dim)
    attention += config.n_lightning_layers * _lightning_products(config, BLOCK_TOKENS)
    return FORWARD_FLOPS * (tokens * (weights + attention) + (1 + mtp_depth) * targets * counts.head)


def _lightning_products(config: ModelConfig, block: int) -> int:
    """Multiplications per token of a layer of lightning attention: with the keys and values of its block, and with the state.

    N (2 T_block H + 2 H^2); one token at a time, `block` 0, the recurrence alone.
    """
    return config.n_heads * 2 * config.lightning_head_dim * (block + config.lightning_head_dim)


def sampling_flops(
    config: ModelConfig, counts: Parameters, prompts: float, group_size: int, prompt_tokens: float, new_tokens: float
) -> float:
    """FLOPs of `group_size` completions of `new_tokens` for each prompt, which is read once for its group.

    Attention runs on the cached latents (V2 section 2.1.2): per layer and cached token 2 N (2 C + R). That is what has to be
    computed; the fused kernel of `MLA.step` sums the rotary part as well, 2 N R more, and cuts it off. Lightning attention reads
    prompts in blocks and draws by the recurrence, whose work does not depend on what lies before.
    """
    mla_layers, lightning_layers = config.n_layers - config.n_lightning_layers, config.n_lightning_layers
    per_place = mla_layers * config.n_heads * (2 * config.kv_lora_rank + config.qk_rope_head_dim)
    body = counts.activated - counts.head
    in_blocks, one_by_one = (lightning_layers * _lightning_products(config, block) for block in (BLOCK_TOKENS, 0))
    read = prompts * prompt_tokens * (body + in_blocks + per_place * prompt_tokens / 2)
    drawn = prompts * group_size * new_tokens
    drawn *= counts.activated + one_by_one + per_place * (prompt_tokens + new_tokens / 2)
    return FORWARD_FLOPS * (read + drawn)
