"""Teacher's text from a file: one JSON object per line, `{"question": "...", "completion": "..."}`.

So do all other rows that fine-tuning reads (`tasks/chat_formats.py`), in any file that `tasks.rows` reads. `data.traces` names
the reader, and any class with `content_version` and `traces()` (the Protocol `TraceSource`) can stand in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1_lightning.tasks.chat_examples import ChatExamples
from r1_lightning.tasks.rows import bytes_digest, path_of
from r1_lightning.types.text import Trace

FORMAT_VERSION = 3  # goes up when the same file would give other traces, or they would be learned otherwise


class TraceFile:
    """A `TraceSource` of `file`, which is read when it is first asked.

    Raises InvalidInput, when asked, for a file that cannot be read and a line that is not what it should be, by file and line.
    """

    def __init__(self, file: str | None = None, folder: str | None = None, name: str | None = None) -> None:
        self.path: Path = path_of(file, folder, name, "data.traces.file")

    @property
    def content_version(self) -> str:
        """Of the file's bytes."""
        return f"traces-{FORMAT_VERSION}-{bytes_digest(self.path)}"

    def traces(self) -> Sequence[Trace]:
        """One per row, in the file's order."""
        examples = ChatExamples(str(self.path)).read()
        return [Trace(example.question, example.completion, example.earlier) for example in examples]
