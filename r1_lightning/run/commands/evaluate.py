"""Measures a finished artefact again: other problems, more samples, or with an empty think forced on it; or a published checkpoint.

The folder is an artefact's, which knows its task (another: task=NAME), or a checkpoint's in HuggingFace's form. Nothing in it
changes. `evaluate_command` is the command line, `evaluate_records` writes the samples down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts import store
from r1_lightning.artefacts.hf_folder import is_hf_folder
from r1_lightning.artefacts.hub import is_hub_name
from r1_lightning.artefacts.progress import progress
from r1_lightning.artefacts.store import Artefact
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator, render_table
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.run.build.device import settle_here, settled
from r1_lightning.run.build.hf_import import with_model_of
from r1_lightning.run.build.parts import accuracy_of, build_parts
from r1_lightning.run.build.stored import is_reward_model, open_folder
from r1_lightning.run.build.torch_setup import set_up_for
from r1_lightning.run.checks.evaluation import evaluation_settings, held_out_problems, with_room
from r1_lightning.run.checks.rewards import check_forms
from r1_lightning.run.checks.stored_config import read_config
from r1_lightning.run.config.compose import compose_stage, composing, config_folder
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM
from r1_lightning.types.errors import require, require_choice

# Settings for checkpoints, which record no lengths: those of `grpo_of_a_checkpoint.yaml`.
CHECKPOINT = ("stage=sft", "stage.evaluation.max_new_tokens=1024")
EMPTY_THINK = FORMS[R1_ZERO_FORM].empty_think  # replaced by the empty think block of the template's own form


@dataclass(frozen=True)
class Prepared:
    """A model, by the name of its folder, with what it is measured on."""

    name: str
    artefact: Artefact
    config: DictConfig
    backbone: Any
    evaluator: Evaluator


def evaluate(
    folder: Path,
    changes: Mapping[str, Any],
    forced_prefix: str = "",
    trust_targets: bool = False,
    reward: str | None = None,
    task: Sequence[str] = (),
) -> tuple[str, dict[str, Measure]]:
    """Evaluate the artefact, or the HuggingFace checkpoint, in `folder` on held-out problems; returns the table and the measures.

    The arguments and errors are those of `prepared`. No sample is written down (`evaluate_records.recorded` does that).
    """
    ready = prepared(folder, changes, forced_prefix, trust_targets, reward, task)
    evaluator = ready.evaluator
    with progress(len(evaluator.problems) * evaluator.config.samples, "evaluating", "completion") as bar:
        measures = evaluator(ready.backbone, bar.update)
    title = table_title(str(folder), len(evaluator.problems), evaluator.config.samples)
    return render_table(title, {ready.artefact.stage: measures}), measures


def table_title(model: str, problems: int, samples: int) -> str:
    """Return the line above a table of measures."""
    return f"{model}: {problems} held-out problems, {samples} samples each, 95 % intervals"


def prepared(
    folder: Path,
    changes: Mapping[str, Any],
    forced_prefix: str = "",
    trust_targets: bool = False,
    reward: str | None = None,
    task: Sequence[str] = (),
) -> Prepared:
    """Open the artefact, or the HuggingFace checkpoint, in `folder`, with an evaluator of held-out problems.

    `changes` replaces fields of the stored `EvaluationConfig`. `task` are overrides for another task (`["task=math500",
    "paths.data=FOLDER"]`): an artefact keeps its template, a checkpoint, which has no task, uses the task's. Answers are judged by
    the `accuracy` of the training's reward, or of `reward`, an option of configs/reward; by the task's judge if there is neither,
    or if `task` names another task. Raises `InvalidInput` for a folder that is neither a complete artefact nor a checkpoint, for
    bad values, and, without `trust_targets`, for a configuration that names code which is not ours.
    """
    artefact, config = opened_for_measuring(folder, task, trust_targets)
    stored = evaluation_settings(config) or EvaluationConfig()
    settings = EvaluationConfig(**{item.name: getattr(stored, item.name) for item in fields(stored)} | dict(changes))
    set_up_for(config)
    parts = build_parts(config, artefact)  # with the artefact as the base: its tokenizer and its weights
    problems = held_out_problems(parts["source"], settings)
    template = parts["template"]
    if reward is not None:
        check_forms({"task": {"template": template.name}, "reward": OmegaConf.to_container(_reward_node(reward))})
    own = None if task else parts.get("reward")
    asked = own if reward is None else named_reward(reward)
    accuracy = accuracy_of(asked, config.task.get("judge"), template.form)
    if forced_prefix == EMPTY_THINK:
        forced_prefix = FORMS[template.form].empty_think
    evaluator = Evaluator(problems, parts["tokenizer"], template, settings, config.seed, forced_prefix, accuracy)
    evaluator = with_room(evaluator, parts["backbone"].config.max_positions, parts["source"])
    name = folder.name if is_hub_name(folder) else folder.expanduser().resolve().name
    return Prepared(name, artefact, config, parts["backbone"].eval(), evaluator)


def opened_for_measuring(folder: Path, task: Sequence[str], trust_targets: bool = False) -> tuple[Artefact, DictConfig]:
    """Open the artefact or checkpoint in `folder`, with the configuration of its evaluation. `InvalidInput` as in `evaluate`."""
    others = [override for override in task if not re.match(r"(\+{0,2}|~)(task|paths)[.=]", override)]
    require(
        not others,
        "the argument",
        others[:1],
        "beside the folder there may be task=NAME, task.KEY=VALUE and paths.KEY=VALUE",
    )
    if is_hub_name(folder) or is_hf_folder(folder):
        names_task = any(override.startswith("task=") for override in task)
        require(
            names_task, "task", None, f"{folder} is a published checkpoint, which has no task of its own: task=NAME"
        )
        base = open_folder(folder)
        with composing():
            stage = settled(with_model_of(compose_stage([*CHECKPOINT, *task]), base))
        return base, stage.config
    artefact = open_folder(folder)
    config = read_config(folder / store.CONFIG, trust_targets)
    settle_here(config)
    allowed = f"a reward model writes nothing to measure; see its {store.TABLE}"
    require(not is_reward_model(artefact), "artefact", str(folder), allowed)
    if task:
        with composing():
            asked = OmegaConf.to_container(compose_stage(list(task)).config.task, resolve=True)
        assert isinstance(asked, dict)
        typed = any(override.lstrip("+").startswith("task.template=") for override in task)
        # An artefact is asked as in its training, in its template with its instruction.
        kept = {key: config.task[key] for key in ("template", "instruction") if key in config.task}
        config.task = asked if typed else {**asked, **kept}
    return artefact, config


def named_reward(option: str) -> WeightedSum:
    """Make the reward of configs/reward/OPTION.yaml. `InvalidInput` if there is no such option."""
    return instantiate(_reward_node(option), _convert_="all")


def _reward_node(option: str) -> DictConfig:
    folder = config_folder() / "reward"
    require_choice("reward", option, sorted(path.stem for path in folder.glob("*.yaml")))
    node = OmegaConf.load(folder / f"{option}.yaml")
    return node.get("reward", node)  # an option may set more than the reward
