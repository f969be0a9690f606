"""Teacher's text from a file: one JSON object per line, `{"question": "...", "completion": "..."}`.

The smallest reader that serves a student; `data.traces` names it, and any other class with `content_version` and `traces()` (the
Protocol `TraceSource`) can stand in its place. Other fields are not looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Trace

FORMAT_VERSION = 1  # goes up when the same file would give other traces
FIELDS = ("question", "completion")


class TraceFile:
    """A `TraceSource` of the file `name` in `folder`, which is read when it is first asked.

    Raises InvalidInput, when asked, for a file that cannot be read and a line that is not what it should be, by file and line.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.path = Path(folder) / name

    @property
    def content_version(self) -> str:
        """Of the file's bytes."""
        return f"traces-{FORMAT_VERSION}-{hashlib.sha256(self._content).hexdigest()[:16]}"

    def traces(self) -> Sequence[Trace]:
        """One per line that is not empty, in the file's order."""
        try:
            lines = self._content.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{self.path}: the file is not valid UTF-8 (byte {error.start})") from error
        found = [
            _trace(line, f"{self.path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()
        ]
        if not found:
            raise InvalidInput(f"{self.path} is empty: it needs one JSON object per line")
        return found

    @cached_property
    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InvalidInput(
                f"{self.path} is not readable: {error.strerror}; it must be a file of JSON lines"
            ) from error


def _trace(line: str, where: str) -> Trace:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"{where}: a JSON object is needed, not {type(row).__name__}")
    question, completion = (_text(row, field, where) for field in FIELDS)
    return Trace(question, completion)


def _text(row: dict[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{where}: {field}={value!r:.60} is not allowed: it must be a non-empty string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidInput(f"{where}: {field} is not valid Unicode: it has unpaired surrogates")
    return value
