"""The recipe of a report, which `reports/<id>/recipe.py` exports as `RECIPE`, the CSV files that it fills, and cells of its tables.

A report is a table of runs. Its recipe defines the runs, how to make one, and what to draw from the rows of all. The
first line of the recipe's docstring is the report's title. A new report is this one file, with a test:

    RECIPE = Recipe(seeds=[0, 1, 2], key={"seed": int}, fields=FIELDS, runs=..., overrides=..., make=..., table=...)

and `python scripts/report.py ID` runs it. Rows hold text, as CSV files do; tables and pictures are computed from rows alone, so a
report can be redrawn without a run.
"""

from __future__ import annotations

import csv
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from r1_lightning.types.errors import require

Row = Mapping[str, str]  # as it stands in a CSV file
Rows = Sequence[Mapping[str, object]]  # as they are made
Run = tuple[Any, ...]  # the values of a recipe's `key`


@dataclass(frozen=True)
class Made:
    """The results of one run: rows of results.csv, points of curves.csv, and whole files by name."""

    rows: Rows
    points: Rows = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """One report, declared.

    seeds: of its runs, unless the command line names others.
    key: the columns that name a run, each with the function that reads its value from a file.
    fields, curve_fields: the columns of results.csv and curves.csv.
    runs: the runs that the options ask for, each a tuple of the values of `key`; `options.seeds` are the seeds.
    overrides: takes a run's values to the arguments of `scripts/train.py` whose fingerprint its rows bear.
    make: takes a run's values and the folder of artefacts (`root=`), trains, and returns what it adds.
    table: takes all rows to the Markdown of table.md, claims included.
    draw: writes the picture of all points to a path.
    more_files: takes all rows and points to further files, by name.
    add_options: adds options of the report's own to the command line.
    is_of_run: tells rows with the run's own fingerprint from those of a control.
    """

    seeds: Sequence[int]
    key: Mapping[str, Callable[[str], Any]]
    fields: Sequence[str]
    runs: Callable[[Namespace], Iterable[Run]]
    overrides: Callable[..., Sequence[str]]
    make: Callable[..., Made]
    table: Callable[[Sequence[Row]], str]
    curve_fields: Sequence[str] = ()
    draw: Callable[[Sequence[Row], Path], None] | None = None
    more_files: Callable[[Sequence[Row], Sequence[Row]], Mapping[str, str]] = lambda rows, points: {}
    add_options: Callable[[ArgumentParser], object] = lambda parser: None
    is_of_run: Callable[[Row], bool] = lambda row: True

    def __post_init__(self) -> None:
        missing = [column for column in self.key if column not in self.fields]
        require(not missing, "fields", list(self.fields), f"rows must hold the columns of `key`, {missing} are missing")

    def run_of(self, row: Row) -> Run:
        """The run that a row of either file belongs to."""
        return tuple(read_as(row[column]) for column, read_as in self.key.items())

    def label(self, run: Run) -> str:
        """One run, for people: `seed 3, router frozen`."""
        return ", ".join(f"{column} {value}" for column, value in zip(self.key, run, strict=True))


def append(path: Path, fields: Sequence[str], rows: Rows) -> None:
    """Add rows to a CSV file, with a header if it is new."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fields)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if it is not there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def spread(numbers: Collection[float], digits: int | None = None, sign: str = "") -> str:
    """Return a table cell over seeds: `mean [smallest, largest]`, or "not run".

    `digits=None` shows 1 decimal for lengths in tokens and 3 for shares in 0..1; `sign="+"` also marks positive numbers.
    """
    if not numbers:
        return "not run"
    average = mean(numbers)
    if digits is None:
        digits = 1 if average > 1.5 else 3
    shown, low, high = (f"{number:{sign}.{digits}f}" for number in (average, min(numbers), max(numbers)))
    return f"{shown} [{low}, {high}]"


def table_of(corner: str, columns: Sequence[str], lines: Mapping[str, Sequence[str]]) -> str:
    """Return a Markdown table: `corner` and `columns` are its head, and each line has a name and a cell per column."""
    rows = [[corner, *columns], *([name, *cells] for name, cells in lines.items())]
    written = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([written[0], "|---" * (len(columns) + 1) + "|", *written[1:]]) + "\n"


def verdict(difference: float, holds: bool) -> str:
    """Return the cell of a claim for one seed: whether it holds, and the difference that it is about."""
    return f"{'holds' if holds else 'DOES NOT HOLD'} ({difference:+.3f})"
