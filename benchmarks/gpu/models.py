"""Models with random weights, made where they will be: drawing two billion on a CPU takes longer than a measurement."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from r1_lightning.model.attention import mtp_kind
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import meta_backbone
from r1_lightning.model.hf_config import config_to_hf
from r1_lightning.model.hf_weights import state_to_hf
from r1_lightning.model.precision import PlainPrecision, Precision
from r1_lightning.model.rope import rotary_tables

EXPERTS = "grouped_mm"  # how transformers runs experts on a GPU by default


def fresh_backbone(config: ModelConfig, device: torch.device, precision: Precision | None = None) -> DeepSeekBackbone:
    """A backbone with FP32 weights, initialised as `init_weights` does, but with the device's own random numbers.

    In BF16, unless there is a `precision`.
    """
    backbone = meta_backbone(config, precision or PlainPrecision("bf16")).to_empty(device=device)
    cos, sin = rotary_tables(
        config.max_positions, mtp_kind(config).rotary_width(config), config.rope_theta, config.yarn
    )
    backbone.cos, backbone.sin = cos.to(device), sin.to(device)
    for name, buffer in backbone.named_buffers():
        if name not in ("cos", "sin"):
            buffer.zero_()  # expert biases
    draw_weights(backbone, config.init_std)
    return backbone


@torch.no_grad()
def draw_weights(module: nn.Module, std: float) -> None:
    """Normal with `std` for every matrix, ones for vectors (norms), by the generator of the device where they are."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, std)


def same_hf_model(backbone: DeepSeekBackbone, device: torch.device) -> Any:
    """`DeepseekV3ForCausalLM` with the weights of `backbone` in BF16, for `generate`."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
    from transformers.initialization import no_init_weights

    fields = config_to_hf(backbone.config, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    with torch.device(device), no_init_weights():
        model = DeepseekV3ForCausalLM(DeepseekV3Config(**fields))
    model.load_state_dict(state_to_hf(backbone.state_dict(), backbone.config), strict=True)
    model.set_experts_implementation(EXPERTS)
    return model.to(torch.bfloat16).eval()
