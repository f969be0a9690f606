"""Scoring with reasoning-gym's own scorers: what they say is passed on, and no text is evaluated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.rewards.verifiers import task_worker
from r1_lightning.rewards.verifiers.task_worker import judge
from r1_lightning.tasks.reasoning_gym_task import ENTRY, ReasoningGymTask
from r1_lightning.types.text import Problem

pytest.importorskip("reasoning_gym", reason="needs the extra `tasks`")


def problem(name: str) -> Problem:
    return ReasoningGymTask({name: 1.0}, held_out=1).train_problem(0, 0)


def test_scores_are_the_generators_own() -> None:
    asked = problem("chain_sum")
    recipe = asked.metadata[ENTRY]
    assert judge(asked.answer, recipe) == (1.0, "scored 1 by chain_sum", True)
    # Their default: the length of the reference divided by that of an answer that contains it.
    padded = f"it is {asked.answer}"
    score, why, healthy = judge(padded, recipe)
    assert score == len(asked.answer) / len(padded) and why.endswith("by chain_sum") and healthy
    assert judge("nothing", recipe)[0] == 0.0


def test_another_right_answer_is_right() -> None:
    asked = problem("countdown")
    assert judge(f"({asked.answer})", asked.metadata[ENTRY])[0] == 1.0  # not the reference's text
    assert judge(asked.answer + " + 1", asked.metadata[ENTRY])[0] < 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').mkdir('made-by-an-answer')",
        "().__class__",
        "9**9**9",
        "9* *9",
        "9//2",
        "1e9",
        "x",
        "1\n",
        "1+" * 101 + "1",
    ],
)
def test_what_is_no_arithmetic_never_reaches_the_parser(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert judge(answer, problem("countdown").metadata[ENTRY]) == (0.0, "not plain arithmetic", True)
    assert list(tmp_path.iterdir()) == []


def test_excluded_generators_are_not_scored_whatever_the_recipe_says(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = json.dumps({"generator": "n_queens", "parameters": "{}", "seed": 1, "problem_id": "x"})
    score, why, healthy = judge("__import__('os').mkdir('made-by-an-answer')", recipe)
    assert (score, healthy) == (0.0, True) and "evaluates the model's text" in why
    assert list(tmp_path.iterdir()) == []


def test_errors_are_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Raises:
        def __init__(self, error: BaseException | float) -> None:
            self.error = error

        def score_answer(self, answer: str, entry: object) -> float:
            if isinstance(self.error, BaseException):
                raise self.error
            return self.error

    found = []
    for error in (ValueError("no"), RecursionError(), MemoryError(), float("nan"), 1.5, -0.1):
        monkeypatch.setattr("r1_lightning.tasks.reasoning_gym_task.entry_of", lambda recipe, e=error: (Raises(e), {}))
        found.append(judge("1", '{"generator": "gcd"}'))
    assert found == [
        (0.0, "not scored (ValueError)", True),
        (0.0, "too deeply nested", True),
        (0.0, "out of memory", False),
        (0.0, "a score of nan is none", True),
        (0.0, "a score of 1.5 is none", True),
        (0.0, "a score of -0.1 is none", True),
    ]
    assert set(task_worker.MUST_MATCH) == {"countdown"}


def test_the_program_serves_tasks() -> None:
    asked = problem("gcd")
    lines = [[asked.answer, asked.metadata[ENTRY]], ["no", asked.metadata[ENTRY]]]
    command = [sys.executable, "-m", "r1_lightning.rewards.verifiers.task_worker", str(1024 * 2**20), "5.0"]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        "ready",
        [1.0, "scored 1 by gcd"],
        [0.0, "scored 0 by gcd"],
    ]
    assert done.returncode == 0
