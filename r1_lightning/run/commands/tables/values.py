"""The values of a table, `(arm, measure) -> seed -> Cell`, from the rows of results.csv and the points of curves.csv.

A table's own rows name arm and measure. Rows of a report have columns of their own, so the YAML says which of them are an arm's
(`rows: {model: trained}`) and which a measure's (`rows: {measure: loss, step: "250"}`; by default those of its own name). A measure
of `points` is the mean of a column over the first or last so many steps of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from r1_lightning.run.commands.recipe import Row
from r1_lightning.types.errors import InvalidInput, require

Filter = Mapping[str, str]


@dataclass(frozen=True)
class Cell:
    """One value of one seed, with the bounds of its interval over questions (NaN if it has none)."""

    value: float
    low: float = math.nan
    high: float = math.nan


Values = Mapping[tuple[str, str], Mapping[str, Cell]]


@dataclass(frozen=True)
class Points:
    """The mean of `column` over the `first` or the `last` so many points of a curve."""

    column: str
    first: int | None = None
    last: int | None = None

    def __str__(self) -> str:
        """As the settings of a row name it: `train/loss[last 50]`."""
        return f"{self.column}[first {self.first}]" if self.first is not None else f"{self.column}[last {self.last}]"

    def of(self, points: Sequence[Row]) -> float:
        """The mean over the points of one run, which are in the order of their steps."""
        numbers = [float(point[self.column]) for point in points if point.get(self.column) not in (None, "")]
        chosen = numbers[: self.first] if self.first is not None else numbers[-(self.last or len(numbers)) :]
        return mean(chosen) if chosen else math.nan


def numbers(values: Values, arm: str, measure: str) -> dict[str, float]:
    """The finite values of a measure of an arm, by seed."""
    return {s: cell.value for s, cell in values.get((arm, measure), {}).items() if math.isfinite(cell.value)}


def of_rows(rows: Sequence[Row], arm: Filter, measure: Filter) -> dict[str, Cell]:
    """The cells of the rows that fit both filters, by seed; of several rows of a seed the last counts."""
    wanted = {**arm, **measure}
    chosen = [row for row in rows if all(row.get(key) == text for key, text in wanted.items())]
    for row in chosen:
        require((row.get("seed") or "").isdecimal(), "seed", row.get("seed"), f"a whole number, in {dict(row)}")
    return {row["seed"]: _cell(row) for row in chosen}


def of_points(points: Sequence[Row], arm: Filter, chosen: Points) -> dict[str, Cell]:
    """The cells of a measure of points, by seed."""
    mine = [point for point in points if all(point.get(key) == text for key, text in arm.items())]
    return {seed: Cell(chosen.of(own)) for seed, own in _by_seed(mine)}


def _by_seed(points: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for seed in dict.fromkeys(point["seed"] for point in points):
        own: dict[int, Row] = {int(point["step"]): point for point in points if point["seed"] == seed}
        yield seed, [own[step] for step in sorted(own)]


def _cell(row: Row) -> Cell:
    bounds = (_number(row, name) if row.get(name) else math.nan for name in ("low", "high"))
    return Cell(_number(row, "value"), *bounds)


def _number(row: Row, column: str) -> float:
    try:
        return float(row[column])
    except (KeyError, TypeError, ValueError):
        raise InvalidInput(f"{column}={row.get(column)!r} is not allowed in {dict(row)}: it must be a number") from None
