"""The command itself: the tiny rehearsal runs every contest; refusals are one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.table import HERE, README, RESULTS


def run(*arguments):
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_the_rehearsal_runs_every_contest_and_writes_nothing():
    kept = README.read_text(), sorted(RESULTS.glob("*"))
    done = run("--quick", "--pairs", "1")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "**" in line]
    works = [row.split(",")[0].removeprefix("| ") for row in rows]
    assert works == ["pre-training", "sampling", "GRPO step", "GRPO step", "memory of the loss"]
    assert (README.read_text(), sorted(RESULTS.glob("*"))) == kept


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--pairs", "0"), ("--quick", "--write"), ("--write", "--only", "grpo")])
def test_bad_input_is_one_line_and_exit_code_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()
