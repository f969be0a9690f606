"""Compares several models on the same held-out problems: DeepSeek-R1's table of stages (Nature table 2, R1v2 table 3) in miniature.

Each model is prompted with its own template, and its completions are judged in its own format; problems, random numbers and rules
are the same for all. Reasoning problems are judged by rule. General and safety requests cannot be: the paper has people and models
judge them (AlpacaEval, Arena-Hard). Here the synthetic task knows the true quality of a reply (`rewards/known_quality.py`), and
the table gives its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.functional.intervals import share_interval
from r1_lightning.rewards.combine import judge_all
from r1_lightning.rewards.known_quality import KnownQuality
from r1_lightning.tasks.family import FamilyTask
from r1_lightning.text.reasoning_format import FORMS
from r1_lightning.types.errors import require, require_choice, require_int
from r1_lightning.types.tensors import Backbone
from r1_lightning.types.text import Need, Problem, ProblemSource, RewardFunction


@dataclass(frozen=True)
class Comparison:
    """Settings of `stage=compare`.

    `accuracy` maps each completion format to the reward that judges it; a model's template decides its format. Each model replies
    once to `requests` held-out requests of each of `domains`, judged by their known quality; domains that the task lacks are
    skipped. `max_steps` limits the number of problems and of requests, for a short trial.
    """

    accuracy: Mapping[str, RewardFunction]
    domains: Sequence[str] = ("general", "safety")
    requests: int = 60
    max_steps: int | None = None
    content_version: ClassVar[str] = "comparison-of-models-1"
    needs: ClassVar[tuple[Need, ...]] = ("requests",)
    own_rewards: ClassVar[str] = "accuracy"  # the field with what judges, in place of the configuration's `reward`

    def __post_init__(self) -> None:
        require_int("requests", self.requests, 1)
        if self.max_steps is not None:
            require_int("max_steps", self.max_steps, 1)
        require(bool(self.accuracy), "accuracy", self.accuracy, f"a reward for each form, of {', '.join(FORMS)}")
        for form in self.accuracy:
            require_choice("accuracy", form, FORMS)

    def settings(self, given: EvaluationConfig) -> EvaluationConfig:
        """Return `given` with at most `max_steps` problems."""
        return replace(given, problems=min(given.problems, self.max_steps or given.problems))

    def requests_of(self, source: ProblemSource) -> dict[str, Sequence[Problem]]:
        """Return the held-out requests of each of the domains that `source` has."""
        count = min(self.requests, self.max_steps or self.requests)
        if not isinstance(source, FamilyTask):
            return {}
        there = {part.domain for part in source.parts.values()}
        return {name: source.of_domains([name]).held_out_problems(count) for name in self.domains if name in there}

    def __call__(
        self,
        evaluator: Evaluator,
        requests: Mapping[str, Sequence[Problem]],
        model: Backbone,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Measure]:
        """Return all of `evaluator`'s measures, and `quality_NAME` of every domain in `requests`, 0..1.

        Raises `InvalidInput` if `accuracy` has no reward for the completion format of the evaluator's template.
        """
        form = evaluator.template.form
        require_choice("stage.accuracy", form, self.accuracy)
        measures = replace(evaluator, accuracy=self.accuracy[form])(model, progress)
        for name, problems in requests.items():
            once = replace(evaluator, problems=problems, config=replace(evaluator.config, samples=1))
            replies = [row[0] for row in once.completions(model, progress)]
            scores = [verdict.score for verdict in judge_all(KnownQuality(), list(zip(problems, replies, strict=True)))]
            measures[f"quality_{name}"] = Measure(float(np.mean(scores)), share_interval(scores))
        return measures
