"""Rules between the groups of a configuration, which no single constructor can check.

1. Trainer options are not fingerprinted, so only options that cannot change the weights are allowed.
2. Each value (the vocabulary's size, the sampling temperature) has exactly one config key.
3. A stage or data module that needs another group must have it.
4. The data must provide the type of batch that the stage trains on, and the number of steps must be known.

`models` holds the rules of the model, `rewards` those of the rewards, `tasks` those that have to read rows.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from r1_lightning.run.checks.loggers import check_loggers
from r1_lightning.run.checks.models import check_model
from r1_lightning.run.checks.processes import check_processes
from r1_lightning.run.checks.rewards import check_rewards
from r1_lightning.run.config.compose import config_folder
from r1_lightning.run.config.declarations import batch_type_of, class_of, needs_of
from r1_lightning.types.errors import require, require_duration
from r1_lightning.types.text import Need

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
TOP_KEYS = (*GROUPS, "seed", "name", "fresh", "dry_run", "dry_run_memory_gib", "dry_run_devices", "only", "init_from")
# The trainer is not in the fingerprint, so only options that change neither the mathematics of a step nor the number of steps.
TRAINER_KEYS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "timeout_s",
    "threads",
    "checkpoint_every_steps",
    "checkpoint_async",
    "max_time",
    "role_devices",
    "recompute",
    "enable_progress_bar",
    "profiler",
    "benchmark",
    "detect_anomaly",
)
DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
# Parts that `run.build.parts` passes by name -> the only config key of each.
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
    "reference_device": "trainer.role_devices.reference",
    "processes": "trainer.devices",
}
INPUT_PARTS = ("teacher", "judge")  # other models; each is the stage's input of that name
NEEDED_GROUPS: dict[Need, str] = {"rollout": "rollout", "verdicts": "reward"}  # beside what signatures name
OPTIONAL_PARTS = {"optim": "optim", "rollout": "rollout", "generate": "rollout", "reward": "reward"}


def check_rules(plain: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for the first rule that a resolved configuration breaks."""
    for key, value in plain.items():
        if key not in TOP_KEYS:
            near = difflib.get_close_matches(key, TOP_KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            require(False, key, value, f"the configuration takes {', '.join(TOP_KEYS)}{hint}")
    _check_trainer(plain.get("trainer") or {})
    check_processes(plain)
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
    for role, device in (trainer.get("role_devices") or {}).items():
        is_device = isinstance(device, str) and DEVICE.fullmatch(device) is not None
        require(is_device, f"trainer.role_devices.{role}", device, "it must be cpu, cuda or cuda:NUMBER")


def _check_single_source(group: str, node: Mapping[str, Any]) -> None:
    for key, value in node.items():
        place = PART_FROM.get(key)
        if place is not None and place != f"{group}.{key}" and value is not None:
            require(False, f"{group}.{key}", value, f"it comes from {place}; set it there")


def _check_needs(group: str, plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput if a group (reward, rollout) or an input that the stage or data module needs is missing."""
    target = (plain.get(group) or {}).get("_target_")
    if target is None:
        return
    roles = (plain.get("stage") or {}).get("inputs") or {}
    for need in needs_of(plain[group]):
        part = NEEDED_GROUPS.get(need)
        if part is None or (part == "reward" and "judge" in roles):  # the judging model takes the reward's place
            continue
        require(bool(plain.get(part)), part, plain.get(part), f"{group} {target.rpartition('.')[2]} needs it")
    for name, parameter in inspect.signature(class_of(plain[group])).parameters.items():
        needed = OPTIONAL_PARTS.get(name)
        if name in INPUT_PARTS:
            allowed = f"{group} {target.rpartition('.')[2]} needs it: {{stage: NAME}} or {{folder: FOLDER}}"
            require(name in roles, f"stage.inputs.{name}", None, allowed)
        if needed is not None and parameter.default is parameter.empty and not plain.get(needed):
            require(False, needed, plain.get(needed), f"{group} {target.rpartition('.')[2]} needs it")


def _check_judge(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput if a reward model's stage has a judge that its data never ask, or a sampling stage both judge and rule."""
    stage, data = plain.get("stage") or {}, plain.get("data") or {}
    judge = (stage.get("inputs") or {}).get("judge")
    if judge is None:
        return
    rewards = (plain.get("reward") or {}).get("rewards") or {}
    if "verdicts" in needs_of(stage):
        allowed = "reward.rewards.accuracy says already what is right; a judge is for where no rule can: ~reward leaves it out"
        require("accuracy" not in rewards, "stage.inputs.judge", judge, allowed)
    elif data.get("_target_"):
        signatures = [inspect.signature(kind).parameters for kind in (class_of(data), class_of(stage)) if kind]
        is_asked = "judge" in rewards or any("judge" in parameters for parameters in signatures)
        require(is_asked, "stage.inputs.judge", judge, "data=judged_preferences asks a judge, these data do not")


def _check_length(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput if neither steps nor passes over the data are set."""
    stage, data = plain.get("stage") or {}, plain.get("data") or {}
    if data and "max_steps" in stage and stage["max_steps"] is None:  # a stage without data trains nothing
        allowed = "it must be a whole number" + (", or set data.epochs" if "epochs" in data else "")
        require(data.get("epochs") is not None, "stage.max_steps", None, allowed)


def _check_batches(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput if the data module makes other batches than the stage trains on."""
    stage, data = plain.get("stage") or {}, plain.get("data") or {}
    wanted, given = batch_type_of(stage), batch_type_of(data)
    if wanted is None or given is None or issubclass(given, wanted):
        return
    names = [str(node["_target_"]).rpartition(".")[2] for node in (stage, data)]
    fitting = " or ".join(f"data={name}" for name in data_options(wanted))
    remedy = f"; take {fitting}" if fitting else ""
    allowed = f"{names[0]} trains on {wanted.__name__}, and {names[1]} makes {given.__name__}{remedy}"
    require(False, "data._target_", data["_target_"], allowed)


def data_options(batch_type: type) -> list[str]:
    """Return the options of configs/data whose data module makes such batches."""
    files = sorted((config_folder() / "data").glob("*.yaml"))
    return [path.stem for path in files if batch_type_of(OmegaConf.load(path)) is batch_type]


def _check_distill_temperature(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput if a cached teacher's log-probs have another temperature than the objective's softmax of the student."""
    cached = (plain.get("data") or {}).get("distill_temperature")
    objective = (plain.get("stage") or {}).get("objective")
    wanted = objective.get("distill_temperature") if isinstance(objective, Mapping) else None
    if cached is not None and wanted is not None:
        allowed = f"it must be that of stage.objective.distill_temperature={wanted!r}"
        require(cached == wanted, "data.distill_temperature", cached, allowed)


def _check_own_text(plain: Mapping[str, Any]) -> None:
    """Raise InvalidInput if alpha is 0 with on-policy text, on which only the teacher's term, weighted by alpha, trains."""
    share = (plain.get("data") or {}).get("on_policy_fraction") or 0
    objective = (plain.get("stage") or {}).get("objective")
    alpha = objective.get("alpha") if isinstance(objective, Mapping) else None
    if alpha == 0 and share > 0:
        allowed = (
            "on the student's own text it must be above 0, or nothing is learned; or set data.on_policy_fraction=0"
        )
        require(False, "stage.objective.alpha", alpha, allowed)
