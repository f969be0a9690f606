"""Builds the parts of a stage from its configuration, each target given the parts whose names it takes.

A YAML node with a `_target_` names a class; its leaves are keyword arguments. What cannot stand in YAML (the tokenizer, the
one policy object, the sampler) is passed by name to every target whose signature asks for it, so that a new stage or data
module is wired by naming its arguments.
"""

from __future__ import annotations

import ctypes
import inspect
import logging
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts.hf_folder import ImportedModel
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.weights import load_weights, stored_rows
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig, hf_model_views, is_copy
from r1_lightning.model.hf_weights import STACKED_EXPERTS, hf_views, is_left_out
from r1_lightning.run.validate import GRAPH_KEYS, RUN_KEYS
from r1_lightning.text.chat_template import TEMPLATES
from r1_lightning.text.tokenizer import TextTokenizer, train_tokenizer
from r1_lightning.types.errors import InvalidInput, require, require_choice

# What `model._target_` makes -> the network of that shape.
BACKBONES: dict[type, Any] = {ModelConfig: DeepSeekBackbone, HFModelConfig: HFBackbone}
# Names of glibc's <malloc.h>, for `keep_freed_memory`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def inject(node: DictConfig, parts: Mapping[str, Any]) -> Any:
    """Instantiate `node`, passing those of `parts` that its target's signature names and YAML does not set.

    A refusal of ours (`InvalidInput`) comes out as itself, not wrapped in Hydra's.
    """
    wanted = inspect.signature(get_object(node["_target_"])).parameters
    given = {name: part for name, part in parts.items() if name in wanted and node.get(name) is None}
    plain = {key: value for key, value in node.items() if key not in (*GRAPH_KEYS, "evaluation")}
    try:
        # Parts are passed after instantiation of the YAML leaves: Hydra would try to turn them into configurations.
        return instantiate(OmegaConf.create(plain), _partial_=True)(**given)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InvalidInput):
                raise cause from error
            cause = cause.__cause__
        raise


def build_tokenizer(config: DictConfig, source: Any, base: Artefact | None) -> TextTokenizer:
    """The input artefact's tokenizer, or a new one trained on the first documents of the problem source."""
    if base is not None:
        return TextTokenizer.load(base.tokenizer_folder)
    settings = config.task.tokenizer
    template = TEMPLATES[config.task.template]
    phrases = template.phrases() if settings.phrases_as_tokens else ()
    texts = source.documents(config.seed, 0, settings.training_documents)
    return train_tokenizer(texts, settings.vocab_size, phrases)


def build_backbone(
    config: DictConfig, tokenizer: TextTokenizer, base: Artefact | None, is_empty: bool = False
) -> DeepSeekBackbone | HFBackbone:
    """The model, with weights drawn from the seed or loaded from the input artefact; `is_empty` makes shapes only.

    Its vocabulary is that of the input's embedding, which may have more rows than the tokenizer has tokens, else the tokenizer's.
    """
    vocab_size = tokenizer.vocab_size if base is None else stored_vocab_size(base, tokenizer.vocab_size)
    model_config = inject(config.model, {"vocab_size": vocab_size})
    make = BACKBONES[type(model_config)]
    with torch.device("meta") if is_empty else nullcontext():
        backbone = make(model_config, instantiate(config.precision), seed=config.seed)
    if base is not None and not is_empty:
        load_base(backbone, base)
    return backbone


def stored_vocab_size(base: Artefact, n_tokens: int) -> int:
    """Rows of the embedding that `base` holds; `n_tokens`, those of its tokenizer, must find room there."""
    if isinstance(base, ImportedModel):
        rows = base.source.config.get("vocab_size")
    else:
        rows = stored_rows(base.weights_path, "embedding.weight")
    if rows is None:
        return n_tokens
    require(type(rows) is int and rows >= n_tokens, "vocab_size", rows, f"the tokenizer has {n_tokens} tokens")
    return rows


def load_base(backbone: DeepSeekBackbone | HFBackbone, base: Artefact) -> None:
    """Load the weights of an artefact of ours, or of a folder in HuggingFace's form; `InvalidInput`, and nothing is loaded, if
    they do not fit."""
    if not isinstance(base, ImportedModel):
        load_weights(backbone, base.weights_path)
    elif isinstance(backbone, HFBackbone):
        base.source.fill(hf_model_views(backbone), lambda name: is_copy(backbone, name))
    else:
        config = backbone.config
        is_stacked = any(name.endswith(STACKED_EXPERTS) for name in base.source.stored)
        views = hf_views(backbone.state_dict(), config, config.mtp_depth > 0, is_stacked)
        base.source.fill(views, lambda name: is_left_out(name, config, config.mtp_depth > 0))


def build_parts(config: DictConfig, base: Artefact | None, is_empty: bool = False) -> dict[str, Any]:
    """Every part that a stage, its data module or its callbacks may ask for, by name; the model as in `build_backbone`."""
    require_choice("task.template", config.task.template, TEMPLATES)
    source = instantiate(config.task.source)
    tokenizer = build_tokenizer(config, source, base)
    backbone = build_backbone(config, tokenizer, base, is_empty)
    parts: dict[str, Any] = {
        "source": source,
        "tokenizer": tokenizer,
        "template": TEMPLATES[config.task.template],
        "backbone": backbone,
        "seed": config.seed,
        "max_steps": config.stage.max_steps,
    }
    if config.get("optim"):
        parts["optim"] = instantiate(config.optim)
    if config.get("rollout"):
        rollout = instantiate(config.rollout)
        parts["rollout"] = rollout
        parts["sampling_temperature"] = rollout.sampling_temperature
        parts["generate"] = rollout.sampler(
            backbone,
            rollout.sampling,
            tokenizer.eos_id,
            tokenizer.pad_id,
            config.seed,
            rollout.max_rows,
            record_routes=config.stage.get("router") == "replay",
        )
    if config.get("reward"):
        # Plain lists and mappings: OmegaConf would turn rewards that are dataclasses back into configurations.
        parts["reward"] = instantiate(config.reward, _convert_="all")
    return parts


def set_up_torch(threads: int | None) -> None:
    """Deterministic algorithms only, so that the same seed gives the same bits; `threads` None leaves torch's choice."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The switch above also writes NaN into every fresh tensor, to show reads of memory never written: a test, not a need.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 - a module property mypy cannot see
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Have glibc keep what tensors free instead of handing it back: touching fresh pages again costs a tenth of a step.

    Nothing happens with another C library. Tensors above 32 MiB are handed back in any case.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # naming one threshold ends glibc's own adjusting of both


def trainer_settings(config: DictConfig) -> dict[str, Any]:
    """The keyword arguments of the Lightning Trainer: `config.trainer` without the keys that `run` reads itself."""
    return {key: value for key, value in config.trainer.items() if key not in RUN_KEYS["trainer"]}


def quieten() -> None:
    """Keep Lightning's advice (workers, TPUs, tips) out of a newcomer's terminal; warnings of substance stay."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*`isinstance\\(treespec, LeafSpec\\)`.*",
        ".*srun.*",
        ".*in eval mode at the start of training.*",
    ):
        warnings.filterwarnings("ignore", message=text)
