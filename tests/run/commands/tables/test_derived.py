"""Pages that are drawn from the rows of a report, and follow them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from r1_lightning.run.commands import report
from r1_lightning.run.commands.tables.declared import read_table, tables
from r1_lightning.run.commands.tables.derived import draw_again, drawn, rows_of
from tests.architecture.house import ROOT


def test_rows_are_a_table_s_own_or_those_of_its_report(tmp_path: Path) -> None:
    for name in ("mtp", "r1_tiny"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.csv").write_text(f"seed,place\n0,{name}\n", encoding="utf-8")
    assert rows_of(read_table(tables()["mtp"]), tmp_path) == ([{"seed": "0", "place": "mtp"}], [])
    assert rows_of(read_table(tables()["stages"]), tmp_path) == ([{"seed": "0", "place": "r1_tiny"}], [])


def test_only_pages_that_stand_there_are_drawn_again(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "reports" / "r1_zero_tiny", tmp_path / "r1_zero_tiny")
    page = tmp_path / "r1_zero_vs_o1" / "table.md"
    page.parent.mkdir()
    page.write_text("old", encoding="utf-8")
    draw_again(tmp_path, "r1_tiny")
    assert page.read_text() == "old"
    draw_again(tmp_path, "r1_zero_tiny")
    assert page.read_text().startswith("# R1-Zero, its base")
    assert [path for path, _ in drawn(tmp_path)] == [page] and not (tmp_path / "r1_zero_curves").exists()


def test_a_report_s_new_rows_reach_the_tables_that_are_drawn_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "reports" / "language_consistency", tmp_path / "reports" / "language_consistency")
    page = tmp_path / "reports" / "language_ablation" / "table.md"
    page.parent.mkdir()
    page.write_text("old", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert report.main(["language_consistency", "--redraw"]) == 0
    assert page.read_text().startswith("# GRPO without and with")
