"""What a person is told to type is what works where they stand: `r1 ...`, or a script of the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r1_lightning.run.config import program
from tests.architecture.house import ROOT


@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("train", "train.py"),
        ("export", "export_hf.py"),
        ("models", "model_sizes.py"),
        ("show-problems", "show_problems.py"),
    ],
)
def test_a_command_by_both_ways(command: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/train.py"])
    monkeypatch.chdir(ROOT)
    assert (ROOT / "scripts" / script).is_file()
    assert program.command_line(command) == f"python scripts/{script}"
    monkeypatch.chdir(tmp_path)
    python, path = program.command_line(command).split()
    assert python == "python" and Path(path).samefile(ROOT / "scripts" / script)
    monkeypatch.setattr(program, "SCRIPTS", tmp_path / "scripts")  # as beside an installed package
    assert program.command_line(command) == f"r1 {command}"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["r1 train", "stage=grpo"])
    assert program.command_line(command) == f"r1 {command}"
    assert program.usage(command, "A [B]") == f"usage: r1 {command} A [B]"


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["r1 sample", "name=a b", "stage.samples=4"], "r1 sample 'name=a b' stage.samples=4"),
        (["r1 sample"], "r1 sample"),
        (["scripts/sample.py", "stage.samples=4"], "python scripts/sample.py stage.samples=4"),
    ],
)
def test_the_command_that_runs(argv: list[str], typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert program.typed() == typed
