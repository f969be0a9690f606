"""Measures a finished artefact again: other problems, more samples, or with an empty think forced on it.

    r1 evaluate runs/grpo-... --samples 64 --force-empty-think
    r1 evaluate /path/to/qwen task=gsm8k_hub --reward math --samples 4

The folder is an artefact's, which knows its task (another: task=NAME), or a checkpoint's in HuggingFace's form. Nothing in it
changes; the table goes to the terminal.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
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
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.config.targets import find_own_modules
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM
from r1_lightning.types.errors import require, require_choice

# Settings for checkpoints, which record no lengths: those of `grpo_of_a_checkpoint.yaml`.
CHECKPOINT = ("stage=sft", "stage.evaluation.max_new_tokens=1024")
EMPTY_THINK = FORMS[R1_ZERO_FORM].empty_think  # replaced by the empty think block of the template's own form


def evaluate(
    folder: Path,
    changes: Mapping[str, Any],
    forced_prefix: str = "",
    trust_targets: bool = False,
    reward: str | None = None,
    task: Sequence[str] = (),
) -> tuple[str, dict[str, Measure]]:
    """Evaluate the artefact, or the HuggingFace checkpoint, in `folder` on held-out problems; returns the table and the measures.

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
    with progress(len(evaluator.problems) * settings.samples, "evaluating", "completion") as bar:
        measures = evaluator(parts["backbone"].eval(), bar.update)
    title = f"{folder}: {len(evaluator.problems)} held-out problems, {settings.samples} samples each, 95 % intervals"
    return render_table(title, {artefact.stage: measures}), measures


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


def main() -> int:
    """The command line of `r1 evaluate`; returns the exit code."""
    return run_as_command(_measure)


def _measure() -> int:
    parser = argparse.ArgumentParser(description="Measure a finished artefact on held-out problems.")
    parser.add_argument(
        "artefact", type=Path, help="a folder under paths.root, a checkpoint in HuggingFace's form, or hub:OWNER/NAME"
    )
    parser.add_argument("task", nargs="*", help="task=NAME and settings of it; default: the artefact's own task")
    parser.add_argument("--task", dest="task_name", metavar="NAME", help="the same as task=NAME")
    parser.add_argument("--force-empty-think", action="store_true", help="leave the model no room to reason")
    parser.add_argument(
        "--trust-targets", action="store_true", help="also run code of others that the artefact's configuration names"
    )
    parser.add_argument(
        "--reward",
        help="judge answers by this option of configs/reward; default: as it was trained, else by task.judge",
    )
    for item in fields(EvaluationConfig):
        kind = type(item.default)
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=kind, help="default: as in the artefact's config")
    values = vars(parser.parse_intermixed_args())
    folder, prefix = values.pop("artefact"), EMPTY_THINK if values.pop("force_empty_think") else ""
    trust_targets, reward, task = values.pop("trust_targets"), values.pop("reward"), values.pop("task")
    if (task_name := values.pop("task_name")) is not None:
        task = [f"task={task_name}", *task]
    find_own_modules()
    changes = {name: value for name, value in values.items() if value is not None}
    table, _ = evaluate(folder, changes, prefix, trust_targets, reward, task)
    print(table)
    return 0
