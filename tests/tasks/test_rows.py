"""Rows from files of every kind, and, with a stand-in for the network, from the hub."""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1_lightning.tasks.answered_file import AnsweredFile
from r1_lightning.tasks.chat_examples import ChatExamples
from r1_lightning.tasks.gsm8k import GSM8KTask
from r1_lightning.tasks.preference_file import PreferenceFile, PromptFile
from r1_lightning.tasks.rows import MAX_TEXT_CHARS, Rows, bytes_digest
from r1_lightning.tasks.traces import TraceFile
from r1_lightning.types.errors import InvalidInput

VALUES = [{"question": "How, many?\nTwo", "answer": "2", "list": None}, {"question": "芳", "answer": "3", "list": None}]


def read(rows: Rows) -> tuple[list[dict[str, Any]], list[str], str]:
    digest = hashlib.sha256()
    found = rows.read(digest)
    return [dict(row.fields) for row in found], [row.where for row in found], digest.hexdigest()


def write(folder: Path, name: str, values: list[dict[str, Any]] = VALUES) -> Path:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(value) + "\n\n" for value in values), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(values), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(values), path)
    else:
        lines = ['question,answer,list\r\n"How, many?\nTwo",2,\r\n芳,3,\r\n']
        path.write_text("\ufeff" + "".join(lines), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("suffix", "place"), [("jsonl", "line 3"), ("json", "row 2"), ("parquet", "row 2"), ("csv", "row 2")]
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str, place: str) -> None:
    path = write(tmp_path, f"x.{suffix}")
    values, places, _ = read(Rows(str(path), hub="owner/name"))  # the file is there: the hub is not asked
    empty = "" if suffix == "csv" else None  # CSV knows text only
    assert values == [{**value, "list": empty} for value in VALUES]
    assert places[1] == f"{path}, {place}"


def test_parquet_keeps_nested_values_and_writes_dates_as_text(tmp_path: Path) -> None:
    nested = {"prompt": [{"role": "user", "content": "q"}], "n": {"x": 1}, "day": datetime.datetime(2024, 8, 1, 12)}
    values, _, _ = read(Rows(str(write(tmp_path, "x.parquet", [nested]))))
    assert values == [{**nested, "day": "2024-08-01T12:00:00"}]


def test_text_that_looks_like_a_date_or_a_number_stays_text(tmp_path: Path) -> None:
    row = {"contest_date": "2024-08-01T00:00:00", "answer": "042"}
    assert read(Rows(str(write(tmp_path, "x.jsonl", [row]))))[0] == [row]


def test_a_folder_is_its_files_of_the_split_in_order(tmp_path: Path) -> None:
    for name, value in (
        ("test-00001-of-00002", 2),
        ("test-00000-of-00002", 1),
        ("train-00000-of-00001", 3),
        ("testing", 4),
    ):
        write(tmp_path, f"{name}.jsonl", [{"a": value}])
    (tmp_path / "test.txt").write_text("no rows")
    assert read(Rows(str(tmp_path), split="test"))[0] == [{"a": 1}, {"a": 2}]
    with pytest.raises(InvalidInput, match=r"has no file named validation\*"):
        read(Rows(str(tmp_path), split="validation"))
    write(tmp_path, "test.json", [{"a": 5}])
    with pytest.raises(InvalidInput, match=r"several kinds \(test-00000-of-00002.jsonl, .*test.json\)"):
        read(Rows(str(tmp_path), split="test"))


def test_the_digest_is_of_the_bytes_and_of_where_files_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    assert read(Rows(str(path)))[2] == hashlib.sha256((9).to_bytes(8, "big") + b'{"a": 1}\n').hexdigest()
    path.write_bytes(b'{"a":  1}\n')
    assert read(Rows(str(path)))[2] != hashlib.sha256((9).to_bytes(8, "big") + b'{"a": 1}\n').hexdigest()


BAD_FILES = {
    "x.pkl": (b"\x80\x04.", "rows come from files that end in .jsonl, .json, .csv, .parquet"),
    "x.py": (b"print()", "x.py is not allowed"),
    "x.jsonl": (b'{"a": 1}\n[1]\n', "x.jsonl, line 2: a JSON object is needed, not list"),
    "y.jsonl": (b'{"a": 1}\n{"a": \xff}\n', r"y.jsonl: the file is not valid UTF-8 \(line 2, byte 6\)"),
    "z.jsonl": (b" \n\n", "z.jsonl is empty"),
    "w.jsonl": (
        b'{"a": "' + b"x" * 100 + b'"}\n',
        "w.jsonl, line 1: 109 characters are not allowed: a line has at most 99",
    ),
    "x.json": (b'{"a": 1}', "x.json: a JSON array of objects is needed, not dict"),
    "y.json": (b"[1]", "y.json, row 1: a JSON object is needed, not int"),
    "x.csv": (b"a,b\n1,2\n1,2,3\n", "x.csv, row 2: 3 values, but the first line names 2"),
    "y.csv": (b'a,b\n1,"1\n2"\n"1"x,2\n', "y.csv, line 4: not valid CSV"),
    "w.csv": (b'a,b\n1,2\n"1,2\n3,4\n', "w.csv, lines 3 to 4: not valid CSV"),
    "u.csv": (b"a,b,a\n1,2,3\n", "u.csv: two columns are named 'a': each needs a name of its own"),
    "v.csv": (
        b"a,b\n1,2\n1," + b"x" * 100 + b"\n",
        "v.csv, row 2: b='x+\\.\\.\\. is not allowed: it has 100 characters, and at",
    ),
    "z.json": (
        json.dumps([{"a": 1}, {"b": [{"c": "x" * 60}, "y" * 39]}]).encode(),  # 1 + 60 + 39, with the name inside
        r"z.json, row 2: b=\[.*\.\.\. is not allowed: it has 100 characters, and at most 99 are read",
    ),
    "z.csv": (b"", "z.csv is empty"),
    "x.parquet": (b"PAR1 no", "x.parquet: not a readable Parquet file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as error:
        read(Rows(str(tmp_path / name), max_row_chars=99))
    assert "\n" not in str(error.value)


LONGEST_OF_CSV = 131_072  # what Python's `csv` reads of a field unless it is told otherwise


def test_a_field_of_csv_may_be_as_long_as_any_other(tmp_path: Path) -> None:
    """And whoever else reads CSV in this process finds the limit as it was."""
    assert csv.field_size_limit() == LONGEST_OF_CSV
    (tmp_path / "x.csv").write_text(f"question,completion\nq,{'c' * 140_000}\n")
    (row,) = Rows(str(tmp_path / "x.csv"), max_row_chars=140_000).read()
    assert row.fields["completion"] == "c" * 140_000
    assert csv.field_size_limit() == LONGEST_OF_CSV
    (tmp_path / "x.csv").write_text('a\n"broken')
    with pytest.raises(InvalidInput, match="not valid CSV"):
        Rows(str(tmp_path / "x.csv")).read()
    assert csv.field_size_limit() == LONGEST_OF_CSV


def test_many_threads_read_long_fields_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.csv" for number in range(8)]
    for path in paths:
        path.write_text("a,b\n" + f"1,{'c' * 140_000}\n" * 20)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: Rows(str(path)).read(), paths * 3))
    assert [len(rows) for rows in found] == [20] * 24 and csv.field_size_limit() == LONGEST_OF_CSV


def test_columns_of_parquet_with_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "x.parquet")
    with pytest.raises(InvalidInput, match=r"^\S*/x\.parquet: two columns are named 'a'"):
        Rows(str(tmp_path / "x.parquet")).read()


LEARNED: dict[str, Callable[[Path], Any]] = {  # the readers of text to learn from
    "answered": lambda path: AnsweredFile(str(path)).rows,
    "chat": lambda path: ChatExamples(str(path)).read(),
    "traces": lambda path: TraceFile(str(path)).traces(),
}


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
@pytest.mark.parametrize("reader", LEARNED)
def test_every_kind_of_file_has_the_limit_of_a_line(tmp_path: Path, reader: str, suffix: str) -> None:
    for length in (MAX_TEXT_CHARS, MAX_TEXT_CHARS + 1):
        rows = [{"question": "a", "completion": "b"}, {"question": "a", "completion": "x" * length}]
        path = tmp_path / f"{length}.{suffix}"
        if suffix == "csv":
            path.write_text("question,completion\n" + "".join(f"{','.join(row.values())}\n" for row in rows))
        else:
            write(tmp_path, path.name, rows)
        if length == MAX_TEXT_CHARS:
            assert len(LEARNED[reader](path)) == 2
            continue
        with pytest.raises(InvalidInput, match=f"{path}, row 2: completion='x+\\.\\.\\. is not .* 1048577 characters"):
            LEARNED[reader](path)


# Everything that reads JSON lines: how it reads the file x.jsonl of a folder, a good row, and a field that the row must have.
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
ANSWERED = {"question": "a", "completion": "b"}
READERS: dict[str, tuple[Callable[[Path], Any], dict[str, str], str]] = {
    "answered": (lambda folder: AnsweredFile(str(folder / "x.jsonl")).rows, ANSWERED, "completion"),
    "chat": (lambda folder: ChatExamples(str(folder / "x.jsonl")).read(), ANSWERED, "completion"),
    "gsm8k": (lambda folder: gsm8k(folder), {"question": "a", "answer": "1+1\n#### 2"}, "answer"),
    "preferences": (lambda folder: PreferenceFile(str(folder / "x.jsonl")).training_items(0, 1), PAIR, "rejected"),
    "prompts": (lambda folder: PromptFile(str(folder / "x.jsonl")).train_problem(0, 0), PAIR, "prompt"),
    "traces": (lambda folder: TraceFile(str(folder / "x.jsonl")).traces(), ANSWERED, "completion"),
}


def gsm8k(folder: Path) -> GSM8KTask:
    (folder / "train.jsonl").write_bytes((folder / "x.jsonl").read_bytes())
    (folder / "test.jsonl").write_text(json.dumps({"question": "another", "answer": "#### 1"}))
    return GSM8KTask(str(folder))


# What a line may be, given a good row and the name of a field, and what is said of it.
BROKEN_LINES: dict[str, tuple[Callable[[dict[str, str], str], bytes], str]] = {
    "half of it": (lambda row, _: json.dumps(row).encode()[:-3], "line 2: not valid JSON"),
    "nested too deep": (lambda *_: b"[" * 50_000, "line 2: not valid JSON"),
    "no object": (lambda *_: b'"text"', "line 2: a JSON object is needed, not str"),
    "no field": (lambda row, name: line({**row, name: ...}), "line 2: the field '{name}' is missing"),
    "a number": (lambda row, name: line({**row, name: 3}), "line 2: {name}=3 is not allowed: it must be a non-empty"),
    "blank": (lambda row, name: line({**row, name: " "}), "line 2: {name}=' ' is not allowed: it must be a non-empty"),
    "half a character": (lambda row, name: line({**row, name: "\ud800"}), "line 2: {name}=.* valid Unicode"),
    "10 MB": (
        lambda row, name: line({**row, name: "x" * 10_000_000}),
        r"line 2: 100000\d\d characters are not allowed",
    ),
    "latin-1": (lambda row, name: line({**row, name: "é"}, "latin-1"), r"not valid UTF-8 \(line 2, byte \d+\)"),
    "utf-16": (lambda row, _: line(row, "utf-16"), r"not valid UTF-8 \(line 2, byte 0\)"),
}


def line(row: dict[str, Any], encoding: str = "utf-8") -> bytes:
    """The row without the fields that are `...`; half a surrogate pair as its escape, all else as it is."""
    kept = {name: value for name, value in row.items() if value is not ...}
    return json.dumps(kept, ensure_ascii="\ud800" in kept.values()).encode(encoding)


@pytest.mark.parametrize("broken", BROKEN_LINES)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_names_file_line_and_field(tmp_path: Path, reader: str, broken: str) -> None:
    read_file, good, name = READERS[reader]
    make, message = BROKEN_LINES[broken]
    (tmp_path / "x.jsonl").write_bytes(line(good) + b"\n" + make(good, name))
    with pytest.raises(InvalidInput, match=message.format(name=name)) as refused:
        read_file(tmp_path)
    assert ".jsonl" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_an_empty_file(tmp_path: Path, reader: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n \n")
    with pytest.raises(InvalidInput, match=r"\.jsonl is empty: it needs one JSON object per line"):
        READERS[reader][0](tmp_path)


def test_a_file_s_digest_is_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert bytes_digest(path) == "ba7816bf8f01cfea"  # FIPS 180-2, appendix B.1
    with pytest.raises(InvalidInput, match="absent is not readable: No such file"):
        bytes_digest(tmp_path / "absent")


BAD_ARGUMENTS = {
    "path": ({"hub": "../x"}, "hub='../x' is not allowed: it must be owner/name"),
    "builder": ({"hub": "json"}, "it must be owner/name"),
    "url": ({"hub": "https://host/x"}, "it must be owner/name"),
    "split": ({"hub": "a/b", "split": ""}, "split=''"),
    "script": ({"hub": "a/b", "hub_files": ["x.py"]}, "hub_files='x.py'"),
    "above": ({"hub": "a/b", "hub_files": ["../x.jsonl"]}, "hub_files"),
    "length": ({"file": "x", "max_row_chars": 0}, "max_row_chars=0"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_named(name: str) -> None:
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(InvalidInput, match=message):
        Rows(**arguments)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "csv"])
def test_the_digest_of_files_is_had_without_reading_rows(tmp_path: Path, suffix: str) -> None:
    rows = Rows(str(write(tmp_path, f"x.{suffix}")))
    digest = hashlib.sha256()
    rows.digest_files(digest)
    assert digest.hexdigest() == read(rows)[2] and rows.is_local
    assert rows.size == (tmp_path / f"x.{suffix}").stat().st_size
    assert not Rows(hub="a/b").is_local and Rows(hub="a/b").size == 0


def test_rows_of_nowhere_are_refused_when_they_are_read() -> None:
    assert not Rows().is_named and Rows().beside("test") is None
    with pytest.raises(InvalidInput, match="file=None is not allowed: a file or the name of a data set"):
        Rows().read()


def test_without_file_and_network_both_ways_are_named(tmp_path: Path) -> None:
    """The real library, told to stay offline."""
    missing = str(tmp_path / "gone.jsonl")
    with pytest.raises(InvalidInput) as error:
        read(Rows(missing, hub="owner-of-nothing/no-data", split="test"))
    message = str(error.value)
    assert missing in message and "'owner-of-nothing/no-data' cannot be had from the hub" in message
    assert "give a file of yours" in message and "\n" not in message and len(message) < 600
    with pytest.raises(InvalidInput, match=r"gone.jsonl is not readable: No such file"):
        read(Rows(missing))


class FakeHub:
    """In place of `datasets.load_dataset`: remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.calls = answer, []

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append((arguments, named))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    fake = FakeHub([{"a": "1", "day": datetime.date(2024, 8, 1)}])
    monkeypatch.setattr("datasets.load_dataset", fake)
    monkeypatch.chdir(tmp_path)
    return fake


def test_what_the_hub_is_asked_for(hub: FakeHub) -> None:
    values, places, digest = read(Rows(None, "a/b", "main", "test", "v1"))
    assert values == [{"a": "1", "day": "2024-08-01"}] and places == ["a/b, test, row 1"]
    assert hub.calls == [(("a/b", "main"), {"split": "test", "revision": "v1"})]  # and no trust_remote_code
    assert digest == hashlib.sha256(b'{"a": "1", "day": "2024-08-01"}\n').hexdigest()
    read(Rows(None, "a/b", revision="v1", hub_files=["x.jsonl"]))
    assert hub.calls[1] == (("json",), {"data_files": ["hf://datasets/a/b@v1/x.jsonl"], "split": "train"})


def test_what_the_hub_cannot_give_is_one_line(hub: FakeHub) -> None:
    hub.answer = RuntimeError("Dataset scripts are no longer supported\nand more")
    with pytest.raises(InvalidInput, match=r"'a/b' .*\(RuntimeError: Dataset scripts are no longer supported\)"):
        read(Rows(hub="a/b"))
    hub.answer = [{"a": "1"}, {"a": "xyz"}]
    with pytest.raises(
        InvalidInput, match="a/b, train, row 2: a='xyz' is not allowed: it has 3 characters, and at most 2"
    ):
        read(Rows(hub="a/b", max_row_chars=2))
    hub.answer = []
    with pytest.raises(InvalidInput, match="the split 'train' is empty"):
        read(Rows(hub="a/b"))


def test_a_folder_of_the_hubs_name_is_not_taken_for_it(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="a folder of that name is here"):
        read(Rows(hub="a/b"))
    assert hub.calls == []
