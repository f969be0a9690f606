"""How two implementations are compared: alternately, in one process, on the same machine at the same time.

A shared machine is fast one minute and slow the next. So a measurement of ours is always followed by one of theirs, and what
counts is the ratio within such a pair; the median over pairs is robust against a disturbance that hits one of them. What
else could tilt the comparison:

- first calls are slow (allocation, kernel selection): everything has run before its pairs are measured;
- implementations have knobs. Each side names its candidates, each has a trial, and the fastest stands for that side. A trial
  is two runs of which the better counts, so that neither a first call nor a disturbance decides. Trials are kept in the
  result, so that a reader sees what was tried and by how much it lost;
- our program turns torch's deterministic algorithms on, which cost time; theirs does not. Each side runs as its users run it.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from r1_lightning.types.errors import require, require_int

Measurement = Callable[[], float]  # does the work once; returns the value in the contest's unit
UNITS = ("tokens/s", "s/step", "MB")


@dataclass(frozen=True)
class Contest:
    """One piece of work done by both sides.

    `ours` and `theirs` map a candidate's name (the setting of its knobs) to its measurement. `unit` is "tokens/s", where more
    is better, or "s/step" or "MB", where less is.
    """

    work: str
    precision: str
    unit: str
    opponent: str
    ours: Mapping[str, Measurement]
    theirs: Mapping[str, Measurement]

    def __post_init__(self) -> None:
        require(self.unit in UNITS, "unit", self.unit, f"it must be one of {', '.join(UNITS)}")
        require(bool(self.ours) and bool(self.theirs), "candidates", 0, "each side needs at least one")

    def speed_up(self, ours: float, theirs: float) -> float:
        """How many times as fast (or as small) as theirs ours is; above 1 where ours wins."""
        return ours / theirs if self.unit == "tokens/s" else theirs / ours


@dataclass(frozen=True)
class Side:
    """One side's chosen candidate, what each candidate gave in its trial, and the values of the measured pairs."""

    setting: str
    trials: Mapping[str, float]
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Result:
    """The pairs of one contest, in the order in which they were measured."""

    contest: Contest
    ours: Side
    theirs: Side

    @property
    def speed_ups(self) -> tuple[float, ...]:
        """The ratio of each pair."""
        pairs = zip(self.ours.values, self.theirs.values, strict=True)
        return tuple(self.contest.speed_up(ours, theirs) for ours, theirs in pairs)

    @property
    def speed_up(self) -> float:
        """The median of the pairs' ratios, which is not the ratio of the medians."""
        return statistics.median(self.speed_ups)


def compare(contest: Contest, pairs: int, say: Callable[[str], None] = print) -> Result:
    """Choose each side's best candidate, then measure `pairs` pairs: ours, theirs, ours, theirs, ..."""
    require_int("pairs", pairs, 1)
    our_setting, our_trials = _best(contest, contest.ours, ours=True, say=say)
    their_setting, their_trials = _best(contest, contest.theirs, ours=False, say=say)
    our_values, their_values = [], []
    for number in range(1, pairs + 1):
        our_values.append(_measured(contest.ours[our_setting], ours=True))
        their_values.append(_measured(contest.theirs[their_setting], ours=False))
        ratio = contest.speed_up(our_values[-1], their_values[-1])
        say(f"  pair {number}: ours {our_values[-1]:,.4g}, theirs {their_values[-1]:,.4g} {contest.unit}: {ratio:.2f}x")
    return Result(
        contest,
        Side(our_setting, our_trials, tuple(our_values)),
        Side(their_setting, their_trials, tuple(their_values)),
    )


def _best(
    contest: Contest, candidates: Mapping[str, Measurement], ours: bool, say: Callable[[str], None]
) -> tuple[str, dict[str, float]]:
    """Try every candidate, take the fastest. A single one is only warmed up."""
    best = max if contest.unit == "tokens/s" else min
    trials: dict[str, float] = {}
    for setting, measurement in candidates.items():
        value = _measured(measurement, ours)
        if len(candidates) > 1:
            value = trials[setting] = best(value, _measured(measurement, ours))
        say(f"  {'ours' if ours else contest.opponent}, {setting}: {value:,.4g} {contest.unit}")
    if not trials:
        return next(iter(candidates)), trials
    return best(trials, key=lambda setting: trials[setting]), trials


def _measured(measurement: Measurement, ours: bool) -> float:
    gc.collect()  # what the side before left behind is not this side's to sweep
    if not ours:
        return measurement()
    with deterministic():
        return measurement()


@contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic algorithms, as `run.parts.set_up_torch` sets them for every run of ours."""
    before, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
