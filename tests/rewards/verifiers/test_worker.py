"""The worker as a program: its greeting, its answers, what it survives, and when it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from r1_lightning.rewards.verifiers import worker
from r1_lightning.rewards.verifiers.worker import judge


def run(lines: list[Any], memory_mb: int = 1024) -> tuple[list[Any], int]:
    """What a worker writes for these tasks before its input ends, and its exit code."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    command = [sys.executable, "-m", "r1_lightning.rewards.verifiers.worker", str(memory_mb * 2**20), "2.0"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def test_one_line_per_task_and_an_end_with_its_input() -> None:
    answers, code = run([["x+1", "1+x"], ["x", "y"], ["\ud800", "42"], ["a\nb", "42"]])
    assert answers[0] == "ready" and [answer[0] for answer in answers[1:]] == [True, False, False, False] and code == 0


def test_no_errors_but_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[BaseException] = [ValueError("no"), RecursionError(), MemoryError()]

    def fails(given: str, reference: str) -> None:
        raise raised.pop(0)

    monkeypatch.setattr("r1_lightning.rewards.equality.structure.compare", fails)
    found = [judge("1", "1") for _ in range(3)]
    assert found == [
        (False, "not comparable (ValueError)", True),
        (False, "too deeply nested", True),
        (False, "out of memory", False),
    ]
    assert worker.SPARE_CPU_S > 0


def test_text_that_recurses_is_a_verdict() -> None:
    assert judge("-" * 300 + "1", "7x") == (False, "too deeply nested", True)
