"""What reports over seeds share: files that grow under one header, and rows of another recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.reports import EXPERIMENT, append, planned_fingerprint, read, require_recipe
from r1_lightning.types.errors import InvalidInput


def test_rows_are_added_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    assert read(path) == []
    append(path, ("seed", "value"), [{"seed": 0, "value": 1}])
    append(path, ("seed", "value"), [{"seed": 1, "value": 2}])
    assert path.read_text().splitlines() == ["seed,value", "0,1", "1,2"]
    assert read(path) == [{"seed": "0", "value": "1"}, {"seed": "1", "value": "2"}]


def test_a_row_of_another_recipe_is_refused() -> None:
    arguments = [EXPERIMENT, "seed=3"]
    now = planned_fingerprint(*arguments)
    assert now != planned_fingerprint(EXPERIMENT, "seed=4")
    require_recipe(Path("r.csv"), "seed 3", now, arguments)
    with pytest.raises(InvalidInput, match=f"r.csv: seed 3 has fingerprint 0123456789 and would now have {now}"):
        require_recipe(Path("r.csv"), "seed 3", "0123456789", arguments)
