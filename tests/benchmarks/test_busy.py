"""The benchmark of a busy machine: its table, its busy processes, and one rehearsal of the whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.busy import Measured, busy_processes, render


def test_the_table_says_how_many_times_slower_than_calm() -> None:
    results = [
        Measured("today", 0, 12_000.0, 2.0),
        Measured("bounded", 0, 10_000.0, 2.5),
        Measured("today", 1, 3_000.0, 8.0),
        Measured("bounded", 1, 6_000.0, 3.0),
    ]
    assert render(results).splitlines() == [
        "| setting | tokens/s, 0 busy | tokens/s, 1 busy | s/step, 0 busy | s/step, 1 busy |",
        "|---|---|---|---|---|",
        "| today | 12,000 (1.00) | 3,000 (4.00) | 2.00 (1.00) | 8.00 (4.00) |",
        "| bounded | 10,000 (1.20) | 6,000 (2.00) | 2.50 (1.25) | 3.00 (1.50) |",
    ]


def test_busy_processes_compute_and_are_gone_afterwards() -> None:
    with busy_processes(1):
        children = psutil.Process().children(recursive=True)
        computing = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        before = sum(child.cpu_times().user for child in computing)
        time.sleep(0.5)
        assert sum(child.cpu_times().user for child in computing) > before
    assert computing and not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in computing)


@pytest.mark.slow
def test_a_rehearsal_measures_each_setting(repo_root: Path) -> None:
    command = [sys.executable, str(repo_root / "benchmarks" / "busy.py"), "--quick", "--rounds", "1", "--busy", "0"]
    command += ["--settings", "bounded", "one"]
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(repo_root)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [line.split(" |")[0].removeprefix("| ") for line in result.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["setting", "bounded", "one"]
