"""The curves of a page: those that tell most first, the others behind one line, those that never move as a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from r1_lightning.review.bands import Band, Bounds
from r1_lightning.review.page.curve import number, svg
from r1_lightning.review.page.inert_text import inert
from r1_lightning.review.series import Series

# Ends of names, in the order in which they are shown.
FIRST = (
    "rollout/reward_mean",
    "rollout/accuracy_mean",
    "rollout/format_mean",
    "/pass_at_1",
    "rollout/completion_tokens_mean",
    "rollout/finished_fraction",
    "policy/entropy",
    "policy/kl_ref",
    "policy/clip_fraction",
    "rollout/zero_variance_fraction",
    "rollout/mixed_language_fraction",
    "val/loss",
    "train/loss",
    "train/grad_norm",
    "moe/max_violation",
    "perf/tokens_per_s",
)
MOST_CURVES = 200  # a hostile file may name more columns than anybody looks at
WIDE = " <small>(its band is too wide to tell)</small>"
READ_POINTS = 400  # of a curve, for the values under the pointer


@dataclass(frozen=True)
class Chart:
    """One metric of a run, the same of another run, and what is expected of it."""

    name: str
    own: Series
    other: Series | None = None
    band: Bounds | None = None
    averaged: Series | None = None  # `own`, where a point of the band is a mean over several steps
    left_at: int | None = None  # the step at which it leaves the band
    is_wide: bool = False  # the band is too wide to tell anything

    @property
    def is_flat(self) -> bool:
        """Whether there is nothing to see: one value from the first step to the last, in both runs, without a band."""
        values = {*self.own.values, *(self.other.values if self.other else ())}
        return self.band is None and len(values) <= 1


def charts(
    own: Mapping[str, Series],
    other: Mapping[str, Series] | None = None,
    band: Band | None = None,
    left: Mapping[str, int] | None = None,
) -> list[Chart]:
    """Return the charts in the order in which they are shown, at most `MOST_CURVES`.

    `left` are the steps at which curves leave the band.
    """
    found = []
    for name, series in own.items():
        bounds = None if band is None else band.series.get(name)
        averaged = series.averaged(band.window) if band is not None and bounds is not None and band.window > 1 else None
        left_at = (left or {}).get(name)
        is_wide = band is not None and left_at is None and band.is_wide(name)
        found.append(Chart(name, series, (other or {}).get(name), bounds, averaged, left_at, is_wide))
    return sorted(found, key=lambda chart: (_rank(chart.name), chart.name))[:MOST_CURVES]


def section(shown: Sequence[Chart], only_other: Sequence[str] = ()) -> str:
    """Return the charts as HTML: those of `FIRST` and those with a band, then the others.

    `only_other` are the curves that the other run alone has, which are named and not drawn.
    """
    moving = [(index, chart) for index, chart in enumerate(shown) if not chart.is_flat]
    main = [pair for pair in moving if _comes_first(pair[1])]
    rest = [pair for pair in moving if not _comes_first(pair[1])]
    flat = [chart for chart in shown if chart.is_flat]
    legend = ['<span class="own">this run</span>'] if moving else ["This run logged nothing that moves."]
    legend += ['<span class="other">the other</span>'] if any(chart.other for chart in shown) else []
    legend += ['<span class="band">as expected</span>'] if any(chart.band for chart in shown) else []
    parts = [f'<p class="legend">{" ".join(legend)}</p><div class="curves">{_figures(main)}</div>']
    if rest:
        parts.append(
            f'<details><summary>{len(rest)} more curves</summary><div class="curves">{_figures(rest)}</div></details>'
        )
    if flat:
        values = "".join(f"<li>{inert(chart.name)}: {number(chart.own.values[-1])}</li>" for chart in flat)
        parts.append(f"<details><summary>{len(flat)} that never moved</summary><ul>{values}</ul></details>")
    if only_other:
        names = "".join(f"<li>{inert(name)}</li>" for name in only_other[:MOST_CURVES])
        parts.append(
            f"<details><summary>{len(only_other)} of the other run alone, not drawn</summary><ul>{names}</ul></details>"
        )
    return "".join(parts)


def readings(shown: Sequence[Chart]) -> list[list[list[float | None]]]:
    """Return steps and values of each chart, for the value under the pointer: [steps, values, other steps, other values]."""
    return [
        [*_reading(chart.own), *(_reading(chart.other) if chart.other else [[], []])] if not chart.is_flat else []
        for chart in shown
    ]


def _reading(line: Series) -> list[list[float | None]]:
    stride = max(1, len(line.steps) // READ_POINTS)
    return [[float(f"{value:.5g}") for value in column[::stride]] for column in (line.steps, line.values)]


def _comes_first(chart: Chart) -> bool:
    return chart.band is not None or _rank(chart.name) < len(FIRST)


def _rank(name: str) -> int:
    return next((place for place, end in enumerate(FIRST) if name.endswith(end)), len(FIRST))


def _drawn(chart: Chart) -> str:
    return svg(chart.name, chart.own, chart.other, chart.band, chart.averaged, chart.left_at)


def _figures(pairs: Iterable[tuple[int, Chart]]) -> str:
    return "".join(
        f'<figure data-curve="{index}"><figcaption>{inert(chart.name)} <span>{number(chart.own.values[0])} → '
        f"{number(chart.own.values[-1])}</span>{WIDE if chart.is_wide else ''}</figcaption>{_drawn(chart)}</figure>"
        for index, chart in pairs
    )
