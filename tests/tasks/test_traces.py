"""Traces of a file: in order, by its bytes, and every broken line by its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1_lightning.tasks.traces import TraceFile
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Trace


def written(folder: Path, text: str) -> TraceFile:
    (folder / "traces.jsonl").write_text(text, encoding="utf-8")
    return TraceFile(str(folder / "traces.jsonl"))


def line(**fields: object) -> str:
    return json.dumps({"question": "1+1", "completion": " 2", **fields})


def test_lines_in_order_other_fields_and_empty_lines_apart(tmp_path: Path) -> None:
    source = written(tmp_path, f"{line(model='r1')}\n\n{line(question='一加一', completion='二')}\n")
    assert source.traces() == [Trace("1+1", " 2"), Trace("一加一", "二")]


def test_the_version_is_of_the_bytes(tmp_path: Path) -> None:
    versions = [written(tmp_path, text).content_version for text in (line(), line(), line(completion="3"))]
    assert versions[0] == versions[1] != versions[2] and versions[0].startswith("traces-3-")
    assert isinstance(
        TraceFile.content_version, property
    )  # what a fingerprint makes an object for (run/graph/fingerprints.py)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: it needs one JSON object per line"),
        (f"{line()}\n{{", "line 2: not valid JSON"),
        ("[1]", "line 1: a JSON object is needed, not list"),
        (line(question=" "), "line 1: question=' ' is not allowed: it must be a non-empty string"),
        (line(completion=3), "line 1: completion=3 is not allowed"),
        ('{"question": "1+1"}', "line 1: the field 'completion' is missing"),
        (line(completion="\ud800"), "is not allowed: it must be valid Unicode"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=r"traces.jsonl") as caught:
        written(tmp_path, text).traces()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_utf_8(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not readable: No such file"):
        TraceFile(str(tmp_path / "absent.jsonl")).traces()
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}')
    with pytest.raises(InvalidInput, match="not valid UTF-8"):
        TraceFile(str(tmp_path / "latin.jsonl")).traces()
