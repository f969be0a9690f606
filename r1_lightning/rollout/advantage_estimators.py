"""Advantage estimators: they turn a rollout's rewards into advantages, and are chosen when the rollout's maker is built.

| class | advantage of a token | source |
|---|---|---|
| `GroupRelative` | (r_i - mean r) / std r of its completion i within the group | DeepSeekMath section 4.1.2, R1 eq 3 |
| `StepRelative` | the sum of the normalised rewards of the steps that end at it or later | DeepSeekMath section 4.1.3 |
| `LeaveOneOut` | r_i less the mean reward of the group's other completions | RLOO (arXiv:2402.14740) |
| `value_baseline.ValueBaseline` | GAE: later rewards and values less the state's own value | PPO (arXiv:1707.06347) eq 11-12 |

Another estimator is a class with the same call, which `rollout.advantages` names. It gets the judged samples and uses the fields
that it needs. The stage finds the same object in `rollout`: `stage=ppo` lends it a value model, and trains that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from r1_lightning.functional.advantages import (
    group_relative_advantages,
    leave_one_out_advantages,
    per_token,
    process_advantages,
)
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.results import JudgedSamples
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require
from r1_lightning.types.text import StepRewardFunction
from r1_lightning.types.value_targets import ValueTargets

# Shape legend: P prompts, G completions per prompt, R = P * G rows, T positions of a completion.


@dataclass(frozen=True)
class Estimate:
    """Advantages R x T, and what a value model learns from the same rollout, with scalars to log by metric name."""

    advantages: Tensor
    targets: ValueTargets | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class AdvantageEstimator(Protocol):
    """Estimates how much better than expected each token was."""

    def __call__(self, samples: JudgedSamples) -> Tensor | Estimate:
        """Return advantages R x T. Values outside of completions, and in groups that could not be judged, are ignored."""
        ...


def counted_tokens(samples: JudgedSamples) -> Tensor:
    """R x T booleans: True on the tokens of completions whose group could be judged."""
    is_judged_R = samples.is_judged.repeat_interleave(samples.group_size)
    return is_judged_R.unsqueeze(1) & samples.generation.completion_mask


def estimate_of(estimator: AdvantageEstimator, samples: JudgedSamples) -> Estimate:
    """Return the estimator's estimate, its advantages set to 0 outside of completions and in groups that could not be judged."""
    found = estimator(samples)
    estimate = found if isinstance(found, Estimate) else Estimate(found)
    return replace(estimate, advantages=torch.where(counted_tokens(samples), estimate.advantages, 0.0))


def estimator_of(
    chosen: AdvantageEstimator | None, scale: str, reward: WeightedSum, tokenizer: TextTokenizer
) -> AdvantageEstimator:
    """Return the `chosen` estimator; by default R1's, or that of process supervision if the reward judges steps.

    `scale` is one of `functional.advantages.SCALES`. Raises `InvalidInput` if the reward judges steps and an estimator is chosen.
    """
    if chosen is None:
        return GroupRelative(scale) if reward.steps is None else StepRelative(reward.steps, tokenizer, scale)
    allowed = "with reward.steps (process supervision) leave it out: steps are compared within their group"
    require(reward.steps is None, "rollout.advantages", type(chosen).__name__, allowed)
    return chosen


@dataclass(frozen=True)
class GroupRelative:
    """Outcome supervision: every token of a completion gets the completion's reward relative to its group."""

    scale: str = "population"

    def __call__(self, samples: JudgedSamples) -> Tensor:
        return per_token(
            group_relative_advantages(samples.known_rewards, self.scale), samples.generation.completion_mask
        )


@dataclass(frozen=True)
class LeaveOneOut:
    """Outcome supervision with the mean of the *other* completions as the baseline, and no scale."""

    def __call__(self, samples: JudgedSamples) -> Tensor:
        return per_token(leave_one_out_advantages(samples.known_rewards), samples.generation.completion_mask)


@dataclass(frozen=True)
class StepRelative:
    """Process supervision: `judge_steps` rewards the steps of each completion.

    The completion's outcome is its last step, as a process reward model judges the answer last.
    """

    judge_steps: StepRewardFunction
    tokenizer: TextTokenizer
    scale: str = "population"

    def __call__(self, samples: JudgedSamples) -> Tensor:
        rewards: list[float] = []
        rows: list[int] = []
        ends: list[int] = []
        mask_RT = samples.generation.completion_mask
        outcomes_R = samples.known_rewards.flatten()
        for row, (problem, completion) in enumerate(samples.pairs()):
            ids = samples.generation.completion_ids[row, : completion.n_tokens].tolist()
            verdicts = self.judge_steps(problem, completion)
            rewards += [verdict.score for verdict in verdicts] + [float(outcomes_R[row])]
            ends += [last_token(ids, verdict.end, self.tokenizer) for verdict in verdicts] + [completion.n_tokens - 1]
            rows += [row] * (len(verdicts) + 1)
        steps = torch.tensor(rewards), torch.tensor(rows), torch.tensor(ends)
        return process_advantages(*steps, samples.group_size, (mask_RT.shape[0], mask_RT.shape[1]), self.scale)


def last_token(ids: Sequence[int], end: int, tokenizer: TextTokenizer) -> int:
    """Return the index of the token at which a step ends: the text of `ids` up to it has at least `end` characters.

    By bisection, because the text of a prefix grows with the prefix.
    """
    low, high = 0, len(ids) - 1
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(ids[: middle + 1], skip_special=False)) >= end:
            high = middle
        else:
            low = middle + 1
    return low
