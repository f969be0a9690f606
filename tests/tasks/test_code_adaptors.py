"""MBPP and HumanEval: the tests that rows become, run here against the rows' own programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.tasks.code_adaptors import MBPP, HumanEval, mbpp_tests, plain_assertion
from r1_lightning.tasks.dataset_task import DatasetTask
from r1_lightning.tasks.family import TASK
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.rows import Rows
from r1_lightning.text.code_tests import TESTS, CodeCase, CodeTests
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem

MBPP_FULL = {
    "task_id": 602,
    "text": "Write a function to add numbers.",
    "code": "def add(a, b):\r\n  return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(-1, 2.5) == 1.5", 'assert add("a", "b") == "ab"'],
    "test_setup_code": "",
    "challenge_test_list": [],
}
MBPP_SANITIZED = {
    "source_file": "x",
    "task_id": 2,
    "prompt": "Write a function to find shared elements.",
    "code": "def shared(a, b):\n  return tuple(set(a) & set(b))",
    "test_imports": ["import math", "import re"],
    "test_list": ["assert set(shared((3, 4), (5, 4))) == set((4,))", "assert shared((1,), (1,)) == (1,)"],
}
HUMANEVAL = {
    "task_id": "HumanEval/38",
    "prompt": "import math\n\n\ndef encode(s: str):\n    return s[::-1]\n\n\ndef decode(s: str):\n    ''' undoes encode '''\n",
    "entry_point": "decode",
    "canonical_solution": "    return encode(s)\n",
    "test": "def check(candidate):\n    assert candidate(encode('abc')) == 'abc'\n",
}


def made(adaptor: Any, values: dict[str, Any]) -> tuple[Problem, CodeTests]:
    problem = adaptor.to_problem(Row(values, "file, row 1"))
    return problem, CodeTests.from_json(problem.metadata[TESTS])


def run(tests: CodeTests, program: str) -> None:
    """What the tests say, in this process: the programs are those of these tests and of published solutions."""
    space: dict[str, Any] = {}
    exec(f"{tests.setup}\n{program}", space)
    if tests.kind == "assert":
        exec(tests.script, space)
        if tests.entry_point:
            space["check"](space[tests.entry_point])
    for case in tests.cases:
        assert space[tests.entry_point](*json.loads(case.given)) == json.loads(case.expected)


def test_plain_assertions_become_calls() -> None:
    problem, tests = made(MBPP(), MBPP_FULL)
    assert (tests.kind, tests.entry_point, tests.setup) == ("call", "add", "")
    assert tests.cases == (
        CodeCase("[1, 2]", "3", is_visible=True),
        CodeCase("[-1, 2.5]", "1.5"),
        CodeCase('["a", "b"]', '"ab"'),
    )
    run(tests, problem.answer)
    with pytest.raises(AssertionError):
        run(tests, "def add(a, b): return 3")
    assert "assert add(1, 2) == 3" in problem.question and "2.5" not in problem.question


def test_the_question_shows_as_many_assertions_as_asked_for() -> None:
    problem, tests = made(MBPP(visible_tests=3), MBPP_FULL)
    assert all(assertion in problem.question for assertion in MBPP_FULL["test_list"])
    assert [case.is_visible for case in tests.cases] == [True] * 3
    with pytest.raises(InvalidInput, match="visible_tests=0"):
        MBPP(visible_tests=0)


def test_other_assertions_stay_a_script() -> None:
    problem, tests = made(MBPP(), MBPP_SANITIZED)
    assert (tests.kind, tests.entry_point, tests.setup) == ("assert", None, "import math\nimport re")
    assert tests.script == "\n".join(MBPP_SANITIZED["test_list"])
    run(tests, problem.answer)
    with pytest.raises(AssertionError):
        run(tests, "def shared(a, b): return ()")


@pytest.mark.parametrize(
    ("assertion", "call"),
    [
        ("assert f() == None", ("f", "[]", "null")),
        ("assert f([[1], {'a': True}]) == {'k': [-1]}", ("f", '[[[1], {"a": true}]]', '{"k": [-1]}')),
        ("assert f('芳') == 10**2", None),  # no literal
        ("assert f((1, 2)) == 3", None),  # JSON has no tuples
        ("assert f([(1, 2)]) == 3", None),
        ("assert f(1) == (1,)", None),
        ("assert f({1: 2}) == 3", None),  # nor keys that are numbers
        ("assert f({1}) == 3", None),
        ("assert f(b'a') == 3", None),
        ("assert f(1e999) == 3", None),  # infinity
        ("assert f('\\ud800') == 3", None),
        ("assert f(x=1) == 3", None),
        ("assert f(*[1]) == 3", None),
        ("assert f(1) != 3", None),
        ("assert f(1)", None),
        ("assert not f(1)", None),
        ("assert 3 == f(1)", None),
        ("assert 1 < f(1) == 3", None),
        ("assert a.f(1) == 3", None),
        ("assert set(f(1)) == {3}", None),
        ("import os; assert f(1) == 3", None),
        ("assert f(1) ==", None),
        ("assert f(" + "(" * 500 + ")" * 500 + ") == 1", None),
    ],
)
def test_what_is_a_plain_assertion(assertion: str, call: tuple[str, str, str] | None) -> None:
    assert plain_assertion(assertion) == call


def test_calls_of_two_functions_are_a_script() -> None:
    assert mbpp_tests(["assert f(1) == 1", "assert g(1) == 1"], 1).kind == "assert"
    assert mbpp_tests(["assert f(1) == 1", "assert f((1,)) == 1"], 1).kind == "assert"


def test_humaneval_puts_what_comes_before_the_function_before_the_answer() -> None:
    problem, tests = made(HumanEval(), HUMANEVAL)
    assert (tests.kind, tests.entry_point, tests.script) == ("assert", "decode", HUMANEVAL["test"])
    assert tests.setup.startswith("import math\n\n\ndef encode(") and "def decode" not in tests.setup
    assert "def encode" in problem.question and problem.metadata["task_id"] == "HumanEval/38"
    assert TASK not in problem.metadata, "it would be measured as a task of its own, as a part of a family is"
    run(tests, "def decode(s):\n    return encode(s)")  # the function alone will do
    run(tests, problem.answer)
    with pytest.raises(AssertionError):
        run(tests, "def decode(s):\n    return s")


def test_real_rows_of_humaneval(shared_dir: Path) -> None:
    task = DatasetTask(HumanEval(), test=Rows(str(shared_dir / "data" / "samples" / "humaneval.jsonl")))
    problems = task.held_out_problems(task.n_held_out)
    assert [problem.metadata["task_id"] for problem in problems[:2]] == ["HumanEval/0", "HumanEval/1"]
    for problem in problems:
        tests = CodeTests.from_json(problem.metadata[TESTS])
        run(tests, problem.answer)
        with pytest.raises((AssertionError, TypeError)):
            run(tests, f"def {tests.entry_point}(*arguments): return None")


BAD = {
    "no tests": (MBPP(), {**MBPP_FULL, "test_list": []}, r"test_list=\[\]"),
    "a test that is a number": (MBPP(), {**MBPP_FULL, "test_list": [1]}, "test_list=1"),
    "no code": (MBPP(), {**MBPP_FULL, "code": ""}, "code=''"),
    "no text": (MBPP(), {"code": "x", "test_list": ["assert f()"]}, "the field 'prompt' is missing"),
    "imports": (MBPP(), {**MBPP_SANITIZED, "test_imports": "import re"}, "test_imports='import re'"),
    "no such function": (HumanEval(), {**HUMANEVAL, "entry_point": "f"}, "the prompt defines no such function"),
    "a name that is a pattern": (
        HumanEval(),
        {**HUMANEVAL, "entry_point": ".*"},
        "the prompt defines no such function",
    ),
    "no check": (HumanEval(), {**HUMANEVAL, "test": "assert True"}, "a function check is needed"),
    "no solution": (HumanEval(), {**HUMANEVAL, "canonical_solution": None}, "canonical_solution=None"),
}


@pytest.mark.parametrize(("adaptor", "values", "message"), BAD.values(), ids=BAD)
def test_a_broken_row_is_named(adaptor: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        made(adaptor, values)
    assert str(error.value).startswith("file, row 1: ") and "\n" not in str(error.value)


def test_what_a_program_is_asked_in_is_the_language_of_its_words() -> None:
    asked = {**MBPP_FULL, "text": "编写一个函数add，把两个数相加。"}
    assert [MBPP().to_problem(Row(row, "r")).language for row in (MBPP_FULL, asked)] == ["en", "zh"]
    code = HUMANEVAL["prompt"].replace("undoes encode", "还原encode的结果")
    asked = {**HUMANEVAL, "prompt": code}
    assert [HumanEval().to_problem(Row(row, "r")).language for row in (HUMANEVAL, asked)] == ["en", "zh"]
