"""A recipe's rows: files that grow under one header, the run a row belongs to, a declaration that cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.commands.recipe import Made, Recipe, append, read, spread, table_of, verdict
from r1_lightning.types.errors import InvalidInput


def recipe(fields: tuple[str, ...]) -> Recipe:
    return Recipe(
        seeds=[0],
        key={"seed": int, "arm": str},
        fields=fields,
        runs=lambda options: [],
        overrides=lambda seed, arm: [],
        make=lambda seed, arm, root: Made([]),
        table=lambda rows: "",
    )


def test_rows_are_added_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    assert read(path) == []
    append(path, ("seed", "value"), [{"seed": 0, "value": 1}])
    append(path, ("seed", "value"), [{"seed": 1, "value": 2}])
    assert path.read_text().splitlines() == ["seed,value", "0,1", "1,2"]
    assert read(path) == [{"seed": "0", "value": "1"}, {"seed": "1", "value": "2"}]


def test_a_row_belongs_to_the_run_of_its_key() -> None:
    declared = recipe(("seed", "arm", "value"))
    assert declared.run_of({"seed": "3", "arm": "rule", "value": "0.5"}) == (3, "rule")
    assert declared.label((3, "rule")) == "seed 3, arm rule"


def test_rows_that_would_not_name_their_run_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"fields=\['seed', 'value'\] is not allowed: .*\['arm'\] are missing"):
        recipe(("seed", "value"))


def test_a_cell_by_hand() -> None:
    assert spread([0.1, 0.4], digits=2) == "0.25 [0.10, 0.40]"
    assert spread([-0.25, 0.75], digits=2, sign="+") == "+0.25 [-0.25, +0.75]"
    assert spread([], digits=2) == "not run"
    assert spread([1.5, 1.5]) == "1.500 [1.500, 1.500]" and spread([1.0, 3.0]) == "2.0 [1.0, 3.0]"  # shares, lengths


def test_a_table_and_a_verdict_by_hand() -> None:
    assert table_of("claim", ["seed 0"], {"it grows": [verdict(0.25, True)], "it shrinks": [verdict(0.25, False)]}) == (
        "| claim | seed 0 |\n|---|---|\n| it grows | holds (+0.250) |\n| it shrinks | DOES NOT HOLD (+0.250) |\n"
    )
