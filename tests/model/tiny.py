"""Small backbones with weights that hide nothing, packed rows, and their HuggingFace twins, for model and parity tests.

Freshly initialised weights are poor test material: norms of ones, biases of zero and outputs near zero let many
mistakes pass. `randomise` gives every tensor values of a realistic size, and every router strongly negative biases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_config import config_to_hf
from r1_lightning.model.hf_weights import state_to_hf
from r1_lightning.types.tensors import TokenBatch

TINY = ModelConfig(
    vocab_size=61,
    d_model=32,
    n_layers=2,
    n_dense_layers=1,
    n_heads=2,
    q_lora_rank=12,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=12,
    d_ff_dense=40,
    d_ff_expert=16,
    n_routed_experts=8,
    n_shared_experts=1,
    n_activated_experts=2,
    n_expert_groups=4,
    n_limited_groups=2,
    route_scale=2.5,
    mtp_depth=1,
    max_positions=64,
)


def tiny(**changes: Any) -> ModelConfig:
    """`TINY` with some fields changed."""
    return dataclasses.replace(TINY, **changes)


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Redraw every parameter and expert bias of `module`, so that activations and logits have a size of about 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, std: float) -> None:
        tensor.copy_(torch.empty(tensor.shape).normal_(0.0, std, generator=generator))

    for name, parameter in module.named_parameters():
        if parameter.dim() == 1:  # norms: any scale but one
            parameter.copy_(torch.empty(parameter.shape).uniform_(0.5, 1.5, generator=generator))
        elif name == "embedding.weight":
            normal(parameter, parameter.shape[1] ** -0.5 if module.config.tie_embeddings else 1.0)
        elif name.endswith("router.weight") or name == "weight":  # affinities spread over (0, 1)
            normal(parameter, 2 * parameter.shape[1] ** -0.5)
        else:  # linear: out x in; grouped linear: E x in x out. Unit inputs give unit outputs
            normal(parameter, parameter.shape[1] ** -0.5)
    for name, buffer in module.named_buffers():
        if name.endswith("expert_bias"):
            buffer.copy_(torch.empty(buffer.shape).uniform_(-1.8, -0.9, generator=generator))


def backbone(config: ModelConfig = TINY, seed: int = 0) -> DeepSeekBackbone:
    """A backbone in evaluation mode with `randomise`d weights."""
    model = DeepSeekBackbone(config, seed=seed).eval()
    randomise(model, seed)
    return model


def hf_config(config: ModelConfig) -> Any:
    """The same shape as a DeepseekV3Config (or V2), with HuggingFace's plainest attention and its loop over experts."""
    from transformers import AutoConfig

    fields = config_to_hf(config)
    result = AutoConfig.for_model(fields.pop("model_type"), **fields)
    result._attn_implementation = result._experts_implementation = "eager"
    return result


def hf_twin(model: DeepSeekBackbone) -> Any:
    """`DeepseekV3ForCausalLM` (or V2) with the weights of `model` (strictly: no tensor of the twin keeps its own values)."""
    from transformers import AutoModelForCausalLM

    twin = AutoModelForCausalLM.from_config(hf_config(model.config)).eval()
    twin.load_state_dict(state_to_hf(model.state_dict(), model.config), strict=True)
    return twin


def pack(rows: Sequence[Sequence[Sequence[int]]], length: int | None = None) -> TokenBatch:
    """Rows of documents of token ids to a `TokenBatch`; padding token 0, as long as the fullest row or `length`."""
    length = length or max(sum(map(len, row)) for row in rows)
    shape = (len(rows), length)
    tokens, positions, ids = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    for b, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row, start=1):
            end = start + len(document)
            tokens[b, start:end] = torch.tensor(document)
            positions[b, start:end] = torch.arange(len(document))
            ids[b, start:end] = number
            start = end
    return TokenBatch(tokens, positions, ids)


def random_documents(lengths: Sequence[int], vocab_size: int, seed: int) -> list[list[int]]:
    """One list of token ids per length."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in lengths]


def left_pad(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Prompts to token ids R x T and `is_token` R x T, padded on the left as `step` wants them."""
    length = max(map(len, prompts))
    tokens = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    is_token = torch.tensor([[False] * (length - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    return tokens, is_token


def twins(config: ModelConfig = TINY, seed: int = 0) -> tuple[DeepSeekBackbone, Any]:
    """A `backbone` and its `hf_twin`, whose parts can be compared one by one."""
    model = backbone(config, seed)
    return model, hf_twin(model)


def angles(model: DeepSeekBackbone, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of `position_ids`, as the blocks take them."""
    return model.cos[position_ids], model.sin[position_ids]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers that depend on `seed` alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
