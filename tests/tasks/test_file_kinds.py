"""Files of every kind as values: byte-order marks, broken text, and the sizes of what is nested. More is in test_rows.py."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1_lightning.tasks import file_kinds
from r1_lightning.tasks.file_kinds import characters, csv_rows, decoded, json_array, parquet_rows, parsed, plain
from r1_lightning.tasks.rows import Rows
from r1_lightning.types.errors import InvalidInput

MARK = "\ufeff"
ROW = {"question": "1+1?", "answer": "2"}
WITH_MARK = {
    "x.jsonl": f"{MARK}{json.dumps(ROW)}\n{json.dumps(ROW)}\n",
    "x.json": f"{MARK}{json.dumps([ROW, ROW])}",
    "x.csv": f"{MARK}question,answer\r\n1+1?,2\r\n1+1?,2\r\n",
    "joined.jsonl": f"{json.dumps(ROW)}\n{MARK}{json.dumps(ROW)}\n",  # two such files, one after the other
    "windows.jsonl": f"{MARK}{json.dumps(ROW)}\r\n{json.dumps(ROW)}\r\n",
    "blank.jsonl": f"{MARK}\n{json.dumps(ROW)}\n{json.dumps(ROW)}",
}


@pytest.mark.parametrize("name", WITH_MARK)
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(WITH_MARK[name], encoding="utf-8", newline="")
    assert [dict(row.fields) for row in Rows(str(tmp_path / name)).read()] == [ROW, ROW]


def test_text_and_json() -> None:
    assert decoded(b"\xef\xbb\xbfa", "f") == "a" and parsed(" [1] ", "f") == [1]
    with pytest.raises(InvalidInput, match=r"f: the file is not valid UTF-8 \(byte 1\)"):
        decoded(b"a\xff", "f")
    with pytest.raises(InvalidInput, match="f: not valid JSON"):
        parsed("[" * 100_000, "f")
    with pytest.raises(InvalidInput, match="f: a JSON array of objects is needed, not dict"):
        json_array("{}", Path("f"))


def test_rows_of_csv_have_as_many_values_as_the_first_line() -> None:
    assert csv_rows('a,b\n1,"x\ny"\n', Path("f")) == [{"a": "1", "b": "x\ny"}]
    with pytest.raises(InvalidInput, match="f, row 1: 1 values, but the first line names 2"):
        csv_rows("a,b\n1\n", Path("f"))
    with pytest.raises(InvalidInput, match="f: two columns are named 'a'"):
        csv_rows("a,a\n1,2\n", Path("f"))


def test_parquet_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidInput, match=r"x\.parquet: not a readable Parquet file"):
        list(parquet_rows(tmp_path / "x.parquet"))


def test_parquet_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_kinds, "ROWS_AT_ONCE", 2)
    pq.write_table(pa.Table.from_pylist([{"a": n} for n in range(5)]), tmp_path / "x.parquet", row_group_size=3)
    assert list(parquet_rows(tmp_path / "x.parquet")) == [{"a": n} for n in range(5)]


def test_values_as_json_has_them_and_their_size() -> None:
    assert plain({1: (datetime.date(2024, 8, 1), None, b"x")}) == {"1": ["2024-08-01", None, "b'x'"]}
    assert characters({"ab": ["c", {"d": "ef"}, 7]}) == 6
