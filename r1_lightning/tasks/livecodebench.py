"""LiveCodeBench (Jain et al. 2024, arXiv:2403.07974): contest problems with public and hidden tests, and their publication dates.

DeepSeek-R1 is evaluated on the problems from August 2024 to January 2025 (arXiv:2501.12948, section 3): `first_date`, `last_date`.

A row's tests all have one type. "stdin": a program reads the input and prints the output. "functional": each line of the input is
one argument as JSON, the output is the value as JSON, and the row's `metadata` names the function. Public tests are visible,
private tests hidden; private tests are JSON, or a packed string that `pickled_text` reads without unpickling. `code_adaptors` lists
how questions differ from the published ones.
"""

from __future__ import annotations

import ast
import datetime
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from r1_lightning.tasks.code_adaptors import IN_A_BLOCK, checked_tests
from r1_lightning.tasks.fields import Row, question_id
from r1_lightning.tasks.pickled_text import packed_text
from r1_lightning.text.code_tests import TESTS, CodeCase
from r1_lightning.text.language import question_language
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.text import Problem

LEVELS = {"easy": 1, "medium": 2, "hard": 3}
SETUP = "from typing import *"  # because the signatures use List and Optional
_KINDS = {"stdin": "stdin", "functional": "call"}


@dataclass(frozen=True)
class LiveCodeBench:
    """Rows with `question_content`, `starter_code`, `difficulty`, `contest_date`, and tests.

    Args:
        first_date, last_date: dates as "2024-08-01", both included; rows of other dates are skipped. None: no bound.
    """

    first_date: str | None = None
    last_date: str | None = None

    name: ClassVar[str] = "livecodebench"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for field in ("first_date", "last_date"):
            value = getattr(self, field)
            require(value is None or _day(value) is not None, field, value, "it must be a day such as '2024-08-01'")

    def to_problem(self, row: Row) -> Problem | None:
        day = _day(row.text("contest_date")[:10])
        if day is None:
            row.refuse("contest_date", row.value("contest_date"), "it must begin with a day such as 2024-08-01")
        if (self.first_date and day < self.first_date) or (self.last_date and day > self.last_date):
            return None
        content, level = row.text("question_content").strip(), LEVELS.get(row.text("difficulty").strip())
        if level is None:
            row.refuse("difficulty", row.value("difficulty"), f"it must be one of {', '.join(LEVELS)}")
        public, private = _cases(row, "public_test_cases", True), _cases(row, "private_test_cases", False)
        kinds = {kind for kind, _ in public + private}
        if len(kinds) != 1:
            row.refuse("public_test_cases", sorted(kinds), "the tests of one problem are all stdin or all functional")
        kind = kinds.pop()
        tests: dict[str, Any] = {"kind": kind, "cases": tuple(case for _, case in public + private)}
        how = "Write a Python program that reads standard input and writes to standard output."
        if kind == "call":
            tests |= {"entry_point": _function_name(row), "setup": SETUP}
            how = f"Write this Python function:\n\n```python\n{SETUP}\n\n{_signature(row)}\n```"
        metadata = {
            TESTS: checked_tests(row, "public_test_cases", tests).to_json(),
            "date": day,
            "platform": row.optional_text("platform"),
        }
        problem_id = question_id(self.name, content)
        asked, language = f"{content}\n\n{how}\n\n{IN_A_BLOCK}", question_language(content)
        return Problem(asked, "", problem_id, language, level, metadata)


def _cases(row: Row, name: str, is_visible: bool) -> list[tuple[str, CodeCase]]:
    """Return (kind, case) of each test in a field."""
    packed = row.value(name)
    text = packed if isinstance(packed, str) else json.dumps(packed)
    try:
        values = json.loads(text if text.lstrip().startswith("[") else packed_text(text))
    except (ValueError, RecursionError) as error:
        row.refuse(name, text, f"it must be a JSON array of tests, or that packed in a pickle of one string ({error})")
    if not isinstance(values, list):
        row.refuse(name, values, "it must be an array of tests")
    cases = []
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            row.refuse(f"{name}[{number}]", value, "it must be an object with input, output and testtype")
        test = Row(value, f"{row.where}, {name}[{number}]")
        kind = _KINDS.get(str(test.value("testtype")))
        if kind is None:
            test.refuse("testtype", test.value("testtype"), f"it must be one of {', '.join(_KINDS)}")
        given, expected = _any_text(test, "input"), _any_text(test, "output")
        if kind == "call":
            given, expected = f"[{', '.join(line for line in given.splitlines() if line.strip())}]", expected.strip()
        cases.append((kind, CodeCase(given, expected, is_visible)))
    return cases


def _any_text(test: Row, name: str) -> str:
    """Return a string that may be empty or blank, because a program may print nothing."""
    value = test.value(name)
    return value if isinstance(value, str) and not value.strip() else test.text(name)


def _function_name(row: Row) -> str:
    text = row.text("metadata")
    try:
        name = json.loads(text)["func_name"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{row.where}: metadata={text[:60]!r} is not allowed: it must name func_name") from error
    return str(name)


def _signature(row: Row) -> str:
    """Return `def f(nums: List[int]) -> int:` from a starter code, where it is a method of a class without a body."""
    starter, name = row.text("starter_code"), _function_name(row)
    try:
        nodes = list(ast.walk(ast.parse(starter.rstrip() + " pass\n")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        nodes = []
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            node.args.args = [argument for argument in node.args.args if argument.arg != "self"]
            result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            return f"def {name}({ast.unparse(node.args)}){result}:"
    row.refuse("starter_code", starter, f"it must define the method {name}")


def _day(text: object) -> str | None:
    """Return `text` if it is an ISO date (ISO dates compare as text), else None."""
    try:
        return datetime.date.fromisoformat(str(text)).isoformat() if len(str(text)) == 10 else None
    except ValueError:
        return None
