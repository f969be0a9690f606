"""Reads a teacher's text from a file: one JSON object per line, `{"question": "...", "completion": "..."}`.

All other row formats for fine-tuning (`tasks/chat_formats.py`) work, too, in any file type that `tasks.rows` reads. `data.traces`
names the reader; any class with `content_version` and `traces()` (the Protocol `TraceSource`) can replace it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1_lightning.tasks.chat_examples import ChatExamples
from r1_lightning.tasks.rows import bytes_digest, path_of
from r1_lightning.types.text import Trace

FORMAT_VERSION = 3  # increment it when the same file gives other traces, or when they are learned differently


class TraceFile:
    """A `TraceSource` of `file`, read on first use.

    Reading raises InvalidInput, with file and line, for an unreadable file or a malformed line.
    """

    def __init__(self, file: str | None = None, folder: str | None = None, name: str | None = None) -> None:
        self.path: Path = path_of(file, folder, name, "data.traces.file")

    @property
    def content_version(self) -> str:
        """Of the file's bytes."""
        return f"traces-{FORMAT_VERSION}-{bytes_digest(self.path)}"

    def traces(self) -> Sequence[Trace]:
        """Return one trace per row, in file order."""
        examples = ChatExamples(str(self.path)).read()
        return [Trace(example.question, example.completion, example.earlier) for example in examples]
