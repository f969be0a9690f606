"""Cells of rows and means of points, from rows written down here."""

from __future__ import annotations

import math

import pytest

from r1_lightning.run.commands.tables.values import Cell, Points, numbers, of_points, of_rows
from r1_lightning.types.errors import InvalidInput

ROWS = [
    {"seed": "0", "model": "base", "measure": "m", "value": "0.25", "low": "0.2", "high": "0.3"},
    {"seed": "0", "model": "base", "measure": "n", "value": "7", "low": "", "high": ""},
    {"seed": "1", "model": "base", "measure": "m", "value": "0.5", "low": "0.4", "high": "0.6"},
    {"seed": "0", "model": "trained", "measure": "m", "value": "0.75", "low": "0.7", "high": "0.8"},
    {"seed": "1", "model": "base", "measure": "m", "value": "0.625", "low": "0.5", "high": "0.7"},  # once more
]


def test_rows_of_an_arm_and_a_measure_by_seed_the_last_of_each() -> None:
    found = of_rows(ROWS, {"model": "base"}, {"measure": "m"})
    assert found == {"0": Cell(0.25, 0.2, 0.3), "1": Cell(0.625, 0.5, 0.7)}
    (cell,) = of_rows(ROWS, {"model": "base"}, {"measure": "n"}).values()
    assert cell.value == 7 and math.isnan(cell.low) and math.isnan(cell.high)
    assert of_rows(ROWS, {"model": "base", "task": "x"}, {"measure": "m"}) == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"seed": "0", "value": "many"}, "value='many' is not allowed in .*: it must be a number"),
        ({"seed": "0", "value": None}, "value=None is not allowed"),
        ({"seed": "0", "value": "1", "low": "x"}, "low='x' is not allowed"),
        ({"seed": "one", "value": "1"}, "seed='one' is not allowed: a whole number"),
        ({"value": "1"}, "seed=None is not allowed"),
    ],
)
def test_a_row_that_is_no_number_is_refused_in_one_line(row: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        of_rows([row], {}, {})


def test_rows_without_bounds_have_none() -> None:
    (cell,) = of_rows([{"seed": "3", "value": "1.5"}], {}, {}).values()
    assert cell.value == 1.5 and math.isnan(cell.low)


def test_points_are_averaged_over_the_first_or_last_steps_in_their_order() -> None:
    points = [{"seed": "0", "arm": "a", "step": step, "x": x} for step, x in [("10", "8"), ("2", "4"), ("1", "2")]]
    points += [{"seed": "0", "arm": "b", "step": "1", "x": "100"}, {"seed": "1", "arm": "a", "step": "1", "x": "6"}]
    first = of_points(points, {"arm": "a"}, Points("x", first=2))
    last = of_points(points, {"arm": "a"}, Points("x", last=2))
    assert {seed: cell.value for seed, cell in first.items()} == {"0": 3.0, "1": 6.0}  # (2 + 4) / 2
    assert {seed: cell.value for seed, cell in last.items()} == {"0": 6.0, "1": 6.0}  # (4 + 8) / 2


def test_points_of_a_column_that_a_run_lacks_are_no_number() -> None:
    points = [{"seed": "0", "step": "1", "x": ""}]
    assert math.isnan(of_points(points, {}, Points("x", last=1))["0"].value)


def test_numbers_are_the_finite_values() -> None:
    values = {("a", "m"): {"0": Cell(1.0), "1": Cell(math.nan), "2": Cell(2.0)}}
    assert numbers(values, "a", "m") == {"0": 1.0, "2": 2.0} and numbers(values, "b", "m") == {}
