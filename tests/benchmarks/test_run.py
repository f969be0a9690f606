"""The command itself: the tiny rehearsal runs every contest; refusals are one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import command
from benchmarks.pairs import Contest, Result
from benchmarks.table import HERE, README, RESULTS
from tests.benchmarks.test_floor import PEAKS


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
    assert works == ["pre-training", "sampling", "GRPO step", "GRPO step", "GRPO step", "memory of the loss"]
    assert (README.read_text(), sorted(RESULTS.glob("*"))) == kept


@pytest.mark.parametrize("arguments", [("--pairs", "0"), ("--quick", "--write"), ("--write", "--only", "grpo")])
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_a_contest_that_fails_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> float:
        raise RuntimeError("no memory")

    works = {"first": lambda: 2.0, "second": fails}
    contests = {
        name: lambda world, name=name: Contest(name, "s/step", "they", {"a": works[name]}, {"b": lambda: 3.0})
        for name in works
    }
    kept: list[Result] = []
    monkeypatch.setattr(command, "CONTESTS", contests)
    monkeypatch.setattr(command, "in_own_process", command.measured)
    monkeypatch.setattr(command, "silence_warnings", lambda: None)
    monkeypatch.setattr(command, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(command, "measured_peaks", lambda: PEAKS)
    monkeypatch.setattr(command, "write_csv", lambda results, machine: kept.extend(results) or "FILE")
    with pytest.raises(RuntimeError, match="no memory"):
        command.main(["--pairs", "2"])
    assert [(one.contest.work, one.ours.values) for one in kept] == [("first", (2.0, 2.0))]
    said = capsys.readouterr().out
    assert "| first | 2" in said and said.endswith("every pair: FILE\n")
