"""Builds the parts of a stage from its configuration; `inject` passes each target the parts that its signature names.

A YAML node with a `_target_` names a class; its leaves are keyword arguments. Objects that YAML cannot hold (the tokenizer, the
one policy object, the sampler) are passed by name to every target whose signature asks for them, so a new stage or data module is
connected by naming its arguments.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from r1_lightning.artefacts.store import Artefact
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rewards.judges import EXACT, accuracy_by
from r1_lightning.run.build.device import REFERENCE, mesh_of, settled_accelerator, stage_device, told_device
from r1_lightning.run.build.models import make_backbone, vocab_size_of
from r1_lightning.run.build.templates import template_of
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.keys import RUN_KEYS, TOKEN_CACHE
from r1_lightning.text.chat_template import R1, R1_ZERO, TEMPLATES
from r1_lightning.text.reasoning_format import R1_ZERO_FORM, FormName
from r1_lightning.text.tokenizer import TextTokenizer, train_tokenizer
from r1_lightning.types.errors import require_choice
from r1_lightning.types.processes import processes_now
from r1_lightning.types.text import JudgeName, RewardFunction


def build_tokenizer(config: DictConfig, source: Any, base: Artefact | None) -> TextTokenizer:
    """Return the input's tokenizer; if it has none, a new one trained on the first documents of the problem source."""
    if base is not None and getattr(base, "has_tokenizer", True):
        return TextTokenizer.load(base.tokenizer_folder)
    settings = config.task.tokenizer
    template = TEMPLATES[config.task.template]
    # Our generators write their documents in R1-Zero's template, whatever the stage's own template is.
    phrases = (
        (*template.phrases(), *(R1_ZERO.phrases() if template is R1 else ())) if settings.phrases_as_tokens else ()
    )
    texts = source.documents(config.seed, 0, settings.training_documents)
    return train_tokenizer(texts, settings.vocab_size, phrases)


def build_parts(config: DictConfig, base: Artefact | None, is_empty: bool = False) -> dict[str, Any]:
    """Return every part that a stage, its data module or its callbacks may ask for, by name; the model as in `make_backbone`."""
    require_choice("task.template", config.task.template, TEMPLATES)
    source = instantiate(config.task.source, _convert_="all")
    tokenizer_folder = None if base is None else base.tokenizer_folder
    template, tokenizer = template_of(
        config.task.template,
        config.task.get("instruction"),
        tokenizer_folder,
        build_tokenizer(config, source, base),
    )
    model_config = inject(config.model, {"vocab_size": vocab_size_of(tokenizer, base)})
    # On the device of the stage from the first: what is done with a model is done where its weights are.
    precision, device = instantiate(config.precision), stage_device(config)
    mesh = None if is_empty else mesh_of(config)
    backbone = make_backbone(model_config, precision, base, config.seed, is_empty, device, mesh)
    if config.get("trainer") and config.trainer.get("recompute"):
        backbone.recompute_blocks()
    parts: dict[str, Any] = {
        "source": source,
        "tokenizer": tokenizer,
        "template": template,
        "backbone": backbone,
        "seed": config.seed,
        "max_steps": config.stage.max_steps,
        "reference_device": told_device(config, REFERENCE),
        "processes": processes_now(),
        "token_cache": Path(config.paths.root) / TOKEN_CACHE,
    }
    if config.get("optim"):
        parts["optim"] = instantiate(config.optim)
    if config.get("rollout"):
        rollout = instantiate(config.rollout)
        if not getattr(backbone, "continues_documents", True):  # it would compute each copy of a prompt, in longer rows
            rollout = replace(rollout, share_prompts_from=None)
        # The sampler holds the very backbone that trains, so that it always samples with the current weights.
        parts["rollout"] = rollout
        parts["sampling_temperature"] = rollout.sampling_temperature
        records = config.stage.get("router") == "replay"
        parts["generate"] = rollout.sampler(backbone, rollout.sampler_settings(tokenizer, config.seed, records))
    if config.get("reward"):
        # Plain lists and mappings: OmegaConf would turn rewards that are dataclasses back into configurations.
        parts["reward"] = instantiate(config.reward, _convert_="all")
    return parts


def accuracy_of(
    reward: WeightedSum | None, judge: JudgeName | None = None, form: FormName = R1_ZERO_FORM
) -> RewardFunction | None:
    """Return the accuracy function of an evaluation: the reward's own `accuracy`, so that evaluation and training agree.

    Without one, that of the task's `judge` for completions of `form`; None for the exact rule, or if no judge is named.
    """
    found = next((part for part in reward.rewards if part.name == "accuracy"), None) if reward else None
    return accuracy_by(judge, form) if found is None and judge not in (None, EXACT) else found


def trainer_settings(config: DictConfig) -> dict[str, Any]:
    """Return the keyword arguments of the Lightning Trainer: `config.trainer` without the keys that `run` reads itself."""
    settings = {key: value for key, value in config.trainer.items() if key not in RUN_KEYS["trainer"]}
    if "accelerator" in settings:  # Lightning's own "auto" looks for other devices than ours
        settings["accelerator"] = settled_accelerator(settings["accelerator"])
    return settings
