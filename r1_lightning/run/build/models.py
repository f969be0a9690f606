"""Makes the network that a configuration describes, with fresh weights, or those of an artefact or a HuggingFace folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from r1_lightning.artefacts.hf_folder import ImportedModel, Targets
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.weights import load_tensors, load_weights, stored_rows, stored_shapes
from r1_lightning.functional.shards import windows
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig, hf_model_views, is_copy
from r1_lightning.model.hf_weights import STACKED_EXPERTS, hf_windows, is_left_out
from r1_lightning.model.init import init_weights
from r1_lightning.model.lora import draw_adapters, has_adapters, is_adapter
from r1_lightning.model.precision import Precision
from r1_lightning.model.sharding import give_memory, shard, without_weights
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.processes import processes_now

AnyBackbone = DeepSeekBackbone | HFBackbone
EMBEDDINGS = ("embedding.weight", "backbone.embedding.weight")  # of our backbone, and where a reward model holds it
# The network of each kind of shape.
BACKBONES: dict[type, Any] = {ModelConfig: DeepSeekBackbone, HFModelConfig: HFBackbone}


def make_backbone(
    config: ModelConfig | HFModelConfig,
    precision: Precision,
    base: Artefact | None = None,
    seed: int = 0,
    is_empty: bool = False,
    device: torch.device | None = None,
    mesh: DeviceMesh | None = None,
) -> AnyBackbone:
    """Return the network on `device` (None: the CPU) with weights drawn from `seed` or loaded from `base`.

    It is made there, and never whole in the CPU's memory: drawn or read tensor by tensor. With a `mesh` of processes each makes and
    fills its share alone, all of them together; but a model of `transformers` without a `base` is made whole and then divided.
    `is_empty` makes shapes without memory.
    """
    if isinstance(base, ImportedModel) and not is_empty:
        _check_fits(config, precision, base)
    is_filled_later = base is not None or isinstance(config, ModelConfig)  # `transformers` draws as it makes a model
    if mesh is not None and not is_empty and is_filled_later:
        return _in_shares(config, precision, base, seed, device or torch.device("cpu"), mesh)
    is_loaded = base is not None and not is_empty
    # Drawing the weights of a large `transformers` model takes longer than loading them; our own initialisation is cheap.
    undrawn = {"is_drawn": False} if is_loaded and isinstance(config, HFModelConfig) else {}
    is_made_there = device is not None and device.type != "cpu"
    place = torch.device("meta") if is_empty else device if is_made_there else None
    with place or nullcontext():
        backbone: AnyBackbone = BACKBONES[type(config)](config, precision, seed=seed, **undrawn)
    if base is not None and not is_empty:
        load_base(backbone, base)
        if isinstance(backbone, HFBackbone):
            backbone.check_head()
    if device is not None and not is_empty:
        backbone.to(device)
    if mesh is not None and not is_empty:
        shard(backbone, mesh)
    return backbone


def _in_shares(
    config: ModelConfig | HFModelConfig,
    precision: Precision,
    base: Artefact | None,
    seed: int,
    device: torch.device,
    mesh: DeviceMesh,
) -> AnyBackbone:
    """Make the network's parts without weights, divide them over `mesh`, and fill what this process holds, tensor by tensor."""
    undrawn = {"is_drawn": False} if isinstance(config, HFModelConfig) else {}
    with device, without_weights():
        backbone: AnyBackbone = BACKBONES[type(config)](config, precision, seed=seed, **undrawn)
    shard(backbone, mesh)
    give_memory(backbone, device)
    if isinstance(config, HFModelConfig) and config.lora is not None:
        draw_adapters(backbone, seed)
    lines = []
    try:
        if base is not None:
            load_base(backbone, base)
        elif isinstance(config, ModelConfig):
            init_weights(backbone, config.init_std, seed)
        if isinstance(backbone, HFBackbone):
            backbone.check_head()
    except InvalidInput as refused:
        lines = [str(refused)]
    # Each process sees its own rows: what one refuses, all refuse.
    if found := processes_now().gather(lines):
        raise InvalidInput(found[0])
    return backbone


def _check_fits(config: ModelConfig | HFModelConfig, precision: Precision, base: ImportedModel) -> None:
    """Compare a folder with the model that its `config.json` describes, before allocating memory for it."""
    layers = config.n_layers if isinstance(config, ModelConfig) else config.fields().get("num_hidden_layers")
    stored = len(base.source.stored)
    allowed = f"{base.folder} holds {stored} tensors in all, and each layer has some"
    require(type(layers) is int and layers <= stored, "num_hidden_layers", layers, allowed)
    try:
        with torch.device("meta"):
            backbone: AnyBackbone = BACKBONES[type(config)](config, precision)
    except (RuntimeError, TypeError, OverflowError) as error:  # torch's errors for impossible sizes
        line = " ".join(str(error).split())[:200]
        raise InvalidInput(f"{base.folder}/config.json is not allowed: no such model can be made ({line})") from error
    base.source.check(*_targets(backbone, base))


def vocab_size_of(tokenizer: TextTokenizer, base: Artefact | None) -> int:
    """Return the rows of the embedding of `base`, at least its tokenizer's size; without `base`, the tokenizer's size."""
    n_tokens = tokenizer.vocab_size
    if isinstance(base, ImportedModel):
        rows = base.source.config.get("vocab_size")
    else:
        rows = None if base is None else _embedding_rows(base)
    if rows is None:
        return n_tokens
    require(type(rows) is int and rows >= n_tokens, "vocab_size", rows, f"the tokenizer has {n_tokens} tokens")
    return int(rows)


def _embedding_rows(base: Artefact) -> int | None:
    """Rows of our own backbone's embedding, alone or in a reward model; None where there is none of that name."""
    found = (stored_rows(base.weights_path, name) for name in EMBEDDINGS)
    return next((rows for rows in found if rows is not None), None)


def load_base(backbone: AnyBackbone, base: Artefact) -> None:
    """Load the weights of an artefact, or of a HuggingFace folder; raises `InvalidInput` and loads nothing if they do not fit.

    Weights without adapters fill the base of a model that has adapters.
    """
    if not isinstance(base, ImportedModel):
        is_bare = not any(is_adapter(name) for name in stored_shapes(base.weights_path))
        if isinstance(backbone, HFBackbone) and has_adapters(backbone) and is_bare:
            wanted = {f"model.{name}": view for name, (view,) in hf_model_views(backbone).items()}
            load_tensors(wanted, base.weights_path)
        else:
            load_weights(backbone, base.weights_path)
    else:
        base.source.fill(*_targets(backbone, base))


def _targets(backbone: AnyBackbone, base: ImportedModel) -> tuple[Mapping[str, Targets], Callable[[str], bool]]:
    """Return the windows that each stored tensor of `base` fills, and a function that tells which names may be skipped."""
    if isinstance(backbone, HFBackbone):
        held = {
            name: windows(weight, lambda whole: [(whole,)])[0] for name, (weight,) in hf_model_views(backbone).items()
        }
        return held, lambda name: is_copy(backbone, name)
    config, with_mtp = backbone.config, backbone.config.mtp_depth > 0
    is_stacked = any(name.endswith(STACKED_EXPERTS) for name in base.source.stored)
    held = hf_windows(backbone.state_dict(), config, with_mtp, is_stacked)
    return held, lambda name: is_left_out(name, config, with_mtp)
