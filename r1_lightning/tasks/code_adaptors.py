"""Adaptors for programming problems: MBPP, HumanEval and LiveCodeBench. Their tests become `text.code_tests.CodeTests`.

No program is run here. Differences from the published data:

- **MBPP** shows a model all of its assertions; here only the first is shown, so that the others remain hidden tests
  (`visible_tests: 3` gives the published prompt). Assertions of the plain form `assert f(1, "a") == [2]` become calls, so that
  expected values stay outside the process that runs the answer; a row with any other assertion (tuples, sets) stays a script.
- **HumanEval**'s tests are a script with a function `check`. Imports and helpers that precede the function in the prompt are
  inserted before the answer, so the answer may consist of the function alone.
- **LiveCodeBench** asks for a method of a class `Solution`; here for a plain function of the same name and arguments, because the
  test calls a function. Its hidden tests are a pickle, which is never unpickled (`pickled_text`).

`Problem.answer` is the reference program where there is one, otherwise empty.
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from r1_lightning.tasks.fields import Row, is_unicode, question_id
from r1_lightning.text.code_tests import TESTS, CodeCase, CodeTests
from r1_lightning.text.language import question_language
from r1_lightning.types.errors import InvalidInput, require_int
from r1_lightning.types.text import Problem

_QUOTED = re.compile(r"\"\"\".*?\"\"\"|'''.*?'''", re.DOTALL)
IN_A_BLOCK = "Put the code into one Python code block in your answer."


@dataclass(frozen=True)
class MBPP:
    """MBPP (Austin et al. 2021, arXiv:2108.07732), full or sanitized: `text` or `prompt`, `code`, `test_list`, and imports.

    Args:
        visible_tests: how many assertions the question shows; at least one, because only they tell the function's name.
    """

    visible_tests: int = 1

    name: ClassVar[str] = "mbpp"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require_int("visible_tests", self.visible_tests, 1)

    def to_problem(self, row: Row) -> Problem:
        text = row.text("text" if "text" in row.fields else "prompt").strip()
        assertions = [assertion.strip() for assertion in row.texts("test_list")]
        if not assertions:
            row.refuse("test_list", assertions, "at least one assertion is needed")
        imports = row.texts("test_imports") if "test_imports" in row.fields else [row.optional_text("test_setup_code")]
        setup = "\n".join(line for line in imports if line)
        shown = "\n".join(assertions[: self.visible_tests])
        question = f"{text}\nYour Python code has to pass tests such as these:\n\n{shown}\n\n{IN_A_BLOCK}"
        tests = mbpp_tests(assertions, self.visible_tests, setup)
        code = row.text("code").strip()
        metadata = {TESTS: tests.to_json()}
        return Problem(question, code, question_id(self.name, text), question_language(text), metadata=metadata)


@dataclass(frozen=True)
class HumanEval:
    """HumanEval (Chen et al. 2021, arXiv:2107.03374): `prompt`, `entry_point`, `canonical_solution`, `test`."""

    name: ClassVar[str] = "humaneval"
    version: ClassVar[int] = 3

    def to_problem(self, row: Row) -> Problem:
        prompt, entry_point = row.text("prompt"), row.text("entry_point")
        solution, script = row.text("canonical_solution"), row.text("test")
        head = re.search(rf"^def[ \t]+{re.escape(entry_point)}[ \t]*\(", prompt, re.MULTILINE)
        if head is None:
            row.refuse("entry_point", entry_point, "the prompt defines no such function")
        if "def check(" not in script:
            row.refuse("test", script, "a function check is needed")
        tests = CodeTests("assert", entry_point=entry_point, setup=prompt[: head.start()].strip(), script=script)
        question = (
            f"Complete this Python function; give all of it, with its first line.\n\n```python\n{prompt.strip()}\n```\n\n"
            f"{IN_A_BLOCK}"
        )
        metadata = {TESTS: tests.to_json(), "task_id": row.optional_text("task_id")}
        language = question_language(_said_in(prompt))
        return Problem(question, prompt + solution, question_id(self.name, prompt), language, metadata=metadata)


def _said_in(prompt: str) -> str:
    """Return the words of a prompt that is a program: its string literals, the docstring among them."""
    return " ".join(_QUOTED.findall(prompt)) or prompt


def mbpp_tests(assertions: list[str], visible: int, setup: str = "") -> CodeTests:
    """Return call tests if all assertions are plain ones of the same function, otherwise one script of all assertions."""
    read = [plain_assertion(assertion) for assertion in assertions]
    calls = [call for call in read if call is not None]
    if len(calls) == len(read) and len({name for name, _, _ in calls}) == 1:
        cases = tuple(
            CodeCase(given, expected, is_visible=number < visible) for number, (_, given, expected) in enumerate(calls)
        )
        return CodeTests("call", cases, entry_point=calls[0][0], setup=setup)
    return CodeTests("assert", setup=setup, script="\n".join(assertions))


def plain_assertion(assertion: str) -> tuple[str, str, str] | None:
    """Return function, arguments and expected value (both as JSON) of `assert f(...) == ...`; None for any other assertion.

    All arguments and the value must be literals that survive JSON unchanged: no tuples, sets, bytes, infinities, or keys that are
    not text.
    """
    try:
        body = ast.parse(assertion).body
        statement = body[0] if len(body) == 1 else None
        if not isinstance(statement, ast.Assert) or not isinstance(statement.test, ast.Compare):
            return None
        compared = statement.test
        call = compared.left
        if len(compared.ops) != 1 or not isinstance(compared.ops[0], ast.Eq) or not isinstance(call, ast.Call):
            return None
        if not isinstance(call.func, ast.Name) or call.keywords:
            return None
        given = [ast.literal_eval(argument) for argument in call.args]
        expected = ast.literal_eval(compared.comparators[0])
        if not (_fits_json(given) and _fits_json(expected)):
            return None
        return call.func.id, json.dumps(given, ensure_ascii=False), json.dumps(expected, ensure_ascii=False)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def checked_tests(row: Row, name: str, tests: dict[str, Any]) -> CodeTests:
    """Build the `CodeTests` of a row; errors name the row's place in its file."""
    try:
        return CodeTests(**tests)
    except InvalidInput as error:
        raise InvalidInput(f"{row.where}: {name}: {error}") from error


def _fits_json(value: object) -> bool:
    if isinstance(value, str):
        return is_unicode(value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(_fits_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_unicode(key) and _fits_json(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int))
