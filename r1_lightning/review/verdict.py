"""One sentence that tells whether to trust a run: as expected, different from here on, failed because, or merely healthy.

    as expected      its curves lie within the band of its experiment
    differs          a curve has left that band (`bands.leaves`), from this step
    failed           a rule found what leaves nothing learned: NaN, a reward that is never given, a loss that does not fall
    no band          there is no band for its settings, and rules found something; or there are too few steps to say anything
    healthy          there is no band, and no rule found anything

Settings that differ from the band's are told, and so are the rules that a run breaks, and curves whose band is too wide to tell
anything: a run is not as expected for those (`bands.Band.is_wide`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from r1_lightning.artefacts.file_names import CONFIG, MARKER
from r1_lightning.artefacts.locks import is_held
from r1_lightning.review.advisories import Advisory, advisories
from r1_lightning.review.bands import FEWEST, Band, Outside, outside, points_of
from r1_lightning.review.expected import band_for, known
from r1_lightning.review.facts import FEWEST as FEWEST_STEPS
from r1_lightning.review.facts import Facts
from r1_lightning.review.rl_rules import ZERO_VARIANCE
from r1_lightning.review.run_files import final_measures, number_of, read_mapping, settings_of
from r1_lightning.review.series import Series, read_series
from r1_lightning.review.training_rules import SKIPPED, STOPPING
from r1_lightning.types.errors import InvalidInput

State = Literal["as expected", "differs", "failed", "no band", "healthy"]
MOST_TOLD = 3  # settings, curves or rules named in the sentence; the rest is counted


@dataclass(frozen=True)
class Verdict:
    """`sentence` is one line without a full stop; `from_step` is the step since which something is wrong, or None."""

    sentence: str
    state: State
    from_step: int | None = None


@dataclass(frozen=True)
class Review:
    """What the files of a run say. `unlike` are the settings in which it differs from the `band`'s, in words.

    `wide` are the curves that lie in a band which is too wide to tell anything.
    """

    verdict: Verdict
    advisories: list[Advisory]
    series: dict[str, Series]
    band: Band | None = None
    unlike: list[str] = field(default_factory=list)
    outside: list[Outside] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)


def review(folder: Path, at_work: bool | None = None) -> Review:
    """Review the run in `folder`, finished or not. `at_work` says that a process works there; None looks at its lock.

    Raises `InvalidInput` if there is no run, if its files are larger than any run of ours makes them, or if a file in `expected/`
    beside it is no band.
    """
    config = read_mapping(folder / CONFIG)
    if not config:
        raise InvalidInput(f"run={str(folder)!r} is not allowed: it must be the folder of a run, with its {CONFIG}")
    series, settings = read_series(folder), settings_of(config)
    found = band_for(settings, known(folder))
    band, unlike = found if found is not None else (None, [])
    left = outside(series, band) if band is not None else []
    told_of = {one.name for one in left}
    wide = [] if band is None else [name for name in band.series if name not in told_of and band.is_wide(name)]
    within = set() if band is None or unlike else set(band.series) - told_of - set(wide)
    has_init_from = config.get("init_from") is not None
    told = advisories(Facts(series, settings, final_measures(folder), has_init_from), within)
    at_work = is_held(folder) if at_work is None else at_work
    is_complete = (folder / MARKER).is_file()
    progress = "" if is_complete or at_work else _progress(series, settings)
    verdict = _verdict(series, band, left, wide, told)
    beside = _others(verdict, unlike, wide, told)
    verdict = Verdict(progress + verdict.sentence + beside, verdict.state, verdict.from_step)
    return Review(verdict, told, series, band, unlike, left, wide)


def line_of(folder: Path, at_work: bool | None = None) -> str:
    """Return the line that a run prints of itself; empty where there is nothing to judge yet. Raises as `review` does."""
    found = review(folder, at_work)
    is_silent = found.verdict.state == "no band" and not found.advisories
    return "" if is_silent else f"verdict: {found.verdict.sentence}"


def _progress(series: Mapping[str, Series], settings: Mapping[str, str]) -> str:
    """How far a run came that is neither complete nor at work."""
    if not series:
        return "interrupted before its first step; "
    steps, last = number_of(settings, "stage.max_steps"), _last_step(series)
    of = f" of {steps:g}" if steps else ""
    if _has_stopped(series, last, settings):
        return f"stopped at step {last}{of}; "
    return f"interrupted after {last + 1}{of} steps; "


def _has_stopped(series: Mapping[str, Series], last: int, settings: Mapping[str, str]) -> bool:
    """True if the stage gave up at step `last` (`stages/base.py`): why is logged, and not whether the step was skipped.

    A number is none, or no group's rewards differ where that stops the run.
    """
    ends = {name: one.values[-1] for name, one in series.items() if one.steps[-1] == last}
    is_nan = any(not math.isfinite(ends.get(name, 0.0)) for name in STOPPING)
    learns_nothing = settings.get("stage.on_zero_variance") == "stop" and ends.get(ZERO_VARIANCE) == 1
    return SKIPPED not in ends and (is_nan or learns_nothing)


def _last_step(series: Mapping[str, Series]) -> int:
    return max(one.steps[-1] for one in series.values())


def _verdict(
    series: Mapping[str, Series],
    band: Band | None,
    left: Sequence[Outside],
    wide: Sequence[str],
    told: Sequence[Advisory],
) -> Verdict:
    """The verdict without what `_others` adds."""
    failures = [one for one in told if one.is_failure]
    if failures:
        first = failures[0]
        return Verdict(f"failed because of {_named(first)}: {first.exactly or first.rule}", "failed", first.from_step)
    steps = _last_step(series) + 1 if series else 0
    logged = max((len(one) for one in series.values()), default=0)  # fewer than `steps` where not every step is logged
    if logged < FEWEST_STEPS:
        told_of = f"too few logged steps to judge ({logged})" if logged else "nothing is logged"
        return Verdict(told_of, "no band")
    points = {} if band is None else {name: len(points_of(one, band, name)) for name, one in series.items()}
    if band is None or not (left or any(count >= FEWEST for name, count in points.items() if name not in wide)):
        why = "there is no band for these settings" if band is None else "too few steps to compare with the band"
        if max(points.values(), default=0) >= FEWEST:
            why = "no curve has a band that can tell"
        if told:
            return Verdict(f"{why}; {len(told)} rule{'s' * (len(told) > 1)} broken", "no band", told[0].from_step)
        return Verdict(f"healthy: no rule is broken ({why})", "healthy")
    if left:
        earliest = left[0]
        more = f", and {len(left) - 1} more curve{'s' * (len(left) > 2)}" if len(left) > 1 else ""
        where = f"differs here, from step {earliest.from_step}: {_place(earliest)}"
        return Verdict(f"{where} ({band.experiment}, {len(band.seeds)} seeds){more}", "differs", earliest.from_step)
    compared = [name for name, count in points.items() if count and name not in wide]
    curves = f"{len(compared)} curve{'s' * (len(compared) > 1)} up to step {steps - 1}"
    return Verdict(f"as expected: {curves} in the band of {band.experiment} ({len(band.seeds)} seeds)", "as expected")


def _place(one: Outside) -> str:
    if math.isnan(one.value):
        return f"{one.name} is not logged, or no number"
    side = "below" if one.value < one.low else "above"
    return f"{one.name} {one.value:.3g} is {side} {one.low:.3g} to {one.high:.3g}"


def _named(one: Advisory) -> str:
    return f"{one.name} from step {one.from_step}"


def _others(verdict: Verdict, unlike: Sequence[str], wide: Sequence[str], told: Sequence[Advisory]) -> str:
    """What is told beside the verdict: curves that nothing is known of, the settings that differ, and the other rules."""
    parts = []
    if wide and verdict.state in ("as expected", "differs"):
        parts.append(f"the band is too wide to tell of {_counted(wide)}")
    if unlike:
        parts.append(f"other settings than the band's: {_counted(unlike)}")
    rest = [_named(one) for one in told if not (verdict.state == "failed" and one is told[0])]
    if rest:
        parts.append(_counted(rest))
    return "".join(f"; {part}" for part in parts)


def _counted(words: Sequence[str]) -> str:
    more = f", and {len(words) - MOST_TOLD} more" if len(words) > MOST_TOLD else ""
    return ", ".join(words[:MOST_TOLD]) + more
