"""LiveCodeBench: both types of tests, both ways they are published, and the window of days."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

import pytest

from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.livecodebench import LiveCodeBench
from r1_lightning.text.code_tests import TESTS, CodeCase, CodeTests
from r1_lightning.types.errors import InvalidInput

STDIN = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
HIDDEN = [{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}, {"input": "", "output": "", "testtype": "stdin"}]


def packed(cases: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


ROW = {
    "question_title": "Sum",
    "question_content": "Print the sum.\n",
    "platform": "atcoder",
    "question_id": "abc1",
    "contest_date": "2024-08-03T00:00:00",
    "starter_code": "",
    "difficulty": "medium",
    "public_test_cases": json.dumps(STDIN),
    "private_test_cases": packed(HIDDEN),
    "metadata": "{}",
}
FUNCTIONAL = {
    **ROW,
    "platform": "leetcode",
    "starter_code": "class Solution:\n    def pairs(self, nums: List[int], k: Dict[str, int] = {}) -> List[List[int]]:\n        ",
    "metadata": '{"func_name": "pairs"}',
    "public_test_cases": json.dumps([{"input": '[1, 2]\n{"a": 3}', "output": "[[1, 2]]", "testtype": "functional"}]),
    "private_test_cases": packed([{"input": "[]\n{}\n", "output": " []\n", "testtype": "functional"}]),
}


def made(values: dict[str, Any], adaptor: LiveCodeBench | None = None):
    return (adaptor or LiveCodeBench()).to_problem(Row(values, "file, row 1"))


def test_programs_that_read_and_print() -> None:
    problem = made(ROW)
    tests = CodeTests.from_json(problem.metadata[TESTS])
    assert (tests.kind, tests.entry_point, tests.setup) == ("stdin", None, "")
    assert tests.cases == (CodeCase("1 2\n", "3\n", is_visible=True), CodeCase("5 6\n", "11\n"), CodeCase("", ""))
    assert (problem.level, problem.answer, problem.metadata["date"]) == (2, "", "2024-08-03")
    assert problem.question.startswith("Print the sum.\n\nWrite a Python program that reads standard input")


def test_functions_become_calls_of_a_plain_function() -> None:
    problem = made(FUNCTIONAL)
    tests = CodeTests.from_json(problem.metadata[TESTS])
    assert (tests.kind, tests.entry_point, tests.setup) == ("call", "pairs", "from typing import *")
    assert tests.cases == (CodeCase('[[1, 2], {"a": 3}]', "[[1, 2]]", is_visible=True), CodeCase("[[], {}]", "[]"))
    assert "def pairs(nums: List[int], k: Dict[str, int]={}) -> List[List[int]]:" in problem.question
    assert "self" not in problem.question and "Solution" not in problem.question


def test_hidden_tests_may_be_plain_json() -> None:
    assert made({**ROW, "private_test_cases": json.dumps(HIDDEN)}) == made(ROW)
    assert made({**ROW, "private_test_cases": HIDDEN}) == made(ROW)  # columns of objects, as Parquet would have them


def test_the_window_of_days_has_both_ends() -> None:
    papers = LiveCodeBench("2024-08-01", "2025-01-31")
    days = ("2024-07-31", "2024-08-01", "2025-01-31T23:59:59", "2025-02-01")
    inside = [made({**ROW, "contest_date": day}, papers) is not None for day in days]
    assert inside == [False, True, True, False]
    assert made({**ROW, "contest_date": "2030-01-01"}, LiveCodeBench("2024-08-01")) is not None


def program() -> str:
    return base64.b64encode(zlib.compress(b"cos\nsystem\n(S'exit 1'\ntR.")).decode()


BAD = {
    "a program in the pickle": ({"private_test_cases": program()}, "private_test_cases=.*holds more than a string"),
    "no base64": ({"private_test_cases": "x y"}, "private_test_cases='x y' .*not base64"),
    "no JSON": ({"public_test_cases": "[1"}, "public_test_cases="),
    "no array": (
        {"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps("{}"))).decode()},
        "an array of tests",
    ),
    "no objects": ({"public_test_cases": "[1]"}, r"public_test_cases\[0\]=1"),
    "type": ({"public_test_cases": '[{"input": "", "output": "", "testtype": "gpu"}]'}, "testtype='gpu'"),
    "no output": ({"public_test_cases": '[{"input": "", "testtype": "stdin"}]'}, "the field 'output' is missing"),
    "mixed": ({"public_test_cases": FUNCTIONAL["public_test_cases"]}, "all stdin or all functional"),
    "none": ({"public_test_cases": "[]", "private_test_cases": "[]"}, "all stdin or all functional"),
    "difficulty": ({"difficulty": "absurd"}, "difficulty='absurd'"),
    "day": ({"contest_date": "yesterday at noon"}, "contest_date='yesterday at noon'"),
    "no name": ({**FUNCTIONAL, "metadata": "{}"}, "it must name func_name"),
    "bad metadata": ({**FUNCTIONAL, "metadata": "[" * 9}, "it must name func_name"),
    "another method": ({**FUNCTIONAL, "metadata": '{"func_name": "f"}'}, "it must define the method f"),
    "no Python": ({**FUNCTIONAL, "starter_code": "class {"}, "it must define the method pairs"),
    "arguments": (
        {**FUNCTIONAL, "public_test_cases": '[{"input": "nums", "output": "1", "testtype": "functional"}]'},
        r"public_test_cases: tests.cases\[0\].given=.*must be JSON",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_broken_row_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        made({**ROW, **changes})
    assert str(error.value).startswith("file, row 1") and "\n" not in str(error.value)


@pytest.mark.parametrize("day", ["2024-8-1", "soon", "20240801", "2024-02-30"])
def test_a_bad_day_is_named(day: str) -> None:
    with pytest.raises(InvalidInput, match=f"first_date='{day}'"):
        LiveCodeBench(first_date=day)


def test_the_language_is_that_of_the_content_not_of_our_own_words_around_it() -> None:
    assert made(ROW).language == "en"
    assert made({**ROW, "question_content": "求和并输出。"}).language == "zh"
    assert made({**FUNCTIONAL, "question_content": "返回所有数对。"}).language == "zh"
