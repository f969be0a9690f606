"""Combines several rewards into one number: a weighted sum, by default with equal weights.

Reward_rule = Reward_acc + Reward_format (DeepSeek-R1, arXiv:2501.12948, equation 4), with the same weight.

A single score that is None or NaN would make the group's mean NaN, with it every advantage of the group, and then silently the
model's weights. So such a score stops the run with an error that names its reward, or, if so configured, makes the total NaN, and
the group is dropped.

A reward may start late: R1's second RL stage adds preference rewards only in the last 400 of 1,700 steps (section 3.2.2).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int
from r1_lightning.types.stopping import STOP
from r1_lightning.types.text import (
    BatchRewardFunction,
    Completion,
    ModelReward,
    Problem,
    RewardFunction,
    Scorer,
    StepRewardFunction,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class CombinedVerdict:
    """`total` is the weighted sum; `verdicts` holds each reward's own, unweighted verdict by the reward's name."""

    total: float
    verdicts: Mapping[str, Verdict]

    @property
    def scores(self) -> dict[str, float]:
        """The unweighted scores by name, as they are logged."""
        return {name: verdict.score for name, verdict in self.verdicts.items()}

    @property
    def timed_out(self) -> bool:
        """True if any of the rewards timed out."""
        return any(getattr(verdict, "timed_out", False) for verdict in self.verdicts.values())


class WeightedSum:
    """Judges a completion by every reward and adds the scores.

    Args:
        rewards: the reward functions; their names must differ, because they name metrics. A mapping (from a configuration)
            stands for its values.
        weights: one number per reward, in the same order, or by the reward's name; None gives each 1.0.
        from_step: by the reward's name, the optimizer step from which it is called and counted.
        on_bad_score: what a score that is not a finite number causes: "stop" the run, or "drop_group".
        steps: judges single steps, for process supervision; None is outcome supervision.

    Raises:
        InvalidInput: no reward, equal names, a weight missing, left over or not finite, an unknown name in `from_step`, no
            reward at step 0; when called, a score that is not a finite number, with `on_bad_score` "stop".
    """

    def __init__(
        self,
        rewards: Sequence[RewardFunction] | Mapping[str, RewardFunction],
        weights: Sequence[float | int] | Mapping[str, float | int] | None = None,
        from_step: Mapping[str, int] | None = None,
        on_bad_score: str = "stop",
        steps: StepRewardFunction | None = None,
    ) -> None:
        functions = tuple(rewards.values() if isinstance(rewards, Mapping) else rewards)
        names = [reward.name for reward in functions]
        require(bool(names), "rewards", names, "at least one reward is needed")
        require(len(set(names)) == len(names), "rewards", names, "the names of the rewards must differ")
        self.rewards = functions
        self.weights = _weights_by_name(names, weights)
        self.from_step = dict(from_step or {})
        for name, step in self.from_step.items():
            require_choice("reward.from_step", name, names)
            require_int(f"reward.from_step.{name}", step, 0)
        late = [name for name in names if self.from_step.get(name, 0) > 0]
        require(len(late) < len(names), "reward.from_step", self.from_step, "one reward must count from step 0")
        require_choice("reward.on_bad_score", on_bad_score, ("stop", "drop_group"))
        self._check = _checked if on_bad_score == "stop" else _checked_or_nan
        self.steps = steps

    @property
    def part_of_model(self) -> dict[str, str]:
        """Map the role of each trained model behind a reward to the part of a completion that the model reads."""
        asking = [reward for reward in self.rewards if isinstance(reward, ModelReward)]
        return {role: part for reward in asking for role, part in reward.part_of_model.items()}

    def with_scorers(self, scorers: Mapping[str, Scorer]) -> WeightedSum:
        """Return this sum with the trained models given to its model-based rewards."""
        made = copy.copy(self)
        made.rewards = tuple(r.with_scorers(scorers) if isinstance(r, ModelReward) else r for r in self.rewards)
        return made

    def __call__(self, problem: Problem, completion: Completion, step: int = 0) -> CombinedVerdict:
        """Judge one completion at optimizer step `step`; the total is NaN if a score is bad and its group is to be dropped."""
        return self.judge_many([(problem, completion)], step)[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]], step: int = 0) -> list[CombinedVerdict]:
        """Judge many completions, each with its problem; a reward with its own `judge_many` gets all of them in one call."""
        active = [reward for reward in self.rewards if step >= self.from_step.get(reward.name, 0)]
        columns = {reward.name: self._column(reward, pairs) for reward in active}
        return [self._combined({name: column[row] for name, column in columns.items()}) for row in range(len(pairs))]

    def _column(self, reward: RewardFunction, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        return [self._check(reward.name, verdict) for verdict in judge_all(reward, pairs)]

    def _combined(self, verdicts: Mapping[str, Verdict]) -> CombinedVerdict:
        total = math.fsum(self.weights[name] * verdict.score for name, verdict in verdicts.items())
        return CombinedVerdict(total, verdicts)


def judge_all(
    reward: RewardFunction, pairs: Sequence[tuple[Problem, Completion]], poll: Callable[[], None] = STOP.poll
) -> list[Verdict]:
    """Return one reward's verdicts in order, in one call if it has `judge_many`. `InvalidInput` if their number is wrong.

    `poll` is called before each completion (or before that one call), and may raise.
    """
    if not isinstance(reward, BatchRewardFunction):
        return [_after(poll, reward, pair) for pair in pairs]
    poll()
    verdicts = list(reward.judge_many(pairs))
    require(len(verdicts) == len(pairs), f"reward {reward.name}", len(verdicts), f"{len(pairs)} verdicts are needed")
    return verdicts


def _after(poll: Callable[[], None], reward: RewardFunction, pair: tuple[Problem, Completion]) -> Verdict:
    poll()
    return reward(*pair)


def _weights_by_name(
    names: Sequence[str], weights: Sequence[float | int] | Mapping[str, float | int] | None
) -> dict[str, float]:
    if weights is None:
        return dict.fromkeys(names, 1.0)
    if not isinstance(weights, Mapping):
        require(len(weights) == len(names), "weights", list(weights), f"one number for each of {', '.join(names)}")
        weights = dict(zip(names, weights, strict=True))
    require(set(weights) == set(names), "weights", dict(weights), f"it needs exactly the names {', '.join(names)}")
    for name in names:
        require(_is_finite_number(weights[name]), f"weights.{name}", weights[name], "it must be a finite number")
    return {name: float(weights[name]) for name in names}


def _is_finite_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _checked(name: str, verdict: Any) -> Verdict:
    """Check the score of a verdict; its type is not trusted, because users may write their own rewards."""
    score = getattr(verdict, "score", None)
    if not _is_finite_number(score):
        raise InvalidInput(f"reward {name}: score={score!r} is not allowed: every score must be a finite number")
    return verdict


def _checked_or_nan(name: str, verdict: Any) -> Verdict:
    try:
        return _checked(name, verdict)
    except InvalidInput as error:
        return Verdict(math.nan, str(error))
