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
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts.store import Artefact
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rewards.judges import EXACT, accuracy_by
from r1_lightning.run.keys import GRAPH_KEYS, RUN_KEYS
from r1_lightning.run.models import make_backbone, vocab_size_of
from r1_lightning.text.chat_template import R1, R1_ZERO, TEMPLATES
from r1_lightning.text.reasoning_format import R1_ZERO_FORM, FormName
from r1_lightning.text.tokenizer import TextTokenizer, train_tokenizer
from r1_lightning.types.errors import InvalidInput, require_choice
from r1_lightning.types.text import JudgeName, RewardFunction

TOKEN_CACHE = "token_cache"  # the folder below paths.root for token ids of large files

# Names of glibc's <malloc.h>, for `keep_freed_memory`.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def inject(node: DictConfig, parts: Mapping[str, Any]) -> Any:
    """Instantiate `node`, passing those of `parts` that its target's signature names and YAML does not set.

    A refusal of ours (`InvalidInput`) comes out as itself, not wrapped in Hydra's.
    """
    wanted = inspect.signature(get_object(node["_target_"])).parameters
    given = {name: part for name, part in parts.items() if name in wanted and node.get(name) is None}
    leaves = {key: value for key, value in node.items() if key not in (*GRAPH_KEYS, "evaluation")}
    # Resolved before they leave the tree in which `${paths.data}` has a meaning.
    plain = {key: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for key, v in leaves.items()}
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
    # The documents of our generators are written in R1-Zero's template, whatever the stage's own is.
    phrases = (
        (*template.phrases(), *(R1_ZERO.phrases() if template is R1 else ())) if settings.phrases_as_tokens else ()
    )
    texts = source.documents(config.seed, 0, settings.training_documents)
    return train_tokenizer(texts, settings.vocab_size, phrases)


def build_parts(config: DictConfig, base: Artefact | None, is_empty: bool = False) -> dict[str, Any]:
    """Every part that a stage, its data module or its callbacks may ask for, by name; the model as in `build_backbone`."""
    require_choice("task.template", config.task.template, TEMPLATES)
    source = instantiate(config.task.source, _convert_="all")
    tokenizer = build_tokenizer(config, source, base)
    model_config = inject(config.model, {"vocab_size": vocab_size_of(tokenizer, base)})
    backbone = make_backbone(model_config, instantiate(config.precision), base, config.seed, is_empty)
    parts: dict[str, Any] = {
        "source": source,
        "tokenizer": tokenizer,
        "template": TEMPLATES[config.task.template],
        "backbone": backbone,
        "seed": config.seed,
        "max_steps": config.stage.max_steps,
        "token_cache": Path(config.paths.root) / TOKEN_CACHE,
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
            tokenizer.eos_ids,
            tokenizer.pad_id,
            config.seed,
            rollout.max_rows,
            record_routes=config.stage.get("router") == "replay",
        )
    if config.get("reward"):
        # Plain lists and mappings: OmegaConf would turn rewards that are dataclasses back into configurations.
        parts["reward"] = instantiate(config.reward, _convert_="all")
    return parts


def accuracy_of(
    reward: WeightedSum | None, judge: JudgeName | None = None, form: FormName = R1_ZERO_FORM
) -> RewardFunction | None:
    """What an evaluation asks whether an answer is right: the reward's own `accuracy`, so that both count the same.

    Without one what the task's `judge` stands for, for completions of `form`; None for the exact rule, and where none is named.
    """
    found = next((part for part in reward.rewards if part.name == "accuracy"), None) if reward else None
    return accuracy_by(judge, form) if found is None and judge not in (None, EXACT) else found


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
