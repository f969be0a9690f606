"""What `write_traces.py` writes, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from r1_lightning.run.commands.write_traces import main, write_traces
from tests.architecture.house import ROOT


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_for_the_cold_start(tmp_path: Path) -> None:
    file = tmp_path / "new" / "cold.jsonl"
    said = write_traces(["task=r1_tiny", "count=60", f"file={file}"])
    assert said == f"60 rows, form r1, domains reasoning: {file}"
    rows = rows_of(file)
    assert len(rows) == 60 and all("\\boxed{" in row["completion"] for row in rows)
    assert {row["domain"] for row in rows} == {"reasoning"} and set(Counter(row["language"] for row in rows)) == {
        "en",
        "zh",
    }
    assert "，" in file.read_text(encoding="utf-8"), "Chinese is written as it reads"


def test_rows_go_on_where_another_file_ended(tmp_path: Path) -> None:
    whole, second = tmp_path / "whole.jsonl", tmp_path / "second.jsonl"
    write_traces(["task=equations", "count=6", "form=r1_zero", f"file={whole}"])
    write_traces(["task=equations", "count=2", "start=4", "form=r1_zero", f"file={second}"])
    assert rows_of(second) == rows_of(whole)[4:]
    assert all(row["completion"].endswith("</answer>") for row in rows_of(whole))


def test_other_domains(tmp_path: Path) -> None:
    file = tmp_path / "general.jsonl"
    write_traces(["task=r1_tiny", "count=40", "domains=general,safety", f"file={file}"])
    assert {row["domain"] for row in rows_of(file)} == {"general", "safety"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=r1_tiny", "file={}/a.jsonl"], "count='' is not allowed"),
        (["task=r1_tiny", "count=0", "file={}/a.jsonl"], "count=0 is not allowed"),
        (["task=r1_tiny", "count=2", "start=x", "file={}/a.jsonl"], "start='x' is not allowed"),
        (["task=r1_tiny", "count=2"], "file='' is not allowed: a name that ends in .jsonl"),
        (["task=r1_tiny", "count=2", "file={}/there.jsonl"], "it is there already, and nothing is overwritten"),
        (["task=r1_tiny", "count=2", "form=r2", "file={}/a.jsonl"], "form='r2' is not allowed"),
        (["task=r1_tiny", "count=2", "domains=law", "file={}/a.jsonl"], "domains=['law'] is not allowed"),
        (
            ["task=equations", "count=2", "domains=general", "file={}/a.jsonl"],
            "only a family of tasks has other domains",
        ),
        (["task=aime24", "count=2", "file={}/a.jsonl"], "has no training rows here, only held-out problems"),
        (["task=r1_stage_2", "count=2", "file={}/a.jsonl"], "it does not say how its problems are solved"),
        (
            ["task=equations", "task.source.max_level=9", "count=2", "file={}/a.jsonl"],
            "task.source.max_level=9 is not allowed",
        ),
    ],
)
def test_bad_input_ends_with_one_line(arguments, message, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "there.jsonl").write_text("kept")
    monkeypatch.setattr(sys, "argv", ["write_traces.py", *(argument.format(tmp_path) for argument in arguments)])
    assert main() == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.jsonl"] and (
        tmp_path / "there.jsonl"
    ).read_text() == "kept"


@pytest.mark.slow
def test_the_script_says_how_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "write_traces.py"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and "usage: python scripts/write_traces.py" in done.stdout
