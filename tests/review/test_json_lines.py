"""Hostile files of JSON lines: each ends in one line that names file, line and field, and costs bounded time and memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.review import json_lines
from r1_lightning.review.json_lines import Row, lines_of, writable
from r1_lightning.types.errors import InvalidInput


def read(folder: Path, content: bytes) -> list[dict[str, Any]]:
    path = folder / "lines.jsonl"
    path.write_bytes(content)
    return [dict(row.values) for row in lines_of(path)]


def test_lines_are_read_in_order_and_half_a_line_at_the_end_is_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, b'{"a":1}\n{"b":"x"}\n{"c":') == [{"a": 1}, {"b": "x"}]
    assert read(tmp_path, b"") == [] and read(tmp_path, b'{"a":1}') == []
    assert list(lines_of(tmp_path / "absent.jsonl")) == [] and list(lines_of(tmp_path)) == []


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")  # a reader would wait for ever
    assert list(lines_of(tmp_path / "pipe.jsonl")) == []


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[1,2]",
        b'"text"',
        b'{"a":1} {"b":2}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"\xff"}',
        b'{"a":' + b"9" * 5_000 + b"}",  # more digits than Python turns into a number
        b'{"a":' + b"[" * 200_000,
        b'{"a":' * 200_000,
        b"\x1b[31m",
    ],
    ids=str,
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, b'{"a":1}\n' + line + b"\n")
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'lines.jsonl'}, line 2: it is no JSON") and len(said) < 500
    assert said.isprintable()


def test_long_lines_and_files_are_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MOST_LINE_BYTES", 20)
    assert read(tmp_path, b'{"a":"01234567890"}\n') == [{"a": "01234567890"}], "20 bytes with the line's end"
    with pytest.raises(InvalidInput, match=r"line 1: it has more than the 20 bytes that a line may have"):
        read(tmp_path, b'{"a":"012345678901"}\n')
    monkeypatch.setattr(json_lines, "MOST_BYTES", 16)
    assert len(read(tmp_path, b'{"a":1}\n' * 2)) == 2
    with pytest.raises(InvalidInput, match=r"line 3: the file has more than the 16 bytes that are read"):
        read(tmp_path, b'{"a":1}\n' * 3)


ROW = Row(
    {"text": "a", "none": None, "flag": True, "count": 3, "number": 0.5, "list": [1, None], "object": {"x": 1}},
    "f, line 1",
)


def test_fields_are_returned_by_their_types() -> None:
    assert (ROW.text("text"), ROW.text("absent", "d"), ROW.text_or_none("none")) == ("a", "d", None)
    assert (ROW.flag("flag"), ROW.flag_or_none("absent"), ROW.count("count")) == (True, None, 3)
    assert (ROW.number("number"), ROW.number("count"), ROW.number("none"), ROW.number("none", 2.0)) == (
        0.5,
        3.0,
        None,
        2.0,
    )
    assert ROW.numbers("list", 2) == (1.0, None) and ROW.numbers("absent", 2) is None
    inner = ROW.object("object")
    assert inner is not None and inner.count("x") == 1 and ROW.object("none") is None
    assert ROW.objects("absent", 1) == [] and [
        row.count("x") for row in Row({"o": [{"x": 7}]}, "f").objects("o", 1)
    ] == [7]


@pytest.mark.parametrize(
    ("method", "arguments", "value"),
    [
        ("text", (), 1),
        ("text", (), None),
        ("text_or_none", (), ["a"]),
        ("flag", (), 1),
        ("flag_or_none", (), "true"),
        ("count", (), True),
        ("count", (), -1),
        ("count", (), 1.0),
        ("count", (), 2**53 + 1),
        ("number", (), "1"),
        ("number", (), True),
        ("number", (), float("inf")),  # what json makes of 1e999
        ("number", (), 10**400),
        ("numbers", (2,), [1]),
        ("numbers", (1,), ["1"]),
        ("numbers", (1,), [True]),
        ("numbers", (1,), [float("nan")]),
        ("numbers", (1,), {"a": 1}),
        ("texts", (), ["a", 1]),
        ("texts", (), "ab"),
        ("object", (), [1]),
        ("objects", (1,), [{}, {}]),
        ("objects", (1,), [1]),
        ("objects", (1,), None),
        ("text", (), {"a": "\x1b[31m" * 100}),
    ],
)
def test_a_field_of_another_type_is_named(method: str, arguments: tuple[int, ...], value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        getattr(Row({"field": value}, "f.jsonl, line 9"), method)("field", *arguments)
    said = str(caught.value)
    assert (
        said.startswith("f.jsonl, line 9: field=") and "it must be" in said and said.isprintable() and len(said) < 200
    )


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"^f: step is missing$"):
        Row({}, "f").count("step")


def test_half_a_surrogate_pair_can_be_written() -> None:
    assert writable("a\ud800b") == "a\ufffdb" and writable("是\U0001f600") == "是\U0001f600" and writable("a") == "a"
    assert Row({"t": "\udfff"}, "f").text("t") == "\ufffd"
