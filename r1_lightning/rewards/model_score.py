"""Reward from a trained reward model: R1's helpful and safety rewards (R1v2 equations 5 and 6).

    Reward_helpful = RM_helpful(Response_A, Response_B),   Reward_safety = RM_safety(Response)

Equation 5 names two responses because the model is trained on pairs; in RL it scores each response. The paper prints no scale.
Pairwise training leaves zero and unit of the scores undefined, and rule rewards lie in 0..1, so by default a sigmoid maps our
scores to 0..1. GRPO compares within a group, where any increasing map keeps the order; the scale matters when several rewards are
added.

A completion that lacks the part to score (no summary, because the thinking never ended) gets `missing_score`, and the model does
not read it: nothing can be worse than no reply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from r1_lightning.text.response_parts import PARTS, part_of
from r1_lightning.types.errors import require, require_choice, require_number
from r1_lightning.types.text import Completion, Problem, Scorer, Verdict

SQUASHES = ("sigmoid", "none")


@dataclass(frozen=True)
class ModelScoreReward:
    """A `ModelReward`: the reward model that is the stage's input `name` scores `part` of each completion.

    `squash` is "sigmoid", or "none" for raw scores, which require an explicit `missing_score`.
    """

    name: str
    part: str = "summary"
    squash: str = "sigmoid"
    missing_score: float | None = None
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        require(bool(self.name), "reward.name", self.name, "the role of an input of the stage, such as helpful")
        require_choice("reward.part", self.part, PARTS)
        require_choice("reward.squash", self.squash, SQUASHES)
        given = self.squash == "sigmoid" or self.missing_score is not None
        allowed = "raw scores have no lowest one: say what a missing part is worth"
        require(given, "reward.missing_score", self.missing_score, allowed)
        if self.missing_score is not None:
            require_number("reward.missing_score", self.missing_score, -math.inf)

    @property
    def part_of_model(self) -> Mapping[str, str]:
        return {self.name: self.part}

    def with_scorers(self, scorers: Mapping[str, Scorer]) -> ModelScoreReward:
        """Return this reward with its model; unchanged if `scorers` has none for it."""
        return replace(self, scorer=scorers.get(self.name, self.scorer))

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return self.judge_many([(problem, completion)])[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        """Score all completions in one call of the model, each distinct text once, so that equal texts get equal scores."""
        if self.scorer is None:
            raise RuntimeError(f"reward {self.name} has no model: with_scorers comes first")
        parts = [part_of(completion.text, self.part) for _, completion in pairs]
        questions = [problem.question for problem, _ in pairs]
        rows = [(question, part) for question, part in zip(questions, parts, strict=True) if part is not None]
        asked = list(dict.fromkeys(rows))
        scores = dict(zip(asked, self.scorer.score(asked) if asked else (), strict=True))
        missing = Verdict(self.missing_score or 0.0, f"no {self.part} to score")
        return [
            missing if part is None else self._verdict(scores[question, part])
            for question, part in zip(questions, parts, strict=True)
        ]

    def _verdict(self, score: float) -> Verdict:
        return Verdict(sigmoid(score) if self.squash == "sigmoid" else score, f"the model scores {score:.3f}")


def sigmoid(x: float) -> float:
    """Return 1 / (1 + e^-x) without overflow for any finite x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
