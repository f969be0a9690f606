"""Parsers for row files: JSON, CSV and Parquet become plain values, in file order.

Every error is one line that names the file and the place. A byte-order mark, which Windows editors and spreadsheets write at the
start of a file, is removed.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from r1_lightning.types.errors import InvalidInput

BYTE_ORDER_MARK = "\ufeff"
ROWS_AT_ONCE = 1024  # of a Parquet file
REASON_CHARS = 200  # of a library's error message
_CSV_LIMIT = threading.Lock()  # held while the csv module's field limit, which is global, is changed


def decoded(content: bytes, path: str, place: str = "") -> str:
    """Decode `content` as UTF-8, without a byte-order mark."""
    try:
        return content.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: the file is not valid UTF-8 ({place}byte {error.start})") from error


def parsed(text: str, where: str) -> Any:
    """Parse `text` as JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: not valid JSON ({error})") from error


def json_array(text: str, path: Path) -> list[Any]:
    """Return the items of one JSON array."""
    values = parsed(text, str(path))
    if not isinstance(values, list):
        raise InvalidInput(f"{path}: a JSON array of objects is needed, not {type(values).__name__}")
    return values


def csv_rows(text: str, path: Path) -> list[Any]:
    """Parse CSV with a header line; every row must have as many values as the header, and all values are text."""
    lines = _csv_lines(text, path)
    names = lines[0] if lines else []
    _check_distinct(names, path)
    for number, values in enumerate(lines[1:], start=1):
        if len(values) != len(names):
            raise InvalidInput(f"{path}, row {number}: {len(values)} values, but the first line names {len(names)}")
    return [dict(zip(names, values, strict=True)) for values in lines[1:]]


def _csv_lines(text: str, path: Path) -> list[list[str]]:
    """Parse CSV without a field limit; the csv module's limit is global, so it is lifted under a lock and then restored."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[list[str]] = []
    start = 1
    with _CSV_LIMIT:
        limit = csv.field_size_limit(max(1, len(text)))
        try:
            for values in reader:
                lines.append(values)
                start = reader.line_num + 1
        except csv.Error as error:
            place = f"line {start}" if reader.line_num <= start else f"lines {start} to {reader.line_num}"
            raise InvalidInput(f"{path}, {place}: not valid CSV ({error})") from error
        finally:
            csv.field_size_limit(limit)
    return lines


def _check_distinct(names: Sequence[str], path: Path) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{path}: two columns are named {twice!r}: each needs a name of its own")


def parquet_rows(path: Path) -> Iterator[Any]:
    """Yield the rows of a Parquet file, reading `ROWS_AT_ONCE` at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _check_distinct(file.schema_arrow.names, path)
        for batch in file.iter_batches(ROWS_AT_ONCE):
            yield from (plain(value) for value in batch.to_pylist())
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            f"{path}: not a readable Parquet file ({' '.join(str(error).split())[:REASON_CHARS]})"
        ) from error


def plain(value: Any) -> Any:
    """Convert a value to JSON types; dates, which column formats infer or store, become text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int, float)) else repr(value)


def characters(value: Any) -> int:
    """Count the characters of all texts in `value`, at any depth."""
    count, left = 0, [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            count += len(item)
        elif isinstance(item, dict):
            left += [*item, *item.values()]
        elif isinstance(item, list):
            left += item
    return count
