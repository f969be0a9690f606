"""How a stage's result is measured: the settings that its configuration names, and whether they fit the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.rollout.room import PromptRoom
from r1_lightning.types.errors import require
from r1_lightning.types.text import Problem


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


def held_out_problems(source: Any, settings: EvaluationConfig) -> list[Problem]:
    """The held-out problems that are measured; what is not as it was asked for is said, and so is how the rows were read."""
    problems = list(source.held_out_problems(settings.problems))
    for note in getattr(source, "notes", ()):
        rank_zero_only(print)(note, flush=True)
    if len(problems) < settings.problems:
        all_of = f"{len(problems)}, all that there are (stage.evaluation.problems={settings.problems})"
        rank_zero_only(print)(f"held-out problems: {all_of}", flush=True)
    return problems


def with_room(evaluator: Evaluator, max_positions: int, source: Any) -> Evaluator:
    """The evaluator without the problems whose prompt and completion exceed `max_positions` tokens, which are counted in a line.

    Raises `InvalidInput` where that is more than half of them.
    """
    prefix = len(evaluator.tokenizer.encode(evaluator.forced_prefix)) if evaluator.forced_prefix else 0
    new = evaluator.config.max_new_tokens + prefix
    room = PromptRoom(evaluator.tokenizer, evaluator.template, "model.max_positions", max_positions, new)
    kept = room.kept(evaluator.problems)
    if len(kept) * 2 < len(evaluator.problems):
        check_prompt_lengths(evaluator, max_positions)
    if len(kept) == len(evaluator.problems):
        return evaluator
    rank_zero_only(print)(f"held-out {room.text(source)}", flush=True)
    return replace(evaluator, problems=kept)


def task_name(config: DictConfig) -> str:
    """What measures on the stage's task are called: `task.name`, else its source's class in small letters, without "Task"."""
    named = config.task.get("name")
    return str(named) if named else str(config.task.source["_target_"]).rpartition(".")[2].removesuffix("Task").lower()


def check_prompt_lengths(evaluator: Evaluator, max_positions: int) -> None:
    """Raise `InvalidInput` where the longest held-out prompt and its completion exceed `max_positions` tokens."""
    longest, new = max(map(len, evaluator.prompts())), evaluator.config.max_new_tokens
    allowed = f"the longest held-out prompt has {longest} tokens, and with these it exceeds model.max_positions="
    require(longest + new <= max_positions, "stage.evaluation.max_new_tokens", new, f"{allowed}{max_positions}")
