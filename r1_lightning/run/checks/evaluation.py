"""A stage's evaluation: the settings in its configuration, its held-out problems, and whether they fit the model."""

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
    """Return the stage's `EvaluationConfig`, also if `stage.evaluation` has no `_target_`; None if it has no such evaluation."""
    settings = stage_evaluation(config)
    return settings if isinstance(settings, EvaluationConfig) else None


def stage_evaluation(config: DictConfig) -> Any:
    """Return the stage's evaluation settings: an `EvaluationConfig`, a `PreferenceEvaluationConfig`, or None."""
    node = config.stage.get("evaluation")
    if node is None:
        return None
    return instantiate(node) if "_target_" in node else EvaluationConfig(**node)


def held_out_problems(source: Any, settings: EvaluationConfig) -> list[Problem]:
    """Return the held-out problems of the evaluation; prints the source's notes on its rows, and if there are fewer than asked."""
    problems = list(source.held_out_problems(settings.problems))
    for note in getattr(source, "notes", ()):
        rank_zero_only(print)(note, flush=True)
    if len(problems) < settings.problems:
        all_of = f"{len(problems)}, all that there are (stage.evaluation.problems={settings.problems})"
        rank_zero_only(print)(f"held-out problems: {all_of}", flush=True)
    return problems


def with_room(evaluator: Evaluator, max_positions: int, source: Any) -> Evaluator:
    """Return the evaluator without the problems whose prompt and completion exceed `max_positions` tokens; prints their number.

    Raises `InvalidInput` if more than half of the problems are too long.
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
    """Return the task's name in metrics: `task.name`, else its source's class in lower case, without "Task"."""
    named = config.task.get("name")
    return str(named) if named else str(config.task.source["_target_"]).rpartition(".")[2].removesuffix("Task").lower()


def check_prompt_lengths(evaluator: Evaluator, max_positions: int) -> None:
    """Raise `InvalidInput` if the longest held-out prompt and its completion exceed `max_positions` tokens."""
    longest, new = max(map(len, evaluator.prompts())), evaluator.config.max_new_tokens
    allowed = f"the longest held-out prompt has {longest} tokens, and with these it exceeds model.max_positions="
    require(longest + new <= max_positions, "stage.evaluation.max_new_tokens", new, f"{allowed}{max_positions}")
