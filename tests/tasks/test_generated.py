"""What all generated tasks promise: number n is a function of (seed, n), and the held-out set is the same for every seed."""

from __future__ import annotations

from collections import Counter

import pytest

from r1_lightning.tasks import generated
from r1_lightning.tasks.arithmetic_preferences import ArithmeticPreferences
from r1_lightning.tasks.equations import EquationsTask
from r1_lightning.tasks.general import GeneralPreferences, GeneralTask
from r1_lightning.tasks.generated import GeneratedPreferences, GeneratedTask, distinct_held_out
from r1_lightning.tasks.logic import ComparisonTask
from r1_lightning.tasks.programs import ProgramsTask
from r1_lightning.tasks.safety import SafetyLabels, SafetyTask
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem

TASKS = (ComparisonTask(), EquationsTask(), GeneralTask(), ProgramsTask(), SafetyTask())
PREFERENCES = (ArithmeticPreferences(), GeneralPreferences(), SafetyLabels())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.stream)
def test_everything_is_a_function_of_seed_and_number(task: GeneratedTask) -> None:
    assert list(task.documents(3, 5, 4)) == list(task.documents(3, 0, 9))[5:]
    assert task.train_problem(1, 7) == task.train_problem(1, 7) != task.train_problem(2, 7)
    assert task.solved_problem(1, 7).problem == task.train_problem(1, 7)
    assert task.held_out_problems(20)[:10] == task.held_out_problems(10)
    assert Counter(p.language for p in task.held_out_problems(20)) == {"en": 10, "zh": 10}


@pytest.mark.parametrize("pairs", PREFERENCES, ids=lambda pairs: pairs.stream)
def test_preferences_are_a_function_of_seed_and_number(pairs: GeneratedPreferences) -> None:
    first = pairs.training_items(0, 20)
    assert pairs.training_items(0, 5) == first[:5] and pairs.training_items(1, 20) != first
    assert pairs.held_out_items(4) == pairs.held_out_items(8)[:4]
    assert not {item.question for item in pairs.held_out_items(20)} & {item.question for item in first}


@pytest.mark.parametrize(
    ("task", "count", "draws"),
    [(TASKS[0], 9, 1), (TASKS[1], 5, 1), (TASKS[2], 5_000, 5), (TASKS[3], 5, 1), (TASKS[4], 5_000, 5)],
    ids=lambda value: getattr(value, "stream", None),
)
def test_too_many_held_out_problems_are_refused(
    task: GeneratedTask, count: int, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One draw in eight may be tested on: so few draws cannot find as many."""
    monkeypatch.setattr(generated, "DRAWS_PER_HELD_OUT_PROBLEM", draws)
    message = rf"held_out_problems={count} is not allowed: these {task.item_plural} give only (\d+) of them"
    with pytest.raises(InvalidInput, match=message) as refused:
        task.held_out_problems(count)
    assert int(str(refused.value).split("give only ")[1].split(" ")[0]) < count


def test_no_two_tasks_share_a_stream_or_a_held_out_seed() -> None:
    assert len({task.stream for task in TASKS}) == len({task.held_out_seed for task in TASKS}) == len(TASKS)
    assert len({pairs.stream for pairs in PREFERENCES}) == len(PREFERENCES)


def test_held_out_problems_are_distinct_and_alternate() -> None:
    given = iter([None, "a", "a", None, "b", "c"])

    def draw(language):
        key = next(given)
        return key and Problem(key, "", key, language)

    found = distinct_held_out(draw, 3, 2, "tries")
    assert [(p.problem_id, p.language) for p in found] == [("a", "en"), ("b", "zh"), ("c", "en")]
    with pytest.raises(InvalidInput, match="held_out_problems=2 is not allowed: these tries give only 1 of them"):
        distinct_held_out(lambda language: Problem("a", "", "a", language), 2, 10, "tries")
    with pytest.raises(InvalidInput, match="held_out_problems=0"):
        distinct_held_out(draw, 0, 1, "tries")
