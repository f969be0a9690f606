"""The report over seeds: a seed that is there is not run again, rows of another recipe are refused, what stands in its files."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from pathlib import Path

import pytest

from r1_lightning.run.commands.recipe import Made, append
from r1_lightning.run.commands.report_loop import write_report
from r1_lightning.run.commands.report_runs import planned_fingerprint
from tests.reports.recipes import recipe_module

recipe = recipe_module("r1_zero_tiny")
RECIPE = recipe.RECIPE


def test_a_seed_that_is_there_is_not_run_again(tmp_path: Path) -> None:
    ran: list[int] = []

    def make(seed: int, root: Path) -> Made:
        ran.append(seed)
        own = {"seed": seed, "model": "trained", "fingerprint": planned_fingerprint(*recipe.overrides(seed))}
        points = [dict.fromkeys(recipe.CURVE_FIELDS, 0.5) | {"seed": seed, "step": 7}]
        return Made(
            [dict.fromkeys(recipe.FIELDS, 0) | own | {"commit": f"c{seed}"}], points, {"config.yaml": "config\n"}
        )

    report = dataclasses.replace(RECIPE, make=make, table=lambda rows: "table\n", draw=None)
    runs = list(RECIPE.runs(Namespace(seeds=[0, 1])))
    for _ in range(2):
        assert write_report(report, tmp_path, runs, tmp_path) == 0
    assert ran == [0, 1]
    assert (tmp_path / "table.md").read_text() == "table\n"
    assert (tmp_path / "config.yaml").read_text() == "config\n"
    assert (tmp_path / "commit.txt").read_text() == "c0\nc1\n"
    assert json.loads((tmp_path / "expected.json").read_text())["accuracy_mean"] == [[0.45, 0.55]]  # 0.5 -+ 0.05


def test_rows_of_another_configuration_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the base and the control have fingerprints of their own, and are not asked."""
    row = dict.fromkeys(recipe.FIELDS, 0) | {"seed": 3, "model": "trained", "fingerprint": "0123456789"}
    assert RECIPE.is_of_run(row) and not RECIPE.is_of_run({**row, "model": "control"})
    append(tmp_path / "results.csv", recipe.FIELDS, [row])
    assert write_report(RECIPE, tmp_path, [(4,)], tmp_path) == 2
    assert "seed 3 has fingerprint 0123456789 and would now have" in capsys.readouterr().err
