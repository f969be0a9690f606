"""Columns as metadata: which are kept, under which names, and how much of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import r1_lightning
from r1_lightning.tasks.columns import LEFT_OUT, MAX_CHARS, MAX_VALUE_CHARS, RESERVED, columns_of, inner_columns
from r1_lightning.tasks.fields import Row
from r1_lightning.types.errors import InvalidInput


def test_what_is_used_or_empty_is_left_out_and_the_rest_is_text() -> None:
    values = {"prompt": "q", "a": "x", "b": 1.0, "c": False, "d": [1, None], "e": None, "f": "", "g": {"ü": "é"}}
    expected = {"a": "x", "b": "1.0", "c": "false", "d": "[1, null]", "g": '{"ü": "é"}'}
    assert columns_of(Row(values, "x"), ("prompt",)) == expected


def test_names_that_mean_something_here_are_not_for_a_file_to_set() -> None:
    values = dict.fromkeys(RESERVED, "x")
    assert columns_of(Row(values, "x"), ()) == {f"column_{name}": "x" for name in RESERVED}


READ_KEYS = {"tests", "domain", "steps", "needs", "harmful", "task", "options", "reasoning_gym"}


def test_every_key_of_metadata_that_the_program_reads_is_reserved() -> None:
    """The test finds the keys in the source by lines of the form NAME = "key"  # the key ... metadata."""
    folder = Path(r1_lightning.__file__).parent
    pattern = re.compile(r'^[A-Z]+ = "([^"]+)"  # the key [^\n]*metadata', re.MULTILINE)
    found = {key for path in folder.rglob("*.py") for key in pattern.findall(path.read_text(encoding="utf-8"))}
    assert found - {"system"} <= RESERVED and found >= READ_KEYS


def test_long_columns_are_named_and_left_out() -> None:
    """Five values of 10,000 characters and their names of one do not fit into 50,000 characters: four do."""
    values = dict.fromkeys("abcde", "x" * MAX_VALUE_CHARS) | {
        "f": "y" * (MAX_VALUE_CHARS + 1),
        "n" * 101: "z",
        "h": "z",
    }
    found = columns_of(Row(values, "x"), ())
    assert sorted(found) == sorted([*"abcd", "h", LEFT_OUT])
    assert json.loads(found[LEFT_OUT]) == ["e", "f", "n" * 100]
    assert sum(map(len, found.values())) <= MAX_CHARS


def test_an_object_within_the_row() -> None:
    assert inner_columns(Row({"extra": {"index": 3, "tests": "x"}}, "x"), "extra") == {
        "index": "3",
        "column_tests": "x",
    }
    assert inner_columns(Row({"extra": None}, "x"), "extra") == inner_columns(Row({}, "x"), "extra") == {}


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"file, line 1: a='.*it must be valid Unicode"):
        columns_of(Row({"a": "\ud800"}, "file, line 1"), ())
