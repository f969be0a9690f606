"""Makes the network that a configuration describes, with weights of its own, of an artefact, or of a HuggingFace folder."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from r1_lightning.artefacts.hf_folder import ImportedModel
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.weights import load_tensors, load_weights, stored_rows, stored_shapes
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig, hf_model_views, is_copy
from r1_lightning.model.hf_weights import STACKED_EXPERTS, hf_views, is_left_out
from r1_lightning.model.lora import has_adapters, is_adapter
from r1_lightning.model.precision import Precision
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require

AnyBackbone = DeepSeekBackbone | HFBackbone
# The network of each kind of shape.
BACKBONES: dict[type, Any] = {ModelConfig: DeepSeekBackbone, HFModelConfig: HFBackbone}


def make_backbone(
    config: ModelConfig | HFModelConfig,
    precision: Precision,
    base: Artefact | None = None,
    seed: int = 0,
    is_empty: bool = False,
) -> AnyBackbone:
    """The network, with weights drawn from `seed` or loaded from `base`; `is_empty` makes shapes only."""
    with torch.device("meta") if is_empty else nullcontext():
        backbone: AnyBackbone = BACKBONES[type(config)](config, precision, seed=seed)
    if base is not None and not is_empty:
        load_base(backbone, base)
    return backbone


def vocab_size_of(tokenizer: TextTokenizer, base: Artefact | None) -> int:
    """Rows of the embedding that `base` holds, which may be more than its tokenizer has tokens; without one the tokenizer's."""
    n_tokens = tokenizer.vocab_size
    if isinstance(base, ImportedModel):
        rows = base.source.config.get("vocab_size")
    else:
        rows = None if base is None else stored_rows(base.weights_path, "embedding.weight")
    if rows is None:
        return n_tokens
    require(type(rows) is int and rows >= n_tokens, "vocab_size", rows, f"the tokenizer has {n_tokens} tokens")
    return int(rows)


def load_base(backbone: AnyBackbone, base: Artefact) -> None:
    """Load the weights of an artefact of ours, or of a folder in HuggingFace's form; `InvalidInput`, and nothing is loaded, if
    they do not fit. Weights without adapters fill the base of a model that has some."""
    if not isinstance(base, ImportedModel):
        is_bare = not any(is_adapter(name) for name in stored_shapes(base.weights_path))
        if isinstance(backbone, HFBackbone) and has_adapters(backbone) and is_bare:
            wanted = {f"model.{name}": view for name, (view,) in hf_model_views(backbone).items()}
            load_tensors(wanted, base.weights_path)
        else:
            load_weights(backbone, base.weights_path)
    elif isinstance(backbone, HFBackbone):
        base.source.fill(hf_model_views(backbone), lambda name: is_copy(backbone, name))
    else:
        config = backbone.config
        is_stacked = any(name.endswith(STACKED_EXPERTS) for name in base.source.stored)
        views = hf_views(backbone.state_dict(), config, config.mtp_depth > 0, is_stacked)
        base.source.fill(views, lambda name: is_left_out(name, config, config.mtp_depth > 0))
