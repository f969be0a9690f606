"""The report over seeds: its files grow row by row, and a seed that is there is not run again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r1_lightning.run import reasoning_report
from r1_lightning.run.reasoning_report import append, read


def test_rows_are_added_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    assert read(path) == []
    append(path, ("seed", "value"), [{"seed": 0, "value": 1}])
    append(path, ("seed", "value"), [{"seed": 1, "value": 2}])
    assert path.read_text().splitlines() == ["seed,value", "0,1", "1,2"]
    assert read(path) == [{"seed": "0", "value": "1"}, {"seed": "1", "value": "2"}]


def test_a_seed_that_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def run_seed(seed: int, root: Path) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        ran.append(seed)
        return [dict.fromkeys(reasoning_report.FIELDS, 0) | {"seed": seed}], []

    monkeypatch.setattr(reasoning_report, "run_seed", run_seed)
    monkeypatch.setattr(reasoning_report, "summarise", lambda results, curves: ("table\n", {}))
    monkeypatch.setattr(reasoning_report, "draw_curves", lambda curves, path: None)
    monkeypatch.setattr(sys, "argv", ["report", "--seeds", "0", "1", "--out", str(tmp_path)])
    assert reasoning_report.main() == 0
    assert reasoning_report.main() == 0
    assert ran == [0, 1]
    assert (tmp_path / "table.md").read_text() == "table\n"
