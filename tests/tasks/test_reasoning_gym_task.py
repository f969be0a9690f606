"""Problems of reasoning-gym: keyed, split without overlap, and made again alike."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from r1_lightning.tasks import reasoning_gym_task
from r1_lightning.tasks.reasoning_gym_task import ENTRY, EXCLUDED, ReasoningGymTask, entry_of
from r1_lightning.types.errors import InvalidInput
from tests.architecture.house import ROOT

needs_library = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra `tasks`")


@needs_library
def test_problems_are_a_function_of_seed_and_index() -> None:
    task, again = (ReasoningGymTask({"chain_sum": 1.0, "gcd": 1.0}, held_out=5) for _ in range(2))
    first = [task.train_problem(3, index) for index in range(20)]
    assert [again.train_problem(3, index) for index in reversed(range(20))] == first[::-1]
    assert [task.train_problem(4, index) for index in range(20)] != first
    assert len({problem.problem_id for problem in first}) == 20
    assert task.held_out_problems(3) == again.held_out_problems(5)[:3]
    assert task.content_version == again.content_version and task.content_version.startswith("reasoning_gym-1-")


@needs_library
def test_training_and_held_out_problems_never_meet() -> None:
    """Sums of two digits: 100 questions (or fewer), so that training has to avoid what is held out again and again."""
    digits = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    task = ReasoningGymTask({"chain_sum": 1.0}, {"chain_sum": digits}, held_out=30)
    held_out = {problem.question for problem in task.held_out_problems(30)}
    trained = [task.train_problem(0, index) for index in range(200)]
    assert len(held_out) == 30 and not held_out & {problem.question for problem in trained}
    assert len({problem.question for problem in trained}) < 150  # they repeat: the space is small
    seeds = [json.loads(problem.metadata[ENTRY])["seed"] for problem in trained]
    assert all(seed % 2 == 1 for seed in seeds)
    assert all(json.loads(problem.metadata[ENTRY])["seed"] % 2 == 0 for problem in task.held_out_problems(30))


@needs_library
def test_a_generator_that_is_used_up_says_so() -> None:
    digits = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    with pytest.raises(InvalidInput, match="held_out=300 is not allowed: chain_sum repeats itself"):
        ReasoningGymTask({"chain_sum": 1.0}, {"chain_sum": digits}, held_out=300).held_out_problems(1)


@needs_library
def test_generators_are_drawn_by_weight() -> None:
    """1 to 3: of 400 problems 100 are expected of the first, with a standard deviation of sqrt(400 * 3/16) = 8.7."""
    task = ReasoningGymTask({"gcd": 1, "chain_sum": 3}, held_out=1)
    drawn = [task.train_problem(0, index).metadata["generator"] for index in range(400)]
    assert abs(drawn.count("gcd") - 100) < 4 * 8.7 and drawn.count("gcd") + drawn.count("chain_sum") == 400


@needs_library
def test_an_entry_is_made_again_from_its_recipe() -> None:
    problem = ReasoningGymTask({"countdown": 1.0}, held_out=1).train_problem(0, 0)
    generator, entry = entry_of(problem.metadata[ENTRY])
    assert entry["question"].strip() == problem.question and entry["answer"] == problem.answer
    assert generator.score_answer(problem.answer, entry) == 1.0
    other = json.loads(problem.metadata[ENTRY]) | {"seed": 5}
    with pytest.raises(InvalidInput, match="makes another problem of seed 5"):
        entry_of(json.dumps(other))


BAD = {
    "none": ({"weights": {}}, "weights={} is not allowed: at least one generator"),
    "weight": ({"weights": {"gcd": 0}}, "weights.gcd=0 is not allowed"),
    "text": ({"weights": {"gcd": "one"}}, "weights.gcd='one'"),
    "evaluates": ({"weights": {"n_queens": 1}}, "weights='n_queens' is not allowed: its scorer evaluates"),
    "hackable": ({"weights": {"game_of_life_halting": 1}}, "gives 1.0 to text that is no answer"),
    "stranger": (
        {"weights": {"gcd": 1}, "parameters": {"lcm": {}}},
        "parameters='lcm' is not allowed: weights has gcd",
    ),
    "seed": ({"weights": {"gcd": 1}, "parameters": {"gcd": {"seed": 1}}}, "seed and size belong to the task"),
    "held out": ({"weights": {"gcd": 1}, "held_out": 0}, "held_out=0"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_named_without_the_library(arguments, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        ReasoningGymTask(**arguments)


@needs_library
@pytest.mark.parametrize(
    ("name", "parameters"), [("no_such", {}), ("gcd", {"no_such": 1}), ("gcd", {"min_value": 5, "max_value": 1})]
)
def test_what_the_library_refuses_is_one_line(name, parameters) -> None:
    with pytest.raises(InvalidInput, match=f"weights='{name}' with parameters") as error:
        ReasoningGymTask({name: 1.0}, {name: parameters}).train_problem(0, 0)
    assert "\n" not in str(error.value)


@needs_library
def test_what_there_is_not() -> None:
    task = ReasoningGymTask({"gcd": 1.0}, held_out=3)
    with pytest.raises(InvalidInput, match="no worked solutions to pre-train on"):
        task.documents(0, 0, 1)
    with pytest.raises(InvalidInput, match=r"held_out_problems=4 .*at most 3"):
        task.held_out_problems(4)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    reasoning_gym_task._library.cache_clear()
    try:
        with pytest.raises(InvalidInput, match=r"reasoning-gym is not installed .*pip install -e '.\[tasks\]'"):
            _ = ReasoningGymTask({"gcd": 1.0}).content_version
    finally:
        reasoning_gym_task._library.cache_clear()


SEEN_BY = """
import hashlib, json, sys
from r1_lightning.tasks.reasoning_gym_task import EXCLUDED, ReasoningGymTask, _library, entry_of
found = {}
for name in sys.argv[1:] or sorted(set(_library().factory.DATASETS) - set(EXCLUDED)):
    task = ReasoningGymTask({name: 1.0}, held_out=1)
    problems = [task.train_problem(0, index) for index in range(4)]
    texts = [p.question + p.answer for p in problems]
    scores = []
    for problem in problems:
        generator, entry = entry_of(problem.metadata["reasoning_gym"])
        scores.append(float(generator.score_answer(problem.answer, entry)))
    junk = 0.0
    try:
        junk = float(generator.score_answer("xyzzy", entry))
    except Exception:
        pass
    found[name] = [hashlib.sha256("".join(texts).encode()).hexdigest(), scores, junk]
print()  # some generators print dots
print(json.dumps(found))
"""


def seen_by(hash_seed: int, *names: str) -> dict[str, list]:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SEEN_BY, *names], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@needs_library
def test_two_processes_make_the_same_problems() -> None:
    assert seen_by(1, "chain_sum", "countdown", "gcd") == seen_by(2, "chain_sum", "countdown", "gcd")


@needs_library
@pytest.mark.slow
def test_every_generator_let_in_deserves_it() -> None:
    """The same problems whatever PYTHONHASHSEED, reference answers that score 1.0, and 1.0 for no nonsense."""
    first, second = seen_by(1), seen_by(2)
    assert first == second and len(first) > 75
    assert {name: scores for name, (_, scores, _) in first.items() if scores != [1.0] * 4} == {}
    assert {name: junk for name, (_, _, junk) in first.items() if junk == 1.0} == {}
    assert not set(first) & set(EXCLUDED)
