"""Several models on the same held-out problems: the table of stages of DeepSeek-R1 (Nature table 2, R1v2 table 3) in miniature.

Every model is asked in its own template and judged in its own form; problems, random numbers and rules are the same for all.
Beside the reasoning that a rule can judge stand the kinds of request that none can, general and safety: the paper has people and
models judge them (AlpacaEval, Arena-Hard); here their truth is known (`rewards/known_quality.py`), and the mean of it is given.
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
from r1_lightning.types.text import Problem, ProblemSource, RewardFunction


@dataclass(frozen=True)
class Comparison:
    """What `stage=compare` does.

    `accuracy` says what is right, by the form of completions that a model's template asks for. `requests` held-out requests of
    each of `domains` are asked once and judged by their known quality; a task without such a domain leaves it out. `max_steps`
    bounds the number of problems and of requests, for a short trial.
    """

    accuracy: Mapping[str, RewardFunction]
    domains: Sequence[str] = ("general", "safety")
    requests: int = 60
    max_steps: int | None = None
    content_version: ClassVar[str] = "comparison-of-models-1"

    def __post_init__(self) -> None:
        require_int("requests", self.requests, 1)
        if self.max_steps is not None:
            require_int("max_steps", self.max_steps, 1)
        require(bool(self.accuracy), "accuracy", self.accuracy, f"a reward for each form, of {', '.join(FORMS)}")
        for form in self.accuracy:
            require_choice("accuracy", form, FORMS)

    def settings(self, given: EvaluationConfig) -> EvaluationConfig:
        """`given`, with no more problems than `max_steps`."""
        return replace(given, problems=min(given.problems, self.max_steps or given.problems))

    def requests_of(self, source: ProblemSource) -> dict[str, Sequence[Problem]]:
        """Held-out requests of each domain that `source` has."""
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
        """All that `evaluator` measures, and `quality_NAME` of every domain in `requests`, 0..1.

        Raises `InvalidInput` where nothing says what is right in the form of the evaluator's template.
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
