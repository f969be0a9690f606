"""The band in which the curves of an experiment are expected, made from at least 3 seeds, and where a run leaves it.

At a step, with the mean m over n seeds and s their standard deviation, whose square is averaged over the SMOOTHED points on both
sides (n seeds alone would say little of it), the band is

    m - h ... m + h        h = K s sqrt(1 + 1/n) + MARGIN max(unit, the largest |m| of the curve)

s sqrt(1 + 1/n) is how far one more seed lies from the mean of the others; the margin is for other machines, whose rounding
differs, and for curves that hardly vary. The unit is 1, and 0 for what has a least value and no largest, as a loss has: one that
falls from 0.06 to 0.01 has a margin of its own size. The band ends where the quantity does (`quantities.limits`): a share lies
in 0..1.

**A band of very unlike seeds says nothing.** Where it takes more than TOO_WIDE of what the curve can be, in the median of its
steps, a run that lies in it is not as expected for that, and is told so.

**One point outside says nothing**: it is drawn and not told. A run differs where at least 8 of 10 neighbouring points lie outside
on the same side; of points that are means over several steps, all of 3. K and this rule were chosen by leaving out one seed at a
time from all committed curves of 3 seeds or more and judging it by the others: `tests/review/test_bands.py` measures the rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, variance

from r1_lightning.review.quantities import ANY, Limits, limits
from r1_lightning.review.series import Series
from r1_lightning.types.errors import require

LEAST_SEEDS = 3
K = 3.0
MARGIN = 0.05
SMOOTHED = 10
STRETCH, OF_STRETCH = 10, 8  # points of a stretch, and how many of them must lie outside
FEWEST = 3  # points that can be judged; of a stretch of means over several steps
MOST_POINTS = 200  # of a curve in a band; a longer run is averaged over windows
DIGITS = 4  # significant, of a bound
TOO_WIDE = 0.75  # of what a curve can be
ROUNDING = 1e-6  # relative: a mean of shares in float32 may lie that much above 1


@dataclass(frozen=True)
class Bounds:
    """The band of one metric: at `steps[i]` it lies between `low[i]` and `high[i]`."""

    steps: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Band:
    """The expected curves of an experiment, by metric; a point is the mean of `window` steps up to and including its own."""

    experiment: str
    seeds: tuple[int, ...]
    series: Mapping[str, Bounds]
    window: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)  # `run_files.settings_of` the runs it was made from

    def of(self, name: str) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]] | None:
        """Return (steps, low, high) of the metric `name`; None if the band does not have it."""
        bounds = self.series.get(name)
        return None if bounds is None else (bounds.steps, bounds.low, bounds.high)

    def is_wide(self, name: str) -> bool:
        """True if the band of the metric `name` is too wide to tell anything; False if the band does not have it.

        Of a quantity without an upper end, the highest that the band reaches stands for it (at least 1).
        """
        bottom, top = limits(name, self.settings)
        bounds = self.series.get(name)
        if bounds is None or math.isinf(bottom):
            return False
        room = (top if math.isfinite(top) else max(bottom + 1, *bounds.high)) - bottom
        pairs = zip(bounds.low, bounds.high, strict=True)
        widths = [min(high, bottom + room) - max(low, bottom) for low, high in pairs]
        return room > 0 and median(widths) > TOO_WIDE * room


@dataclass(frozen=True)
class Outside:
    """Where a run leaves a band: the first step of the first stretch, what it logged there, and the band there.

    `value` is NaN where the run did not log the metric at all, or logged what is no number.
    """

    name: str
    from_step: int
    value: float
    low: float
    high: float


def make_band(
    experiment: str,
    curves: Mapping[str, Sequence[Series]],
    seeds: Sequence[int],
    window: int = 1,
    settings: Mapping[str, str] | None = None,
) -> Band:
    """Return the band of `curves`: for each metric one series per seed, already averaged over `window` steps.

    Only steps that all seeds have logged count, and metrics with FEWEST such steps. Raises `InvalidInput` for fewer than
    LEAST_SEEDS seeds.
    """
    require(len(set(seeds)) >= LEAST_SEEDS, "seeds", sorted(set(seeds)), f"it must be at least {LEAST_SEEDS} seeds")
    known = dict(settings or {})
    made = {
        name: _bounds(list(series), limits(name, known))
        for name, series in sorted(curves.items())
        if len(series) == len(seeds)
    }
    kept = {name: bounds for name, bounds in made.items() if len(bounds.steps) >= FEWEST}
    return Band(experiment, tuple(sorted(seeds)), kept, window, known)


def _bounds(series: Sequence[Series], between: Limits) -> Bounds:
    tables = [
        {step: value for step, value in zip(one.steps, one.values, strict=True) if math.isfinite(value)}
        for one in series
    ]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    columns = [[table[step] for table in tables] for step in steps]
    bottom, top = between if all(_side(value, *between) == 0 for column in columns for value in column) else ANY
    means, variances = [fmean(column) for column in columns], [variance(column) for column in columns]
    unit = 0.0 if math.isfinite(bottom) and math.isinf(top) else 1.0
    margin = MARGIN * max(unit, *map(abs, means)) if means else 0.0
    widen = K * math.sqrt(1 + 1 / len(series))
    low, high = [], []
    for place, centre in enumerate(means):
        near = variances[max(0, place - SMOOTHED) : place + SMOOTHED + 1]
        half = widen * math.sqrt(fmean(near)) + margin
        low.append(max(bottom, _short(centre - half)))
        high.append(min(top, _short(centre + half)))
    return Bounds(tuple(steps), tuple(low), tuple(high))


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def points_of(series: Series, band: Band, name: str) -> list[tuple[int, float, float, float]]:
    """Return (step, value, low, high) at every step that both the run and the band have of the metric `name`."""
    bounds = band.series.get(name)
    if bounds is None:
        return []
    ours = series.averaged(band.window)
    values = dict(zip(ours.steps, ours.values, strict=True))
    rows = zip(bounds.steps, bounds.low, bounds.high, strict=True)
    return [(step, values[step], low, high) for step, low, high in rows if step in values]


def leaves(series: Series, band: Band, name: str) -> Outside | None:
    """Return where the run leaves the band of the metric `name` for a whole stretch; None if it does not, or is too short.

    A run of fewer points than a stretch differs if all of them, at least FEWEST, lie outside on the same side.
    """
    points = points_of(series, band, name)
    if len(points) < FEWEST:
        return None
    length = STRETCH if band.window == 1 else max(FEWEST, math.ceil(STRETCH / band.window))
    needed = math.ceil(length * OF_STRETCH / STRETCH)
    if len(points) < length:
        length = needed = len(points)
    sides = [_side(*point[1:]) for point in points]
    for start in range(len(points) - length + 1):
        stretch = sides[start : start + length]
        for side in (-1, 1):
            # What is no number is outside on both sides.
            if sum(one in (side, None) for one in stretch) >= needed:
                first = start + next(place for place, one in enumerate(stretch) if one in (side, None))
                return Outside(name, *points[first])
    return None


def _side(value: float, low: float, high: float) -> int | None:
    """-1 below the band, 1 above it, 0 within; None for what is no finite number."""
    if not math.isfinite(value):
        return None
    near = ROUNDING * max(1.0, abs(value))
    return -1 if value < low - near else 1 if value > high + near else 0


def outside(series: Mapping[str, Series], band: Band) -> list[Outside]:
    """Return every metric of the band that the run leaves, the earliest first; one that it never logged counts from step 0."""
    found = []
    for name, bounds in band.series.items():
        if name not in series:
            if series and max(one.steps[-1] for one in series.values()) >= bounds.steps[0]:
                found.append(Outside(name, bounds.steps[0], math.nan, bounds.low[0], bounds.high[0]))
            continue
        if (left := leaves(series[name], band, name)) is not None:
            found.append(left)
    return sorted(found, key=lambda one: (one.from_step, one.name))
