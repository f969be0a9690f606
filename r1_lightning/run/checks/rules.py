"""Rules between the parts of a configuration, which no single constructor can know.

What the fingerprint does not count (the trainer) must not be able to change the weights; what comes from one place (the
vocabulary's size, the sampling temperature) must not be set in a second; a part that needs another must have it; data must give the
batches that the stage trains on, and say how many. Rules of the model are in `model_rules`, of the rewards in `reward_rules`, and
those that have to read rows in `task_rules`.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object

from r1_lightning.run.checks.loggers import check_loggers
from r1_lightning.run.checks.models import check_model
from r1_lightning.run.checks.rewards import check_rewards
from r1_lightning.types.errors import require, require_duration
from r1_lightning.types.tensors import ChatBatch, DistillBatch, GRPOBatch, PreferenceBatch, TokenBatch

GROUPS = (
    "model",
    "task",
    "data",
    "rollout",
    "reward",
    "optim",
    "precision",
    "trainer",
    "callbacks",
    "logger",
    "launcher",
    "paths",
    "stage",
)
TOP_KEYS = (*GROUPS, "seed", "name", "fresh", "dry_run", "init_from")
# The trainer is not in the fingerprint: only what leaves the mathematics of a step and the number of steps alone.
TRAINER_KEYS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "threads",
    "checkpoint_every_steps",
    "max_time",
    "enable_progress_bar",
    "profiler",
    "benchmark",
    "detect_anomaly",
)
ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
# Parts that `run.build.parts` passes by name, and where each has its only setting.
PART_FROM = {
    "vocab_size": "task.tokenizer.vocab_size",
    "source": "task.source",
    "tokenizer": "task.tokenizer",
    "template": "task.template",
    "backbone": "model",
    "seed": "seed",
    "max_steps": "stage.max_steps",
    "data_folder": "stage.inputs.data",
    "optim": "optim",
    "rollout": "rollout",
    "sampling_temperature": "rollout.sampling_temperature",
    "generate": "rollout",
    "reward": "reward",
    "teacher": "stage.inputs.teacher",
    "judge": "stage.inputs.judge",
}
INPUT_PARTS = ("teacher", "judge")  # other models, each an input of that name
NEEDS = {
    "r1_lightning.rollout.rejection_sampling.RejectionSampling": ("rollout", "reward")
}  # beside what signatures name
OPTIONAL_PARTS = {"optim": "optim", "rollout": "rollout", "generate": "rollout", "reward": "reward"}
BATCH_OF = {
    "r1_lightning.data.pretrain_data.PretrainDataModule": TokenBatch,
    "r1_lightning.data.chat_data.ChatDataModule": ChatBatch,
    "r1_lightning.data.rollout_data.GroupedRolloutsDataModule": GRPOBatch,
    "r1_lightning.data.preference_data.PreferenceDataModule": PreferenceBatch,
    "r1_lightning.data.preference_data.SampledPreferenceDataModule": PreferenceBatch,
    "r1_lightning.data.preference_data.JudgedPreferenceDataModule": PreferenceBatch,
    "r1_lightning.data.teacher_data.TeacherTracesDataModule": DistillBatch,
    "r1_lightning.data.teacher_data.CachedTeacherDataModule": DistillBatch,
    "r1_lightning.data.on_policy_data.OnPolicyDataModule": DistillBatch,
}


def check_rules(plain: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for the first rule that a resolved configuration breaks."""
    for key, value in plain.items():
        if key not in TOP_KEYS:
            near = difflib.get_close_matches(key, TOP_KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            require(False, key, value, f"the configuration takes {', '.join(TOP_KEYS)}{hint}")
    _check_trainer(plain.get("trainer") or {})
    for group in ("model", "stage", "data"):
        _check_single_source(group, plain.get(group) or {})
    for group in ("stage", "data"):
        _check_needs(group, plain)
    _check_batches(plain)
    _check_judge(plain)
    _check_length(plain)
    _check_distill_temperature(plain)
    _check_own_text(plain)
    check_rewards(plain)
    check_model(plain)
    check_loggers(plain.get("logger") or {})


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    for key, value in trainer.items():
        if not key.startswith("_"):
            allowed = f"trainer takes {', '.join(TRAINER_KEYS)}; others could change the weights, not their fingerprint"
            require(key in TRAINER_KEYS, f"trainer.{key}", value, allowed)
    if trainer.get("max_time") is not None:
        require_duration("trainer.max_time", trainer["max_time"])
    for key, one in ONE_PROCESS.items():
        value = trainer.get(key, one)
        chosen = key == "devices" and isinstance(value, list) and len(value) == 1  # which one, by its number
        is_one = value == one and type(value) is type(one)
        require(is_one or chosen, f"trainer.{key}", value, f"it must be {one}: a stage runs in one process")


def _check_single_source(group: str, node: Mapping[str, Any]) -> None:
    for key, value in node.items():
        place = PART_FROM.get(key)
        if place is not None and place != f"{group}.{key}" and value is not None:
            require(False, f"{group}.{key}", value, f"it comes from {place}; set it there")


def _check_needs(group: str, plain: Mapping[str, Any]) -> None:
    """A data module or stage that needs a group (reward, rollout) which is null."""
    target = (plain.get(group) or {}).get("_target_")
    if target is None:
        return
    roles = (plain.get("stage") or {}).get("inputs") or {}
    for part in NEEDS.get(target, ()):
        if part == "reward" and "judge" in roles:
            continue  # a model says what is right
        require(bool(plain.get(part)), part, plain.get(part), f"{group} {target.rpartition('.')[2]} needs it")
    for name, parameter in inspect.signature(get_object(target)).parameters.items():
        needed = OPTIONAL_PARTS.get(name)
        if name in INPUT_PARTS:
            allowed = f"{group} {target.rpartition('.')[2]} needs it: {{stage: NAME}} or {{folder: FOLDER}}"
            require(name in roles, f"stage.inputs.{name}", None, allowed)
        if needed is not None and parameter.default is parameter.empty and not plain.get(needed):
            require(False, needed, plain.get(needed), f"{group} {target.rpartition('.')[2]} needs it")


def _check_judge(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput where a reward model's stage names a judge whom its data never ask, or a stage that samples has both a
    judge and a rule to say what is right."""
    stage, data = plain.get("stage") or {}, str((plain.get("data") or {}).get("_target_", ""))
    judge = (stage.get("inputs") or {}).get("judge")
    if judge is not None and BATCH_OF.get(data) is PreferenceBatch:
        asks = "judge" in inspect.signature(get_object(data)).parameters
        require(asks, "stage.inputs.judge", judge, "data=judged_preferences asks a judge, these data do not")
    if judge is not None and stage.get("_target_") in NEEDS:
        rewards = (plain.get("reward") or {}).get("rewards") or {}
        allowed = "reward.rewards.accuracy says already what is right; a judge is for where no rule can: ~reward leaves it out"
        require("accuracy" not in rewards, "stage.inputs.judge", judge, allowed)


def _check_length(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput where neither steps nor passes over the data say how long to train."""
    stage, data = plain.get("stage") or {}, plain.get("data") or {}
    if data and "max_steps" in stage and stage["max_steps"] is None:  # a stage without data trains nothing
        allowed = "it must be a whole number" + (", or set data.epochs" if "epochs" in data else "")
        require(data.get("epochs") is not None, "stage.max_steps", None, allowed)


def _check_batches(plain: Mapping[str, Any]) -> None:
    stage, data = (str((plain.get(group) or {}).get("_target_", "")) for group in ("stage", "data"))
    given = BATCH_OF.get(data)
    step = getattr(get_object(stage), "training_step", None) if stage else None
    if given is None or step is None:
        return
    try:
        wanted = typing.get_type_hints(step).get("batch")
    except NameError:  # a stage of somebody's own that imports its types for checkers only
        return
    if isinstance(wanted, type) and wanted is not given:
        fitting = ", ".join(target for target, batch in BATCH_OF.items() if batch is wanted)
        name = stage.rpartition(".")[2]
        require(False, "data._target_", data, f"{name} trains on {wanted.__name__}, which comes from {fitting}")


def _check_distill_temperature(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput where a cached teacher's log-probs are at another temperature than those they are compared with: the
    divergence would be between two softmaxes that nobody asked for."""
    cached = (plain.get("data") or {}).get("distill_temperature")
    objective = (plain.get("stage") or {}).get("objective")
    wanted = objective.get("distill_temperature") if isinstance(objective, Mapping) else None
    if cached is not None and wanted is not None:
        allowed = f"it must be that of stage.objective.distill_temperature={wanted!r}"
        require(cached == wanted, "data.distill_temperature", cached, allowed)


def _check_own_text(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput where a student is to write text of which it learns nothing: with no right token only the teacher is
    left, and with alpha 0 it weighs nothing."""
    share = (plain.get("data") or {}).get("on_policy_fraction") or 0
    objective = (plain.get("stage") or {}).get("objective")
    alpha = objective.get("alpha") if isinstance(objective, Mapping) else None
    if alpha == 0 and share > 0:
        allowed = (
            "on the student's own text it must be above 0, or nothing is learned; or set data.on_policy_fraction=0"
        )
        require(False, "stage.objective.alpha", alpha, allowed)
