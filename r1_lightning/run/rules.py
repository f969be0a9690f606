"""Rules between the parts of a configuration, which no single constructor can know.

What the fingerprint does not count (the trainer) must not be able to change the weights; what comes from one place (the
vocabulary's size, the sampling temperature) must not be set in a second; data must give the batches that the stage trains
on; and nothing may turn out too long, or the held-out problems too few, only after hours of training.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.model.lora import require_peft
from r1_lightning.rollout.mtp_drafts import MTPDrafts, check_forgets
from r1_lightning.rollout.vllm_engine import require_vllm
from r1_lightning.rollout.vllm_sampler import VLLM
from r1_lightning.run.chat_rules import check_forms, check_length
from r1_lightning.stages.reference import refuse_refresh
from r1_lightning.types.errors import require
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
TOP_KEYS = (*GROUPS, "seed", "fresh", "dry_run", "init_from")
# The trainer is not in the fingerprint: only what leaves the mathematics of a step and the number of steps alone.
TRAINER_KEYS = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "threads",
    "checkpoint_every_steps",
    "enable_progress_bar",
    "profiler",
    "benchmark",
    "detect_anomaly",
)
ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
# Parts that `run.parts` passes by name, and where each has its only setting.
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
}
NEEDS = {
    "r1_lightning.rollout.rejection_sampling.RejectionSampling": ("rollout", "reward")
}  # beside what signatures name
OPTIONAL_PARTS = {"optim": "optim", "rollout": "rollout", "generate": "rollout", "reward": "reward"}
MAX_HELD_OUT = 10_000  # enough for a 95 % interval of 1 % at most; finding many more takes minutes
BATCH_OF = {
    "r1_lightning.data.pretrain_data.PretrainDataModule": TokenBatch,
    "r1_lightning.data.chat_data.ChatDataModule": ChatBatch,
    "r1_lightning.data.rollout_data.GroupedRolloutsDataModule": GRPOBatch,
    "r1_lightning.data.preference_data.PreferenceDataModule": PreferenceBatch,
    "r1_lightning.data.preference_data.SampledPreferenceDataModule": PreferenceBatch,
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
    check_length(plain)
    check_forms(plain)
    _check_row_lengths(plain)
    _check_supervision(plain)
    _check_models("reward", plain.get("reward"), (plain.get("stage") or {}).get("inputs") or {})
    _check_replay(plain)
    _check_drafts(plain)
    _check_lora(plain)


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    for key, value in trainer.items():
        if not key.startswith("_"):
            allowed = f"trainer takes {', '.join(TRAINER_KEYS)}; others could change the weights, not their fingerprint"
            require(key in TRAINER_KEYS, f"trainer.{key}", value, allowed)
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
    for part in NEEDS.get(target, ()):
        require(bool(plain.get(part)), part, plain.get(part), f"{group} {target.rpartition('.')[2]} needs it")
    for name, parameter in inspect.signature(get_object(target)).parameters.items():
        needed = OPTIONAL_PARTS.get(name)
        if name == "teacher":
            roles = (plain.get("stage") or {}).get("inputs") or {}
            allowed = f"{group} {target.rpartition('.')[2]} needs it: {{stage: NAME}} or {{folder: FOLDER}}"
            require(name in roles, "stage.inputs.teacher", None, allowed)
        if needed is not None and parameter.default is parameter.empty and not plain.get(needed):
            require(False, needed, plain.get(needed), f"{group} {target.rpartition('.')[2]} needs it")


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


def _check_row_lengths(plain: Mapping[str, Any]) -> None:
    model = plain.get("model") or {}
    if "_target_" not in model:
        return
    parameter = inspect.signature(get_object(model["_target_"])).parameters.get("max_positions")
    longest = model.get("max_positions", parameter.default if parameter else None)
    longest = (model.get("hf_config") or {}).get("max_position_embeddings", longest)
    for group in ("rollout", "data"):
        length = (plain.get(group) or {}).get("row_tokens")
        if isinstance(length, int) and isinstance(longest, int):
            allowed = f"it must be at most model.max_positions={longest}"
            require(length <= longest, f"{group}.row_tokens", length, allowed)


def _check_supervision(plain: Mapping[str, Any]) -> None:
    """One ratio per completion has one advantage: there is nothing that steps could decide."""
    objective = (plain.get("stage") or {}).get("objective") or {}
    inner = objective.get("objective") or objective  # importance sampling stands around another
    target = inner.get("_target_") if isinstance(inner, dict) else None
    if (plain.get("reward") or {}).get("steps") and target is not None:
        level = getattr(get_object(target), "level", "token")
        allowed = "with reward.steps (process supervision) it must have a ratio per token, as TokenLevelGRPO has"
        require(level == "token", "stage.objective._target_", target, allowed)


def _check_models(path: str, node: Any, roles: Mapping[str, Any]) -> None:
    """A reward that asks a trained model is named after the input of the stage which that model is."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        _check_models(f"{path}.{key}", value, roles)
    named = isinstance(node, Mapping) and "_target_" in node and "name" in node
    if named and hasattr(get_object(node["_target_"]), "part_of_model"):
        name, known = node["name"], ", ".join(sorted(roles)) or "nothing"
        allowed = f"it asks a model, and stage.inputs names {known}; add stage.inputs.{name}"
        require(name in roles, f"{path}.name", name, allowed)


def _check_replay(plain: Mapping[str, Any]) -> None:
    """Another engine than our own sampler does not say which experts it chose."""
    router = (plain.get("stage") or {}).get("router")
    if "hf_config" in (plain.get("model") or {}):
        require(router != "replay", "stage.router", router, "model=hf has no routes to replay")
    if _sampler_target(plain) not in (None, MTPDrafts):
        require(
            router != "replay", "stage.router", router, "with rollout.sampler there is no record of the experts chosen"
        )


def _check_drafts(plain: Mapping[str, Any]) -> None:
    """Before the base is trained, which would have no MTP module either."""
    model = plain.get("model") or {}
    depth = model.get("mtp_depth")
    if _sampler_target(plain) is MTPDrafts:
        check_forgets([str(model.get("attention_kind"))])
        require(depth != 0, "model.mtp_depth", depth, "rollout=mtp_drafts needs an MTP module to draft with")


def _sampler_target(plain: Mapping[str, Any]) -> Any:
    """What `rollout.sampler` names, None where our plain sampler draws."""
    node = (plain.get("rollout") or {}).get("sampler")
    return get_object(node["_target_"]) if isinstance(node, Mapping) and "_target_" in node else node


def _check_lora(plain: Mapping[str, Any]) -> None:
    """A policy with adapters has its base as the reference, which stays; and the sampler knows of no dropout."""
    model, stage = plain.get("model") or {}, plain.get("stage") or {}
    lora = model.get("lora")
    if not lora:
        return
    refuse_refresh(stage.get("reference_refresh_steps", 0))
    dropout = lora.get("dropout", 0.0)
    allowed = "it must be 0 with rollouts: the policy that trains would not be the one that sampled"
    require(dropout == 0 or not plain.get("rollout"), "model.lora.dropout", dropout, allowed)


def check_installed(config: DictConfig) -> None:
    """Raise `InvalidInput` where a library is missing that the model or the sampler needs."""
    if (config.get("model") or {}).get("lora") is not None:
        require_peft()
    node = (config.get("rollout") or {}).get("sampler")
    if node is not None and get_object(node["_target_"]) is VLLM:
        require_vllm()


def evaluation_settings(config: DictConfig) -> EvaluationConfig | None:
    """The stage's `EvaluationConfig`, also where `stage.evaluation` does not name it; None where there is none."""
    settings = stage_evaluation(config)
    return settings if isinstance(settings, EvaluationConfig) else None


def stage_evaluation(config: DictConfig) -> Any:
    """How the stage's result is measured, of whatever kind: an `EvaluationConfig`, a `PreferenceEvaluationConfig`, or None."""
    node = config.stage.get("evaluation")
    if node is None:
        return None
    return instantiate(node) if "_target_" in node else EvaluationConfig(**node)


def check_prompt_lengths(evaluator: Evaluator, max_positions: int) -> None:
    """Raise `InvalidInput` where the longest held-out prompt and its completion exceed `max_positions` tokens."""
    texts = [evaluator.template.render(p.question) + evaluator.forced_prefix for p in evaluator.problems]
    longest, new = max(len(evaluator.tokenizer.encode(text)) for text in texts), evaluator.config.max_new_tokens
    allowed = f"the longest held-out prompt has {longest} tokens, and with these it exceeds model.max_positions="
    require(longest + new <= max_positions, "stage.evaluation.max_new_tokens", new, f"{allowed}{max_positions}")
