"""A policy as another engine reads it: the fields of a `config.json`, and tensors under the names of HuggingFace's files.

Both kinds of backbone have one: ours (`DeepSeekBackbone`, as DeepseekV3 or V2) and the models of `transformers` (`HFBackbone`). The
tensors are made when they are asked for, one at a time, so that no second copy of the weights is held; they are views of the
policy's own where the forms agree. MTP modules are left out. Adapters (LoRA) are added to the weights that they adapt.

**Heads are never tied** to the embedding for an engine, which gets both: vLLM on a CPU packs a tied head once, and does not pack it
again when the embedding is handed over (0.8 nats on a tiny Qwen2).

**One eps for all norms.** Our MLA, like the published code, gives the norms of the latents c^KV and c^Q a fixed eps of 1e-6;
engines take `rms_norm_eps` for these, too, and Moonlight's is 1e-5. What the norm of c becomes is the same for s c with s^2 eps:
    c / sqrt(mean c^2 + eps) = s c / sqrt(mean (s c)^2 + s^2 eps)
So the engine's down-projections are ours times s = sqrt(rms_norm_eps / 1e-6), except the rows of the rotary key, which has no norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_config import config_to_hf, rope_in_both_forms
from r1_lightning.model.hf_model import HFBackbone, hf_model_views
from r1_lightning.model.hf_weights import TIED_HEAD, hf_views, joined
from r1_lightning.model.lora import merged
from r1_lightning.model.mla import LATENT_NORM_EPS
from r1_lightning.rollout.weight_stream import Tensors
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import Backbone

KV_DOWN, Q_DOWN = ".self_attn.kv_a_proj_with_mqa.weight", ".self_attn.q_a_proj.weight"


@dataclass(frozen=True)
class EngineModel:
    """`fields` of `config.json`, and `tensors()`, the policy's current weights.

    `head_width` is that of keys; `latent_width` is what MLA caches per token and layer, None for models without it.
    """

    fields: dict[str, Any]
    tensors: Callable[[], Tensors]
    head_width: int
    latent_width: int | None = None


def engine_model(backbone: Backbone, eos_ids: Sequence[int], pad_id: int) -> EngineModel:
    """Return `backbone` for an engine that stops at any of `eos_ids`. Raises InvalidInput for a model that no engine reads."""
    ends = list(eos_ids) if len(eos_ids) > 1 else eos_ids[0]
    if isinstance(backbone, DeepSeekBackbone):
        config = backbone.config
        fields = config_to_hf(
            replace(config, mtp_depth=0, tie_embeddings=False), eos_token_id=ends, pad_token_id=pad_id
        )
        return EngineModel(fields, partial(_ours, backbone), config.qk_head_dim, config.cache_width)
    if isinstance(backbone, HFBackbone):
        kind = type(backbone.model).__name__
        of_engine = {"eos_token_id": ends, "pad_token_id": pad_id, "tie_word_embeddings": False}
        fields = {**rope_in_both_forms(backbone.config.fields()), "architectures": [kind], **of_engine}
        of_model = backbone.model.config
        width = getattr(of_model, "head_dim", None) or of_model.hidden_size // of_model.num_attention_heads
        return EngineModel(fields, partial(_of_transformers, backbone), int(width))
    raise InvalidInput(
        f"model={type(backbone).__name__} is not allowed: no engine reads it, only our backbone and model=hf"
    )


def _ours(backbone: DeepSeekBackbone) -> Tensors:
    config, state = backbone.config, backbone.state_dict()
    views = hf_views(state, config)
    tensors: dict[str, Callable[[], Tensor]] = {name: partial(joined, parts) for name, parts in views.items()}
    if config.tie_embeddings:
        tensors[TIED_HEAD] = lambda: state["head.weight"]
    if (scale := latent_scale(config)) != 1.0:
        for name in tensors:
            if name.endswith((KV_DOWN, Q_DOWN)):
                rows = config.kv_lora_rank if name.endswith(KV_DOWN) else None
                tensors[name] = partial(_scaled, tensors[name], scale, rows)
    return tensors


def latent_scale(config: ModelConfig) -> float:
    """Return s, by which the latents of an engine are ours, so that its eps in their norms is theirs."""
    return math.sqrt(config.norm_eps / LATENT_NORM_EPS)


def _scaled(make: Callable[[], Tensor], scale: float, rows: int | None) -> Tensor:
    scaled = make().clone()
    scaled[:rows] *= scale
    return scaled


def _of_transformers(backbone: HFBackbone) -> Tensors:
    stored = {name: partial(joined, parts) for name, parts in hf_model_views(backbone).items()}
    return {**stored, TIED_HEAD: lambda: backbone.head.weight, **merged(backbone.model)}


@torch.no_grad()
def made(tensors: Tensors) -> dict[str, Tensor]:
    """Return all of `tensors` at once, for tests and small models."""
    return {name: make() for name, make in tensors.items()}
