"""One curve over the optimizer steps as SVG, with the band in which it is expected and a second run over it.

Written by hand and not by matplotlib: a page has forty curves, and one of 160 steps with its band has 5.5 kB here, made in half a
millisecond, and 18.5 kB there, in 28 (it writes each letter as a path). Its style attributes would need a weaker policy, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from r1_lightning.review.bands import Bounds
from r1_lightning.review.page.inert_text import plain
from r1_lightning.review.series import Series

WIDTH, HEIGHT = 300, 120  # units of the drawing; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 44, 6, 6, 16  # room for the labels
MOST_POINTS = 400  # of a line: beyond, the lowest and the highest value of each stretch of steps stand for it
SMALL, LARGE = 1e-3, 1e6  # below and from there on, a number is written with its power of ten
MARGIN = 0.05  # of the range, free above and below


def svg(
    name: str,
    own: Series,
    other: Series | None = None,
    band: Bounds | None = None,
    averaged: Series | None = None,
    left_at: int | None = None,
) -> str:
    """Return the drawing; it has no text but the ends of both axes and its name for those who do not see it.

    `averaged` is `own` as the band is meant, where a point of it is the mean of several steps: then that is the strong line. At the
    step `left_at` it leaves the band.
    """
    lines = [own] if other is None else [own, other]
    steps = [step for line in lines for step in line.steps]
    values = [value for line in lines for value in line.values] + ([*band.low, *band.high] if band else [])
    frame = _Frame.around(steps, values)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{plain(name)}">', frame.axes()]
    if band is not None:
        parts.append(f'<polygon class="band" points="{_band_points(frame, band)}"/>')
    if left_at is not None and frame.first <= left_at <= frame.last:
        x = frame.point(left_at, 0.0).partition(",")[0]
        parts.append(f'<path class="left" d="M{x},{TOP}V{HEIGHT - BOTTOM}"/>')
    if other is not None:
        parts += _polylines(frame, other, "other")
    if averaged is not None:
        parts += _polylines(frame, own, "single")
    return "".join([*parts, *_polylines(frame, averaged or own, "own"), "</svg>"])


def number(value: float, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits, as people write it: 0.6914, 7.95e-4, 1.019e6."""
    if value and abs(value) < SMALL:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    if 10**digits <= abs(value) < LARGE:
        return f"{value:.0f}"
    return f"{value:.{digits}g}".replace("e+0", "e").replace("e+", "e")


@dataclass(frozen=True)
class _Frame:
    """The rectangle of steps and values that the drawing shows; `lowest` and `highest` are the values that are there."""

    first: float
    last: float
    low: float
    high: float
    lowest: float
    highest: float

    @classmethod
    def around(cls, steps: Sequence[float], values: Sequence[float]) -> _Frame:
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        room = MARGIN * (high - low) or abs(high) or 1.0  # a flat line stands in the middle
        first, last = min(steps, default=0), max(steps, default=0)
        return cls(first, last if last > first else first + 1, low - room, high + room, low, high)

    def point(self, step: float, value: float) -> str:
        x = LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
        return f"{x:.1f},{self.y(value):.1f}"

    def y(self, value: float) -> float:
        return TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def axes(self) -> str:
        bottom = HEIGHT - BOTTOM
        labels = [
            (LEFT - 3, self.y(value) + 3, "end", number(value, 3))
            for value in dict.fromkeys((self.highest, self.lowest))
        ]
        labels += [
            (LEFT, HEIGHT - 4, "start", number(self.first)),
            (WIDTH - RIGHT, HEIGHT - 4, "end", number(self.last)),
        ]
        texts = "".join(
            f'<text x="{x}" y="{y:g}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in labels
        )
        return f'<path class="axes" d="M{LEFT},{TOP}V{bottom}H{WIDTH - RIGHT}"/>{texts}'


def _polylines(frame: _Frame, line: Series, kind: str) -> list[str]:
    """Return a polyline for each stretch of finite values; a single value is drawn as a dot."""
    drawn = []
    for stretch in _stretches(_thinned(line)):
        points = [frame.point(step, value) for step, value in stretch]
        if len(points) == 1:
            x, _, y = points[0].partition(",")
            drawn.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="2"/>')
        else:
            drawn.append(f'<polyline class="{kind}" points="{" ".join(points)}"/>')
    return drawn


def _stretches(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = [[]]
    for step, value in points:
        if math.isfinite(value):
            found[-1].append((step, value))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def _thinned(line: Series) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` points: of each stretch its lowest and highest value, in their order."""
    points: list[tuple[float, float]] = list(zip(line.steps, line.values, strict=True))
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        finite = [point for point in stretch if math.isfinite(point[1])] or stretch[:1]
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def _band_points(frame: _Frame, band: Bounds) -> str:
    """Return the outline: the upper edge forward, the lower edge back, within the steps that the frame shows."""
    inside = [
        (step, low, high)
        for step, low, high in zip(band.steps, band.low, band.high, strict=True)
        if frame.first <= step <= frame.last
    ]
    upper = [frame.point(step, high) for step, _, high in inside]
    lower = [frame.point(step, low) for step, low, _ in reversed(inside)]
    return " ".join(upper + lower)
