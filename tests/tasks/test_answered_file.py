"""Rows of other sources: what is filled in, and what is refused by file, line and field."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from r1_lightning.tasks.answered_file import AnsweredFile, answered_rows
from r1_lightning.types.errors import InvalidInput

FULL = {
    "question": "Who?",
    "completion": "I.",
    "answer": "I",
    "problem_id": "x-1",
    "language": "zh",
    "domain": "facts",
    "level": 3,
    "metadata": {"from": "somewhere"},
}


def _file(folder: Path, *rows: object, name: str = "general.jsonl") -> AnsweredFile:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return AnsweredFile(str(folder / name))


def test_what_is_there_is_kept_and_the_rest_filled_in(tmp_path: Path) -> None:
    bare = {"question": "谁写了这本书", "completion": "鲁迅"}
    rows = _file(tmp_path, FULL, bare).rows
    assert rows[0] == FULL
    assert rows[1] == {
        **bare,
        "answer": "",
        "problem_id": rows[1]["problem_id"],
        "language": "zh",
        "domain": "general",
        "level": 1,
        "metadata": {},
    }
    assert rows[1]["problem_id"].startswith("row-")
    assert AnsweredFile(str(tmp_path / "general.jsonl"), domain="writing").rows[1]["domain"] == "writing"


def test_parts_are_read_one_after_the_other(tmp_path: Path) -> None:
    _file(tmp_path, FULL, name="a.jsonl")
    _file(tmp_path, {**FULL, "question": "B"}, name="b.jsonl")
    assert [row["question"] for row in answered_rows([tmp_path / "b.jsonl", tmp_path / "a.jsonl"], "x")] == [
        "B",
        "Who?",
    ]


def test_the_version_is_that_of_the_bytes(tmp_path: Path) -> None:
    first = _file(tmp_path, FULL).content_version
    assert first == AnsweredFile(str(tmp_path / "general.jsonl")).content_version
    assert first != _file(tmp_path, {**FULL, "completion": "You."}).content_version


@pytest.mark.parametrize(
    "change, message",
    [
        ({"question": ""}, "question='' is not allowed"),
        ({"completion": 3}, "completion=3 is not allowed"),
        ({"language": "fr"}, "language='fr' is not allowed: it must be one of en, zh"),
        ({"level": "high"}, "level='high' is not allowed"),
        ({"metadata": []}, "metadata=\\[\\] is not allowed"),
        ({"metadata": {"score": math.nan}}, r"metadata=\{'score': nan\} is not allowed: no NaN or infinity"),
        ({"metadata": {"a": [{"b": -math.inf}]}}, r"metadata=\{'a': \[\{'b': -inf\}\]\} is not allowed: no NaN"),
        ({"metadata": {"s": "\ud800"}}, r"metadata=\{'s': '\\ud800'\} is not allowed: .* without unpaired surrogates"),
        ({"metadata": {"\udfff": 1}}, r"metadata=\{'\\udfff': 1\} is not allowed: .* without unpaired surrogates"),
        ({"question": "\ud800"}, r"question='\\ud800' is not allowed: it must be valid Unicode"),
        ({"completion": "\ud800"}, r"completion='\\ud800' is not allowed: it must be valid Unicode"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"general.jsonl, line 2: {message}"):
        _ = _file(tmp_path, FULL, {**FULL, **change}).rows


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"absent\.jsonl"):
        _ = AnsweredFile(str(tmp_path / "absent.jsonl")).rows


def test_levels_as_columns_hold_them_and_rows_of_other_formats(tmp_path: Path) -> None:
    """Levels as a float with an integer value, missing, and in a row of Alpaca, whose `level` has another meaning."""
    rows: list[dict[str, object]] = [
        {"question": "q", "completion": "c", "level": 2.0},
        {"question": "q", "completion": "c", "level": None, "reasoning_content": "r"},
        {"instruction": "q", "output": "c", "level": "hard", "domain": ["x"]},
    ]
    found = _file(tmp_path, *rows).rows
    assert [row["level"] for row in found] == [2, 1, 1] and [row["domain"] for row in found] == ["general"] * 3
    assert [row["completion"] for row in found] == ["c", "<think>\nr\n</think>\n\nc", "c"]
