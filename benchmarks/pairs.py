"""How two implementations are compared: alternately, in one process of their own, on the same machine at the same time.

A shared machine is fast one minute and slow the next. So a measurement of ours is always followed by one of theirs, and what
counts is the ratio within such a pair; the median over pairs is robust against a disturbance that hits one of them. What
else could tilt the comparison:

- first calls are slow (allocation, kernel selection): everything has run before its pairs are measured;
- implementations have knobs. Each side names its candidates, each has a trial, and the fastest stands for that side. A trial
  is two runs of which the better counts, so that neither a first call nor a disturbance decides (one run, where theirs is far
  behind already). Of several close to the fastest the best three run twice more, in turn, and these runs alone decide: the
  machine differs from one minute to the next by more than they do. Trials are kept in the result, so that a reader sees
  what was tried and by how much it lost;
- our program turns torch's deterministic algorithms on, which cost time; theirs does not. Each side runs as its users run it;
- a process grows slow with age. After 40 minutes of other contests ours took 1.8 and theirs 1.6 times as long as in a
  process of their own, at the same peaks of products. So every contest has its own (`command.py`).
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import torch

from benchmarks.floor import Part
from r1_lightning.types.errors import require, require_int

Measurement = Callable[[], float]  # does the work once; returns the value in the contest's unit
UNITS = ("tokens/s", "s/step", "MB")
# Whether an operator without a deterministic kernel is an error in `deterministic`, as in our runs on a GPU, or a warning.
STRICT: ContextVar[bool] = ContextVar("STRICT", default=False)
FILLS = "fill_uninitialized_memory"  # with NaN, wherever algorithms are deterministic
HOPELESS = 1.5  # so many times slower than the best so far: not worth a second run
CLOSE = 1.25  # at most so many times slower than the best: the trial has not told which is faster
FINALISTS = 3
FINAL_ROUNDS = 2


@dataclass(frozen=True)
class Contest:
    """One piece of work done by both sides.

    `ours` and `theirs` map a candidate's name (the setting of its knobs) to its measurement. `unit` is "tokens/s", where more
    is better, or "s/step" or "MB", where less is. For a setting of ours, `floors` has the parts of a step (`floor.py`) and
    `phases` measures the seconds of a step by phase, once, after the pairs; a step of a contest in tokens/s is `step_tokens`.
    """

    work: str
    unit: str
    opponent: str
    ours: Mapping[str, Measurement]
    theirs: Mapping[str, Measurement]
    floors: Mapping[str, Sequence[Part]] = field(default_factory=dict)
    phases: Mapping[str, Callable[[], Mapping[str, float]]] = field(default_factory=dict)
    step_tokens: int = 1

    def __post_init__(self) -> None:
        require(self.unit in UNITS, "unit", self.unit, f"it must be one of {', '.join(UNITS)}")
        require(bool(self.ours) and bool(self.theirs), "candidates", 0, "each side needs at least one")

    def score(self, value: float) -> float:
        """`value` as a speed: more is better."""
        return value if self.unit == "tokens/s" else 1 / value

    def step_s(self, value: float) -> float:
        """Seconds of a step at `value`."""
        return self.step_tokens / value if self.unit == "tokens/s" else value

    def speed_up(self, ours: float, theirs: float) -> float:
        """How many times as fast (or as small) as theirs ours is; above 1 where ours wins."""
        return self.score(ours) / self.score(theirs)


@dataclass(frozen=True)
class Side:
    """One side's chosen candidate, what each candidate gave in its trial, and the values of the measured pairs.

    `first_s` is how much longer than its second run the chosen candidate's very first took: warm-up and compilation.
    """

    setting: str
    trials: Mapping[str, float]
    first_s: float
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Result:
    """The pairs of one contest, in the order in which they were measured, and the seconds of a step of ours by phase."""

    contest: Contest
    ours: Side
    theirs: Side
    phases: Mapping[str, float] = field(default_factory=dict)

    def told(self) -> Result:
        """The same without what measures it, which cannot leave the process."""
        ours, theirs = (dict.fromkeys(side, float) for side in (self.contest.ours, self.contest.theirs))
        return replace(self, contest=replace(self.contest, ours=ours, theirs=theirs, phases={}))

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
    ours, theirs = (_best(contest, ours=ours, say=say) for ours in (True, False))
    our_values, their_values = [], []
    for number in range(1, pairs + 1):
        our_values.append(_measured(contest.ours[ours.setting], ours=True))
        their_values.append(_measured(contest.theirs[theirs.setting], ours=False))
        ratio = contest.speed_up(our_values[-1], their_values[-1])
        say(f"  pair {number}: ours {our_values[-1]:,.4g}, theirs {their_values[-1]:,.4g} {contest.unit}: {ratio:.2f}x")
    return Result(
        contest,
        replace(ours, values=tuple(our_values)),
        replace(theirs, values=tuple(their_values)),
        _phases(contest, ours.setting),
    )


def _phases(contest: Contest, setting: str) -> Mapping[str, float]:
    if setting not in contest.phases:
        return {}
    with deterministic():
        return contest.phases[setting]()


def _best(contest: Contest, ours: bool, say: Callable[[str], None]) -> Side:
    """Try every candidate, take the fastest. A single one is only warmed up."""
    candidates = contest.ours if ours else contest.theirs
    trials: dict[str, float] = {}
    longer_s = dict.fromkeys(candidates, 0.0)
    for setting, measurement in candidates.items():
        value, first_s = _timed(measurement, ours)
        best = max(map(contest.score, trials.values()), default=0.0)
        # Nothing of theirs is compiled, so their first run tells enough; ours may have spent it compiling.
        if len(candidates) > 1 and (ours or contest.score(value) * HOPELESS > best):
            again, second_s = _timed(measurement, ours)
            value = max(value, again, key=contest.score)
            longer_s[setting] = max(0.0, first_s - second_s)
        trials[setting] = value
        say(f"  {'ours' if ours else contest.opponent}, {setting}: {value:,.4g} {contest.unit}")
    in_order = sorted(trials, key=lambda setting: -contest.score(trials[setting]))
    close = [name for name in in_order if contest.score(trials[name]) * CLOSE >= contest.score(trials[in_order[0]])]
    finals: dict[str, float] = {}
    for setting in close[:FINALISTS] * FINAL_ROUNDS if len(close) > 1 else []:
        value = _measured(candidates[setting], ours)
        finals[setting] = max(finals.get(setting, value), value, key=contest.score)
        say(f"  {'ours' if ours else contest.opponent}, {setting}, in the final: {value:,.4g} {contest.unit}")
    last = finals or trials
    chosen = max(last, key=lambda setting: contest.score(last[setting]))
    return Side(chosen, trials if len(trials) > 1 else {}, longer_s[chosen], ())


def _timed(measurement: Measurement, ours: bool) -> tuple[float, float]:
    """The measurement's value, and the seconds it took."""
    start_s = time.perf_counter()
    value = _measured(measurement, ours)
    return value, time.perf_counter() - start_s


def _measured(measurement: Measurement, ours: bool) -> float:
    gc.collect()  # what the side before left behind is not this side's to sweep
    if not ours:
        return measurement()
    with deterministic():
        return measurement()


@contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic algorithms, and fresh memory left as it is, as `torch_setup.set_up_torch` sets them for every run of ours."""
    before, only_warned, filled = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        getattr(torch.utils.deterministic, FILLS),
    )
    torch.use_deterministic_algorithms(True, warn_only=not STRICT.get())
    setattr(torch.utils.deterministic, FILLS, False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
        setattr(torch.utils.deterministic, FILLS, filled)
