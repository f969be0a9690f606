"""The report over seeds: a seed that is there is not run again, and rows of another recipe are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r1_lightning.run.commands import reasoning_report
from r1_lightning.run.commands.report import EXPERIMENT, append, planned_fingerprint


def test_a_seed_that_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def run_seed(seed: int, root: Path) -> tuple[list[dict[str, object]], list[dict[str, object]], str]:
        ran.append(seed)
        own = {
            "seed": seed,
            "model": "trained",
            "fingerprint": planned_fingerprint(EXPERIMENT, f"seed={seed}"),
            "commit": f"c{seed}",
        }
        return [dict.fromkeys(reasoning_report.FIELDS, 0) | own], [], "config\n"

    monkeypatch.setattr(reasoning_report, "run_seed", run_seed)
    monkeypatch.setattr(reasoning_report, "summarise", lambda results: "table\n")
    monkeypatch.setattr(reasoning_report, "draw_curves", lambda curves, path: None)
    monkeypatch.setattr(sys, "argv", ["report", "--seeds", "0", "1", "--out", str(tmp_path)])
    assert reasoning_report.main() == 0
    assert reasoning_report.main() == 0
    assert ran == [0, 1]
    assert (tmp_path / "table.md").read_text() == "table\n"
    assert (tmp_path / "config.yaml").read_text() == "config\n"
    assert (tmp_path / "commit.txt").read_text() == "c0\nc1\n"


def test_rows_of_another_configuration_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = dict.fromkeys(reasoning_report.FIELDS, 0) | {"seed": 3, "model": "trained", "fingerprint": "0123456789"}
    append(tmp_path / "results.csv", reasoning_report.FIELDS, [row])
    monkeypatch.setattr(sys, "argv", ["report", "--seeds", "4", "--out", str(tmp_path)])
    assert reasoning_report.main() == 2
    assert "seed 3 has fingerprint 0123456789 and would now have" in capsys.readouterr().err
