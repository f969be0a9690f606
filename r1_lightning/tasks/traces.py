"""Teacher's text from a file: one JSON object per line, `{"question": "...", "completion": "..."}`.

Any other file that `tasks.rows` reads (.json, .csv, .parquet) serves as well. Other fields are not looked at. `data.traces` names
the reader, and any class with `content_version` and `traces()` (the Protocol `TraceSource`) can stand in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1_lightning.tasks.rows import MAX_TEXT_CHARS, Rows, bytes_digest
from r1_lightning.types.text import Trace

FORMAT_VERSION = 2  # goes up when the same file would give other traces, or they would be learned otherwise


class TraceFile:
    """A `TraceSource` of the file `name` in `folder`, which is read when it is first asked.

    Raises InvalidInput, when asked, for a file that cannot be read and a line that is not what it should be, by file and line.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.path = Path(folder) / name

    @property
    def content_version(self) -> str:
        """Of the file's bytes."""
        return f"traces-{FORMAT_VERSION}-{bytes_digest(self.path)}"

    def traces(self) -> Sequence[Trace]:
        """One per row, in the file's order."""
        rows = Rows(str(self.path), max_row_chars=MAX_TEXT_CHARS).read()
        return [Trace(row.text("question"), row.text("completion")) for row in rows]
