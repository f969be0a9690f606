"""What the rules look at: the curves of a run, its settings and final measures, and questions that several rules ask.

A curve counts by its means over WINDOW logged points, because a single point of RL is noise. A complaint is about the end of what
is logged: what healed is no complaint. `from_step` is the first step of the time since which it lasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from r1_lightning.review.run_files import number_of
from r1_lightning.review.series import Series, rolling

WINDOW = 10  # logged points to a mean; of a shorter run, all of them
FEWEST = 5  # logged points below which no rule about a mean speaks
REWARD, ACCURACY, LENGTH = "rollout/reward_mean", "rollout/accuracy_mean", "rollout/completion_tokens_mean"
EMPTY = Series((), ())


@dataclass(frozen=True)
class Finding:
    """A rule that found something: the value it measured, since which step, and where it is known what exactly, in words."""

    value: float
    from_step: int
    exactly: str = ""


@dataclass(frozen=True)
class Facts:
    """One run. `final` are the measures of the complete artefact, empty before.

    With `has_init_from` the run began with the weights of a folder.
    """

    series: Mapping[str, Series]
    settings: Mapping[str, str] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)
    has_init_from: bool = False

    def of(self, name: str) -> Series:
        """Return the curve `name`; an empty one if the run does not log it."""
        return self.series.get(name, EMPTY)

    @property
    def is_rl(self) -> bool:
        """True where completions are rewarded: then the loss itself says nothing."""
        return REWARD in self.series

    @property
    def goes_on_pretraining(self) -> bool:
        """True for pre-training of weights that were trained before: on more of the same text its loss need not fall."""
        begins_trained = self.has_init_from or any(
            f"{name}.".startswith("stage.inputs.base.") for name in self.settings
        )
        return begins_trained and self.settings.get("stage._target_") == "PretrainModule"

    @property
    def highest_reward(self) -> float | None:
        """The sum of the positive reward weights; None where that is no bound of the rewards that were logged."""
        weights = [number_of(self.settings, name) for name in self.settings if name.startswith("reward.weights.")]
        highest = sum(weight for weight in weights if weight is not None and weight > 0) or 1.0
        values = [value for value in self.of(REWARD).values if math.isfinite(value)]
        return highest if values and max(values) <= highest + 1e-6 and min(values) >= 0 else None

    def reward_share(self, place: int = -1) -> float | None:
        """Return the mean reward of the window at `place` as a share (0..1) of the highest; None if that is not known."""
        highest, means = self.highest_reward, means_of(self.of(REWARD))
        return means[place] / highest if highest and means else None


def width_of(series: Series) -> int:
    """Return how many points a mean of this curve takes."""
    return max(1, min(WINDOW, len(series)))


def means_of(series: Series) -> list[float]:
    """Return the means of the curve over a window, from the first whole window on; empty below FEWEST points."""
    return rolling(series.values, width_of(series)) if len(series) >= FEWEST else []


def medians_of(series: Series) -> list[float]:
    """Return the medians of the curve over a window: single points that tower over the others do not count."""
    return rolling(series.values, width_of(series), middle=True) if len(series) >= FEWEST else []


def lasting(series: Series, measured: Sequence[float], wrong: Callable[[float], bool]) -> Finding | None:
    """Return the last of `measured` if it is wrong, and since when all were; None if it is not.

    `measured` are means or medians over the windows of `series`. They are wrong from the first step of the first such window.
    """
    if not measured or not wrong(measured[-1]):
        return None
    first = len(measured) - 1
    while first > 0 and wrong(measured[first - 1]):
        first -= 1
    return Finding(measured[-1], series.steps[first])


def mean_above(facts: Facts, name: str, threshold: float) -> Finding | None:
    """Return since when the mean of the curve `name` lies above `threshold`, if it does at the end."""
    series = facts.of(name)
    return lasting(series, means_of(series), lambda value: value > threshold)


def median_above(facts: Facts, name: str, threshold: float) -> Finding | None:
    """Return since when the median of the curve `name` lies above `threshold`, if it does at the end."""
    series = facts.of(name)
    return lasting(series, medians_of(series), lambda value: value > threshold)


def chosen(series: Series, keep: Callable[[int], bool]) -> Series:
    """Return the points whose step `keep` accepts."""
    pairs = [(step, value) for step, value in zip(series.steps, series.values, strict=True) if keep(step)]
    return Series(tuple(step for step, _ in pairs), tuple(value for _, value in pairs))
