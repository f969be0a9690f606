"""Measures a finished artefact again: other problems, more samples, or with an empty think forced on it.

    python scripts/evaluate.py runs/grpo-... --samples 64 --force-empty-think

Nothing in the artefact's folder changes; the table goes to the terminal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1_lightning.artefacts import store
from r1_lightning.artefacts.progress import progress
from r1_lightning.artefacts.weights import stored_shapes
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator, render_table
from r1_lightning.model.reward_head import HEAD
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.run import machine
from r1_lightning.run.compose import config_folder
from r1_lightning.run.measuring import evaluation_settings, held_out_problems, with_room
from r1_lightning.run.parts import accuracy_of, build_parts
from r1_lightning.run.reward_rules import check_forms
from r1_lightning.run.targets import find_own_modules, refuse_foreign_targets, refuse_interpolations
from r1_lightning.run.validate import validate
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM
from r1_lightning.types.errors import InvalidInput, require, require_choice

EMPTY_THINK = FORMS[R1_ZERO_FORM].empty_think  # means that of the template's own form


def evaluate(
    folder: Path,
    changes: Mapping[str, Any],
    forced_prefix: str = "",
    trust_targets: bool = False,
    reward: str | None = None,
) -> tuple[str, dict[str, Measure]]:
    """Table and measures of the artefact in `folder` on held-out problems.

    `changes` replaces fields of its own `EvaluationConfig`. Answers are judged by the `accuracy` of the reward that it was
    trained with, or of another option of configs/reward; by the exact rule where there is neither. Raises `InvalidInput` for a
    folder that is no complete artefact, for bad values, and, without `trust_targets`, for a configuration that names code which
    is not ours.
    """
    artefact = store.open_artefact(folder)
    store.verify(artefact)
    config = read_config(folder / store.CONFIG, trust_targets)
    is_language_model = HEAD not in stored_shapes(artefact.weights_path)
    require(
        is_language_model, "artefact", str(folder), f"a reward model writes nothing to measure; see its {store.TABLE}"
    )
    stored = evaluation_settings(config) or EvaluationConfig()
    settings = EvaluationConfig(**{item.name: getattr(stored, item.name) for item in fields(stored)} | dict(changes))
    parts = build_parts(config, artefact)  # the artefact serves as the input: its tokenizer, its weights
    problems = held_out_problems(parts["source"], settings)
    template = parts["template"]
    if reward is not None:
        check_forms({"task": {"template": template.name}, "reward": OmegaConf.to_container(_reward_node(reward))})
    accuracy = accuracy_of(parts.get("reward") if reward is None else named_reward(reward))
    if forced_prefix == EMPTY_THINK:
        forced_prefix = FORMS[template.form].empty_think
    evaluator = Evaluator(problems, parts["tokenizer"], template, settings, config.seed, forced_prefix, accuracy)
    evaluator = with_room(evaluator, parts["backbone"].config.max_positions, parts["source"])
    with progress(len(evaluator.problems) * settings.samples, "evaluating", "completion") as bar:
        measures = evaluator(parts["backbone"].eval(), bar.update)
    title = f"{folder}: {len(evaluator.problems)} held-out problems, {settings.samples} samples each, 95 % intervals"
    return render_table(title, {artefact.stage: measures}), measures


def named_reward(option: str) -> WeightedSum:
    """The reward that configs/reward/OPTION.yaml describes. `InvalidInput` where there is none of that name."""
    return instantiate(_reward_node(option), _convert_="all")


def _reward_node(option: str) -> DictConfig:
    folder = config_folder() / "reward"
    require_choice("reward", option, sorted(path.stem for path in folder.glob("*.yaml")))
    node = OmegaConf.load(folder / f"{option}.yaml")
    return node.get("reward", node)  # an option may set more than the reward


def read_config(path: Path, trust_targets: bool) -> DictConfig:
    """An artefact's resolved configuration, checked before any code that it names is imported. Raises `InvalidInput`.

    Loggers and callbacks, which had a part in training only, are left out: a person's own are neither imported nor in the way.
    """
    config = _loaded(path)
    for key in ("logger", "callbacks"):
        config.pop(key, None)
    if not trust_targets:
        refuse_foreign_targets(OmegaConf.to_container(config))
    validate(config)
    return config


def read_model(path: Path) -> DictConfig:
    """The same for whoever wants the model alone: a reward of somebody's own is neither imported nor in the way."""
    config = _loaded(path)
    model = config.get("model")
    if not isinstance(model, DictConfig) or "_target_" not in model:
        raise InvalidInput(f"config={str(path)!r} is not allowed: it describes no model")
    refuse_foreign_targets({"model": OmegaConf.to_container(model)})
    return config


def _loaded(path: Path) -> DictConfig:
    try:
        config = OmegaConf.load(path)
        OmegaConf.resolve(config)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise InvalidInput(f"config={str(path)!r} is not allowed: it cannot be read ({error})") from error
    if not isinstance(config, DictConfig):
        raise InvalidInput(f"config={str(path)!r} is not allowed: it is no configuration of a stage")
    refuse_interpolations(OmegaConf.to_container(config), str(path))
    return config


def main() -> int:
    """The command line of `scripts/evaluate.py`; returns the exit code."""
    if refused := machine.set_up():
        return refused
    parser = argparse.ArgumentParser(description="Measure a finished artefact on held-out problems.")
    parser.add_argument("artefact", type=Path, help="a folder under paths.root")
    parser.add_argument("--force-empty-think", action="store_true", help="leave the model no room to reason")
    parser.add_argument(
        "--trust-targets", action="store_true", help="also run code of others that the artefact's configuration names"
    )
    parser.add_argument("--reward", help="judge answers by this option of configs/reward; default: as it was trained")
    for item in fields(EvaluationConfig):
        kind = type(item.default)
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=kind, help="default: as in the artefact's config")
    values = vars(parser.parse_args())
    folder, prefix = values.pop("artefact"), EMPTY_THINK if values.pop("force_empty_think") else ""
    trust_targets, reward = values.pop("trust_targets"), values.pop("reward")
    find_own_modules()
    changes = {name: value for name, value in values.items() if value is not None}
    try:
        table, _ = evaluate(folder, changes, prefix, trust_targets, reward)
    except InvalidInput as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(table)
    return 0
