"""What `show_problems.py` prints, and how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.run.commands.show_problems import SHOWN_CHARS, main, problems_of, show
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.text import Problem
from tests.architecture.house import ROOT


@pytest.fixture
def aime(tmp_path: Path) -> str:
    rows = [{"problem": f"Find {number}.", "answer": number} for number in range(5)]
    (tmp_path / "aime.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"task.source.test.file={tmp_path / 'aime.jsonl'}"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["show_problems.py", *arguments])
    return main()


def test_problems_and_counts_are_printed(aime: str, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "task=aime24", "count=2", aime) == 0
    printed = capsys.readouterr().out
    assert printed.count("--- ") == 2 and "User: Find 1.. Assistant:\nanswer: 1\n" in printed
    assert printed.endswith("\n\n2 problems; en, level 1: 2\n")


def test_counts_are_by_language_and_level_and_long_fields_are_cut() -> None:
    problems = [Problem("q", "a" * 3000, "x", level=2, metadata={"k": "v", "empty": ""}), Problem("q", "a", "y", "zh")]
    text = show(problems, PLAIN)
    assert text.endswith("2 problems; en, level 2: 1; zh, level 1: 1")
    assert f"{'a' * SHOWN_CHARS}... (3000 characters)\nk: v\n" in text and "empty" not in text


def test_training_problems_come_by_the_seed() -> None:
    first, _ = problems_of(["task=arithmetic", "count=4", "from=train"])
    again, template = problems_of(["task=arithmetic", "count=4", "from=train", "seed=0"])
    other, _ = problems_of(["task=arithmetic", "count=4", "from=train", "seed=1"])
    assert first == again != other and len(first) == 4 and template.name == "r1_zero"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=nothing"], "task='nothing' is not allowed: it must be one of aime24,"),
        (["task=aime24", "count=0"], "count=0 is not allowed"),
        (["task=aime24", "count=many"], "count='many' is not allowed"),
        (["task=aime24", "from=both"], "from='both' is not allowed: it must be one of test, train"),
        (["task=aime24", "from=train"], "aime has no training rows here"),
        (["task=aime24", "task.source.test.fille=x"], "task.source.test.fille"),
        (["task=gpqa", "task.source.adaptor.options_seed=-1"], "options_seed=-1"),
        (["task=gsm8k", "paths.data=nowhere"], "nowhere/gsm8k/test.jsonl is not readable"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    aime: str, arguments: list[str], message: str, monkeypatch, capsys
) -> None:
    assert run(monkeypatch, *arguments, *([aime] if "task=aime24" in arguments else [])) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert re.search(message, errors), errors


def test_help_and_no_arguments(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "--help") == 0 and run(monkeypatch) == 2
    assert capsys.readouterr().out.count("usage: python scripts/show_problems.py task=NAME") == 2


@pytest.mark.slow
def test_the_script(aime: str) -> None:
    command = [sys.executable, "scripts/show_problems.py", "task=aime24", "count=1", aime]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "answer: 0" in done.stdout, done.stderr[-500:]
