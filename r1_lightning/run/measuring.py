"""How a stage's result is measured: the settings that its configuration names, and whether they fit the model."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.types.errors import require


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
    longest, new = max(map(len, evaluator.prompts())), evaluator.config.max_new_tokens
    allowed = f"the longest held-out prompt has {longest} tokens, and with these it exceeds model.max_positions="
    require(longest + new <= max_positions, "stage.evaluation.max_new_tokens", new, f"{allowed}{max_positions}")
