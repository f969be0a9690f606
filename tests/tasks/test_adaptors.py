"""MATH, AIME, GPQA, CMATH: rows of each published form, real ones where they lie beside the checkout, and broken ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.tasks.adaptors import GPQA, LETTERS, OPTIONS, Aime, CMath, Math
from r1_lightning.tasks.dataset_task import STEPS, DatasetTask
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.rows import Rows
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem

MATH = {
    "problem": "What is $\\frac{1}{2}+1$?",
    "solution": "One and a half: $\\boxed{1}$? No, $\\boxed{\\frac{3}{2}}$.",
    "level": "Level 3",
    "type": "Prealgebra",
}
MATH_500 = {
    "problem": "Convert $(0,3)$ to polar coordinates.",
    "solution": "So $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.$",
    "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
    "subject": "Precalculus",
    "level": 2,
    "unique_id": "test/precalculus/807.json",
}
AIME = {"id": 60, "problem": "Find it.", "answer": "042", "solution": "So 42.", "url": "u", "year": "2024"}
CMATH = {"grade": 3, "question": "多少？", "answer": "9.5", "reasoning_step": 1, "num_digits": 2}
GPQA_ROW = {
    "Question": "Which particle?",
    "Correct Answer": "the electron\n",
    "Incorrect Answer 1": "the proton",
    "Incorrect Answer 2": "the muon",
    "Incorrect Answer 3": "the photon",
    "High-level domain": "Physics",
    "Canary String": "none",
}


def made(adaptor: Any, values: dict[str, Any]) -> Problem:
    problem = adaptor.to_problem(Row(values, "file, row 1"))
    assert problem is not None
    return problem


def answering(answer: str) -> Completion:
    return Completion(f"<think> so </think> <answer> {answer} </answer>", 9, True)


def test_math_with_and_without_an_answer_of_its_own() -> None:
    old, new = made(Math(), MATH), made(Math(), MATH_500)
    assert (old.answer, old.level, old.metadata["subject"]) == ("\\frac{3}{2}", 3, "Prealgebra")
    assert (new.answer, new.level, new.metadata["subject"]) == (MATH_500["answer"], 2, "Precalculus")
    assert old.metadata[STEPS] == MATH["solution"] and old.question == MATH["problem"] and old.language == "en"
    assert made(Math(), {**MATH, "level": "Level ?"}).level == 1
    assert made(Math(), {**MATH_500, "answer": 7}).answer == "7"  # a column of numbers


def test_aime_is_a_whole_number_whatever_its_zeros() -> None:
    assert [made(Aime(), {**AIME, "answer": value}).answer for value in ("042", 42, "42", "0", "999")] == [
        "42",
        "42",
        "42",
        "0",
        "999",
    ]
    assert made(Aime(), AIME).metadata == {STEPS: "So 42."}
    assert made(Aime(), {"problem": "p", "answer": 1}).metadata == {}
    reward = AccuracyReward()
    assert [reward(made(Aime(), AIME), answering(text)).score for text in ("042", "42", "43")] == [1.0, 1.0, 0.0]


def test_cmath_is_chinese_and_its_grade_the_level() -> None:
    problem = made(CMath(), CMATH)
    assert (problem.language, problem.level, problem.answer) == ("zh", 3, "9.5")
    on_the_hub = {key: value for key, value in CMATH.items() if key != "answer"} | {"golden": "9.5"}
    assert made(CMath(), on_the_hub) == problem


def test_gpqa_shuffles_options_by_the_row_alone() -> None:
    problem = made(GPQA(), GPQA_ROW)
    options = json.loads(problem.metadata[OPTIONS])
    assert sorted(options) == ["the electron", "the muon", "the photon", "the proton"]
    assert options[LETTERS.index(problem.answer)] == "the electron"
    shown = [f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=True)]
    assert problem.question.split("\n\n")[1].splitlines() == shown
    assert GPQA().to_problem(Row(GPQA_ROW, "another, row 99")) == problem
    swapped = {**GPQA_ROW, "Incorrect Answer 1": "the muon", "Incorrect Answer 2": "the proton"}
    assert made(GPQA(), swapped).problem_id == problem.problem_id  # the same question
    assert len({made(GPQA(options_seed=seed), GPQA_ROW).question for seed in range(20)}) > 5  # of 24 orders


def test_gpqas_right_letters_are_spread() -> None:
    """400 rows: 100 of each letter are expected, with a standard deviation of sqrt(400 * 3/16) = 8.7."""
    letters = Counter(made(GPQA(), {**GPQA_ROW, "Question": f"Question {number}?"}).answer for number in range(400))
    assert set(letters) == set(LETTERS) and all(abs(count - 100) < 4 * 8.7 for count in letters.values())


BAD = {
    "math: no level": (Math(), {**MATH, "level": None}, "level=None"),
    "math: level": (Math(), {**MATH, "level": "Level 6"}, "level='Level 6' is not allowed: it must be a whole number"),
    "math: missing": (Math(), {"solution": "x", "level": 1}, "the field 'problem' is missing"),
    "math: no box": (Math(), {**MATH, "solution": "It is 5."}, "solution='' is not allowed: an answer has 1 to"),
    "math: empty answer": (Math(), {**MATH_500, "answer": " "}, "answer=' ' is not allowed"),
    "math: long answer": (Math(), {**MATH_500, "answer": "1" * 1001}, "1 to 1000 characters"),
    "aime: too large": (Aime(), {**AIME, "answer": 1000}, "a whole number from 0 to 999"),
    "aime: negative": (Aime(), {**AIME, "answer": "-1"}, "answer='-1'"),
    "aime: a half": (Aime(), {**AIME, "answer": "1/2"}, "answer='1/2'"),
    "aime: words": (Aime(), {**AIME, "answer": "forty-two"}, "answer='forty-two'"),
    "aime: surrogate": (Aime(), {**AIME, "problem": "\ud800"}, "valid Unicode"),
    "cmath: no answer": (CMath(), {"question": "q", "grade": 1}, "the field 'answer' is missing"),
    "cmath: grade": (CMath(), {**CMATH, "grade": "first"}, "grade='first'"),
    "cmath: null": (CMath(), {**CMATH, "question": None}, "question=None"),
    "gpqa: missing": (GPQA(), {**GPQA_ROW, "Incorrect Answer 3": ""}, "Incorrect Answer 3=''"),
    "gpqa: ambiguous": (GPQA(), {**GPQA_ROW, "Incorrect Answer 2": "the electron"}, "also stands among the wrong ones"),
}


@pytest.mark.parametrize(("adaptor", "values", "message"), BAD.values(), ids=BAD)
def test_a_broken_row_is_named(adaptor: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        adaptor.to_problem(Row(values, "file, row 1"))
    assert str(error.value).startswith("file, row 1: ") and "\n" not in str(error.value)


def test_a_bad_seed_is_named() -> None:
    with pytest.raises(InvalidInput, match="options_seed=-1"):
        GPQA(options_seed=-1)


def test_every_answer_is_right_under_its_reward() -> None:
    problems = [made(Math(), MATH), made(Math(), MATH_500), made(Aime(), AIME), made(GPQA(), GPQA_ROW)]
    problems.append(made(CMath(), CMATH))
    reward = MathReward(workers=1)
    try:
        right = reward.judge_many([(problem, answering(problem.answer)) for problem in problems])
        boxed = reward.judge_many([(problem, answering(f"\\boxed{{{problem.answer}}}")) for problem in problems])
        wrong = reward.judge_many(
            [(problem, answering("E" if problem.answer in LETTERS else "17")) for problem in problems]
        )
    finally:
        reward.close()
    assert [verdict.score for verdict in right + boxed + wrong] == [1.0] * 10 + [0.0] * 5


@pytest.mark.parametrize(
    ("name", "adaptor", "answers"), [("aime24", Aime(), ["204", "113"]), ("cmath", CMath(), ["9", "68"])]
)
def test_real_rows(shared_dir: Path, name: str, adaptor: Any, answers: list[str]) -> None:
    task = DatasetTask(adaptor, test=Rows(str(shared_dir / "data" / "samples" / f"{name}.jsonl")))
    problems = task.held_out_problems(task.n_held_out)
    assert [problem.answer for problem in problems[:2]] == answers
    reward = AccuracyReward()
    assert all(reward(problem, answering(problem.answer)).score == 1.0 for problem in problems)
    assert {problem.language for problem in problems} == {"zh" if name == "cmath" else "en"}


@pytest.mark.parametrize(
    ("adaptor", "values", "field"),
    [
        (Math(), MATH, "problem"),
        (Aime(), AIME, "problem"),
        (GPQA(), GPQA_ROW, "Question"),
        (CMath(), CMATH, "question"),
    ],
)
def test_a_row_in_chinese_is_a_problem_in_chinese(adaptor: Any, values: dict[str, Any], field: str) -> None:
    assert made(adaptor, {**values, field: "求$x^2+y=3$的解，其中三角形ABC的面积是12cm²"}).language == "zh"
    if field != "question":
        assert made(adaptor, values).language == "en"
