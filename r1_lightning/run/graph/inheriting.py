"""Settings that a stage takes from the input it starts from, unless the command line sets them.

- A stage that judges what it samples (`stage=sample`) with `init_from=ARTEFACT`: task, reward and lengths of rows come from the
  configuration of the artefact. Rewards that need a model of their own are left out.
- A stage of a checkpoint (a HuggingFace folder, or any model of `transformers`) that has a file for it, as `stage=grpo` has
  `configs/grpo_of_a_checkpoint.yaml`: the settings come from there in place of the miniature's.

Command-line arguments win, whole groups included; with an experiment or `debug` nothing is taken. A line names the settings taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from r1_lightning.artefacts import store
from r1_lightning.artefacts.hf_folder import ImportedModel
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.build.hf_import import with_model_of
from r1_lightning.run.config.compose import config_folder, options
from r1_lightning.run.config.declarations import asks_a_model, is_of_transformers, needs_of
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.run.config.stored import read_settings
from r1_lightning.run.config.targets import refuse_foreign_targets

CHECKPOINT_SETTINGS = "{stage}_of_a_checkpoint.yaml"  # in configs/, for stages that need other settings then


def from_input(stage: StageConfig, base: Artefact | None) -> StageConfig:
    """Return `stage` with the model and settings of the input that it starts from; the same object if nothing changes."""
    stage = with_model_of(stage, base)
    return stage if base is None else with_settings_of(stage, base)


def with_settings_of(stage: StageConfig, base: Artefact) -> StageConfig:
    """Return `stage` with settings from its input. `InvalidInput` if the artefact's configuration names code that is not ours."""
    if stage.choices.get("experiment") or stage.choices.get("debug"):
        return stage
    if "verdicts" in needs_of(stage.config.stage) and not isinstance(base, ImportedModel):
        return _as_trained(stage, base)
    is_checkpoint = isinstance(base, ImportedModel) or is_of_transformers(stage.config.model)
    settings = config_folder() / CHECKPOINT_SETTINGS.format(stage=stage.stage)
    return _for_a_checkpoint(stage, settings) if is_checkpoint and settings.is_file() else stage


def _typed(stage: StageConfig) -> list[str]:
    """Return the keys on the command line: groups, or paths below them. `stage=NAME` selects the stage and sets nothing in it."""
    keys = [override.lstrip("+~").partition("=")[0] for override in (*stage.overrides, *stage.cli_overrides)]
    return [key for key in keys if key != "stage"]


def _is_typed(path: str, typed: list[str]) -> bool:
    return any(path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.") for key in typed)


def _for_a_checkpoint(stage: StageConfig, path: Path) -> StageConfig:
    typed = _typed(stage)
    settings = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(settings, dict)
    values = {path: value for path, value in _leaves(settings) if not _is_typed(path, typed)}
    changed = _with_values(stage, {path: value for path, value in values.items() if _differs(stage, path, value)})
    if _is_typed("task", typed):
        return changed
    hint = f"task={stage.choices.get('task')} is the miniature's: task=NAME asks for another"
    return dataclasses.replace(changed, notes=(*changed.notes, f"{stage.name}: {hint}"))


def _leaves(node: Mapping[Any, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        path = f"{above}{key}"
        found += _leaves(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return found


def _as_trained(stage: StageConfig, base: Artefact) -> StageConfig:
    if not (base.folder / store.CONFIG).is_file():  # nothing to take over
        return stage
    typed, described = _typed(stage), read_settings(base.folder / store.CONFIG)
    reward = None if _is_typed("reward", typed) else described.get("reward")
    refuse_foreign_targets({"reward": reward})  # before its classes are asked what they are
    values: dict[str, Any] = {"task": described.get("task"), "reward": _without_models(reward)}
    rollout = described.get("rollout") or {}
    evaluation = (described.get("stage") or {}).get("evaluation") or {}
    values["rollout.row_tokens"] = rollout.get("row_tokens") or (described.get("data") or {}).get("row_tokens")
    values["rollout.max_new_tokens"] = rollout.get("max_new_tokens") or evaluation.get("max_new_tokens")
    wanted = {path: value for path, value in values.items() if value is not None and not _is_typed(path, typed)}
    wanted = {path: value for path, value in wanted.items() if _differs(stage, path, value)}
    refuse_foreign_targets({path: value for path, value in wanted.items() if isinstance(value, dict)})
    changed = _with_values(stage, wanted, str(base.folder))
    words = base.folder.name.split("-")  # stage, model, task, digits: see `store.create`
    if "task" in wanted and len(words) == 4 and words[2] in options("task"):
        return dataclasses.replace(changed, choices={**changed.choices, "task": words[2]})
    return changed


def _without_models(reward: Any) -> Any:
    """Return the reward without its model-based parts, whose models would have to be inputs of this stage."""
    if not isinstance(reward, dict) or not isinstance(reward.get("rewards"), dict):
        return reward
    kept = {name: part for name, part in reward["rewards"].items() if not _asks_a_model(part)}
    fields = {key: _only(value, kept) if key in ("weights", "from_step") else value for key, value in reward.items()}
    return {**fields, "rewards": kept} if kept else None


def _only(values: Any, kept: Mapping[str, Any]) -> Any:
    return {name: value for name, value in values.items() if name in kept} if isinstance(values, dict) else values


def _asks_a_model(node: Any) -> bool:
    if isinstance(node, dict):
        return asks_a_model(node) or any(_asks_a_model(value) for value in node.values())
    return isinstance(node, list) and any(_asks_a_model(value) for value in node)


def _differs(stage: StageConfig, path: str, value: Any) -> bool:
    found = OmegaConf.select(stage.config, path)
    plain = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    return bool(plain != value)


def _with_values(
    stage: StageConfig, values: Mapping[str, Any], origin: str = "the settings for a checkpoint"
) -> StageConfig:
    if not values:
        return stage
    config = stage.config.copy()
    OmegaConf.set_struct(config, False)
    for path, value in values.items():
        OmegaConf.update(config, path, value, merge=False)
    OmegaConf.set_struct(config, True)
    shown = ", ".join(path if isinstance(value, dict) else f"{path}={value}" for path, value in values.items())
    note = f"{stage.name}: not typed, so taken from {origin}: {shown}"
    return dataclasses.replace(stage, config=config, notes=(*stage.notes, note))
