"""Examples for fine-tuning: three formats, files and data-set artefacts, and every way in which a file can be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1_lightning.tasks import rows as rows_module
from r1_lightning.tasks.chat_examples import ChatExamples
from r1_lightning.tasks.chat_formats import AnyFormat
from r1_lightning.tasks.fields import Row
from r1_lightning.tasks.turns import SYSTEM
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import ChatExample

USER, ASSISTANT = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<think>a</think>2"}
SYSTEM_MESSAGE = {"role": "system", "content": "Be brief."}
OURS = {"question": "1+1?", "completion": "<think>a</think>2"}


def example(adaptor: Any, values: dict[str, Any]) -> ChatExample:
    return adaptor.to_example(Row(values, "file, line 1"))


@pytest.mark.parametrize(
    "values",
    [
        OURS,
        {"prompt": "1+1?", "completion": "<think>a</think>2"},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"prompt": "1+1?", "completion": [ASSISTANT]},
        {"messages": [USER, ASSISTANT]},
    ],
    ids=["ours", "prompt-completion", "its messages", "mixed", "conversation"],
)
def test_every_format_gives_the_same_example(values: dict[str, Any]) -> None:
    assert example(AnyFormat(), values) == ChatExample("1+1?", "<think>a</think>2", "file, line 1")


MIXED = [
    OURS,
    {"prompt": "1+1?", "completion": "<think>a</think>2"},
    {"messages": [USER, ASSISTANT]},
]


def test_a_row_is_read_by_the_fields_that_hold_something() -> None:
    """Column formats give every row all columns: null in Parquet and of the hub, empty text in CSV."""
    expected = ChatExample("1+1?", "<think>a</think>2", "file, line 1")
    names = {name for values in MIXED for name in values}
    for empty in (None, ""):
        for values in MIXED:
            assert example(AnyFormat(), {**dict.fromkeys([*names, "level", "domain"], empty), **values}) == expected


def test_formats_mixed_in_one_file_of_any_kind(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", MIXED)
    rows = [dict.fromkeys(("messages", "prompt", "question")) | values for values in MIXED]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text(
        "messages,prompt,question,completion\n,,1+1?,<think>a</think>2\n,1+1?,,<think>a</think>2\n"
    )
    for name, count in (("x.jsonl", 3), ("x.parquet", 3), ("x.csv", 2)):
        found = [(item.question, item.completion) for item in ChatExamples(str(tmp_path / name)).read()]
        assert found == [("1+1?", "<think>a</think>2")] * count, name


def test_what_is_known_besides() -> None:
    known = {"language": "zh", "domain": "math", "problem_id": "p-1", "level": 3}
    found = example(AnyFormat(), {**OURS, **known, "answer": "2", "metadata": {"a": 1}})
    assert found.metadata == {"language": "zh", "domain": "math", "problem_id": "p-1", "level": "3"}
    assert example(AnyFormat(), {**OURS, "domain": None, "level": None}).metadata == {}


def test_a_system_message_opens_the_first_question_or_is_left_out_where_that_is_asked_for() -> None:
    for values in (
        {"messages": [SYSTEM_MESSAGE, USER, ASSISTANT]},
        {"prompt": [SYSTEM_MESSAGE, USER], "completion": "2"},
    ):
        found = example(AnyFormat(), values)
        assert found.question == "Be brief.\n\n1+1?" and found.metadata == {SYSTEM: "Be brief."}
        found = example(AnyFormat(system="leave_out"), values)
        assert found.question == "1+1?" and found.metadata == {SYSTEM: "Be brief."}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"completion": "x"}, "the field 'question' is missing (a row has messages, or conversations, or one of question,"),
    ({"question": "q"}, "the field 'completion' is missing"),
    ({"question": "q", "completion": None}, "completion=None is not allowed: one must be non-empty (a row has"),
    (
        {"messages": None, "prompt": "", "completion": "x"},
        "messages=None, prompt='' is not allowed: one must be non-empty",
    ),
    ({"question": "", "completion": "x"}, "question='' is not allowed: one must be non-empty"),
    ({"question": 7, "completion": "x"}, "question=7 is not allowed: it must be text, or a list of messages"),
    ({"question": "q", "completion": " "}, "completion=' ' is not allowed: it must be a non-empty string"),
    ({"question": "q", "completion": "\ud800"}, "completion='\\ud800' is not allowed: it must be valid Unicode"),
    ({**OURS, "language": "fr"}, "language='fr' is not allowed: it must be one of en, zh, or left out"),
    ({**OURS, "domain": 3}, "domain=3 is not allowed"),
    ({**OURS, "level": "hard"}, "level='hard' is not allowed: it must be a whole number"),
    ({**OURS, "level": 1.5}, "level=1.5 is not allowed: it must be a whole number"),
    ({**OURS, "earlier": [["q"]]}, "earlier=[['q']] is not allowed: it must be a list of [what was asked, what was"),
    ({"prompt": "q"}, "the field 'completion' is missing"),
    ({"prompt": "q", "completion": 3}, "completion=3 is not allowed: it must be a non-empty string"),
    (
        {"prompt": "q", "completion": [USER]},
        "completion=['user'] is not allowed: text, or one message of the assistant",
    ),
    ({"prompt": [USER, USER], "completion": "x"}, "prompt=['user', 'user'] is not allowed"),
    ({"messages": "q"}, "messages='q' is not allowed: it must be a list of messages"),
    ({"messages": [USER]}, "messages=['user'] is not allowed: it must be messages of user and assistant in turns"),
    ({"messages": [USER, {"role": "assistant"}]}, "file, line 1, messages[1]: the field 'content' is missing"),
    ({"messages": []}, "messages=[] is not allowed"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_a_broken_row_is_one_line_with_file_line_and_field(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        example(AnyFormat(), values)
    assert message in str(refused.value) and str(refused.value).startswith("file, line 1")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


GOOD = json.dumps(OURS).encode()
BAD_FILES = [
    (GOOD + b"\n{broken\n", ", line 2: not valid JSON"),
    (GOOD + b"\n" + GOOD[:-1] + b"\n", ", line 2: not valid JSON"),  # cut off
    (GOOD + b'\n{"question": "q"}\n', ", line 2: the field 'completion' is missing"),
    (GOOD + b'\n\n{"question": ["q"], "completion": "c"}\n', ", line 3: question=['q'] is not allowed"),
    (b"", " is empty"),
    (b"\n \n", " is empty"),
    (
        GOOD + b'\n{"question": "' + "ü".encode("latin-1") + b'", "completion": "c"}\n',
        "not valid UTF-8 (line 2, byte 14)",
    ),
    (GOOD.decode().encode("utf-16"), "not valid UTF-8 (line 1, byte 0)"),
    (
        GOOD + b'\n{"question": "q", "completion": "' + b"x" * 10_000_000 + b'"}\n',
        ", line 2: 10000035 characters are not allowed: a line has at most 1048576",
    ),
    (GOOD + b'\n["question"]\n', ", line 2: a JSON object is needed, not list"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES, ids=[message[:30] for _, message in BAD_FILES])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as refused:
        ChatExamples(str(path)).read()
    assert str(refused.value).startswith(str(path)) and message in str(refused.value)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_lines_of_several_formats_and_where_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [OURS, {"messages": [USER, ASSISTANT]}])
    assert [item.where for item in ChatExamples(path).read()] == [f"{path}, line 1", f"{path}, line 2"]


def test_parquet_and_the_hub_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"messages": [USER, ASSISTANT]}, {"messages": [USER, {"role": "assistant", "content": "3"}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert [item.completion for item in ChatExamples(str(tmp_path / "x.parquet")).read()] == ["<think>a</think>2", "3"]
    monkeypatch.setattr(rows_module.Rows, "_load", lambda self: rows)
    found = ChatExamples(hub="owner/name", split="train").read()
    assert [(item.completion, item.where) for item in found] == [
        ("<think>a</think>2", "owner/name, train, row 1"),
        ("3", "owner/name, train, row 2"),
    ]


def test_the_folder_of_an_artefact_is_shards_or_one_file(tmp_path: Path) -> None:
    second = {**OURS, "question": "second"}
    write(tmp_path / "a" / "data" / "part-00001.jsonl", [second])
    write(tmp_path / "a" / "data" / "part-00000.jsonl", [OURS])
    write(tmp_path / "a" / "data" / "other.jsonl", [{"broken": 1}])  # no shard
    write(tmp_path / "b" / "data.jsonl", [OURS, second])
    for name in ("a", "b"):
        assert [item.question for item in ChatExamples.of_folder(tmp_path / name).read()] == ["1+1?", "second"]
    with pytest.raises(InvalidInput, match=r"c/data\.jsonl is not readable"):
        ChatExamples.of_folder(tmp_path / "c").read()


def test_the_content_version_is_that_of_what_was_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [OURS])
    first = ChatExamples(path).content_version
    assert first == ChatExamples(path).content_version and first.startswith("chat-2-")
    write(tmp_path / "x.jsonl", [{**OURS, "question": "1+2?"}])
    assert ChatExamples(path).content_version != first


def test_what_rows_were_taken_for_and_what_became_of_the_others(tmp_path: Path) -> None:
    """Two conversations, one of OpenR1's rows without a right generation, two broken rows."""
    wrong = {"problem": "q", "generations": ["a"], "correctness_math_verify": [False]}
    rows = [{"messages": [USER, ASSISTANT]}, wrong, {"question": "q"}, {"messages": [USER]}, OURS, MIXED[2]]
    path = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(InvalidInput, match="line 3: the field 'completion' is missing"):
        ChatExamples(path).read()
    examples = ChatExamples(path, unreadable="drop")
    assert [item.where[-1] for item in examples.read()] == ["1", "5", "6"]
    text = examples.reading.text()
    assert text.startswith(
        "read as messages (2), question and completion (1); left out by their format: 1; unreadable: 2"
    )
    assert f"first: {path}, line 3: the field 'completion' is missing" in text
    with pytest.raises(InvalidInput, match=r"no row gives an example \(unreadable: 1 \(first: .*x.jsonl, line 1"):
        ChatExamples(write(tmp_path / "x.jsonl", [{"question": "q"}]), unreadable="drop").read()
    with pytest.raises(InvalidInput, match=r"data.examples.unreadable='skip' is not allowed"):
        ChatExamples(path, unreadable="skip")


def test_nothing_named_is_one_line() -> None:
    examples = ChatExamples()
    assert not examples.is_named and examples.content_version == "none"
    with pytest.raises(InvalidInput, match=r"data\.examples\.file=None is not allowed: give a file"):
        examples.read()


def test_an_adaptor_of_somebody_s_own(tmp_path: Path) -> None:
    class Pairs:
        def to_example(self, row: Row) -> ChatExample:
            return ChatExample(row.text("a"), row.text("b"), row.where)

    found = ChatExamples(write(tmp_path / "x.jsonl", [{"a": "x", "b": "y"}]), adaptor=Pairs()).read()
    assert [(item.question, item.completion) for item in found] == [("x", "y")]
