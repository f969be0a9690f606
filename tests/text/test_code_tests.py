"""Tests of programming problems as data: they survive writing and reading, and what is no test is refused by name."""

from __future__ import annotations

import pytest

from r1_lightning.text.code_tests import CodeCase, CodeTests
from r1_lightning.types.errors import InvalidInput

CALL = CodeTests("call", (CodeCase("[1, [2]]", "3"), CodeCase('["é"]', "null", is_visible=True)), entry_point="f")


@pytest.mark.parametrize(
    "tests",
    [
        CALL,
        CodeTests("stdin", (CodeCase("1 2\n", "3\n"),), setup="import math"),
        CodeTests("assert", script="def check(f):\n    assert f(1) == 2\n", entry_point="f"),
    ],
)
def test_written_and_read_again_they_are_the_same(tests: CodeTests) -> None:
    assert CodeTests.from_json(tests.to_json()) == tests
    assert "\n" not in tests.to_json()


@pytest.mark.parametrize(
    ("kwargs", "field"),
    [
        ({"kind": "guess"}, "tests.kind"),
        ({"kind": "stdin"}, "tests.cases"),
        ({"kind": "assert", "script": "  \n"}, "tests.script"),
        ({"kind": "call", "cases": CALL.cases}, "tests.entry_point"),
        ({"kind": "call", "cases": CALL.cases, "entry_point": "f()"}, "tests.entry_point"),
        ({"kind": "call", "cases": (CodeCase("1", "2"),), "entry_point": "f"}, r"tests.cases\[0\].given"),
        ({"kind": "call", "cases": (CodeCase("[1", "2"),), "entry_point": "f"}, r"tests.cases\[0\].given"),
        ({"kind": "call", "cases": (CodeCase("[1]", "two"),), "entry_point": "f"}, r"tests.cases\[0\].expected"),
    ],
)
def test_what_is_no_test_is_refused_by_the_name_of_its_field(kwargs: dict, field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}=.*is not allowed"):
        CodeTests(**kwargs)


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "3", '{"kind": "stdin", "cases": [{"when": 1}]}', '{"color": 1}', "[" * 100_000]
)
def test_metadata_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^tests="):
        CodeTests.from_json(text)
